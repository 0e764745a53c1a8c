"fdl.functional beside torch.nn.functional: values, gradients, memory formats, and what is refused."
from itertools import product
from math import inf, log, nan

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from helpers import as_dtype, assert_same, assert_same_defaults, is_real, reads_nothing_back, samples, seeded, value_and_grads
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.testing import assert_close

import fdl.functional as ours
import fdl.nn

NAMES = {"softmax": 9, "log_softmax": 9, "logsumexp": 5, **{f"nn.functional.{name}": least for name, least in {
    "linear": 10, "relu": 3, "mse_loss": 6, "nll_loss": 40, "cross_entropy": 20, "conv2d": 10, "avg_pool2d": 1, "max_pool2d": 100,
    "batch_norm": 8}.items()}}
NOT_KEPT = {"dilation": (1, (1, 1)), "count_include_pad": (True,), "divisor_override": (None,), "return_indices": (False,), "cudnn_enabled": (True, False)}
POOL = ["kernel_size", "stride", "padding", "ceil_mode", "count_include_pad", "divisor_override"]


def kept(name, args, kwargs):
    "The arguments as ours takes them, or None where one is not kept."
    if name.endswith("avg_pool2d"): args, kwargs = args[:1], dict(zip(POOL, args[1:])) | kwargs
    for key, usual in NOT_KEPT.items():
        if key in kwargs and kwargs.pop(key) not in usual: return None
    sizes = [v for k, v in kwargs.items() if k in ("stride", "padding", "kernel_size")]
    if any(isinstance(v, str) or isinstance(v, (tuple, list)) and len(v) != 2 for v in sizes): return None
    if name.endswith("batch_norm") and args[0].ndim < 2: return None
    return args, kwargs


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("name", NAMES)
def test_pytorchs_own_samples(name, dtype):
    "In narrow dtypes the truth is torch in float64, rounded; torch itself may be farther away than that."
    if dtype != torch.float64 and name.endswith("max_pool2d"): pytest.skip("the same comparisons of windows")
    f, tried, narrow = getattr(ours, name.split(".")[-1]), 0, dtype.itemsize < 4
    for i, (theirs, args, kwargs) in enumerate(samples(name, dtype)):
        if name.endswith("max_pool2d") and i % 3: continue
        if (found := kept(name, args, kwargs)) is None: continue
        tried, (args, kwargs) = tried + 1, found
        if not narrow: assert_same(f, theirs, *args, **kwargs)
        else:
            got = value_and_grads(f, *args, **kwargs)
            want = value_and_grads(theirs, *(as_dtype(a, torch.float64) for a in args), **{k: as_dtype(v, torch.float64) for k, v in kwargs.items()})
            for g, w in zip(got, want, strict=True):
                if g is not None: assert_close(g, w.to(g.dtype), equal_nan=True, rtol=4e-2, atol=0.3 if name.endswith("conv2d") else 2e-2)
    assert tried >= NAMES[name], tried


@settings(max_examples=60)
@given(st.lists(st.integers(0, 3), max_size=3), st.integers(0, 6), st.integers(0, 6), st.booleans(), st.booleans())
def test_linear_of_any_leading_dimensions(lead, n_in, n_out, with_bias, transposed):
    x, w = torch.randn(*lead, n_in, dtype=torch.float64), torch.randn(n_out, n_in, dtype=torch.float64)
    if transposed: x, w = x.mT.contiguous().mT if x.ndim > 1 else x, w.T.contiguous().T
    b = (torch.randn(n_out, dtype=torch.float64).requires_grad_(),) if with_bias else ()
    assert_same(ours.linear, F.linear, x.requires_grad_(), w.requires_grad_(), *b)


def test_relu_at_its_special_values_and_in_place():
    x = torch.tensor([nan, inf, -inf, 0., -0., 1e-38, -1e-38, 2, -2], requires_grad=True)
    assert_same(ours.relu, F.relu, x)
    y = x.detach().clone()
    assert ours.relu(y, inplace=True) is y
    assert_close(y, F.relu(x.detach()), equal_nan=True)


