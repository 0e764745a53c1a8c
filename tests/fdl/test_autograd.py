"fdl.autograd beside torch: random expressions, the walk, changes in place, no_grad, errors, and the picture."
import gc
import operator
import random
import subprocess
import sys
import threading
import weakref
from collections import Counter
from itertools import permutations, product

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from matplotlib.text import Annotation
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import mutually_broadcastable_shapes
from torch.testing import assert_close

from fdl.autograd import Tensor, draw_graph, no_grad


def leaf(values, dtype=torch.float64) -> Tensor: return Tensor(torch.tensor(values, dtype=dtype), requires_grad=True)


def array(*shape, seed=0, dtype=torch.float64) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def compare(f, *arrays, tol=1e-9):
    "Values and gradients of `f`, ours and torch's, from a random upstream gradient."
    ours = [Tensor(a.clone(), requires_grad=True) for a in arrays]
    theirs = [a.clone().requires_grad_() for a in arrays]
    out, ref = f(*ours), f(*theirs)
    assert type(out) is Tensor
    assert_close(out.data, ref.detach(), rtol=tol, atol=tol)
    g = array(*ref.shape, seed=1).to(ref.dtype)
    out.backward(g)
    ref.backward(g)
    for o, t in zip(ours, theirs, strict=True):
        assert (o.grad is None) == (t.grad is None)
        if t.grad is not None: assert_close(o.grad, t.grad, rtol=tol, atol=tol)


# ---- operations

def index_of(a, k):
    "An index for `a`, of a kind that `k` chooses."
    n, m = a.shape[0], a.shape[-1]
    kinds = [k % n, -1 - k % n, slice(k % n, None), slice(None, None, 1 + k % 2), None, ..., [(k * i) % n for i in range(4)],
             torch.tensor([[0, k % n], [n - 1, n - 1]]), torch.arange(n) % 2 == k % 2, (..., k % m), (..., None, [0, 0, m - 1]),
             (torch.tensor([0, n - 1, 0]), ..., torch.tensor([0, 0, 0])) if a.ndim > 1 else [0, 0, 0], np.array([0, n - 1, 0, 0]), ()]
    return kinds[k % len(kinds)]


def data(t): return t.data if isinstance(t, Tensor) else t.detach()
def dims(t, k): return [None, *range(-data(t).ndim, data(t).ndim), *permutations(range(data(t).ndim), 2)][k % (1 + 2 * data(t).ndim)]
def square(t): return t if data(t).ndim == 2 else t[None, None] if data(t).ndim == 0 else t[None] if data(t).ndim == 1 else t[0]


UNARY = {
    "neg": lambda a, k: -a, "exp": lambda a, k: (-a * a).exp(), "log": lambda a, k: (a * a + 0.5).log(), "relu": lambda a, k: a.relu(),
    "reflected": lambda a, k: [k + a, 1.5 - a, 0.1 * a, 2 / (a * a + 0.5)][k % 4], "power": lambda a, k: a ** (k % 4),
    "root": lambda a, k: (a * a + 0.5) ** (0.5 - k % 3), "scalar": lambda a, k: (a - 0.3) / 0.7 + a * 3,
    "sum": lambda a, k: a.sum(dims(a, k), k % 3 == 0), "mean": lambda a, k: a.mean(dim=dims(a, k), keepdim=k % 3 == 0),
    "T": lambda a, k: square(a).T, "gram": lambda a, k: square(a) @ square(a).T,
    "index": lambda a, k: a if data(a).ndim == 0 or 0 in a.shape else a[index_of(data(a), k)],
    "plain": lambda a, k: [lambda p: p - a, lambda p: p * a, lambda p: a / (p + 2), lambda p: p + a, lambda p: p / (a * a + 1)][k % 5](
        torch.linspace(-1, 1, a.shape[-1] if data(a).ndim else 1, dtype=torch.float64)),
}
BINARY = {"add": operator.add, "sub": operator.sub, "mul": operator.mul, "div": lambda a, b: a / (b * b + 0.5), "twice": lambda a, b: a * b + a - b * a}
step = st.tuples(st.sampled_from([*UNARY, *BINARY]), *[st.integers(0, 20)] * 2, st.integers(0, 60))


