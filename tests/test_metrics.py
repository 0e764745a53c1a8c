"""Corners of `accuracy` and `report` that would be tedious to read in lesson 06."""

import math
from fractions import Fraction
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from fdl.metrics import Report, accuracy, report

DTYPES = [torch.float32, torch.float64, torch.bfloat16, torch.float16]


def data(n, c=5, seed=0, dtype=torch.float32):
    g = torch.Generator().manual_seed(seed)
    return torch.randn(n, c, generator=g, dtype=torch.float64).to(dtype), torch.randint(c, (n,), generator=g)


@pytest.mark.parametrize("dtype", [*DTYPES, torch.int64], ids=str)
def test_accuracy_is_a_0d_float32_tensor_without_graph(dtype):
    scores, target = data(40)
    got = accuracy((100*scores).to(dtype).requires_grad_(dtype.is_floating_point), target)
    assert got.dtype == torch.float32 and got.shape == () and not got.requires_grad


@settings(deadline=None, max_examples=50)
@given(n=st.integers(1, 30), c=st.integers(1, 6), inner=st.lists(st.integers(1, 3), max_size=3), seed=st.integers(0, 99))
def test_accuracy_counts_rows_as_python_does(n, c, inner, seed):
    g = torch.Generator().manual_seed(seed)
    scores, target = torch.randn(n, c, *inner, generator=g), torch.randint(c, (n, *inner), generator=g)
    rows = scores.movedim(1, -1).reshape(-1, c).tolist()
    hits = sum(max(range(c), key=row.__getitem__) == t for row, t in zip(rows, target.flatten().tolist(), strict=True))
    assert accuracy(scores, target).item() == pytest.approx(hits/target.numel())


def test_accuracy_extremes_and_ties():
    scores, target = torch.eye(4), torch.arange(4)
    assert accuracy(scores, target) == 1 and accuracy(-scores, target) == 0
    assert accuracy(torch.zeros(4, 4), target) == 0.25                     # of equal scores the first counts
    assert accuracy(torch.full((4, 4), math.nan), target) == 0.25
    assert accuracy(torch.tensor([[-math.inf, 0.], [math.inf, 0.]]), torch.tensor([1, 0])) == 1
    assert accuracy(scores, target.to(torch.uint8)) == 1


def test_accuracy_stays_on_its_device():
    assert accuracy(torch.zeros(3, 2, device="meta"), torch.zeros(3, dtype=torch.int64, device="meta")).device.type == "meta"


@pytest.mark.parametrize("input, target", [((4, 10), (4, 1)), ((4, 10), (1,)), ((4, 10), ()), ((4, 10), (4, 10)), ((10, 4), (4,)),
                                           ((4,), (4,)), ((4,), ()), ((), ()), ((4, 10, 2), (4,)), ((4, 10, 2), (4, 3))])
def test_accuracy_names_both_shapes(input, target):
    with pytest.raises(ValueError) as e: accuracy(torch.zeros(input), torch.zeros(target, dtype=torch.int64))
    assert f"input has shape {input} and target {target}" in str(e.value)


@pytest.mark.parametrize("shape", [(0, 10), (0, 10, 3), (3, 10, 0)])
def test_accuracy_of_nothing_is_refused(shape):
    with pytest.raises(ValueError, match="one row or more"):
        accuracy(torch.zeros(shape), torch.zeros(shape[:1] + shape[2:], dtype=torch.int64))


@settings(deadline=None, max_examples=60)
@given(n=st.integers(1, 60), batch_size=st.integers(1, 70), seed=st.integers(0, 99))
def test_report_does_not_depend_on_the_batch_size(n, batch_size, seed):
    x, y = data(n, seed=seed, dtype=torch.float64)
    got = report(lambda xb: 2*xb, F.cross_entropy, x, y, batch_size)
    assert got.loss == pytest.approx(F.cross_entropy(2*x, y).item(), rel=1e-12)
    assert got.accuracy == pytest.approx(float(Fraction(int((x.argmax(1) == y).sum()), n)), abs=1e-7)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_report_of_every_dtype_is_two_floats(dtype):
    x, y = data(50, dtype=dtype)
    got = report(lambda xb: xb, F.cross_entropy, x, y, 7)
    assert isinstance(got, Report) and [type(v) for v in got] == [float, float]
    assert got.loss == pytest.approx(F.cross_entropy(x.double(), y).item(), rel=2e-2 if dtype in DTYPES[2:] else 1e-6)


def test_report_of_images_with_positions():
    g = torch.Generator().manual_seed(0)
    x, y = torch.randn(11, 3, 4, 5, generator=g), torch.randint(3, (11, 4, 5), generator=g)
    got = report(lambda xb: xb, F.cross_entropy, x, y, 4)
    assert got == pytest.approx((F.cross_entropy(x, y).item(), accuracy(x, y).item()), rel=1e-6)


def test_report_adds_in_float64():
    x, y = torch.zeros(3000, 2), torch.zeros(3000, dtype=torch.int64)
    losses = iter([1e8] + [1.0]*2999)                                      # in float32, 1e8 + 1 is 1e8
    assert report(lambda xb: xb, lambda p, t: torch.tensor(next(losses)), x, y, 1).loss == pytest.approx((1e8 + 2999)/3000, rel=1e-12)


def test_report_makes_no_graph_and_leaves_grad_mode_alone():
    w = torch.ones(5, requires_grad=True)
    modes = []

    def model(xb):
        modes.append(torch.is_grad_enabled())
        return xb*w

    x, y = data(25)
    report(model, F.cross_entropy, x, y, 10)
    assert modes == [False]*3 and torch.is_grad_enabled() and w.grad is None
    with pytest.raises(ZeroDivisionError): report(lambda xb: 1/0, F.cross_entropy, x, y)
    assert torch.is_grad_enabled()


def test_report_shows_a_loss_that_is_nan():
    x, y = data(30)
    x[-1] = math.nan
    assert math.isnan(report(lambda xb: xb, F.cross_entropy, x, y, 10).loss)


def test_report_unpacks_and_prints_short():
    loss, share = report(lambda xb: xb, F.cross_entropy, *data(30))
    assert f"{Report(loss, share)}" == f"Report(loss={loss:.4f}, accuracy={share:.4f})"


def test_report_refuses_what_makes_no_sense():
    x, y = data(30)
    whole = partial(report, lambda xb: xb, F.cross_entropy)
    with pytest.raises(ValueError, match="x and y must .* not 30 and 29"): whole(x, y[1:])
    with pytest.raises(ValueError, match="x and y must .* not 0 and 0"): whole(x[:0], y[:0])
    for size in (0, -1):
        with pytest.raises(ValueError, match=f"batch_size must be 1 or more, not {size}"): whole(x, y, size)
    with pytest.raises(ValueError, match=r"loss_func must .* not shape \(30,\)"):
        report(lambda xb: xb, partial(F.cross_entropy, reduction="none"), x, y)