# Losses

SHAPES = [(5,), (1,), (4, 5), (1, 1), (0, 3), (3, 4, 5), (3, 4, 0), (2, 3, 2, 4)]


@settings(max_examples=150)
@given(shape=st.sampled_from(SHAPES), seed=st.integers(0, 2**31), dtype=st.sampled_from([torch.float32, torch.float64]),
       scale=st.sampled_from([1e-3, 1.0, 30.0]), weighted=st.booleans(), reduction=st.sampled_from(["mean", "sum", "none"]),
       ignore=st.sampled_from([-100, -1, 0, 2]), skipped=st.sampled_from([0.0, 0.3, 1.0]), eps=st.sampled_from([0.0, 0.1, 1.0]), byte=st.booleans())
def test_every_option_of_the_losses(shape, seed, dtype, scale, weighted, reduction, ignore, skipped, eps, byte):
    g = torch.Generator().manual_seed(seed)
    dim = min(1, len(shape) - 1)
    c, rest = shape[dim], shape[:dim] + shape[dim + 1:]
    z = (torch.randn(shape, generator=g, dtype=dtype)*scale).requires_grad_()
    w = torch.rand(c, generator=g, dtype=dtype) + 0.1 if weighted else None
    t = torch.where(torch.rand(rest, generator=g) < skipped, ignore, torch.randint(c, rest, generator=g))
    mine = t.byte() if byte and ignore >= 0 else t
    options = dict(ignore_index=ignore, reduction=reduction)
    assert_same(lambda z: ours.nll_loss(-z.abs(), mine, w, **options), lambda z: F.nll_loss(-z.abs(), t, w, **options), z)
    assert_same(lambda z: ours.cross_entropy(z, mine, w, label_smoothing=eps, **options), lambda z: F.cross_entropy(z, t, w, label_smoothing=eps, **options), z)
    q = torch.rand(shape, generator=g, dtype=dtype).requires_grad_()
    assert_same(lambda *a: ours.cross_entropy(*a, reduction=reduction, label_smoothing=eps), lambda *a: F.cross_entropy(*a, reduction=reduction, label_smoothing=eps), z, q, w)
    assert_same(lambda *a: ours.mse_loss(*a, reduction), lambda *a: F.mse_loss(*a, reduction=reduction), z, q)


ROWS = torch.tensor([[-inf, -inf, -inf], [inf, 1, 0], [inf, -inf, 0], [-inf, 0, 1], [nan, 0, 1], [1000, -1000, 0], [3e38, -3e38, 0], [1e8, 1e8, 1e8 + 8],
                     [-104, -105, -200], [-3e38, -3e38, -3e38], [1e-45, 0, -1e-45]])


@pytest.mark.parametrize("row", ROWS, ids=lambda r: str(r.tolist()))
def test_extreme_rows(row):
    z = torch.stack([row, torch.tensor([0.5, -1, 2])]).requires_grad_()
    for dim in (0, 1):
        for name in ("softmax", "log_softmax"): assert_same(lambda z: getattr(ours, name)(z, dim), lambda z: getattr(torch, name)(z, dim), z)
        assert_close(ours.logsumexp(z, dim), torch.logsumexp(z, dim), equal_nan=True)
    for y, reduction, eps in product((0, 2, -100), ("mean", "none"), (0.0, 0.1)):
        t = torch.tensor([y, 1])
        assert_same(lambda z: ours.cross_entropy(z, t, reduction=reduction, label_smoothing=eps), lambda z: F.cross_entropy(z, t, reduction=reduction, label_smoothing=eps), z)


@pytest.mark.parametrize("size", [0.0, 100.0, 1e4, 1e8, 3e38])
def test_slope_of_logsumexp_is_softmax_at_any_size(size):
    "torch takes exp(input - result), and the result has been rounded: for scores of 1e8 its slopes add up to 3, not 1."
    z = torch.tensor([[size]*3, [-size]*3], requires_grad=True)
    assert_close(torch.autograd.grad(ours.logsumexp(z, 1).sum(), z)[0], torch.full((2, 3), 1/3))


