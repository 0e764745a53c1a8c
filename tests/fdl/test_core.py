"The corners of `fdl.core` that are too mechanical for lesson 00."
import ast
import random
import subprocess
import sys
from collections import Counter, OrderedDict, defaultdict, namedtuple
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch
from torch.testing import assert_close

import fdl.core
from fdl.core import default_device, set_seed, to_device

Pair = namedtuple("Pair", "x y")


class Batch(NamedTuple):
    images: torch.Tensor
    lengths: tuple = ()


@pytest.fixture
def no_accelerator(monkeypatch):
    monkeypatch.delenv("FDL_DEVICE", raising=False)
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: False)


@pytest.fixture
def two_cards(monkeypatch):
    "Torch answers as it does on a machine with two CUDA cards."
    monkeypatch.delenv("FDL_DEVICE", raising=False)
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: True)
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda *args: torch.device("cuda"))
    monkeypatch.setattr(torch.accelerator, "device_count", lambda: 2)


def test_import_is_light():
    "Drawing, notebooks and nbdev stay out of `import fdl.core`."
    code = "import sys, fdl.core; print([m for m in ('matplotlib', 'nbdev', 'IPython', 'fastcore') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"


def test_module_only_defines():
    "Importing runs nothing: the module is its docstring, imports, `__all__` and definitions."
    source = Path(fdl.core.__file__).read_text(encoding="utf-8")
    first, *rest = ast.parse(source).body
    assert isinstance(first, ast.Expr) and ast.get_docstring(ast.parse(source)) == fdl.core.__doc__
    assert all(isinstance(node, (ast.Import, ast.ImportFrom, ast.Assign, ast.FunctionDef)) for node in rest)


# default_device

def test_default_is_the_cpu_without_accelerator(no_accelerator):
    assert default_device() == torch.device("cpu")


def test_default_is_the_accelerator(two_cards):
    assert default_device() == torch.device("cuda")


@pytest.mark.parametrize("name", ["cpu", "meta"])
def test_variable_chooses(two_cards, monkeypatch, name):
    monkeypatch.setenv("FDL_DEVICE", name)
    assert default_device() == torch.device(name)


def test_empty_variable_counts_as_none(no_accelerator, monkeypatch):
    monkeypatch.setenv("FDL_DEVICE", "")
    assert default_device() == torch.device("cpu")


def test_variable_is_read_each_time(no_accelerator, monkeypatch):
    monkeypatch.setenv("FDL_DEVICE", "meta")
    assert default_device().type == "meta"
    monkeypatch.delenv("FDL_DEVICE")
    assert default_device().type == "cpu"


@pytest.mark.parametrize("name", ["gpu", "CPU", " cpu", "cpu:x", "cpu:-1", "cuda:99", "0", ":", "ünknown"])
def test_bad_names(monkeypatch, name):
    monkeypatch.setenv("FDL_DEVICE", name)
    with pytest.raises(ValueError, match="not on this machine; set it to cpu") as error: default_device()
    assert str(error.value).startswith(f"FDL_DEVICE is {name!r}") and error.value.__cause__


# to_device

def test_nested_containers():
    one = torch.arange(3)
    moved = to_device({"a": [one, (one, {"b": Pair(one, "text")})], 7: Batch(one, (one,)), "none": None}, "meta")
    first, (second, inner) = moved["a"]
    assert type(inner["b"]) is Pair and type(moved[7]) is Batch and type(moved[7].lengths) is tuple
    assert all(t.is_meta for t in [first, second, inner["b"].x, moved[7].images, moved[7].lengths[0]])
    assert inner["b"].y == "text" and moved["none"] is None and list(moved) == ["a", 7, "none"]
    assert one.device.type == "cpu"


@pytest.mark.parametrize("x", [torch.tensor(1.), torch.empty(0, 3), torch.ones(2, dtype=torch.bool), torch.ones(2, dtype=torch.complex64),
                               torch.ones(2, 3).T, torch.ones(1, dtype=torch.bfloat16)])
def test_shape_and_dtype_stay(x):
    moved = to_device(x, "meta")
    assert moved.is_meta and moved.shape == x.shape and moved.dtype == x.dtype


def test_no_copy_when_already_there():
    x = torch.ones(3)
    assert to_device(x, "cpu") is x and to_device(x, torch.device("cpu")) is x
    assert to_device([x], "cpu")[0] is x and to_device(Pair(x, (x,)), "cpu").y[0] is x


@pytest.mark.parametrize("x", ["text", b"bytes", 3, 2.5, None, True, {1, 2}, np.ones(2), range(3), torch.device("cpu"), torch.float32])
def test_other_things_are_the_same_object(x):
    assert to_device(x, "meta") is x