def run(program, leaves, used=None):
    "Interprets the program: every step picks an operation and earlier values."
    pool = list(leaves)
    for name, i, j, k in program:
        a, b = pool[i % len(pool)], pool[j % len(pool)]
        try: torch.broadcast_shapes(a.shape, b.shape)
        except RuntimeError: b = a
        out = UNARY[name](a, k) if name in UNARY else BINARY[name](a, b)
        if not 0 < data(out).numel() <= 300: continue
        if data(out).abs().max() > 30: out = out / data(out).abs().max()
        pool.append(out)
        if used is not None: used[name] += 1
    return pool[-1] if len(program) % 2 else sum(t.mean() for t in pool)


def test_random_expressions():
    "Their values, and the gradients of all leaves, are torch's."
    used = Counter()

    @settings(max_examples=500, database=None, suppress_health_check=list(HealthCheck))
    @given(mutually_broadcastable_shapes(num_shapes=3, max_dims=3, max_side=3), st.lists(step, min_size=1, max_size=9), st.integers(0, 99))
    def check(shapes, program, seed):
        arrays = [array(*shape, seed=seed + i) for i, shape in enumerate(shapes.input_shapes)]
        if seed % 5 == 0: arrays = [a.round() for a in arrays]      # zeros and ties
        if run(program, [a.clone().requires_grad_() for a in arrays], used).requires_grad: compare(lambda *leaves: run(program, leaves), *arrays)

    check()
    assert all(used[name] >= 20 for name in [*UNARY, *BINARY]), used


@pytest.mark.parametrize("f", [operator.add, operator.sub, operator.mul, operator.truediv])
def test_broadcasting_of_every_kind(f):
    "All pairs of shapes of up to three dimensions with sizes 1 and 2, and one that is empty."
    shapes = [s for n in range(4) for s in product((1, 2), repeat=n)]
    for left, right in [*product(shapes, shapes), ((0, 3), (1,))]: compare(f, array(*left), array(*right, seed=1).abs() + 0.5)


@pytest.mark.parametrize("left, right", [((2, 3), (3, 4)), ((5, 2, 3), (3, 4)), ((2, 3), (5, 3, 4)), ((5, 1, 2, 3), (6, 3, 4)), ((0, 3), (3, 2)), ((2, 0), (0, 3))])
def test_matmul(left, right):
    a, b = array(*left), array(*right, seed=1)
    compare(operator.matmul, a, b)
    compare(lambda b: a @ b, b)
    compare(lambda a: a @ b, a)


@given(st.integers(0, 60), st.sampled_from([(3,), (3, 4), (3, 4, 5)]))
def test_indexing(k, shape):
    compare(lambda a: a[index_of(data(a), k)], array(*shape))
    compare(lambda a: (a * a)[index_of(data(a), k)] + a[index_of(data(a), k)], array(*shape))
    if len(shape) == 2: compare(lambda a: a.T[index_of(data(a).T, k)], array(*shape))               # not contiguous
    compare(lambda a: a[data(a) > 0], array(*shape))


@pytest.mark.parametrize("index", [torch.tensor([0, 2]), np.array([0, 2]), [0, 2]], ids=str)
def test_an_index_changed_before_backward(index):
    a = leaf([1., 2., 3., 4.])
    for take in (lambda i: a[i], lambda i: a[None][:, i]):
        a.grad, index[0] = None, 0
        y = take(index)
        index[0] = 1
        y.sum().backward()
        assert a.grad.tolist() == [1, 0, 1, 0]


def test_an_index_may_be_a_tensor_of_ours():
    t, rows = leaf([[1., 2.], [3., 4.]]), Tensor([0, 1, 1])
    (t[rows].sum() + t[rows, Tensor([0, 0, 1])].sum()).backward()
    assert t.grad.tolist() == [[2, 1], [3, 3]]


@pytest.mark.parametrize("shape", [(), (3,), (2, 3), (2, 1, 3), (3, 0)], ids=str)
def test_sums_and_means(shape):
    n = len(shape)
    for dim, keepdim in product([None, *range(-n, n), *permutations(range(n), 2), tuple(range(n)) or None], (False, True)):
        compare(lambda a: a.sum(dim, keepdim), array(*shape))
        if 0 not in shape: compare(lambda a: a.mean(dim, keepdim), array(*shape))


