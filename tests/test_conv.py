"""Convolution, pooling, dropout and batch normalization against torch's, on PyTorch's own samples and in the corners that lesson 13 leaves out."""
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.testing import assert_close
from torch.testing._internal.common_methods_invocations import op_db

import fdl.functional as ours
from fdl import nn

OPS = ["conv2d", "avg_pool2d", "max_pool2d", "adaptive_avg_pool2d", "batch_norm"]
ONLY_TORCHS = {"ceil_mode": False, "count_include_pad": True, "divisor_override": None, "return_indices": False, "cudnn_enabled": None}
LEAST = {"conv2d": 20, "avg_pool2d": 1, "max_pool2d": 300, "adaptive_avg_pool2d": 10, "batch_norm": 8}
POOL_NAMES = ["kernel_size", "stride", "padding", "ceil_mode", "count_include_pad", "divisor_override"]


def accepted(name, sample):
    "The arguments of one of PyTorch's samples as ours takes them, or None where it uses an argument that ours has not got."
    args, kwargs = list(sample.args), dict(sample.kwargs)
    if name == "avg_pool2d": args, kwargs = [], dict(zip(POOL_NAMES, args)) | kwargs
    for key, usual in ONLY_TORCHS.items():
        if key in kwargs and kwargs.pop(key) != usual and key != "cudnn_enabled": return None
    if name == "batch_norm" and sample.input.ndim < 2: return None
    shapes = [v for k, v in kwargs.items() if k in ("stride", "padding", "dilation", "kernel_size")]
    return None if any(isinstance(v, tuple) and len(v) != 2 for v in shapes) else (args, kwargs)


def value_and_grads(f, input, args, kwargs):
    "The result of `f`, the gradient of every floating tensor that asked for one, then the tensors that it changed in place."
    copy = lambda v: v.detach().clone().requires_grad_(v.requires_grad) if isinstance(v, torch.Tensor) else v
    input, args, kwargs = copy(input), [copy(v) for v in args], {k: copy(v) for k, v in kwargs.items()}
    out = f(input, *args, **kwargs)
    wanted = [v for v in (input, *args, *kwargs.values()) if isinstance(v, torch.Tensor) and v.requires_grad]
    upstream = torch.linspace(-1, 2, out.numel(), dtype=torch.float64).reshape(out.shape).to(out.dtype)
    grads = torch.autograd.grad(out, wanted, upstream, allow_unused=True)
    return out, *grads, *(v.detach() for v in (*args, *kwargs.values()) if isinstance(v, torch.Tensor))


def assert_same(name, input, *args, theirs=None, **kwargs):
    got = value_and_grads(getattr(ours, name), input, args, kwargs)
    want = value_and_grads(theirs or getattr(F, name), input, args, kwargs)
    for g, w in zip(got, want, strict=True):
        assert (g is None) == (w is None)
        if g is None: continue
        size = max(1, w.detach().nan_to_num(0, 0, 0).abs().max().item()) if w.numel() and w.dtype == torch.float32 else None
        assert_close(g, w, equal_nan=True, **dict(rtol=1.3e-6, atol=1e-5*size) if size else {})  # a sum rounds by the size of its terms


@pytest.mark.filterwarnings("ignore:Using padding")
@pytest.mark.parametrize("name, dtype", [(name, dtype) for name in OPS for dtype in (torch.float32, torch.float64)
                                         if (name, dtype) != ("max_pool2d", torch.float32)], ids=str)
def test_pytorchs_own_samples(name, dtype):
    tried = 0
    for op in (op for op in op_db if op.name == f"nn.functional.{name}"):
        for sample in op.sample_inputs("cpu", dtype, requires_grad=True):
            if (found := accepted(name, sample)) is None: continue
            assert_same(name, sample.input, *found[0], **found[1])
            tried += 1
    assert tried >= LEAST[name], tried


