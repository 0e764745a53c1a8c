"""Corners of `matmul`, `linear`, `relu` and `mse_loss` that would be tedious to read in lesson 02."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.testing import assert_close
from torch.testing._internal.common_methods_invocations import op_db

from fdl.functional import linear, matmul, mse_loss, relu

OURS = {"matmul": matmul, "nn.functional.linear": linear, "nn.functional.relu": relu, "nn.functional.mse_loss": mse_loss}
DTYPES = [torch.float32, torch.float64, torch.bfloat16, torch.float16]


def value_and_grads(f, *inputs, **kwargs):
    "The result of `f`, then the gradient of each input for one fixed upstream gradient."
    inputs = [x.detach().clone().requires_grad_() for x in inputs]
    out = f(*inputs, **kwargs)
    upstream = torch.linspace(-1, 2, out.numel(), dtype=torch.float64).reshape(out.shape).to(out.dtype)
    return out, *torch.autograd.grad(out, inputs, upstream)


def assert_same(ours, theirs, *inputs, **kwargs):
    for got, want in zip(value_and_grads(ours, *inputs, **kwargs), value_and_grads(theirs, *inputs, **kwargs), strict=True):
        assert_close(got, want, equal_nan=True)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("op", [op for op in op_db if op.name in OURS], ids=lambda op: op.name)
def test_pytorchs_own_samples(op, dtype):
    samples = list(op.sample_inputs("cpu", dtype, requires_grad=True))
    assert len(samples) > 3
    for s in samples: assert_same(OURS[op.name], op.op, s.input, *s.args, **s.kwargs)


leading = st.lists(st.integers(0, 3), max_size=3)
sizes = st.integers(0, 6)


@settings(max_examples=100, deadline=None)
@given(leading, sizes, sizes, st.booleans(), st.booleans())
def test_linear_equals_torch_for_any_leading_dimensions(lead, n_in, n_out, with_bias, transposed):
    x, w = torch.randn(*lead, n_in, dtype=torch.float64), torch.randn(n_out, n_in, dtype=torch.float64)
    if transposed: x, w = x.mT.contiguous().mT if x.ndim > 1 else x, w.T.contiguous().T
    inputs = (x, w, torch.randn(n_out, dtype=torch.float64)) if with_bias else (x, w)
    assert_same(linear, F.linear, *inputs)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.booleans(), max_size=2), st.lists(st.booleans(), max_size=2), sizes, sizes, sizes)
def test_matmul_broadcasts_batches_as_torch_does(ones_a, ones_b, n, m, p):
    a = torch.randn(*(1 if one else 3 for one in ones_a), n, m, dtype=torch.float64)
    b = torch.randn(*(1 if one else 3 for one in ones_b), m, p, dtype=torch.float64)
    assert_same(matmul, torch.matmul, a, b)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(1, 4), max_size=4), st.sampled_from(["mean", "sum", "none"]))
def test_mse_loss_equals_torch_in_any_shape(shape, reduction):
    assert_same(mse_loss, F.mse_loss, torch.randn(shape, dtype=torch.float64), torch.randn(shape, dtype=torch.float64), reduction=reduction)


def test_gradients_and_second_gradients():
    x, w, b = (torch.randn(*s, dtype=torch.float64, requires_grad=True) for s in [(2, 3, 4), (5, 4), (5,)])
    for f, inputs in [(linear, (x, w, b)), (linear, (x[0], w, b)), (linear, (x, w)), (matmul, (x, w.T)), (mse_loss, (x, x.detach() + 1)),
                      (lambda x: relu(x).square(), (x,))]:
        assert torch.autograd.gradcheck(f, inputs)
        assert torch.autograd.gradgradcheck(f, inputs)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_relu_at_its_special_values(dtype):
    x = torch.tensor([float("nan"), float("inf"), -float("inf"), 0., -0., torch.finfo(dtype).tiny, -torch.finfo(dtype).tiny], dtype=dtype)
    assert_same(relu, F.relu, x)


def test_gradients_only_where_asked_for():
    x, w, b = torch.randn(2, 4), torch.randn(5, 4, requires_grad=True), torch.randn(5)
    linear(x, w, b).sum().backward()
    assert x.grad is None and b.grad is None and w.grad.shape == w.shape


def test_inputs_are_left_alone():
    x, w, b, t = torch.randn(3, 4), torch.randn(5, 4), torch.randn(5), torch.randn(3, 4)
    before = [v.clone() for v in (x, w, b, t)]
    matmul(x, w.T), linear(x, w, b), linear(x[None], w, b), relu(x), mse_loss(x, t)
    assert all(torch.equal(v, u) for v, u in zip((x, w, b, t), before))


@pytest.mark.parametrize("device", ["meta", "accelerator"])
def test_result_stays_on_the_device_of_its_inputs(device):
    "The meta device has shapes and no values, so anything that reads a value back to the host fails there."
    if device == "accelerator":
        if not torch.accelerator.is_available(): pytest.skip("no accelerator here")
        device = torch.accelerator.current_accelerator().type
    x, w, b = torch.randn(2, 3, 4, device=device), torch.randn(5, 4, device=device), torch.randn(5, device=device)
    for out in (matmul(x, w.T), linear(x, w, b), linear(x[0], w, b), linear(x, w), relu(x), mse_loss(x, x), mse_loss(x, x, "none")):
        assert out.device.type == device


def test_errors_name_what_came_and_what_was_wanted():
    z = torch.zeros
    for f, inputs, words in [
        (matmul, (z(2, 3), z(2, 3)), ["input", "other", "(2, 3)"]),
        (matmul, (z(3), z(4)), ["(3,)", "(4,)"]),
        (matmul, (z(7, 2, 3), z(7, 4, 3)), ["(7, 2, 3)", "(7, 4, 3)"]),
        (linear, (z(2, 3), z(3, 5)), ["weight", "(out_features, in_features)", "(2, 3)", "(3, 5)"]),
        (linear, (z(2, 3), z(3)), ["weight", "(2, 3)", "(3,)"]),
        (linear, (z(2, 3), z(1, 5, 3)), ["weight", "(1, 5, 3)"]),
        (linear, (z(2, 3), z(5, 3), z(3)), ["bias", "(5,)", "(3,)"]),
        (linear, (z(5, 3), z(5, 3), z(5, 5)), ["bias", "(5,)", "(5, 5)"]),
        (linear, (z(2, 3), z(5, 3), z(())), ["bias", "(5,)", "()"]),
        (mse_loss, (z(8, 1), z(8)), ["input", "target", "(8, 1)", "(8,)"]),
        (mse_loss, (z(8), z(8, 1)), ["(8,)", "(8, 1)"]),
        (mse_loss, (z(8, 3), z(())), ["(8, 3)", "()"]),
        (mse_loss, (z(8), z(8), "average"), ["reduction", "'average'", "'mean'", "'sum'", "'none'"]),
        (mse_loss, (z(8), z(8), None), ["reduction", "None"]),
    ]:
        with pytest.raises(ValueError) as error: f(*inputs)
        assert all(word in str(error.value) for word in words), str(error.value)
