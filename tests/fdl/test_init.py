"fdl.init beside torch.nn.init: every argument, bit for bit."
import math

import pytest
import torch
import torch.nn.init as theirs
from hypothesis import given, settings
from hypothesis import strategies as st

import fdl.init as ours
from fdl import nn

GAINS = ["linear", "sigmoid", "tanh", "selu", "relu", "leaky_relu"]
FILLS = ["kaiming_uniform_", "kaiming_normal_", "xavier_uniform_", "xavier_normal_"]
shapes = st.lists(st.integers(1, 7), min_size=2, max_size=5).map(tuple)


def fill(library, name, shape, *args, dtype=torch.float32, seed=0, **kwargs):
    torch.manual_seed(seed)
    tensor = torch.full(shape, 9., dtype=dtype)
    assert getattr(library, name)(tensor, *args, **kwargs) is tensor
    return tensor


@settings(max_examples=60)
@given(st.sampled_from(FILLS[:2]), shapes, st.floats(0, 3), st.sampled_from(["fan_in", "fan_out"]), st.sampled_from(GAINS), st.integers(0, 2**31), st.sampled_from([torch.float32, torch.float16, torch.float64]))
def test_kaiming_is_torchs(name, shape, a, mode, nonlinearity, seed, dtype):
    assert torch.equal(*(fill(library, name, shape, a, mode, nonlinearity, seed=seed, dtype=dtype) for library in (ours, theirs)))


@settings(max_examples=60)
@given(st.sampled_from(FILLS[2:]), shapes, st.floats(0, 10), st.integers(0, 2**31), st.sampled_from([torch.float32, torch.float64, torch.bfloat16]))
def test_xavier_is_torchs(name, shape, gain, seed, dtype):
    assert torch.equal(*(fill(library, name, shape, gain, seed=seed, dtype=dtype) for library in (ours, theirs)))


@pytest.mark.parametrize("name", GAINS)
def test_gains(name): assert ours.calculate_gain(name) == theirs.calculate_gain(name)


def test_slope_of_leaky_relu():
    for slope in (None, 0, 0.2, math.sqrt(5)): assert ours.calculate_gain("leaky_relu", slope) == theirs.calculate_gain("leaky_relu", slope)


@pytest.mark.parametrize("name", FILLS)
def test_parameters_stay_parameters_and_build_no_graph(name):
    for layer in (nn.Linear(6, 4), torch.nn.Linear(6, 4)):
        version = layer.weight._version
        getattr(ours, name)(layer.weight)
        assert layer.weight.is_leaf and layer.weight.requires_grad and layer.weight._version > version and torch.is_grad_enabled()
    base = torch.zeros(6, 4)
    getattr(ours, name)(base.T)
    assert base.all() and getattr(ours, name)(torch.empty(3, 2, device="meta")).is_meta


@pytest.mark.parametrize("shape", [(0, 3), (3, 0), (2, 0, 4)])
def test_nothing_to_fill(shape):
    for name in FILLS: assert getattr(ours, name)(torch.empty(shape)).shape == shape


@pytest.mark.parametrize("call, message", [
    *[(lambda name=name, shape=shape: getattr(ours, name)(torch.empty(shape)), r"tensor must be a weight \(out, in\)") for name in FILLS for shape in ((), (4,))],
    (lambda: ours.kaiming_normal_(torch.empty(4, 2), mode="both"), "mode must be 'fan_in' or 'fan_out', not 'both'"),
    (lambda: ours.kaiming_uniform_(torch.empty(4, 2), nonlinearity="gelu"), "nonlinearity must be one of linear, .*leaky_relu, not 'gelu'"),
    (lambda: ours.calculate_gain("swish"), "not 'swish'")])
def test_refused_by_one_clear_sentence(call, message):
    with pytest.raises(ValueError, match=message): call()


def test_what_is_not_built_is_torchs():
    assert ours.uniform_ is theirs.uniform_ and ours.orthogonal_ is theirs.orthogonal_ and "zeros_" not in dir(ours)
    assert hasattr(theirs, "_no_grad_normal_") and not hasattr(ours, "_no_grad_normal_")
    with pytest.raises(AttributeError, match="'fdl.init' has no attribute 'no_such_'"): ours.no_such_
