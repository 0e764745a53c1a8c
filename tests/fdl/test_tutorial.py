"PyTorch's beginner tutorial runs on `fdl` with its imports swapped, and gives the losses that it gives on PyTorch."
import re
from pathlib import Path

import torch
from torch.testing import assert_close

from fdl.datasets import load_mnist

PROGRAM = (Path(__file__).parent/"tutorial.py").read_text(encoding="utf-8")
SWAPS = {"from torch import nn, optim": "import fdl.nn as nn\nfrom fdl import optim",
         "import torch.nn.functional as F": "import fdl.functional as F",
         "from torch.utils.data import DataLoader, TensorDataset": "from fdl.data import DataLoader, TensorDataset"}


def run(program: str) -> dict:
    "The names that the program leaves behind."
    (x_train, y_train), (x_valid, y_valid), _ = load_mnist()
    names = dict(x_train=x_train[:5000].double(), y_train=y_train[:5000], x_valid=x_valid[:1000].double(), y_valid=y_valid[:1000])
    exec(compile(program, "tutorial.py", "exec"), names)
    return names


def test_same_losses():
    ours = PROGRAM
    for old, new in SWAPS.items():
        assert ours.count(old) == 1
        ours = ours.replace(old, new)
    assert not re.search(r"torch\.(nn|optim|utils)|from torch import", ours.split('"""')[2])
    theirs, ours = run(PROGRAM), run(ours)
    assert ours["model"].__class__.__module__ == "fdl.nn" and ours["optim"].__name__ == "fdl.optim"
    for step, losses in theirs["losses"].items():
        assert_close(torch.tensor(ours["losses"][step]), torch.tensor(losses), rtol=1e-9, atol=1e-9, msg=lambda m: f"{step}: {m}")
    assert theirs["losses"]["refactored"][-1] < 0.5, "the classifier did not learn"
    assert theirs["losses"]["sequential"][-1] < theirs["losses"]["sequential"][0], "the network did not learn"


def test_names_that_torch_programs_import():
    import fdl.nn as nn
    from fdl import optim
    from fdl.data import DataLoader, Dataset, RandomSampler, Subset, TensorDataset, random_split
    assert nn.functional.relu and nn.init.kaiming_normal_ and nn.Parameter and optim.lr_scheduler.StepLR
    dataset = TensorDataset(torch.arange(10))
    assert isinstance(dataset, Dataset) and [len(part) for part in random_split(dataset, [7, 3])] == [7, 3]
    assert len(Subset(dataset, [1, 2])) == 2 and len(list(DataLoader(dataset, batch_size=4, sampler=RandomSampler(dataset)))) == 3
