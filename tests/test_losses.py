"""Corners of lesson 05's `softmax`, `logsumexp`, `log_softmax`, `nll_loss` and `cross_entropy`: torch's own samples, infinities,
every mix of options, second derivatives, what is read back from a device, and what each error says."""
import warnings
from itertools import product

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings, strategies as st
from torch.testing import assert_close
from torch.testing._internal.common_methods_invocations import op_db

from fdl.functional import cross_entropy, log_softmax, logsumexp, nll_loss, softmax

inf, nan = float("inf"), float("nan")
OURS = {"softmax": softmax, "log_softmax": log_softmax, "logsumexp": logsumexp,
        "nn.functional.nll_loss": nll_loss, "nn.functional.cross_entropy": cross_entropy}
OPS = [op for op in op_db if op.name in OURS]
WIDER = {torch.bfloat16: torch.float64, torch.float16: torch.float64, torch.complex64: torch.complex128}


def value_and_grads(out, leaves):
    "`out` and its gradients along `leaves`, for one upstream gradient that every dtype can hold exactly."
    if not (out.requires_grad and leaves): return out.detach(),
    up = torch.arange(out.numel()).remainder(5).sub(1).reshape(out.shape).to(out.dtype)
    return out.detach(), *torch.autograd.grad(out, leaves, up)


def run(f, sample, dtype):
    "`f` on PyTorch's sample with its floating or complex tensors as `dtype`, and the gradients along those that want one."
    def convert(t):
        if not isinstance(t, torch.Tensor) or not (t.is_floating_point() or t.is_complex()): return t
        return t.detach().to(dtype).requires_grad_(t.requires_grad)
    input, args, kwargs = convert(sample.input), [convert(a) for a in sample.args], {k: convert(v) for k, v in sample.kwargs.items()}
    leaves = [t for t in (input, *args, *kwargs.values()) if isinstance(t, torch.Tensor) and t.requires_grad]
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Casting complex values to real")
        return value_and_grads(f(input, *args, **kwargs), leaves)


def test_every_op_is_there(): assert {op.name for op in OPS} == set(OURS) and len(OPS) == 7


@pytest.mark.parametrize("op,dtype", [(op, dtype) for op in OPS for dtype in sorted(op.supported_dtypes("cpu"), key=str)],
                         ids=lambda v: str(v)[6:] if isinstance(v, torch.dtype) else f"{v.name}-{v.variant_test_name}".strip("-"))
def test_pytorchs_own_samples(op, dtype):
    "In narrow dtypes the truth is torch in a wide one, rounded; torch itself may be farther away than that, we may not."
    differentiable, count = dtype in op.supported_backward_dtypes("cpu"), 0
    for sample in op.sample_inputs("cpu", dtype, requires_grad=differentiable):
        got, count = run(OURS[op.name], sample, dtype), count + 1
        if dtype not in WIDER: want = run(op.op, sample, dtype)
        else: want = [t.to(g.dtype) for g, t in zip(got, run(op.op, sample, WIDER[dtype]), strict=True)]
        assert len(got) == len(want) and (len(got) > 1) == differentiable
        for g, w in zip(got, want): assert_close(g, w, equal_nan=True)
        assert got[0].dtype == run(op.op, sample, dtype)[0].dtype
    assert count >= 5


def agree(ours, theirs, *inputs, **options):
    "The same value and the same gradients as torch's, along every floating input."
    results = []
    for f in (ours, theirs):
        copies = [t.detach().clone().requires_grad_(t.is_floating_point()) for t in inputs]
        results.append(value_and_grads(f(*copies, **options), [t for t in copies if t.requires_grad]))
    for got, want in zip(*results, strict=True): assert_close(got, want, equal_nan=True)


ROWS = torch.tensor([[-inf, -inf, -inf], [inf, 1, 0], [inf, inf, 0], [inf, -inf, 0], [-inf, 0, 1], [-inf, -inf, 2], [nan, 0, 1],
                     [inf, nan, -inf], [1000, -1000, 0], [3e38, -3e38, 0], [1e-30, -1e-30, 0], [1e8, 1e8, 1e8 + 8], [88.8, 89, 90],
                     [-104, -105, -200], [-3e38, -3e38, -3e38], [1e-45, 0, -1e-45]])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("row", range(len(ROWS)), ids=lambda i: str(ROWS[i].tolist()))