def test_slopes_at_zero():
    "An infinitely steep root after an inactive unit, and the power 0, leave no nan."
    for n in (0, 1, 2, 3, 0., 2.): compare(lambda t: t ** n, torch.tensor([0., 0., 2., -1.], dtype=torch.float64))
    for n in (-1, 0.5, -0.5): compare(lambda t: t ** n, torch.tensor([0.5, 2.], dtype=torch.float64))
    z = leaf([-1., 0., 4.])
    (z.relu()[[0, 2]] ** 0.5).sum().backward()
    assert z.grad.tolist() == [0, 0, 0.25]
    z.grad = None
    z.relu().sum().backward()
    assert z.grad.tolist() == [0, 0, 1]


@pytest.mark.parametrize("f", [operator.add, operator.sub, operator.mul, operator.truediv, operator.matmul])
def test_plain_operands_on_either_side(f):
    plain = array(2, 2, seed=3).abs() + 1
    for p in (plain, plain.numpy()):
        s = Tensor(plain.clone() + 1, requires_grad=True)
        out = f(p, s)
        assert type(out) is Tensor
        assert_close(out.data, f(plain, s.data))
        out.sum().backward()
        compare(lambda a: f(plain, a), s.data)
    compare(lambda a: f(a, plain), array(2, 2))
    for number in (2, 0.5, np.float64(2)):
        if f is not operator.matmul: assert_close(f(number, leaf([1., 2.])).data, f(number, torch.tensor([1., 2.], dtype=torch.float64)))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_dtypes(dtype):
    "Numbers do not change the dtype; each leaf gets a gradient of its own dtype."
    x = torch.tensor([1., 2., 3.], dtype=dtype)
    for f in (lambda t: t * 0.1, lambda t: 0.1 + t, lambda t: t ** 2, lambda t: 1 - t, lambda t: t / 3): assert_close(f(Tensor(x)).data, f(x), rtol=0, atol=0)
    compare(lambda a, b: ((a @ b).exp() * 2 + b[[0, 0]]).mean(0) / (b * b + 1).sum(), array(2, 3, dtype=dtype), array(3, 3, dtype=dtype), tol=2e-2)
    compare(lambda a, b: a * b + a, array(2, 3, dtype=dtype), array(3), tol=2e-2)
    compare(lambda b: 0.1 / b + b ** 0.1, torch.tensor([3.], dtype=torch.float64), tol=1e-14)


def test_the_device_of_the_data_is_the_only_one():
    "On torch's `meta` device there are no numbers: whatever read one back, or made a tensor elsewhere, would fail."
    w, b = (Tensor(torch.empty(shape, device="meta"), requires_grad=True) for shape in ((4, 3), (3,)))
    h = ((torch.empty(8, 4, device="meta") @ w + b).relu().exp() + 2).log() / 2
    loss = (h[:, 1:].T ** 2).mean() + (1 - h[torch.zeros(2, dtype=torch.long, device="meta")]).sum()
    loss.backward()
    assert w.grad.device.type == b.grad.device.type == "meta" and w.grad.shape == w.shape


# ---- the walk

def test_diamonds():
    a = leaf(1.)
    u = a * 3
    loss = u * 2 + u * 5
    loss.backward()
    loss.backward()
    assert a.grad == 42 and u.grad is None and loss.grad is None
    t = b = leaf(1.)
    for _ in range(60): t = t + t          # 2**60 paths, 61 boxes
    t.backward()
    assert b.grad == 2.0 ** 60
    compare(lambda a: (a * a) * (a * a) + a * a * a - (a + a).exp() * a, array(3))


def test_a_long_chain_and_its_end():
    code = ("from fdl.autograd import Tensor\nt = x = Tensor(1., requires_grad=True)\nfor _ in range(100_000): t = t + x\n"
            "t.backward(); assert x.grad == 100_001; del t; print('gone')")
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert out.stdout == "gone\n", out.stderr


