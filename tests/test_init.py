"""Corners of the initializations that would be tedious to read in lesson 12: every argument against torch.nn.init, bit for bit."""
import math
import warnings

import pytest
import torch
import torch.nn.init as theirs
from hypothesis import given, settings
from hypothesis import strategies as st

import fdl.init as ours
from fdl import nn

KAIMING, XAVIER = ("kaiming_uniform_", "kaiming_normal_"), ("xavier_uniform_", "xavier_normal_")
shapes = st.lists(st.integers(1, 7), min_size=2, max_size=5).map(tuple)
names = st.sampled_from([*ours._GAINS, "leaky_relu"])
seeds = st.integers(0, 2**31)


def assert_same(name, shape, *args, dtype=torch.float32, seed=0, **kwargs):
    "Ours and torch's fill the same tensor, in place, with the same bits, from the global generator and from one of their own."
    for own in (False, True):
        results = []
        for module in (ours, theirs):
            tensor = torch.full(shape, 9., dtype=dtype)
            generator = torch.Generator().manual_seed(seed)
            torch.manual_seed(seed)
            out = getattr(module, name)(tensor, *args, **kwargs, **(dict(generator=generator) if own else {}))
            assert out is tensor
            results.append(tensor)
        assert torch.equal(*results)


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(KAIMING), shapes, st.floats(0, 3), st.sampled_from(["fan_in", "fan_out", "Fan_Out"]), names, seeds)
def test_kaiming_equals_torch(name, shape, a, mode, nonlinearity, seed):
    assert_same(name, shape, a, mode, nonlinearity, seed=seed)


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(XAVIER), shapes, st.floats(0, 10), seeds)
def test_xavier_equals_torch(name, shape, gain, seed): assert_same(name, shape, gain, seed=seed)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("name", [*KAIMING, *XAVIER])
def test_dtypes(name, dtype): assert_same(name, (5, 4, 3), dtype=dtype)


@pytest.mark.parametrize("name, args", [("uniform_", ()), ("uniform_", (-2, 5)), ("normal_", ()), ("normal_", (3, 0.5))])
def test_plain_draws(name, args):
    assert_same(name, (7,), *args)
    assert_same(name, (3, 2, 2), *args)


def test_fills():
    tensor = torch.empty(2, 3)
    assert ours.constant_(tensor, 2.5) is tensor and tensor.unique().tolist() == [2.5]
    assert ours.zeros_(tensor) is tensor and not tensor.any()


@pytest.mark.parametrize("name", [*KAIMING, *XAVIER, "uniform_", "normal_", "zeros_"])
@pytest.mark.parametrize("layer", [nn.Linear, torch.nn.Linear], ids=["fdl", "torch"])
def test_parameters_stay_parameters_and_build_no_graph(name, layer):
    weight = layer(6, 4).weight
    version = weight._version
    assert getattr(ours, name)(weight) is weight
    assert weight.is_leaf and weight.requires_grad and weight.grad_fn is None and weight._version > version
    assert torch.is_grad_enabled()


def test_views_and_other_strides():
    base = torch.zeros(6, 4)
    ours.kaiming_normal_(base.T)
    assert base.all()
    torch.manual_seed(0); mine = ours.xavier_uniform_(torch.empty(6, 4).T)
    torch.manual_seed(0); assert torch.equal(mine, theirs.xavier_uniform_(torch.empty(6, 4).T))


@pytest.mark.parametrize("name", KAIMING)
def test_nothing_to_fill_warns_at_the_caller(name):
    for shape in ((0,), (0, 3), (3, 0), (2, 0, 4)):
        state = torch.get_rng_state()
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            assert getattr(ours, name)(torch.empty(shape)).shape == shape
        assert len(caught) == 1 and caught[0].filename == __file__ and str(shape) in str(caught[0].message)
        assert torch.equal(torch.get_rng_state(), state)


def fails(module, name, *args, **kwargs):
    "The type of error, or None."
    try: getattr(module, name)(*args, **kwargs)
    except Exception as error: return type(error)


@pytest.mark.parametrize("name, args, kwargs", [
    *[(n, (torch.empty(s),), {}) for n in (*KAIMING, *XAVIER) for s in ((), (4,), (4, 2))],
    *[(n, (torch.empty(0, 0),), {}) for n in XAVIER],
    *[(n, (torch.empty(3, 2),), kw) for n in KAIMING for kw in (dict(mode="fan_avg"), dict(nonlinearity="gelu"), dict(a="1"), dict(a=True), dict(a=None), dict(a="1", nonlinearity="relu"))],
    *[("calculate_gain", args, {}) for args in (("gelu",), ("leaky_relu", "1"), ("leaky_relu", False), ("leaky_relu", None), ("relu", "1"))],
    ("kaiming_normal_", (torch.empty(3, 2, dtype=torch.int64),), {}), ("xavier_uniform_", (torch.empty(3, 2, dtype=torch.int64),), {}),
])
def test_refuses_what_torch_refuses(name, args, kwargs): assert fails(ours, name, *args, **kwargs) == fails(theirs, name, *args, **kwargs)


@pytest.mark.parametrize("call, message", [
    (lambda: ours.xavier_normal_(torch.empty(4)), r"tensor must be a weight of shape \(out, in\).*shape \(4,\)"),
    (lambda: ours.kaiming_normal_(torch.empty(4, 2), mode="both"), "mode must be 'fan_in' or 'fan_out', not 'both'"),
    (lambda: ours.calculate_gain("swish"), "nonlinearity must be one of linear, .*leaky_relu, not 'swish'"),
    (lambda: ours.calculate_gain("leaky_relu", "x"), "param must be a number.*not 'x'"),
])
def test_errors_name_the_argument(call, message):
    with pytest.raises(ValueError, match=message): call()


def test_meta_device_and_gain_types():
    assert ours.kaiming_uniform_(torch.empty(3, 2, device="meta")).is_meta
    for name in (*ours._GAINS, "leaky_relu"): assert isinstance(ours.calculate_gain(name), float)
    assert ours.calculate_gain("leaky_relu", math.sqrt(5)) == theirs.calculate_gain("leaky_relu", math.sqrt(5))


def test_linear_starts_from_kaiming_with_slope_root_five():
    torch.manual_seed(0); weight = nn.Linear(31, 7).weight
    torch.manual_seed(0); assert torch.equal(ours.kaiming_uniform_(torch.empty(7, 31), a=math.sqrt(5)), weight)