def test_extreme_rows(row, dtype):
    z = torch.stack([ROWS[row], torch.tensor([0.5, -1, 2])]).to(dtype)
    for dim in (0, 1):
        agree(lambda z: softmax(z, dim), lambda z: torch.softmax(z, dim), z)
        agree(lambda z: log_softmax(z, dim), lambda z: torch.log_softmax(z, dim), z)
    for dim in (0, 1, (0, 1)):
        assert_close(logsumexp(z, dim), torch.logsumexp(z, dim), equal_nan=True)
        if z[0].abs().nan_to_num(inf).amax() in (inf, 1000): agree(lambda z: logsumexp(z, dim), lambda z: torch.logsumexp(z, dim), z)
    for y, reduction, (eps, weight) in product((0, 2, -100), ("mean", "none"), ((0.0, None), (0.1, torch.tensor([0.5, 2, 1]).to(dtype)))):
        t, options = torch.tensor([y, 1]), dict(reduction=reduction, weight=weight)
        agree(lambda z: cross_entropy(z, t, label_smoothing=eps, **options), lambda z: F.cross_entropy(z, t, label_smoothing=eps, **options), z)
        agree(lambda z: nll_loss(z, t, **options), lambda z: F.nll_loss(z, t, **options), z)
        q = torch.tensor([[0.2, 0.8, 0], [0, 0, 1]]).to(dtype)
        agree(lambda z: cross_entropy(z, q, label_smoothing=eps, **options), lambda z: F.cross_entropy(z, q, label_smoothing=eps, **options), z)


@pytest.mark.parametrize("size", [0.0, 100.0, 1e4, 1e8, 3e38])
def test_slope_of_logsumexp_is_softmax_at_any_size(size):
    """torch takes exp(input - result), and the result has been rounded: for scores of 1e8 its slopes add up to 3, not 1."""
    z = torch.tensor([[size] * 3, [-size] * 3], requires_grad=True)
    slope, = torch.autograd.grad(logsumexp(z, 1).sum(), z)
    assert_close(slope, torch.full((2, 3), 1 / 3))


SHAPES = [(5,), (1,), (4, 5), (1, 1), (0, 3), (3, 4, 5), (3, 4, 0), (2, 3, 2, 4), (2, 3, 1, 2, 2)]


@settings(max_examples=300, deadline=None)
@given(shape=st.sampled_from(SHAPES), seed=st.integers(0, 2**31), dtype=st.sampled_from([torch.float32, torch.float64]),
       scale=st.sampled_from([1e-3, 1.0, 30.0, 1e4]), weighted=st.booleans(), reduction=st.sampled_from(["mean", "sum", "none"]),
       ignore=st.sampled_from([-100, -1, 0, 2]), skipped=st.sampled_from([0.0, 0.3, 1.0]), eps=st.sampled_from([0.0, 0.1, 1.0]))
def test_every_option(shape, seed, dtype, scale, weighted, reduction, ignore, skipped, eps):
    g = torch.Generator().manual_seed(seed)
    dim = min(1, len(shape) - 1)
    c, rest = shape[dim], shape[:dim] + shape[dim + 1:]
    z = torch.randn(shape, generator=g, dtype=dtype) * scale
    w = torch.rand(c, generator=g, dtype=dtype) + 0.1 if weighted else None
    t = torch.where(torch.rand(rest, generator=g) < skipped, ignore, torch.randint(c, rest, generator=g))
    options = dict(weight=w, reduction=reduction)
    log_probs = -z.abs()  # of one sign: a sum that cancels would show how each library rounds
    agree(lambda z: nll_loss(z, t, ignore_index=ignore, **options), lambda z: F.nll_loss(z, t, ignore_index=ignore, **options), log_probs)
    agree(lambda z: cross_entropy(z, t, ignore_index=ignore, label_smoothing=eps, **options),
          lambda z: F.cross_entropy(z, t, ignore_index=ignore, label_smoothing=eps, **options), z)
    q = torch.rand(shape, generator=g, dtype=dtype)
    inputs = (z, q, w) if weighted else (z, q)                       # probabilities and weights have gradients too
    agree(lambda z, q, w=None: cross_entropy(z, q, w, reduction=reduction, label_smoothing=eps),
          lambda z, q, w=None: F.cross_entropy(z, q, w, reduction=reduction, label_smoothing=eps), *inputs)