def test_arithmetic_is_wide_enough():
    "Narrow dtypes: neither a square nor a sum overflows, and what has no place in the dtype is refused or widened."
    half = torch.tensor([300., 0, 0, 0]).half()
    assert ours.mse_loss(half, torch.zeros(4).half()) == 22496                    # 90000/4, as float16 writes it
    assert ours.avg_pool2d(torch.full((1, 1, 2, 2), 6e4).half(), 2) == 6e4
    many, zeros = torch.zeros(70_000, 10).half(), torch.zeros(70_000).long()
    for weight in (None, torch.ones(10).half()): assert_close(ours.cross_entropy(many, zeros, weight).float(), torch.tensor(log(10)), rtol=1e-3, atol=0)
    assert_close(ours.logsumexp(torch.tensor([1, 3], dtype=torch.uint8), 0), torch.tensor([1., 3]).logsumexp(0))
    pixels = torch.randint(256, (4, 2, 4, 4), dtype=torch.uint8)
    for f in (lambda x: ours.avg_pool2d(x, 2), lambda x: ours.batch_norm(x, None, None, training=True)):
        assert_close(f(pixels), f(pixels.float()))
    for a, b in product([torch.uint8, torch.int64, torch.bool, torch.complex64], repeat=2):
        with pytest.raises(TypeError, match=f"real.*{a} and {b}"): ours.mse_loss(torch.ones(2).to(a), torch.ones(2).to(b))
    assert ours.mse_loss(torch.tensor([0.]), torch.tensor([20], dtype=torch.uint8)) == 400
    with pytest.raises(IndexError, match="Target 156 is out of bounds"): ours.cross_entropy(torch.zeros(6, 4), torch.full((6,), 156, dtype=torch.uint8))


@settings(max_examples=100)
@given(shape=st.sampled_from([(), *SHAPES]), seed=st.integers(0, 2**31), scale=st.sampled_from([1e-3, 1.0, 1e4]), data=st.data())
def test_every_dimension(shape, seed, scale, data):
    z = (torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)*scale).requires_grad_()
    dim = data.draw(st.integers(-max(1, len(shape)), max(1, len(shape)) - 1))
    dims = data.draw(st.lists(st.sampled_from(range(max(1, len(shape)))), unique=True, min_size=1))
    for name in ("softmax", "log_softmax"): assert_same(lambda z: getattr(ours, name)(z, dim), lambda z: getattr(torch, name)(z, dim), z)
    if 0 in shape: return
    for d, keep in product((dim, tuple(dims)), (False, True)): assert_same(lambda z: ours.logsumexp(z, d, keep), lambda z: torch.logsumexp(z, d, keep), z)


def test_dtypes_and_layouts_of_the_losses():
    z, y, q = torch.randn(6, 4), torch.tensor([0, 1, 2, 3, 0, 1]), torch.rand(6, 4)
    for scores in (z.T.contiguous().T, z[:1].expand(6, 4), z.bfloat16(), z.double()):
        for f in ("nll_loss", "cross_entropy"): assert_close(getattr(ours, f)(scores, y), getattr(F, f)(scores.double(), y).to(scores.dtype), rtol=1e-2, atol=0)
        for dtype in (torch.float32, torch.float64, torch.bfloat16):
            assert ours.cross_entropy(scores, q.to(dtype)).dtype == F.cross_entropy(scores, q.to(dtype)).dtype
    assert ours.cross_entropy(z, y, torch.rand(4).double()).dtype == torch.float32
    assert ours.nll_loss(torch.tensor([[0, -3], [0, -4]], dtype=torch.int8), y[1:2].repeat(2)) == 3.5
    assert_close(ours.softmax(torch.ones(4, dtype=torch.uint8), 0, torch.float32), torch.full((4,), 0.25))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_narrow_losses_lose_no_digits(dtype):
    z, t = (torch.randn(4, 1000, generator=torch.Generator().manual_seed(0))).to(dtype), torch.tensor([1, 2, 3, 4])
    for f in (lambda z: ours.softmax(z, 1), lambda z: ours.log_softmax(z, 1), lambda z: ours.logsumexp(z, 1), lambda z: ours.cross_entropy(z, t),
              lambda z: ours.nll_loss(z, t), lambda z: ours.cross_entropy(z, t, label_smoothing=0.1)):
        assert_close(f(z), f(z.double()).to(dtype), rtol=torch.finfo(dtype).eps, atol=1e-7)