def test_accumulation_and_zeroing():
    x, y = leaf([1., 2., 3.]), torch.tensor([1., 2., 3.], dtype=torch.float64, requires_grad=True)
    for _ in range(2):
        for t, keep in ((x, {}), (y, dict(retain_graph=True))):
            loss = ((t * t).exp().log() * t).sum()
            loss.backward(**keep)
            loss.backward()
            (t * 2).sum().backward()
        assert_close(x.grad, y.grad)
    x.grad = None
    (x * 2).sum().backward()
    assert x.grad.tolist() == [2, 2, 2]


def test_gradients_have_memory_of_their_own():
    a, b, g = leaf([1., 2.]), leaf([3., 4.]), torch.ones(2, dtype=torch.float64)
    (a + b).backward(g)
    kept = a.grad
    a.sum().backward()
    a.grad.mul_(10), b.grad.zero_()
    assert a.grad.tolist() == [20, 20] and kept.tolist() == [1, 1] and g.tolist() == [1, 1]
    c = leaf([1., 2.])
    c.sum().backward()
    c.grad += 1                                                   # not an expanded view
    assert c.grad.tolist() == [2, 2]


@pytest.mark.parametrize("gradient", [torch.tensor([1., 10.]), Tensor([1., 10.]), [1., 10.], torch.tensor([1, 10])], ids=str)
def test_gradient_argument(gradient):
    x = leaf([3., 4.])
    (x * x).backward(gradient)
    assert x.grad.tolist() == [6, 80] and x.grad.dtype == torch.float64


def test_a_gradient_left_out():
    x = leaf([[2.]])
    (x * x).backward()
    assert x.grad.tolist() == [[4]]
    x.backward(torch.full((1, 1), 0.5))                           # a leaf itself
    assert x.grad.tolist() == [[4.5]]
    y = leaf(1.)
    y.backward(2.)
    assert y.grad == 2


def test_only_what_requires_grad_is_served():
    w, x = leaf([1., 2.]), Tensor([3., 4.])
    out = w * x
    asked = []
    out.parents = [(p, lambda g, p=p, share=share: (asked.append(p), share(g))[1]) for p, share in out.parents]
    out.sum().backward()
    assert len(asked) == 1 and asked[0] is w and x.grad is None
    assert (x * 2).parents == [] and not (x * 2).requires_grad and (x * 2).op == ""


def test_graphs_hold_no_cycles():
    gc.collect()
    gc.disable()
    try:
        x = leaf([[1., 2.], [3., 4.]])
        out = ((x @ x).exp().log().relu()[0] / 2 - x.sum() ** 2).mean(0)
        ref = weakref.ref(out)
        out.backward()
        del out
        assert ref() is None
    finally: gc.enable()


# ---- changes in place

@pytest.mark.parametrize("change", ["left", "right", "plain", "result"])
def test_change_between_the_passes(change):
    a, b, p = leaf([1., 2.]), leaf([3., 4.]), torch.tensor([5., 6.], dtype=torch.float64)
    powers = (a * b * p).exp()
    loss = powers.sum() + a.sum()
    {"left": a.data, "right": b.data, "plain": p, "result": powers.data}[change].mul_(2)
    with pytest.raises(RuntimeError, match="changed in place"): loss.backward()
    assert a.grad is None and b.grad is None


def test_updates_between_steps_are_fine():
    w = leaf([1., 2.])
    for _ in range(3):
        (w * w).sum().backward()
        w.data -= 0.1 * w.grad
        w.grad = None
    assert_close(w.data, torch.tensor([1., 2.], dtype=torch.float64) * 0.8 ** 3)
    loss = (w * w).sum()
    w.data = w.data + 1                       # another tensor: the old numbers are still there
    loss.backward()
    assert_close(w.grad, 2 * (w.data - 1))


@pytest.mark.parametrize("f", [operator.iadd, operator.isub, operator.imul, operator.itruediv, operator.ipow, operator.imatmul])
def test_operators_that_would_rebind_a_leaf(f):
    with pytest.raises(RuntimeError, match="w.data -="): f(leaf([[1.]]), 2)
    with no_grad(), pytest.raises(RuntimeError, match="w.data -="): f(leaf([[1.]]), 2)
    if f is operator.imatmul: return
    assert_close(f(Tensor([2.]), 2).data, f(torch.tensor([2.]), 2))
    assert f(leaf([2.]) * 1, 2).requires_grad


# ---- no_grad