@settings(max_examples=100, deadline=None)
@given(shape=st.sampled_from([(), *SHAPES]), seed=st.integers(0, 2**31), scale=st.sampled_from([1e-3, 1.0, 1e4]), data=st.data())
def test_every_dimension(shape, seed, scale, data):
    z = torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) * scale  # torch's own slopes are rough in float32
    dim = data.draw(st.integers(-max(1, len(shape)), max(1, len(shape)) - 1))
    dims = data.draw(st.lists(st.sampled_from(range(max(1, len(shape)))), unique=True, min_size=1))
    agree(lambda z: softmax(z, dim), lambda z: torch.softmax(z, dim), z)
    agree(lambda z: log_softmax(z, dim), lambda z: torch.log_softmax(z, dim), z)
    for d, keep in product((dim, tuple(dims), dims), (False, True)):
        agree(lambda z: logsumexp(z, d, keep), lambda z: torch.logsumexp(z, d, keep), z)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_narrow_floats_are_rounded_once(dtype):
    "The result is the nearest number of the dtype, or its neighbour; sums of 20,000 neither stall nor overflow."
    for n in (10, 20_000):
        z = torch.randn(4, n, generator=torch.Generator().manual_seed(0)).to(dtype)
        t = torch.tensor([1, 2, 3, 4])
        for f in (lambda z: softmax(z, 1), lambda z: log_softmax(z, 1), lambda z: logsumexp(z, 1), lambda z: cross_entropy(z, t),
                  lambda z: nll_loss(z, t), lambda z: cross_entropy(z, softmax(z, 1), label_smoothing=0.1)):
            assert_close(f(z), f(z.double()).to(dtype), rtol=torch.finfo(dtype).eps, atol=1e-7)


def test_dtypes_and_other_layouts():
    z, y = torch.randn(6, 4), torch.tensor([0, 1, 2, 3, 0, 1])
    for f, theirs in ((cross_entropy, F.cross_entropy), (nll_loss, F.nll_loss)):
        assert_close(f(z, y.byte()), theirs(z, y))
        assert_close(f(z.T.contiguous().T, y), theirs(z, y))
        assert_close(f(z[:1].expand(6, 4), y), theirs(z[:1].expand(6, 4), y))
        assert f(z, y, torch.rand(4).double()).dtype == torch.float32
    for a, b in product((torch.float32, torch.float64, torch.bfloat16), repeat=2):
        q = softmax(z, 1).to(b)
        assert cross_entropy(z.to(a), q).dtype == F.cross_entropy(z.to(a), q).dtype
    with pytest.raises(IndexError, match=r"target\[0\] is 156"):      # 156 as a byte is -100, and yet not to be ignored
        cross_entropy(z, torch.full((6,), 156, dtype=torch.uint8))
    assert_close(softmax(torch.ones(4, dtype=torch.uint8), 0, torch.float32), torch.full((4,), 0.25))


def test_arguments_are_left_as_they_were():
    z, y, w, q = torch.randn(3, 4), torch.tensor([1, -100, 2]), torch.rand(4), torch.rand(3, 4)
    before = [t.clone() for t in (z, y, w, q)]
    softmax(z, 1), log_softmax(z, 1), logsumexp(z, 1), nll_loss(z, y, w), cross_entropy(z, y, w, label_smoothing=0.1), cross_entropy(z, q, w)
    for old, new in zip(before, (z, y, w, q)): assert torch.equal(old, new)


def test_backward_twice_gives_the_same():
    z = torch.randn(3, 4, requires_grad=True)
    loss = cross_entropy(z, torch.tensor([1, 0, 2]))
    first, = torch.autograd.grad(loss, z, retain_graph=True)
    kept = first.clone()
    second, = torch.autograd.grad(loss, z)
    assert torch.equal(kept, second)


@pytest.mark.parametrize("reduction,weighted,eps", list(product(["mean", "sum", "none"], [False, True], [0.0, 0.2])))
def test_second_derivatives(reduction, weighted, eps):
    torch.manual_seed(0)
    z, t = torch.randn(3, 4, 2, dtype=torch.float64, requires_grad=True), torch.tensor([[0, 3], [-100, 1], [2, 2]])
    q = torch.rand(3, 4, 2, dtype=torch.float64, requires_grad=True)
    w = torch.rand(4, dtype=torch.float64) if weighted else None
    options = dict(weight=w, reduction=reduction, label_smoothing=eps)
    for check in (torch.autograd.gradcheck, torch.autograd.gradgradcheck):
        check(lambda z: cross_entropy(z, t, **options), z)
        check(lambda z, q: cross_entropy(z, q, **options), (z, q))
        check(lambda z: nll_loss(log_softmax(z, 1), t, w, reduction=reduction), z)
        check(lambda z: softmax(z, 1) + logsumexp(z, 1, keepdim=True), z)


def test_weights_of_class_indices_have_gradients_too():
    "torch refuses these; ours follow from the formula."
    z, t, w = torch.randn(4, 3, dtype=torch.float64), torch.tensor([0, 1, 1, -100]), torch.rand(3, dtype=torch.float64, requires_grad=True)
    torch.autograd.gradcheck(lambda w: cross_entropy(z, t, w, label_smoothing=0.1), w)
    torch.autograd.gradcheck(lambda w: nll_loss(z, t, w), w)


