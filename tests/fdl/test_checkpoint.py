"fdl.checkpoint: a run that is stopped anywhere, in any way, ends like one that was not; files that are no checkpoints change nothing."
import copy
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from fdl import nn, optim
from fdl.checkpoint import Checkpoint, random_states, set_random_states
from fdl.data import DataLoader, Dataset, TensorDataset
from fdl.functional import cross_entropy
from fdl.training import epochs, fit, loss_batch


@pytest.fixture(autouse=True)
def one(one_thread): pass


class Noisy(Dataset):
    "Rows that are different each time: Python, NumPy and torch each draw some noise."
    def __init__(self, n=40):
        generator = torch.Generator().manual_seed(0)
        self.x, self.y = torch.randn(n, 6, generator=generator), torch.randint(3, (n,), generator=generator)

    def __len__(self): return len(self.y)
    def __getitem__(self, i): return self.x[i] + random.gauss(0, 0.1) + float(np.random.randn())/10 + 0.1*torch.randn(6), self.y[i]


class Run:
    "A small training run with everything that a checkpoint has to remember."
    def __init__(self, workers=0, generator=True, torchs=False):
        torch.manual_seed(0), random.seed(0), np.random.seed(0)
        lib, opts = (torch.nn, torch.optim) if torchs else (nn, optim)
        self.model = lib.Sequential(lib.Linear(6, 8), torch.nn.BatchNorm1d(8), lib.ReLU(), lib.Dropout(0.2), lib.Linear(8, 3))
        self.opt = opts.Adam(self.model.parameters(), lr=0.01)
        self.scheduler = opts.lr_scheduler.OneCycleLR(self.opt, 0.05, total_steps=100)
        generator = torch.Generator().manual_seed(3) if generator else None
        self.train_dl = DataLoader(Noisy(), 8, shuffle=True, num_workers=workers, generator=generator)
        self.valid_dl = DataLoader(Noisy(16), 16, generator=torch.Generator())
        self.seen = []

    def loss(self, preds, target):
        loss = cross_entropy(preds, target)
        if self.model.training: self.seen.append(loss.item())
        return loss

    def go(self, n_epochs, checkpoint=None, **options):
        if checkpoint: options["epochs"] = checkpoint
        self.history = fit(n_epochs, self.model, self.loss, self.opt, self.train_dl, self.valid_dl, scheduler=self.scheduler, progress=False, **options)
        return self

    def result(self):
        "All that must be equal; `seconds` need not be."
        rows = [{name: value for name, value in row.items() if name != "seconds"} for row in self.history]
        generators = self.train_dl.generator, self.valid_dl.generator
        return rows, self.model.state_dict(), self.opt.state_dict(), self.scheduler.state_dict(), random_states(*(g for g in generators if g))


class Stop(Exception): pass


def stopping(run, at):
    "A step that is `loss_batch` until it has been called `at` times."
    calls = []
    def step(*batch):
        if len(calls) == at: raise Stop
        calls.append(0)
        return loss_batch(*batch)
    return step


def equal(a, b):
    "To the last bit, through lists and dicts."
    if isinstance(a, dict):
        assert a.keys() == b.keys()
        for key in a: equal(a[key], b[key])
    elif isinstance(a, (list, tuple)):
        assert len(a) == len(b)
        for pair in zip(a, b): equal(*pair)
    elif isinstance(a, torch.Tensor): assert torch.equal(a, b)
    else: assert a == b


@pytest.mark.parametrize("options", [{}, {"workers": 2}, {"generator": False}, {"torchs": True}], ids=["plain", "workers", "global", "torch"])
def test_a_run_that_was_stopped_ends_like_one_that_was_not(tmp_path, options):
    expected = Run(**options).go(4).result()
    untouched = Run(**options).go(4, Checkpoint(tmp_path/"whole")).result()
    equal(untouched, expected)
    for at in (1, 2, 5, 6, 13, 19) if not options.get("workers") else (7, 13):
        checkpoint = Checkpoint(tmp_path/str(at), every=2)
        with pytest.raises(Stop): Run(**options).go(4, checkpoint, step=stopping(None, at))
        equal(Run(**options).go(4, checkpoint).result(), expected)