def test_no_grad_nested_and_left_by_an_exception():
    x = leaf(1.)
    with no_grad():
        with pytest.raises(ValueError):
            with no_grad(): raise ValueError
        y = x * 2
        assert not y.requires_grad and y.parents == [] and x.requires_grad
    assert (x * 2).requires_grad
    with pytest.raises(RuntimeError, match="no_grad"): y.backward()


def test_no_grad_belongs_to_its_thread():
    x, seen = leaf(1.), []
    with no_grad():
        thread = threading.Thread(target=lambda: seen.append((x * 2).requires_grad))
        thread.start()
        thread.join()
    assert seen == [True]


# ---- Python's protocols

def test_protocols():
    assert not Tensor([0.]) and Tensor(3.) and not Tensor(0.)
    with pytest.raises(RuntimeError): bool(Tensor([0., 1.]))
    for f in (list, sum, len, iter):
        with pytest.raises(TypeError): f(Tensor(3.))
    assert 3. in Tensor(3.) and 2. in Tensor([1., 2.]) and 5. not in Tensor([1., 2.]) and Tensor(2.) in Tensor([1., 2.])
    for f in (operator.lt, operator.le, operator.gt, operator.ge):
        with pytest.raises(TypeError): f(Tensor(1.), 2.)
    x = leaf([1., 2.])
    assert len(x) == 2 and [t.item() for t in x] == [1, 2] and x.shape == (2,)
    sum(x).backward()
    assert x.grad.tolist() == [1, 1]
    with pytest.raises(TypeError): x[0] = 1.


def test_equality_is_by_entry_and_hashes_by_identity():
    a, b = torch.tensor([1., 2.]), torch.tensor([1., 3.])
    for left, right in ((Tensor(a), Tensor(b)), (Tensor(a), b)):
        assert (left == right).tolist() == [True, False] and (left != right).tolist() == [False, True]
    assert (Tensor(a) == 2.).tolist() == [False, True] and (Tensor(a) != 2.).tolist() == [True, False]
    t = Tensor(a)
    assert {t: 1}[t] == 1 and len({t, Tensor(a)}) == 2


def test_repr():
    assert repr(Tensor([1., 2.])) == "Tensor([1., 2.])"
    assert repr(Tensor(1., requires_grad=True)) == "Tensor(1., requires_grad=True)"
    assert repr(leaf([1.]) * 2) == "Tensor([2.], dtype=torch.float64, op='*')"


# ---- errors

def test_construction():
    for whole in ([1, 2], torch.tensor(3)):
        with pytest.raises(RuntimeError, match="int64"): Tensor(whole, requires_grad=True)
    for bad in (Tensor(1.), [Tensor(1.)], (Tensor([1.]), 2.), torch.ones(2, requires_grad=True)):
        with pytest.raises(TypeError, match="data"): Tensor(bad)
    with pytest.raises(TypeError, match="detach"): Tensor([1., 2.]) * torch.ones(2, requires_grad=True)
    w = Tensor(0, requires_grad=True)                             # a number, not an array of integers
    (w * w + w).backward()
    assert w.data.dtype == torch.float32 and w.grad == 1
    assert Tensor(0).data.dtype == torch.int64 and not Tensor([1., 2.]).requires_grad
    shared = torch.zeros(2)
    assert Tensor(shared).data is shared


def test_errors_of_backward():
    x = leaf([1., 2.])
    with pytest.raises(RuntimeError, match="requires grad"): Tensor([1.]).backward()
    for gradient in (None, torch.ones(1, 2), 1.):
        with pytest.raises(RuntimeError, match=r"shape \(2,\)"): (x * 2).backward(gradient)
    assert x.grad is None


def test_errors_of_operations():
    x = leaf([1., 2.])
    for f in (lambda: x ** x, lambda: x ** torch.ones(2)):
        with pytest.raises(TypeError, match="number"): f()
    with pytest.raises(TypeError): 2 ** x
    for a, b in product((x, leaf([[1., 2.], [3., 4.]])), (torch.ones(2), leaf([1., 2.]))):
        with pytest.raises(ValueError, match="matrices"): a @ b
    with pytest.raises(IndexError): x[2]
    with pytest.raises(RuntimeError): x + leaf([1., 2., 3.])


# ---- the picture