@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated")
def test_what_is_not_supported_says_so():
    z, t = torch.randn(3, 4), torch.tensor([0, 1, 2])
    with pytest.raises(RuntimeError, match="setup_context"): torch.func.grad(cross_entropy)(z, t)
    with pytest.raises(RuntimeError, match="jvp"), torch.autograd.forward_ad.dual_level():
        cross_entropy(torch.autograd.forward_ad.make_dual(z, z), t)
    plain = lambda z, t: nll_loss(log_softmax(z, 1), t)
    assert_close(torch.func.grad(plain)(z, t), torch.func.grad(F.cross_entropy)(z, t))
    assert_close(torch.func.jvp(lambda z: plain(z, t), (z,), (z,)), torch.func.jvp(lambda z: F.cross_entropy(z, t), (z,), (z,)))


@pytest.mark.parametrize("shape", [(4,), (2, 4), (2, 4, 3)], ids=str)
def test_no_value_is_read_back_from_the_device(shape):
    "Tensors on the device `meta` have no values: whoever asks for one gets an error."
    dim = min(1, len(shape) - 1)
    z, w = torch.zeros(shape, device="meta", requires_grad=True), torch.ones(4, device="meta")
    t = torch.zeros(shape[:dim] + shape[dim + 1:], dtype=torch.int64, device="meta")
    with pytest.raises((RuntimeError, NotImplementedError)): t.sum().item()
    for weight, reduction, eps in product((None, w), ("mean", "sum", "none"), (0.0, 0.1)):
        cross_entropy(z, t, weight, reduction=reduction, label_smoothing=eps).sum().backward()
        cross_entropy(z, torch.zeros_like(z), weight, reduction=reduction, label_smoothing=eps).sum().backward()
        nll_loss(z, t, weight, reduction=reduction).sum().backward()
    (softmax(z, dim) + log_softmax(z, dim) + logsumexp(z, dim, keepdim=True)).sum().backward()
    assert z.grad.shape == z.shape


def test_a_target_on_another_device_is_named_as_that():
    "The error of `gather` passes through when every index is a class."
    with pytest.raises((RuntimeError, NotImplementedError)) as caught: nll_loss(torch.zeros(2, 3), torch.zeros(2, dtype=torch.int64, device="meta"))
    assert "target[" not in str(caught.value)


