"Model, loss, optimizer and loader, each from `fdl` or from torch: all sixteen mixes give the same losses."
from itertools import product

import pytest
import torch
from torch.testing import assert_close

import fdl.data
import fdl.nn
import fdl.optim
from fdl.core import set_seed
from fdl.datasets import load_mnist

STEPS, BATCH_SIZE = 50, 32
MIXES = list(product(("fdl", "torch"), repeat=4))
NN, OPTIM, DATA = ({"fdl": ours, "torch": theirs} for ours, theirs in
                   ((fdl.nn, torch.nn), (fdl.optim, torch.optim), (fdl.data, torch.utils.data)))


@pytest.fixture(scope="module")
def digits():
    (x, y), _, _ = load_mnist(device="cpu")
    return x[:STEPS*BATCH_SIZE].double().view(-1, 1, 28, 28), y[:STEPS*BATCH_SIZE]


def make_model(nn):
    return nn.Sequential(nn.Conv2d(1, 4, 3, 2, 1), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2), nn.Dropout(0.2), nn.Flatten(),
                         nn.Linear(4*7*7, 20), nn.ReLU(), nn.Linear(20, 10)).to(torch.float64)


def losses(digits, model, loss, optimizer, loader) -> list[float]:
    "The losses of one epoch, with each of the four parts from the library named."
    set_seed(0)
    net, loss_func = make_model(NN[model]), NN[loss].CrossEntropyLoss()
    opt = OPTIM[optimizer].SGD(net.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-3)
    data = DATA[loader]
    dl = data.DataLoader(data.TensorDataset(*digits), batch_size=BATCH_SIZE, shuffle=True, generator=torch.Generator().manual_seed(1))
    found = []
    for xb, yb in dl:
        value = loss_func(net(xb), yb)
        value.backward()
        opt.step()
        opt.zero_grad()
        found.append(value.item())
    return found


@pytest.fixture(scope="module")
def expected(digits): return losses(digits, "torch", "torch", "torch", "torch")


@pytest.mark.parametrize("mix", MIXES, ids="-".join)
def test_sixteen_mixes(mix, digits, expected):
    found = losses(digits, *mix)
    assert len(found) == STEPS and sum(found[-10:]) < 0.8*sum(found[:10])
    assert_close(torch.tensor(found, dtype=torch.float64), torch.tensor(expected, dtype=torch.float64), rtol=1e-9, atol=1e-9)
