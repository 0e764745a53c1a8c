"fdl.metrics: accuracy counts as Python counts, and a report is that of the whole set."
import math

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


@settings(max_examples=50)
@given(n=st.integers(1, 30), c=st.integers(1, 6), inner=st.lists(st.integers(1, 3), max_size=3), seed=st.integers(0, 99), ignored=st.sampled_from([-100, 0]))
def test_accuracy_counts_as_python_does(n, c, inner, seed, ignored):
    g = torch.Generator().manual_seed(seed)
    scores, target = torch.randn(n, c, *inner, generator=g), torch.randint(c, (n, *inner), generator=g)
    target = torch.where(torch.rand(target.shape, generator=g) < 0.3, ignored, target)
    rows = scores.movedim(1, -1).reshape(-1, c).tolist()
    hits = [max(range(c), key=row.__getitem__) == t for row, t in zip(rows, target.flatten().tolist(), strict=True) if t != ignored]
    got = accuracy(scores, target, *[ignored]*(ignored != -100))
    assert got.dtype == torch.float32 and got.shape == ()
    assert got.item() == pytest.approx(sum(hits)/len(hits)) if hits else got.isnan()


def test_accuracy_extremes_ties_and_types():
    scores, target = torch.eye(4), torch.arange(4)
    assert accuracy(scores, target) == 1 and accuracy(-scores, target) == 0
    assert accuracy(torch.zeros(4, 4), target) == 0.25                     # of equal scores the first counts
    assert accuracy(torch.full((4, 4), math.nan), target) == 0.25
    assert accuracy(torch.tensor([[-math.inf, 0.], [math.inf, 0.]]), torch.tensor([1, 0])) == 1
    assert accuracy(scores, target.byte()) == accuracy(scores.long(), target) == 1
    assert accuracy(scores, torch.tensor([0, 1, -100, -100])) == 1
    assert accuracy(torch.eye(200), torch.arange(200).byte()) == 1         # 156 as a byte is -100, and yet counts
    assert not accuracy(scores.requires_grad_(), target).requires_grad
    assert accuracy(torch.zeros(3, 2, device="meta"), torch.zeros(3, dtype=torch.int64, device="meta")).is_meta


@pytest.mark.parametrize("input, target", [((4, 10), (4, 1)), ((4, 10), ()), ((4, 10), (4, 10)), ((10, 4), (4,)), ((4,), (4,)), ((), ()),
                                           ((4, 10, 2), (4,)), ((4, 10, 2), (4, 3)), ((0, 10), (0,)), ((3, 10, 0), (3, 0))])
def test_accuracy_names_both_shapes(input, target):
    with pytest.raises(ValueError) as e: accuracy(torch.zeros(input), torch.zeros(target, dtype=torch.int64))
    assert f"one row or more, not {input} and {target}" in str(e.value)


@settings(max_examples=40)
@given(n=st.integers(1, 60), batch_size=st.integers(1, 70), seed=st.integers(0, 99), ignored=st.booleans(), weighted=st.booleans())
def test_a_report_does_not_depend_on_the_batch_size(n, batch_size, seed, ignored, weighted):
    "Not even where a batch weighs less than its rows: with ignored targets, or classes with weights."
    x, y = data(n, seed=seed, dtype=torch.float64)
    if ignored: y[1::2] = -100
    weight = torch.rand(5, dtype=torch.float64) + 0.1 if weighted else None
    got = report(lambda xb: 2*xb, lambda p, t: F.cross_entropy(p, t, weight), x, y, batch_size)
    assert got.loss == pytest.approx(F.cross_entropy(2*x, y, weight).item(), rel=1e-12)
    assert got.accuracy == pytest.approx(accuracy(x, y).item())


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_a_report_is_two_floats(dtype):
    x, y = data(50, dtype=dtype)
    got = report(lambda xb: xb, F.cross_entropy, x, y, 7)
    assert isinstance(got, Report) and [type(v) for v in got] == [float, float]
    assert got.loss == pytest.approx(F.cross_entropy(x.double(), y).item(), rel=2e-2 if dtype in DTYPES[2:] else 1e-6)
    assert f"{got}" == f"Report(loss={got.loss:.4f}, accuracy={got.accuracy:.4f})"


def test_a_report_makes_no_graph_and_leaves_grad_mode_alone():
    w, modes, (x, y) = torch.ones(5, requires_grad=True), [], data(25)

    def model(xb):
        modes.append(torch.is_grad_enabled())
        return xb*w

    report(model, F.cross_entropy, x, y, 10)
    assert modes == [False]*3 and torch.is_grad_enabled() and w.grad is None
    with pytest.raises(ZeroDivisionError): report(lambda xb: 1/0, F.cross_entropy, x, y)
    assert torch.is_grad_enabled()


def test_a_report_shows_nan_and_refuses_what_does_not_fit():
    x, y = data(30)
    for bad in (y[1:], y[:0]):
        with pytest.raises(ValueError): report(lambda xb: xb, F.cross_entropy, x, bad)
    with pytest.raises(ValueError, match="one row or more"): report(lambda xb: xb, F.cross_entropy, x[:0], y[:0])
    with pytest.raises(RuntimeError, match="30 elements"): report(lambda xb: xb, lambda p, t: F.cross_entropy(p, t, reduction="none"), x, y)
    x[-1] = math.nan
    assert math.isnan(report(lambda xb: xb, F.cross_entropy, x, y, 10).loss)