def test_nothing_that_counts():
    z, t = torch.randn(6, 5), torch.full((6,), -100)
    for f in (ours.nll_loss, ours.cross_entropy):
        assert f(z, t).isnan() and f(z, t, reduction="sum") == 0 and f(z, t, reduction="none").tolist() == [0]*6
    bad = torch.tensor([[-inf, 0.], [nan, 0.], [1., 2.]])
    assert_close(ours.cross_entropy(bad, torch.tensor([-100, -100, 1])), F.cross_entropy(bad[2:], torch.tensor([1])))
    assert_same(lambda z: ours.cross_entropy(z, torch.tensor([1]), torch.tensor([0.5, 2])), lambda z: F.cross_entropy(z, torch.tensor([1])), bad[:1].clone().requires_grad_())


def test_second_gradients_and_transforms():
    torch.manual_seed(0)
    z, t = torch.randn(3, 4, 2, dtype=torch.float64, requires_grad=True), torch.tensor([[0, 3], [-100, 1], [2, 2]])
    q, w = torch.rand(3, 4, 2, dtype=torch.float64, requires_grad=True), torch.rand(4, dtype=torch.float64, requires_grad=True)
    x, k = (torch.randn(*s, dtype=torch.float64, requires_grad=True) for s in ((2, 2, 5, 4), (4, 1, 3, 2)))
    for f, inputs in [(lambda z, w: ours.cross_entropy(z, t, w, label_smoothing=0.1), (z, w)), (ours.cross_entropy, (z, q)),
                      (lambda z: ours.softmax(z, 1) + ours.logsumexp(z, 1, keepdim=True), (z,)), (ours.mse_loss, (z, q)),
                      (lambda x, k: ours.conv2d(x, k, None, 2, 1, groups=2), (x, k)), (lambda x: ours.avg_pool2d(x, 2, 1).square(), (x,)),
                      (lambda x: ours.relu(x).square(), (x,)), (ours.linear, (x, torch.randn(3, 4, dtype=torch.float64, requires_grad=True)))]:
        assert torch.autograd.gradcheck(f, inputs) and torch.autograd.gradgradcheck(f, inputs)
    scores, classes = torch.randn(6, 5), torch.randint(5, (6,))
    assert_close(torch.func.grad(ours.cross_entropy)(scores, classes), torch.func.grad(F.cross_entropy)(scores, classes))
    for options in ({}, dict(weight=torch.rand(5) + 0.1), dict(label_smoothing=0.1), dict(ignore_index=2)):     # one gradient for each example
        mine, theirs = (torch.func.vmap(torch.func.grad(lambda z, t, f=f: f(z, t, **options)))(scores, classes) for f in (ours.cross_entropy, F.cross_entropy))
        assert_close(mine, theirs, equal_nan=True)


# Images