Z, Y = torch.zeros(3, 4), torch.tensor([0, 1, 2])
BAD = {  # error, part of the message, arguments, options
    "above": (IndexError, r"^target\[1\] is 4, but the 4 classes of input are 0 to 3$", (Z, torch.tensor([0, 4, 9])), {}),
    "below": (IndexError, r"^target\[2\] is -1, but the 4 classes of input are 0 to 3$", (Z, torch.tensor([0, 1, -1])), {}),
    "not the ignored one": (IndexError, r"^target\[1\] is -100,", (Z, torch.tensor([-1, -100, 0])), dict(ignore_index=-1)),
    "place": (IndexError, r"^target\[1, 0\] is 7,", (torch.zeros(2, 4, 2), torch.tensor([[0, 1], [7, 0]])), {}),
    "no batch": (IndexError, r"^target is 4,", (torch.zeros(4), torch.tensor(4)), {}),
    "no batch, one target": (ValueError, r"^target must have shape \(\) for input of shape \(4,\), not \(1,\)$", (torch.zeros(4), torch.tensor([1])), {}),
    "float": (TypeError, "^target must hold class indices .torch.int64.*, not torch.float32$", (Z, Y.float()), {}),
    "int32": (TypeError, "^target must hold .*, not torch.int32$", (Z, Y.int()), {}),
    "bool": (TypeError, "^target must hold .*, not torch.bool$", (Z, Y.bool()), {}),
    "complex": (TypeError, "^target must hold .*, not torch.complex64$", (Z, Z.to(torch.complex64)), {}),
    "list": (TypeError, "^target must hold .*, not <class 'list'>$", (Z, [0, 1, 2]), {}),
    "array": (TypeError, "^target must hold .*, not int64$", (Z, Y.numpy()), {}),
    "batch": (ValueError, r"^target must have shape \(3,\) for input of shape \(3, 4\), not \(2,\)$", (Z, Y[:2]), {}),
    "column": (ValueError, r"^target must have shape \(3,\) .* not \(3, 1\)$", (Z, Y[:, None]), {}),
    "one-hot of ints": (ValueError, r"^target must have shape \(3,\) .* not \(3, 4\)$", (Z, Z.long()), {}),
    "pixels": (ValueError, r"^target must have shape \(2, 5\) for input of shape \(2, 4, 5\), not \(2, 4\)$", (torch.zeros(2, 4, 5), torch.zeros(2, 4).long()), {}),
    "weight": (ValueError, r"^weight must have shape \(4,\), a number for each class, not \(3,\)$", (Z, Y, torch.ones(3)), {}),
    "weight row": (ValueError, r"^weight must have shape \(4,\), .* not \(1, 4\)$", (Z, Y, torch.ones(1, 4)), {}),
    "weight list": (ValueError, r"^weight must .* not <class 'list'>$", (Z, Y, [1.0] * 4), {}),
    "reduction": (ValueError, "^reduction must be 'mean', 'sum' or 'none', not 'avg'$", (Z, Y), dict(reduction="avg")),
    "reduction None": (ValueError, "^reduction must be .*, not None$", (Z, Y), dict(reduction=None)),
    "ignore_index": (TypeError, r"^ignore_index must be an int, not 2\.0$", (Z, Y), dict(ignore_index=2.0)),
    "ignore_index bool": (TypeError, "^ignore_index must be an int, not True$", (Z, Y), dict(ignore_index=True)),
    "number": (ValueError, r"^input must have shape \(C,\), \(N, C\) or \(N, C, d1, ...\) with C > 0 classes, not \(\)$", (torch.tensor(1.0), torch.tensor(0)), {}),
    "no class": (ValueError, r"^input must have shape .* not \(3, 0\)$", (torch.zeros(3, 0), Y), {}),
    "ints": (TypeError, "^input must have a floating dtype, not torch.int64$", (Z.long(), Y), {}),
}
SOFT = {
    "smoothing above": (ValueError, r"^label_smoothing must be from 0 to 1, not 1\.1$", (Z, Y), dict(label_smoothing=1.1)),
    "smoothing below": (ValueError, r"^label_smoothing must be from 0 to 1, not -0\.1$", (Z, Z), dict(label_smoothing=-0.1)),
    "smoothing nan": (ValueError, "^label_smoothing must be from 0 to 1, not nan$", (Z, Y), dict(label_smoothing=nan)),
    "ignore probabilities": (ValueError, "^ignore_index=0 needs class indices, but target is torch.float32$", (Z, Z), dict(ignore_index=0)),
    "probabilities of another shape": (TypeError, "^target must hold .* or probabilities in the shape of input, not torch.float32$", (Z, Z[:, :3]), {}),
}


@pytest.mark.parametrize("f,case", [(f, case) for f in (nll_loss, cross_entropy) for case in BAD] + [(cross_entropy, case) for case in SOFT])
def test_errors_name_the_argument(f, case):
    error, message, args, options = (BAD | SOFT)[case]
    with pytest.raises(error, match=message) as caught: f(*args, **options)
    assert caught.value.__suppress_context__ or caught.value.__context__ is None     # one error, not two


def test_nll_loss_wants_indices():
    with pytest.raises(TypeError, match="^target must hold class indices .torch.int64., not torch.float32$"): nll_loss(Z, Z)


@pytest.mark.parametrize("f", [softmax, log_softmax])
def test_softmax_errors(f):
    for dim in ((0, 1), None, True, 0.0, "0"):
        with pytest.raises(TypeError, match="dim must be one int"): f(Z, dim)
    for dim in (2, -3):
        with pytest.raises(IndexError, match=r"\[-2, 1\]"): f(Z, dim)
        with pytest.raises(IndexError): f(torch.zeros(0, 3), dim)
    for dtype in (torch.int64, torch.bool, torch.complex64):
        with pytest.raises(TypeError, match=f"floating dtype, not {dtype}"): f(Z.to(dtype), 0)
        with pytest.raises(TypeError, match=f"floating dtype, not {dtype}"): f(Z, 0, dtype=dtype)


@pytest.mark.parametrize("input", [Z, torch.zeros(0, 3)], ids=["full", "empty"])
def test_logsumexp_errors(input):
    for dim in (None, (), [], True, 0.0):
        with pytest.raises(TypeError, match="dim"): logsumexp(input, dim)
    # Up to torch 2.11 a string is the name of a dimension, which may be looked for.
    with pytest.raises((TypeError, RuntimeError), match="dim|name"): logsumexp(input, "0")
    for dim in (2, -3, (0, 2)):
        with pytest.raises(IndexError, match=r"\[-2, 1\]"): logsumexp(input, dim)
    for dim in ((0, 0), (0, -2)):
        with pytest.raises(RuntimeError, match="multiple times"): logsumexp(input, dim)
