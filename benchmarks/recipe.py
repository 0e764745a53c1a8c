"The recipe of `make train`: how often it reaches 99%, in which time, and beside the network of PyTorch's own MNIST example."
import os
import sys
from pathlib import Path
from time import perf_counter

import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from benchmarks.measure import Row, at_least, summary
from fdl.core import set_seed
from fdl.functional import cross_entropy
from fdl.training import evaluate

CPU = torch.device("cpu")
SEEDS = range(1000, 1010)  # none of them was used when the recipe was chosen


def example() -> nn.Module:
    "The network of PyTorch's MNIST example: 1.2 million parameters."
    return nn.Sequential(nn.Conv2d(1, 32, 3), nn.ReLU(), nn.Conv2d(32, 64, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Dropout(0.25),
                         nn.Flatten(), nn.Linear(64*12*12, 128), nn.ReLU(), nn.Dropout(0.5), nn.Linear(128, 10), nn.LogSoftmax(1))


def plain(model: nn.Module, opt: torch.optim.Optimizer, dataset: TensorDataset) -> float:
    "The seconds of a pass over `dataset` trained as the example does: float32, batches of 64, torch's loader."
    start = perf_counter()
    for x, y in DataLoader(dataset, 64, shuffle=True):
        opt.zero_grad()
        loss = F.nll_loss(model(x), y)
        loss.backward()
        opt.step()
    return perf_counter() - start


def recipe(rounds: int) -> list[Row]:
    """Ten seeds, whatever `rounds` says, unless it is a quick run; in bfloat16 where the CPU is fast at it, and in float32.

    After each seed comes a tenth of the example's epoch, so that the sides take turns.
    """
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent/"scripts"))
    import train

    torch.set_num_threads(os.cpu_count() or 1)
    seeds = SEEDS[:min(rounds, 10)] if rounds < 3 else SEEDS
    limits = {"bfloat16": 3, "float32": 5}  # seconds
    if not train.is_fast_in_bfloat16(CPU): del limits["bfloat16"]
    train_ds, test_ds = train.new_sets(CPU, valid=False)
    tenths = [TensorDataset(*(tensor[i::10] for tensor in train_ds.tensors)) for i in range(10)]
    other = example()
    opt = torch.optim.Adadelta(other.parameters(), lr=1.0)
    plain(other, opt, TensorDataset(*(tensor[:640] for tensor in train_ds.tensors)))  # warms up
    seconds, right = {"the example's network": [], **{dtype: [] for dtype in limits}}, {dtype: [] for dtype in limits}
    for seed, tenth in zip(seeds, tenths):
        for dtype in limits:
            set_seed(seed)
            model = train.new_model(nn, dtype == "bfloat16", CPU)
            seconds[dtype].append(train.train(train_ds, model))
            right[dtype].append(evaluate(model, cross_entropy, DataLoader(test_ds, 1000))["accuracy"])
        seconds["the example's network"].append(10*plain(other, opt, tenth))
    rows = []
    for dtype, limit in limits.items():
        reached, note = sum(r >= 0.99 for r in right[dtype]), f"test accuracy from {min(right[dtype]):.2%} to {max(right[dtype]):.2%}"
        rows += [summary(f"make train in {dtype}: seeds that reach 99.0% of the test set", "at least", len(seeds), [reached], unit="seeds", note=note),
                 summary(f"make train in {dtype}: seconds of training", "at most", limit, seconds[dtype], unit="s", note=f"{torch.get_num_threads()} threads"),
                 at_least(12, f"make train in {dtype} beside an epoch of PyTorch's example network", seconds, dtype, "the example's network")]
    return rows