def layouts(n, c, h, w):
    "Images of one shape, as they lie in memory after slicing, transposing, expanding and permuting."
    def make(*shape): return torch.randn(shape, dtype=torch.float64)
    for kind in (torch.contiguous_format, torch.channels_last):
        yield make(n, c, h, w).to(memory_format=kind)
        yield make(n, c + 2, h, w).to(memory_format=kind)[:, 1:1 + c]
        yield make(n, c, 2*h, w).to(memory_format=kind)[:, :, ::2]
        yield make(n, c, h, w + 3).to(memory_format=kind)[..., 2:2 + w]
        yield make(2*n, c, h, w).to(memory_format=kind)[::2]
        yield make(n, c, w, h).to(memory_format=kind).mT
        yield make(1, c, h, w).to(memory_format=kind).expand(n, c, h, w)
        yield make(n, 1, h, w).to(memory_format=kind).expand(n, c, h, w)
    yield make(n, h, w, c).permute(0, 3, 1, 2)


def strides(x): return [s for s, size in zip(x.stride(), x.shape) if size > 1]


@pytest.mark.parametrize("shape", [(2, 4, 6, 5), (2, 1, 6, 5), (1, 4, 6, 5), (2, 4, 1, 5), (3, 4, 6, 1)], ids=str)
def test_memory_format_is_torchs(shape):
    for x in layouts(*shape):
        pairs = [(getattr(ours, name)(x, *args), getattr(F, name)(x, *args)) for name, args in
                 [("max_pool2d", (2, 1, 1)), ("avg_pool2d", (2, 1, 1))]]
        for groups, size, kind in product({1, shape[1]}, (1, 3), (torch.contiguous_format, torch.channels_last)):
            weight = torch.randn(4, shape[1]//groups, size, size, dtype=torch.float64).to(memory_format=kind)
            pairs.append((ours.conv2d(x, weight, None, 1, 1, groups=groups), F.conv2d(x, weight, None, 1, 1, groups=groups)))
        for mine, theirs in pairs:
            assert_close(mine, theirs)
            assert strides(mine) == strides(theirs)
            assert mine.is_contiguous() == theirs.is_contiguous()


def test_one_image_without_a_batch_and_kernels_with_channels_last():
    x, weight = torch.randn(4, 6, 5, dtype=torch.float64), torch.randn(6, 4, 3, 3, dtype=torch.float64).to(memory_format=torch.channels_last)
    assert_close(ours.conv2d(x, weight, torch.ones(6).double()), F.conv2d(x, weight, torch.ones(6).double()))
    with pytest.raises(RuntimeError): ours.conv2d(x, weight, torch.ones(1).double())         # one bias is not six


@settings(max_examples=150)
@given(st.tuples(*[st.integers(1, 9)]*2), st.tuples(*[st.integers(1, 4)]*2), st.none() | st.tuples(*[st.integers(1, 5)]*2),
       st.tuples(*[st.integers(0, 2)]*2), st.booleans(), st.booleans())
def test_pools_of_any_size(size, kernel, stride, padding, ceil_mode, batch):
    if any(2*p > k or s + 2*p < k for s, k, p in zip(size, kernel, padding)): return
    x = torch.randn(*[2]*batch, 3, *size, dtype=torch.float64, requires_grad=True)
    for name in ("avg_pool2d", "max_pool2d"):
        assert_same(*(lambda x, f=getattr(lib, name): f(x, kernel, stride, padding, ceil_mode=ceil_mode) for lib in (ours, F)), x)


def test_a_window_that_fits_only_over_the_edge():
    for name in ("avg_pool2d", "max_pool2d"):
        assert_same(*(lambda x, f=getattr(lib, name): f(x, 3, 2, ceil_mode=True) for lib in (ours, F)), torch.randn(1, 2, 2, requires_grad=True))


def test_ties_and_nan_in_max_pool():
    for args in ((2,), (3, 1, 1)): assert_same(lambda x: ours.max_pool2d(x, *args), lambda x: F.max_pool2d(x, *args), torch.zeros(1, 1, 4, 4, requires_grad=True))
    assert_same(lambda x: ours.max_pool2d(x, 2), lambda x: F.max_pool2d(x, 2), torch.tensor([[[1., nan], [3., 4.]]], requires_grad=True))


@pytest.mark.parametrize("inplace", [False, True])
@pytest.mark.parametrize("p", [0.0, 0.3, 1.0])
def test_dropout_drops_what_torch_drops(p, inplace):
    x, results = torch.randn(50, 20), []
    for f in (ours.dropout, F.dropout):
        torch.manual_seed(0)
        results.append(value_and_grads(lambda x: f(x*1, p, True, inplace), x.requires_grad_()))
    assert_close(*results)
    assert ours.dropout(x, p, training=False) is x and ours.dropout(x, 0.0) is x
    y = torch.tensor([inf, nan])
    assert ours.dropout(y, 1.0).tolist() == [0, 0]                              # a mask selects: inf times 0 would be nan
    if inplace: assert ours.dropout(y, p, inplace=True) is y


def test_momentum_of_one_step():
    "The share may be a tensor: nothing is read back, and float64 keeps its digits."
    x, results = torch.randn(8, 3, dtype=torch.float64), []
    for momentum in (1/3, 1/torch.tensor(3, dtype=torch.float64)):
        mean, var = torch.zeros(3, dtype=torch.float64), torch.ones(3, dtype=torch.float64)
        ours.batch_norm(x, mean, var, training=True, momentum=momentum)
        results.append((mean, var))
    assert_close(*results, rtol=1e-15, atol=0)


def test_nothing_is_read_back():
    def losses(device):
        z, w = torch.zeros(2, 4, 3, device=device, requires_grad=True), torch.ones(4, device=device)
        t, total = torch.zeros(2, 3, dtype=torch.int64, device=device), 0
        for weight, reduction, eps in product((None, w), ("mean", "sum", "none"), (0.0, 0.1)):
            total = total + ours.cross_entropy(z, t, weight, reduction=reduction, label_smoothing=eps) + ours.nll_loss(z, t, weight, reduction=reduction)
            total = total + ours.cross_entropy(z, z.detach(), weight, reduction=reduction, label_smoothing=eps)
        return total + ours.logsumexp(z, 1) + ours.mse_loss(z, z.detach())

    def images(device):
        x = torch.zeros(2, 4, 9, 9, device=device, requires_grad=True)
        x = ours.batch_norm(ours.conv2d(x, torch.zeros(4, 2, 3, 3, device=device), groups=2), None, None, training=True, momentum=torch.ones((), device=device))
        return ours.dropout(ours.max_pool2d(ours.avg_pool2d(x, 3, 2, ceil_mode=True), 2, 1))
    reads_nothing_back(losses), reads_nothing_back(images)


def test_arguments_are_left_as_they_were():
    z, y, w, q, x = torch.randn(3, 4), torch.tensor([1, -100, 2]), torch.rand(4), torch.rand(3, 4), torch.randn(2, 4, 5, 5)
    before = [t.clone() for t in (z, y, w, q, x)]
    ours.linear(z, q), ours.relu(z), ours.softmax(z, 1), ours.logsumexp(z, 1), ours.nll_loss(z, y, w), ours.cross_entropy(z, q, w), ours.mse_loss(z, q)
    ours.max_pool2d(x, 2, 1, 1), ours.avg_pool2d(x, 2), ours.dropout(x), ours.batch_norm(x, None, None, w, training=True)
    for old, new in zip(before, (z, y, w, q, x)): assert torch.equal(old, new)


# What is refused, and in which words

Z, Y, X = torch.zeros(3, 4), torch.tensor([0, 1, 2]), torch.zeros(2, 3, 8, 8)
BOTH = [
    (IndexError, "Target 4 is out of bounds", (Z, torch.tensor([0, 4, 9])), {}), (IndexError, "Target -1 is", (Z, torch.tensor([0, 1, -1])), {}),
    (IndexError, "Target -100 is", (Z, torch.tensor([-1, -100, 0])), dict(ignore_index=-1)), (IndexError, "Target 4 is", (torch.zeros(4), torch.tensor(4)), {}),
    (RuntimeError, "Long.* but got Float", (Z, Y.float()), {}), (RuntimeError, "Long.* but got Int", (Z, Y.int()), {}),
    (RuntimeError, "Long.* but got Bool", (Z, Y.bool()), {}), ((TypeError, AttributeError), "list", (Z, [0, 1, 2]), {}), (TypeError, "Tensor, not numpy.ndarray", (Z, Y.numpy()), {}),
    (ValueError, r"batch_size \(3\) to match target batch_size \(2\)", (Z, Y[:2]), {}),
    (RuntimeError, r"target size \[2, 5\], got \[2, 4\]", (torch.zeros(2, 4, 5), torch.zeros(2, 4).long()), {}),
    (RuntimeError, "multi-target not supported", (Z, Y[:, None]), {}), (RuntimeError, "multi-target not supported", (Z, Z.long()), {}), (RuntimeError, "4.*3", (Z, Y, torch.ones(3)), {}),
    *[(RuntimeError, "4.*1", (z, Y[:len(z)], torch.ones(1)), {}) for z in (Z, Z[:1])], (RuntimeError, "4, 1.*size 1|for all or no classes", (Z[..., None], Y[:, None], torch.ones(1)), {}),
    (ValueError, "avg is not a valid value for reduction", (Z, Y), dict(reduction="avg")), (ValueError, "None is not a valid value for reduction", (Z, Y, torch.ones(4)), dict(reduction=None)),
]
CASES = [(f, *case) for f in (ours.nll_loss, ours.cross_entropy) for case in BOTH] + [
    (ours.cross_entropy, ValueError, r"label_smoothing must be from 0 to 1, not 1\.1", (Z, Y), dict(label_smoothing=1.1)),
    (ours.cross_entropy, ValueError, "not nan", (Z, Z), dict(label_smoothing=nan)),
    *[(ours.cross_entropy, RuntimeError, "4.*1", (Z, t, torch.ones(1)), dict(label_smoothing=eps)) for t in (Y, Z) for eps in (0.0, 0.1)],
    (ours.cross_entropy, ValueError, "ignore_index=0 needs class indices", (Z, Z), dict(ignore_index=0)),
    (ours.cross_entropy, RuntimeError, "multi-target", (Z, Z[:, :3]), {}), (ours.nll_loss, RuntimeError, "multi-target", (Z, Z), {}),
    (ours.cross_entropy, (RuntimeError, NotImplementedError), "Long", (Z.long(), Y), {}),
    (ours.softmax, (RuntimeError, NotImplementedError), "Long", (Z.long(), 1), {}), (ours.softmax, IndexError, r"\[-2, 1\]", (Z, 2), {}),
    (ours.logsumexp, IndexError, r"\[-2, 1\]", (Z, -3), {}),
    (ours.linear, ValueError, r"\(out, in\).*\(2, 3\), \(3, 5\)", (torch.zeros(2, 3), torch.zeros(3, 5)), {}),
    (ours.linear, ValueError, r"\(3,\)\]$", (torch.zeros(2, 3), torch.zeros(5, 3), torch.zeros(3)), {}),
    (ours.linear, ValueError, r"\(5, 5\)\]$", (torch.zeros(5, 3), torch.zeros(5, 3), torch.zeros(5, 5)), {}),
    (ours.mse_loss, ValueError, r"same shape, not \(8, 1\) and \(8,\)", (torch.zeros(8, 1), torch.zeros(8)), {}),
    (ours.mse_loss, ValueError, "'average'", (Z, Z, "average"), {}),
    (ours.conv2d, ValueError, r"\(2, 3, 8, 8\) and \(1, 4, 3, 3\)", (X, torch.zeros(1, 4, 3, 3)), {}), (ours.conv2d, ValueError, "weight", (X, Z), {}), (ours.conv2d, ValueError, r"weight \(out_channels", (X, Z[:, :3]), {}),
    (ours.conv2d, ValueError, "in_channels/2", (X[:, :2], torch.zeros(3, 1, 3, 3)), dict(groups=2)), (ours.conv2d, ValueError, r"\(8, 8\)", (X[0, 0], torch.zeros(1, 3, 3, 3)), {}),
    (ours.conv2d, ValueError, "padding must be an int of at least 0, or two of them, not 'same'", (X, torch.zeros(1, 3, 3, 3), None, 1, "same"), {}),
    (ours.conv2d, ValueError, "stride must be an int of at least 1", (X, torch.zeros(1, 3, 3, 3), None, 0), {}),
    (ours.max_pool2d, ValueError, r"windows of \(9, 9\).*\(2, 3, 8, 8\)", (X, 9), {}), (ours.max_pool2d, ValueError, "padding 2", (X, 3, 1, 2), {}),
    (ours.avg_pool2d, ValueError, r"do not fit into input \(8, 8\), which must be", (X[0, 0], 2), {}), (ours.avg_pool2d, ValueError, "kernel_size.*not 2.5", (X, 2.5), {}),
    (ours.max_pool2d, ValueError, r"kernel_size.*not \(2, 2.5\)", (X, (2, 2.5)), {}), (ours.max_pool2d, ValueError, r"not \(2,\)", (X, (2,)), {}),
    (ours.dropout, ValueError, "p must be a probability between 0 and 1, not 1.5", (X, 1.5), {}),
    (ours.batch_norm, ValueError, r"more than one value a channel; input has shape \(1, 4\)", (Z[:1], None, None), dict(training=True)),
    (ours.batch_norm, ValueError, "running statistics", (Z, None, None), {}),
    (ours.batch_norm, ValueError, "running statistics", (Z, torch.zeros(Z.shape[1]), None), {}),
    (ours.batch_norm, ValueError, "running statistics", (Z, None, torch.ones(Z.shape[1])), {}),
]


@pytest.mark.parametrize("f, error, words, args, options", CASES)
def test_refused_by_one_clear_sentence(f, error, words, args, options):
    with pytest.raises(error, match=words) as caught: f(*args, **options)
    assert caught.value.__suppress_context__ or caught.value.__context__ is None     # one error, not two


def test_numbers_of_numpy_are_sizes():
    assert ours.max_pool2d(X, np.int64(2), np.uint8(2)).shape == (2, 3, 4, 4)
    assert ours.avg_pool2d(X, (np.uint8(3), 2), padding=np.uint8(1)).shape == (2, 3, 3, 5)


def test_a_target_on_another_device_is_named_as_that():
    for devices in (("cpu", "meta"), ("meta", "cpu")):
        scores, target = torch.zeros(2, 3, device=devices[0]), torch.zeros(2, dtype=torch.int64, device=devices[1])
        with pytest.raises((RuntimeError, NotImplementedError), match="device|meta"): ours.nll_loss(scores, target)


def test_what_is_not_built_is_torchs():
    from fdl.functional import one_hot
    assert one_hot is F.one_hot and ours.gelu is F.gelu and "gelu" not in dir(ours) and "gelu" not in ours.__all__
    for name in ("no_such_thing", "_verify_batch_size", "__path__"):
        with pytest.raises(AttributeError, match=f"'fdl.functional' has no attribute '{name}'"): getattr(ours, name)


@pytest.mark.parametrize("mine, torchs", [(getattr(lib, name), getattr(other, name)) for lib, other in ((ours, F), (fdl.nn, torch.nn)) for name in lib.__all__
                                          if hasattr(other, name) and name != "ModuleList"], ids=lambda x: f"{x.__module__}.{x.__name__}")
def test_defaults_are_torchs(mine, torchs):
    assert_same_defaults(mine, torchs)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_batch_norm_computes_in_float32_and_returns_what_came(dtype):
    x = torch.randn(50, 3, generator=seeded()).to(dtype)
    found = ours.batch_norm(x, None, None, training=True)
    assert found.dtype == dtype
    assert_close(found, ours.batch_norm(x.float(), None, None, training=True).to(dtype), rtol=0, atol=0)
