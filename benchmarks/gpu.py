"""The rows that need a CUDA device; `run.py` measures them where there is one, and writes them into a table of their own.

All data lie on the device. A run ends when the device has done its work, not when the work has been handed to it.
"""
import sys
import warnings
from pathlib import Path
from time import perf_counter

import torch
import torch.nn.functional as F
from torch import Tensor

import fdl.data
import fdl.functional
import fdl.nn
import fdl.optim
import fdl.training
from benchmarks import peers
from benchmarks.measure import Row, at_least, at_most, in_turn, summary
from benchmarks.recipe import SEEDS
from fdl.core import default_device, set_seed
from fdl.datasets import load_mnist


def waited(side):
    "The side, whose run ends with the device's work."
    def make():
        run = side()

        def to_the_end():
            result = run()
            torch.cuda.synchronize()
            return result
        torch.cuda.synchronize()
        return to_the_end
    return make


def bare(x: Tensor, y: Tensor, size: int) -> peers.Run:
    "The bare loop, in batches of `size`: slices in order."
    model = peers.network().to(x.device)
    opt = torch.optim.SGD(model.parameters(), peers.LR)

    def run():
        for xb, yb in zip(x.split(size), y.split(size)):
            loss = F.cross_entropy(model(xb), yb)
            loss.backward()
            opt.step()
            opt.zero_grad()
    return run


def compiled(x: Tensor, y: Tensor, size: int) -> peers.Run:
    "The same loop with torch.compile(mode='reduce-overhead') around the network; compiled before the clock runs."
    model = peers.network().to(x.device)
    opt, fast = torch.optim.SGD(model.parameters(), peers.LR), torch.compile(model, mode="reduce-overhead")
    rows = torch.randperm(len(x), device=x.device)

    def run(rows=rows):
        for part in rows.split(size):
            torch.compiler.cudagraph_mark_step_begin()
            loss = F.cross_entropy(fast(x[part]), y[part])
            loss.backward()
            opt.step()
            opt.zero_grad()
    run(rows[:4*size])
    return run


def torchs(x: Tensor, y: Tensor, size: int) -> peers.Run:
    "The same loop over torch's shuffling loader."
    model = peers.network().to(x.device)
    opt = torch.optim.SGD(model.parameters(), peers.LR)
    loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(x, y), size, shuffle=True)

    def run():
        for xb, yb in loader:
            loss = F.cross_entropy(model(xb), yb)
            loss.backward()
            opt.step()
            opt.zero_grad()
    return run


def ours(x: Tensor, y: Tensor, size: int, captured: bool = False) -> peers.Run:
    "`fit`, shuffling; captured with torch's Adam, because a graph needs a rate and a count that are tensors."
    model = peers.network(fdl.nn).to(x.device)
    opt = torch.optim.Adam(model.parameters(), capturable=True) if captured else fdl.optim.SGD(model.parameters(), peers.LR)
    step = fdl.training.CapturedStep() if captured else fdl.training.loss_batch
    loader = fdl.data.DataLoader(fdl.data.TensorDataset(x, y), size, shuffle=True)
    return lambda: fdl.training.fit(1, model, fdl.functional.cross_entropy, opt, loader, step=step, progress=False)


def trainer(name: str, x: Tensor, y: Tensor) -> peers.Run:
    "One of the installed trainers, as it runs on the CPU, with the data on the host as it expects them."
    return getattr(peers, name)(x.cpu(), y.cpu())


def gpu(rounds: int) -> list[Row]:
    "`fit` beside the bare loop and its peers, its synchronisations, and `make train`, all on the CUDA device."
    x, y = load_mnist(device=default_device())[0]
    rows, targets = [], {64: 0.12, 1024: 0.25}
    for size, limit in targets.items():
        sides = {"fdl": lambda: ours(x, y, size), "captured": lambda: ours(x, y, size, True), "bare loop": lambda: bare(x, y, size),
                 "torch's DataLoader": lambda: torchs(x, y, size), "torch.compile": lambda: compiled(x, y, size)}
        begin = perf_counter()
        compiled(x, y, size)
        note = f"compiled in {perf_counter() - begin:.1f} s, before the clock runs"
        seconds = in_turn({name: waited(side) for name, side in sides.items()}, rounds)
        rows += [at_most(1.1, f"GPU: fit in batches of {size} over the bare loop", seconds, "fdl", "bare loop"),
                 at_most(limit, f"GPU: fit in batches of {size}, captured, over the bare loop", seconds, "captured", "bare loop"),
                 at_least(None, f"GPU: fit in batches of {size}, captured, beside torch's DataLoader", seconds, "captured", "torch's DataLoader"),
                 at_least(None, f"GPU: fit in batches of {size}, captured, beside torch.compile", seconds, "captured", "torch.compile", note=note)]
    for name in ("lightning", "fastai"):
        label = f"GPU: fit in batches of {peers.BATCH}, captured, beside {name}"
        sides = {"captured": lambda: ours(x, y, peers.BATCH, True), name: lambda: trainer(name, x, y)}
        try: rows.append(at_least(None, label, in_turn({n: waited(side) for n, side in sides.items()}, rounds), "captured", name))
        except Exception as error: rows.append(Row(label, "at least", note=f"could not be started: {type(error).__name__}: {error}"))
    return [*rows, synchronisations(x, y), *recipe(rounds)]


def synchronisations(x: Tensor, y: Tensor) -> Row:
    "How often an epoch of `fit` waits for the device, as torch's own debug mode counts."
    run = ours(x, y, peers.BATCH)
    run()
    torch.cuda.set_sync_debug_mode("warn")
    try:
        with warnings.catch_warnings(record=True) as seen:
            warnings.simplefilter("always")
            run()
    finally: torch.cuda.set_sync_debug_mode("default")
    found = sum("synchroniz" in str(warning.message) for warning in seen)
    return summary("GPU: synchronisations in an epoch of fit", "at most", 3, [found], unit="times")


def recipe(rounds: int) -> list[Row]:
    "`make train` with ten seeds, its capture included."
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent/"scripts"))
    import train

    device, seconds, right = default_device(), [], []
    train_ds, test_ds = train.new_sets(device, valid=False)
    for seed in SEEDS[:rounds] if rounds < 3 else SEEDS:
        set_seed(seed)
        model = train.new_model(torch.nn, True, device)
        seconds.append(train.train(train_ds, model))
        right.append(fdl.training.evaluate(model, fdl.functional.cross_entropy, fdl.data.DataLoader(test_ds, 1000))["accuracy"])
    note = f"test accuracy from {min(right):.2%} to {max(right):.2%}"
    return [summary("GPU: make train, seeds that reach 99.0% of the test set", "at least", len(right), [sum(r >= 0.99 for r in right)], unit="seeds", note=note),
            summary("GPU: make train, seconds of training", "at most", 0.25, seconds, unit="s", note="the first includes what CUDA loads")]
