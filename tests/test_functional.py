"""Corners of `matmul`, `linear`, `relu` and `mse_loss` that would be tedious to read in lesson 02."""

import pytest
import torch
import torch.nn.functional as F
from torch.testing import assert_close, make_tensor
from torch.testing._internal.common_methods_invocations import op_db

from fdl.functional import linear, matmul, mse_loss, relu

OURS = {"matmul": matmul, "nn.functional.linear": linear, "nn.functional.relu": relu, "nn.functional.mse_loss": mse_loss}
DTYPES = [torch.float32, torch.float64, torch.bfloat16, torch.float16]


def value_and_grads(f, *inputs, **kwargs):
    "The result of `f`, then the gradient of each floating input for one fixed upstream gradient."
    inputs = [x.detach().clone().requires_grad_() for x in inputs]
    out = f(*inputs, **kwargs)
    up = torch.linspace(-1, 2, out.numel(), dtype=torch.float64).reshape(out.shape).to(out.dtype)
    return out, *torch.autograd.grad(out, inputs, up)


def assert_same(ours, theirs, *inputs, **kwargs):
    for got, want in zip(value_and_grads(ours, *inputs, **kwargs), value_and_grads(theirs, *inputs, **kwargs), strict=True):
        assert_close(got, want, equal_nan=True)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("op", [op for op in op_db if op.name in OURS], ids=lambda op: op.name)
def test_pytorchs_own_samples(op, dtype):
    samples = list(op.sample_inputs("cpu", dtype, requires_grad=True))
    assert len(samples) > 3
    for s in samples: assert_same(OURS[op.name], op.op, s.input, *s.args, **s.kwargs)