@pytest.mark.parametrize("x", [[], (), {}, [[]], ((),), {"a": {}}])
def test_empty_containers(x):
    assert to_device(x, "meta") == x and type(to_device(x, "meta")) is type(x)


def test_containers_of_torch():
    best = to_device(torch.eye(3).max(dim=1), "meta")
    assert type(best) is torch.return_types.max and best.values.is_meta and best.indices.is_meta
    assert to_device(torch.Size([2, 3]), "meta") == torch.Size([2, 3])


def test_types_of_dict_stay():
    for x in [OrderedDict(a=torch.ones(1)), defaultdict(list, a=torch.ones(1)), Counter(a=torch.ones(1))]:
        moved = to_device(x, "meta")
        assert type(moved) is type(x) and moved["a"].is_meta and not x["a"].is_meta
    assert moved.__class__ is Counter and to_device(defaultdict(list), "meta").default_factory is list


def test_what_knows_how_to_move_moves_itself():
    packed = to_device([torch.nn.utils.rnn.pack_sequence([torch.ones(3, 2), torch.ones(1, 2)])], "meta")[0]
    assert packed.data.is_meta and packed.batch_sizes.device.type == "cpu"           # where torch wants them
    Edge = namedtuple("Edge", "source to")
    assert to_device(Edge(torch.ones(1), torch.ones(1)), "meta").to.is_meta         # a field of that name is no method
    assert to_device(torch.nn.Linear(2, 2), "meta").weight.is_meta


def test_gradients_flow_through():
    x = torch.ones(2, requires_grad=True)
    to_device([x * 2], "cpu")[0].sum().backward()
    assert_close(x.grad, torch.full((2,), 2.))


def test_device_none_is_the_default(no_accelerator, monkeypatch):
    x = torch.ones(2)
    assert to_device(x) is x
    monkeypatch.setenv("FDL_DEVICE", "meta")
    assert to_device(x).is_meta and to_device({"a": [x]})["a"][0].is_meta
    monkeypatch.setenv("FDL_DEVICE", "gpu")
    with pytest.raises(ValueError, match="FDL_DEVICE is 'gpu'"): to_device(x)
    assert to_device(x, "cpu") is x


def test_a_bad_device_is_refused_by_torch():
    for x in [torch.ones(1), [{"a": torch.ones(1)}]]:
        with pytest.raises(RuntimeError, match="gpu"): to_device(x, "gpu")


@pytest.mark.skipif(not torch.accelerator.is_available(), reason="no accelerator")
def test_accelerator():
    kind = torch.accelerator.current_accelerator().type
    moved = to_device({"a": (torch.arange(3),)}, kind)["a"][0]
    assert moved.device.type == kind and to_device(moved, kind) is moved
    assert_close(to_device(moved, "cpu"), torch.arange(3))


# set_seed

def draw() -> tuple[float, float, float]: return random.random(), np.random.rand(), torch.rand(()).item()


@pytest.mark.parametrize("seed", [0, 1, 42, 2**31, 2**32 - 1, np.int64(5), np.uint8(5)])
def test_same_seed_same_numbers(seed):
    set_seed(seed)
    first = [draw() for _ in range(3)]
    set_seed(int(seed))
    assert [draw() for _ in range(3)] == first
    assert len({x for row in first for x in row}) == 9


def test_the_seeds_are_those_of_the_libraries():
    set_seed(11)
    ours = draw()
    random.seed(11), np.random.seed(11), torch.manual_seed(11)
    assert ours == draw()
    assert set_seed(11) is None and torch.initial_seed() == 11


@pytest.mark.parametrize("seed", [0.0, 1.5, "1", None, [1], np.float32(1), torch.tensor(1.)])
def test_not_an_integer(seed):
    with pytest.raises(TypeError, match="integer"): set_seed(seed)


@pytest.mark.parametrize("seed", [-1, 2**32, 2**64, -2**63, np.int64(-3)])
def test_out_of_range(seed):
    with pytest.raises(ValueError, match=r"between 0 and 2\*\*32"): set_seed(seed)


def test_a_refused_seed_changes_nothing():
    set_seed(4)
    expected = draw()
    set_seed(4)
    for bad in [-1, "1"]:
        with pytest.raises((TypeError, ValueError)): set_seed(bad)
    assert draw() == expected


@pytest.mark.skipif(not torch.accelerator.is_available(), reason="no accelerator")
def test_seed_reaches_the_accelerator():
    draws = []
    for seed in [3, 3, 4]:
        set_seed(seed)
        draws.append(torch.rand(5, device=torch.accelerator.current_accelerator()).cpu())
    assert_close(draws[0], draws[1], rtol=0, atol=0)
    assert not torch.equal(draws[1], draws[2])