MODULES = [("Conv2d", (4, 6, (3, 2), (2, 1), (1, 2), (1, 2), 2)), ("Conv2d", (4, 1, 3)), ("AvgPool2d", (2,)), ("MaxPool2d", (3, 2, 1)),
           ("AdaptiveAvgPool2d", ((3, None),)), ("BatchNorm2d", (4,)), ("Dropout", (0.3,))]


@pytest.mark.parametrize("name, args", MODULES, ids=lambda v: str(v))
def test_modules_start_and_compute_as_torchs_do(name, args):
    made = []
    for library in (nn, torch.nn):
        torch.manual_seed(3)
        layer = getattr(library, name)(*args)
        x = torch.randn(3, 4, 9, 8, requires_grad=True)
        out = layer(x)
        made.append((out, *torch.autograd.grad(out.sum(), x), layer.eval()(x), dict(layer.state_dict())))
    assert_close(made[0], made[1])


@pytest.mark.filterwarnings("ignore:Using padding")
@settings(max_examples=60, deadline=None)
@given(st.integers(1, 4), st.integers(1, 4), st.integers(1, 3), st.integers(8, 12), st.integers(8, 12))
def test_same_padding(kh, kw, dilation, h, w):
    x, weight = torch.randn(2, 2, h, w, dtype=torch.float64, requires_grad=True), torch.randn(3, 2, kh, kw, dtype=torch.float64)
    assert_same("conv2d", x, weight, None, 1, "same", dilation)


def test_second_gradients():
    x, w = (torch.randn(*s, dtype=torch.float64, requires_grad=True) for s in ((2, 2, 5, 4), (4, 1, 3, 2)))
    for f in (lambda x, w: ours.conv2d(x, w, None, 2, 1, groups=2), lambda x, w: ours.avg_pool2d(x, 2, 1)*w.sum()):
        assert torch.autograd.gradcheck(f, (x, w)) and torch.autograd.gradgradcheck(f, (x, w))


def test_maximum_of_ties_and_nan():
    x = torch.zeros(1, 1, 4, 4, requires_grad=True)
    assert_same("max_pool2d", x, 2)
    assert_same("max_pool2d", x, 3, 1, 1)
    x = torch.tensor([[[1., float("nan")], [3., 4.]]])
    assert_same("max_pool2d", x.requires_grad_(), 2)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_narrow_floats(dtype):
    x, w = torch.randn(2, 4, 8, 8).to(dtype), torch.randn(6, 4, 3, 3).to(dtype)
    assert_close(ours.conv2d(x, w, None, 2, 1), F.conv2d(x, w, None, 2, 1), rtol=2e-2, atol=2e-2)
    assert_close(ours.batch_norm(x, None, None, training=True), F.batch_norm(x, None, None, training=True), rtol=2e-2, atol=2e-2)


def test_layout_follows_the_input():
    x, w = torch.randn(2, 4, 8, 8), torch.randn(6, 4, 3, 3)
    last = x.to(memory_format=torch.channels_last)
    assert ours.conv2d(x, w).is_contiguous() and ours.conv2d(last, w).is_contiguous(memory_format=torch.channels_last)
    for f in (ours.avg_pool2d, ours.max_pool2d): assert f(x, 2).is_contiguous()
    assert_close(ours.conv2d(last, w), F.conv2d(x, w), rtol=1e-4, atol=1e-4)


def test_a_training_step_reads_nothing_back():
    "The meta device has no values, so whatever asks for one fails there."
    net = nn.Sequential(nn.Conv2d(1, 4, 3, 2, 1, device="meta"), nn.BatchNorm2d(4, momentum=None, device="meta"), nn.ReLU(), nn.MaxPool2d(2), nn.Dropout(),
                        nn.AdaptiveAvgPool2d(2), nn.AvgPool2d(2), nn.Flatten())
    net(torch.empty(5, 1, 28, 28, device="meta")).sum().backward()
    assert all(p.grad.is_meta for p in net.parameters())


def test_functional_and_init_are_attributes():
    assert nn.functional is ours and callable(nn.init.kaiming_uniform_)