def words(ax) -> list[str]: return [text.get_text() for text in ax.texts if text.get_text()]
def arrows(ax) -> list[tuple]: return [(text.xyann, text.xy) for text in ax.texts if isinstance(text, Annotation)]


def test_draw_graph():
    a, b = leaf(2.), leaf([1., 2.])
    out = (a * b + 1.).sum()
    ax = draw_graph(out, dict(a=a, out=out))
    assert words(ax) == ["a\n2", "*\n(2,)", "+\n(2,)", "out\n8"]                  # b has no name
    assert len(ax.patches) == 4 and all(start[0] < end[0] for start, end in arrows(ax)) and len(arrows(ax)) == 3
    out.backward()
    _, given = plt.subplots()
    assert draw_graph(out, dict(a=a, b=b), given) is given and plt.gca() is given
    assert words(given)[:2] == ["a\n2\ngrad 3", "b\n(2,)\ngrad (2,)"] and len(arrows(given)) == 4
    corners = {(p.get_x(), p.get_y()) for p in given.patches}
    assert len(corners) == 5 and len({p.get_facecolor() for p in given.patches}) == 2
    assert words(draw_graph(leaf(1.))) == []
    plt.close("all")


def test_a_leaf_stands_beside_what_uses_it_first():
    a, b, c = leaf(1.), leaf(2.), leaf(3.)
    ax = draw_graph((a * b) * c, dict(a=a, b=b, c=c))
    left = {text.get_text()[0]: text.get_position()[0] for text in ax.texts if text.get_text() and text.get_text()[0] in "abc"}
    assert left["a"] == left["b"] and left["c"] - left["a"] == pytest.approx(2.3)
    plt.close("all")


def test_what_carries_back():
    "Of a number that has a gradient, each arrow runs back and says its share."
    a, b = leaf(2.), leaf(3.)
    out = a * b
    out.grad = torch.tensor(10., dtype=torch.float64)
    ax = draw_graph(out, dict(a=a, b=b))
    assert words(ax) == ["a\n2", "b\n3", "*\n6\ngrad 10", "30", "20"]
    assert {text.arrow_patch.get_arrowstyle().__class__.__name__ for text in ax.texts if isinstance(text, Annotation)} == {"CurveFilledA"}
    plt.close("all")


def crossings(ax) -> list:
    "Pairs of an arrow and a box that it touches between its ends, looked for at 50 points of each arrow."
    return [(start, end, box) for start, end in arrows(ax) for box in ax.patches
            if any(box.get_bbox().contains(*(np.array(start) + (np.array(end) - start) * s)) for s in np.linspace(0.02, 0.98, 50))]


def test_no_arrow_crosses_a_box_and_no_number_hides_another():
    "L = a(a + b), u*u*u, and graphs of all kinds, each number used again and again."
    a, b, u = leaf(2.), leaf(3.), leaf(3.)
    total = a * (a + b)
    total.grad = torch.tensor(1.)
    ax = draw_graph(total, dict(a=a, b=b))
    assert sorted(words(ax)) == ["*\n10\ngrad 1", "+\n5", "2", "5", "a\n2", "b\n3"] and not crossings(ax)
    cube = u * u * u
    cube.parents[0][0].grad = torch.tensor(3.)
    assert "9 + 9" in words(draw_graph(cube, dict(u=u))) and len(arrows(plt.gca())) == 3        # one arrow for the two
    for seed in range(20):
        pick = random.Random(seed)
        pool = [leaf(1.), leaf(2.), leaf(3.)]
        for _ in range(2 + seed % 8): pool.append(pick.choice(pool) * pick.choice(pool) + pick.choice(pool))
        names, (fig, ax) = {str(i): t for i, t in enumerate(pool)}, plt.subplots()
        for t in pool: t.grad = torch.tensor(1.)
        draw_graph(pool[-1], names, ax)
        assert len({p.get_xy() for p in ax.patches}) == len(ax.patches) and not crossings(ax)
        numbers = [text.get_position() for text in ax.texts if "grad" not in text.get_text() and text.get_text()[:1] not in "*+"]
        assert len({(round(x, 2), round(y, 2)) for x, y in numbers}) == len(numbers)
        plt.close(fig)
    plt.close("all")
