"fdl.autograd beside torch: random expressions, long chains, diamonds, broadcasting, indexing, modes and errors."
import gc
import itertools
import math
import subprocess
import sys
import threading
import weakref
from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import mutually_broadcastable_shapes
from torch.testing import assert_close

from fdl.autograd import Tensor, _topological, _unbroadcast, draw_graph, no_grad

EXAMPLES = 1200


def leaf(*values, dtype=torch.float64): return Tensor(torch.tensor(*values, dtype=dtype), requires_grad=True)


def compare(f, *arrays, tol=1e-9):
    "Values and gradients of `f`, ours and torch's, from a random upstream gradient."
    ours = [Tensor(a.clone(), requires_grad=True) for a in arrays]
    theirs = [a.clone().requires_grad_() for a in arrays]
    out, ref = f(*ours), f(*theirs)
    assert_close(out.data, ref.detach(), rtol=tol, atol=tol)
    g = torch.randn(ref.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64).to(ref.dtype)
    out.backward(g)
    ref.backward(g)
    for i, (o, t) in enumerate(zip(ours, theirs)):
        assert (o.grad is None) == (t.grad is None), f"leaf {i}"
        if t.grad is not None:
            assert o.grad.dtype == t.grad.dtype and o.grad.device == t.grad.device
            assert_close(o.grad, t.grad, rtol=tol, atol=tol)


def array(*shape, seed=0, dtype=torch.float64):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


# ---- random expressions

def broadcasts(a, b):
    try: return torch.broadcast_shapes(a.shape, b.shape).numel() <= 300
    except RuntimeError: return False


def fits(a, b):
    "Whether `a @ b` is defined."
    try: return (torch.empty(a.shape, device="meta") @ torch.empty(b.shape, device="meta")).numel() <= 300
    except RuntimeError: return False


def subset(n, k): return tuple(i if k & 1 else i - n for i in range(n) if k >> i & 1)


def index_of(a, k):
    "An index for `a`, of a kind that `k` chooses."
    n = a.shape[0]
    kinds = [lambda: k % n, lambda: -1 - k % n, lambda: slice(k % n, None), lambda: slice(None, None, 1 + k % 2), lambda: None,
             lambda: ..., lambda: [(k * i) % n for i in range(4)], lambda: torch.tensor([[0, k % n], [n - 1, n - 1]]),
             lambda: torch.arange(n) % 2 == k % 2, lambda: (..., k % a.shape[-1]), lambda: (..., [0, 0, a.shape[-1] - 1]),
             lambda: (torch.tensor([0, n - 1, 0]), ..., torch.tensor([0, 0, 0])) if a.ndim > 1 else torch.tensor([0, 0, 0]),
             lambda: np.array([0, n - 1, 0, 0])]
    return kinds[k % len(kinds)]()


def other(pool, a, j, can):
    "The first value from the `j`-th on that `can` be combined with `a`, or None."
    return next((b for b in pool[j % len(pool):] + pool if can(a, b)), None)


UNARY = {
    "neg": lambda a, k: -a, "exp": lambda a, k: a.tanh().exp(), "log": lambda a, k: (a * a + 0.5).log(), "tanh": lambda a, k: a.tanh(),
    "relu": lambda a, k: a.relu(), "radd": lambda a, k: k + a, "rsub": lambda a, k: 1.5 - a, "rmul": lambda a, k: 0.1 * a,
    "rdiv": lambda a, k: 2 / (a * a + 0.5), "rpow": lambda a, k: 1.7 ** a.tanh(), "power": lambda a, k: a ** (k % 4),
    "root": lambda a, k: (a * a + 0.5) ** (0.5 - k % 3), "scalar": lambda a, k: (a - 0.3) / 0.7 + a * 3,
    "sum": lambda a, k: a.sum() if k % 3 == 0 else a.sum(subset(a.ndim, k) or None, keepdim=k % 2 == 0),
    "mean": lambda a, k: a.mean() if k % 3 == 0 else a.mean(subset(a.ndim, k) or None, keepdim=k % 2 == 0),
    "reduce one": lambda a, k: a if a.ndim == 0 else (a.sum, a.mean)[k % 2](k // 2 % a.ndim - k // 9 % 2 * a.ndim, k % 7 > 3),
    "reshape": lambda a, k: a.reshape(*[(-1,), (1, -1), ((-1, 1),), (a.shape[::-1],)][k % 4]),
    "permute": lambda a, k: a.permute(list(itertools.permutations(range(-a.ndim, 0)))[k % math.factorial(a.ndim)]),
    "transpose": lambda a, k: a if a.ndim == 0 else a.transpose(k % a.ndim, -1 - k // 5 % a.ndim),
    "T": lambda a, k: a.T if a.ndim == 2 else a,
    "index": lambda a, k: a if a.ndim == 0 else a[index_of(a, k)],
}
BINARY = {
    "add": lambda a, b: a + b, "sub": lambda a, b: a - b, "mul": lambda a, b: a * b, "div": lambda a, b: a / (b * b + 0.5),
    "pow": lambda a, b: (a * a + 0.5) ** b.tanh(), "self": lambda a, b: a * b + a - b * a,
}
NAMES = [*UNARY, *BINARY, "matmul", "plain"]


def run(program, leaves, used=None):
    "Interprets the program: every step picks an operation and earlier values."
    pool = list(leaves)
    for name, i, j, k in program:
        a = pool[i % len(pool)]
        if name in UNARY: out = UNARY[name](a, k)
        elif name in BINARY: out = BINARY[name](a, other(pool, a, j, broadcasts))
        elif name == "plain":
            plain = torch.linspace(-1, 1, a.shape[-1] if a.ndim else 1, dtype=torch.float64)
            out = [lambda: plain - a, lambda: plain * a, lambda: a / (plain + 2), lambda: plain + a, lambda: (plain + 3) ** a.tanh(),
                   lambda: a if a.ndim == 0 else plain @ a.reshape(len(plain), -1), lambda: a if a.ndim == 0 else a @ plain][k % 7]()
        else:
            b = other(pool, a, j, fits)
            out = a @ b if b is not None else a.tanh() if a.ndim < 2 else a @ a.transpose(-1, -2)
        values = out.data if isinstance(out, Tensor) else out.detach()
        if values.numel() == 0 or values.numel() > 300: continue
        if values.abs().max() > 30: out = out.tanh()
        pool.append(out)
        if used is not None: used[name] += 1
    return pool[-1] if len(program) % 2 else sum(t.mean() for t in pool)


step = st.tuples(st.sampled_from(NAMES), *[st.integers(0, 20)] * 2, st.integers(0, 60))


def test_random_expressions():
    "At least 1,000 random expressions: the values, and the gradients of all leaves, are torch's."
    seen, used = 0, Counter()

    @settings(max_examples=EXAMPLES, derandomize=True, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(mutually_broadcastable_shapes(num_shapes=3, max_dims=3, max_side=3), st.lists(step, min_size=1, max_size=9), st.integers(0, 99))
    def check(shapes, program, seed):
        nonlocal seen
        arrays = [array(*shape, seed=seed + i) for i, shape in enumerate(shapes.input_shapes)]
        if seed % 5 == 0: arrays = [a.round() for a in arrays]      # zeros and ties
        if not run(program, [a.clone().requires_grad_() for a in arrays], used).requires_grad: return
        compare(lambda *leaves: run(program, leaves), *arrays)
        seen += 1

    check()
    print(f"{seen} random expressions agree with torch; operations: {dict(used)}")
    assert seen >= 1000
    assert all(used[name] >= 30 for name in NAMES), used


# ---- operations

SHAPES = [s for n in range(4) for s in itertools.product((1, 2), repeat=n)]
OPERATIONS = {"+": lambda a, b: a + b, "-": lambda a, b: a - b, "*": lambda a, b: a * b, "/": lambda a, b: a / b, "**": lambda a, b: a ** b}


@pytest.mark.parametrize("op", OPERATIONS)
def test_broadcasting_of_every_kind(op):
    "All pairs of shapes of up to three dimensions with sizes 1 and 2; both operands."
    for s1, s2 in itertools.product(SHAPES, SHAPES): compare(OPERATIONS[op], array(*s1).abs() + 0.5, array(*s2, seed=1).abs() + 0.5)


def test_broadcasting_with_an_empty_axis(): compare(lambda a, b: (a * b).sum(0) + b, array(0, 3), array(1))


def test_unbroadcast_is_sum_to_size():
    for shape in SHAPES:
        grad = array(3, *[n + 1 if n == 1 else n for n in shape])
        assert_close(_unbroadcast(grad, torch.Size(shape)), grad.sum_to_size(shape))


MATMULS = [((3,), (3,)), ((2, 3), (3,)), ((3,), (3, 4)), ((2, 3), (3, 4)), ((5, 2, 3), (3, 4)), ((2, 3), (5, 3, 4)), ((5, 1, 2, 3), (6, 3, 4)),
           ((3,), (5, 3, 4)), ((5, 2, 3), (3,)), ((1, 2, 3), (5, 3, 1)), ((0, 3), (3, 2)), ((2, 0), (0, 3))]


@pytest.mark.parametrize("shapes", MATMULS, ids=str)
def test_matmul(shapes):
    compare(lambda a, b: a @ b, array(*shapes[0]), array(*shapes[1], seed=1))
    left = array(*shapes[0])
    compare(lambda b: left @ b, array(*shapes[1], seed=1))


INDICES = [0, -1, slice(1, None), slice(None, None, 2), None, ..., (0, 1), (slice(None), 1), (..., 0), (None, 0, ..., None), [0, 0, 2, 0],
           torch.tensor([2, 2, 2]), torch.tensor([[0, 1], [1, 1]]), ([0, 0, 1], [1, 1, 2]), (slice(None), [3, 3, 0]), ([0, 0], slice(1, 3), [1, 1]),
           (0, [1, 1, 1]), ([[0], [1]], [[0, 0]]), (torch.tensor([0, 0]), ..., torch.tensor([1, 1])), np.array([1, 1]),
           torch.tensor([True, False, True]), (torch.tensor([True, False, True]), 1), (slice(None), torch.tensor([True, False, False, True])), ()]


@pytest.mark.parametrize("index", INDICES, ids=str)
def test_indexing(index):
    compare(lambda a: a[index], array(3, 4, 5))
    compare(lambda a: a.permute(2, 0, 1)[index], array(4, 5, 3))          # not contiguous
    compare(lambda a: (a * a)[index] + a[index], array(3, 4, 5))


def test_a_mask_of_the_whole_shape_and_indices_of_our_own():
    compare(lambda a: a[a > 0], array(3, 4))
    compare(lambda a: a[array(3, 4) > 9], array(3, 4))
    rows, columns = torch.tensor([0, 0, 2]), torch.tensor([1, 1, 3])
    t = Tensor(array(3, 4), requires_grad=True)
    t[Tensor(rows), Tensor(columns)].sum().backward()
    t[Tensor(rows)].sum().backward()
    expected = torch.zeros(3, 4, dtype=torch.float64)
    expected[0, 1], expected[2, 3] = 2, 1
    assert_close(t.grad, expected + torch.tensor([2., 0, 1], dtype=torch.float64)[:, None])
    with pytest.raises(IndexError): t[3]
    assert len(list(t)) == len(t) == 3


@pytest.mark.parametrize("name", ["sum", "mean"])
@pytest.mark.parametrize("shape", [(), (3,), (2, 3), (2, 1, 3)], ids=str)
def test_reductions(name, shape):
    dims = [None, (), *range(-len(shape), len(shape)), *itertools.permutations(range(len(shape)), 2), list(range(len(shape)))]
    for dim, keepdim in itertools.product(dims, (False, True)):
        compare(lambda a: getattr(a, name)(dim, keepdim), array(*shape))
        compare(lambda a: getattr(a, name)(dim=dim, keepdim=keepdim), array(*shape))


def test_means_of_nothing():
    compare(lambda a: a.sum(1), array(3, 0))
    compare(lambda a: a.mean(0), array(2, 0))
    assert Tensor(torch.zeros(0)).mean().data.isnan()


@pytest.mark.parametrize("values", [[0., 0., 2., -1.], [1., 3., 0.5, 2.]])
def test_powers_at_zero(values):
    a = torch.tensor(values, dtype=torch.float64)
    for n in (0, 1, 2, 3, 0.0, 2.0): compare(lambda t: t ** n, a)
    compare(lambda t: t ** torch.tensor([0., 1, 2, 3], dtype=torch.float64), a)
    compare(lambda n: 0 ** n, a.abs() + 1)
    compare(lambda t, n: t ** n, a.abs(), torch.tensor([1., 2, 0.5, 3], dtype=torch.float64))


def test_plain_operands_on_either_side():
    x = array(2, 3).abs() + 1
    for f in (lambda a, p: p + a, lambda a, p: p - a, lambda a, p: p * a, lambda a, p: p / a, lambda a, p: p ** a, lambda a, p: p.T @ a,
              lambda a, p: a + p, lambda a, p: a - p, lambda a, p: a * p, lambda a, p: a / p, lambda a, p: a ** p, lambda a, p: a @ p.T):
        compare(lambda a: f(a, x), array(2, 3, seed=2).abs() + 1)
        out = f(Tensor(array(2, 3).abs(), requires_grad=True), x.numpy())                 # numpy, either side
        assert isinstance(out, Tensor) and out.requires_grad
        assert_close(out.data, f(array(2, 3).abs(), x))
    assert (np.float64(2) * leaf([1., 2.])).requires_grad and (leaf([1., 2.]) + [1, 2]).data.tolist() == [2, 4]


def test_numbers_keep_the_dtype_as_in_torch():
    for dtype in (torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.int64):
        x = torch.tensor([1, 2, 3]).to(dtype)
        for f in (lambda t: t * 2, lambda t: t * 0.1, lambda t: 0.1 + t, lambda t: 1 / t, lambda t: t ** 2, lambda t: 0.5 ** t, lambda t: 1 - t):
            assert_close(f(Tensor(x)).data, f(x), rtol=0, atol=0)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_other_dtypes(dtype):
    compare(lambda a, b: ((a @ b).tanh() * 2 + b[[0, 0]]).mean(0) / (b * b + 1).sum(), array(2, 3, dtype=dtype), array(3, 3, dtype=dtype), tol=2e-2)


def test_mixed_dtypes_give_each_leaf_its_own():
    compare(lambda a, b: a * b + a, array(2, 3, dtype=torch.float32), array(3), tol=1e-6)


def test_comparisons_are_plain_tensors():
    a, b = torch.tensor([1., 2., 3.]), torch.tensor([3., 2., 1.])
    for f in (lambda x, y: x < y, lambda x, y: x <= y, lambda x, y: x > y, lambda x, y: x >= y, lambda x, y: x == y, lambda x, y: x != y):
        for out in (f(Tensor(a), Tensor(b)), f(Tensor(a), b), f(a, Tensor(b)), f(Tensor(a), b.numpy())):
            assert type(out) is torch.Tensor and out.equal(f(a, b))
        assert f(Tensor(a), 2).equal(f(a, 2)) and f(2, Tensor(a)).equal(f(2, a))
    t = Tensor(a)
    assert {t: 1}[t] == 1 and hash(t) != hash(Tensor(a))


def test_the_device_of_the_data_is_the_only_one():
    "On torch's `meta` device there are no numbers: whatever read one back, or made a tensor elsewhere, would fail."
    w, b = (Tensor(torch.empty(shape, device="meta"), requires_grad=True) for shape in ((4, 3), (3,)))
    x = torch.empty(8, 4, device="meta")
    h = ((x @ w + b).relu().tanh().exp() + 2).log() / 2
    loss = (h[:, 1:].T.reshape(4, -1).transpose(0, 1) ** 2 - h[:4, :1].sum(1)).mean() + (1 - h[torch.zeros(2, dtype=torch.long, device="meta")]).sum()
    loss.backward()
    assert w.grad.device.type == b.grad.device.type == loss.device.type == "meta" and w.grad.shape == w.shape


# ---- the walk

def test_chain_of_ten_thousand_operations():
    x = leaf(1.)
    t = x
    for i in range(10_000): t = t + x if i % 2 else t * 1.0
    t.backward()
    assert x.grad == 5001 and len(_topological(t)) == 15_001


def test_a_long_chain_can_be_thrown_away():
    code = ("from fdl.autograd import Tensor\nt = x = Tensor(1., requires_grad=True)\nfor _ in range(100_000): t = t + x\n"
            "t.backward(); assert x.grad == 100_001; del t; print('gone')")
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert out.stdout == "gone\n", out.stderr


def test_diamonds():
    a = leaf(1.)
    u = a * 3
    (u * 2 + u * 5).backward()
    assert a.grad == 21
    t = b = leaf(1.)
    for _ in range(60): t = t + t          # 2**60 paths, 61 boxes
    t.backward()
    assert b.grad == 2.0 ** 60
    compare(lambda a: (a * a) * (a * a) + a * a * a - (a + a).tanh() * a, array(3))


def test_every_tensor_is_visited_once():
    visits = Counter()
    t = x = leaf(1.)
    for i in range(12): t = t + t
    for node in _topological(t):
        def counted(vjp, node=node): return lambda g: (visits.update([node]), vjp(g))[1]
        node.parents = tuple((p, counted(vjp)) for p, vjp in node.parents)
    t.backward()
    assert x.grad == 2 ** 12 and set(visits.values()) == {2} and len(visits) == 12


def test_order_has_parents_first():
    a, b = leaf([1., 2.]), leaf(3.)
    u = a * b
    order = _topological((u + a).tanh() * u.sum() + (u - b))
    place = {t: i for i, t in enumerate(order)}
    assert all(place[p] < place[t] for t in order for p, _ in t.parents) and len(order) == len(place) == 9


def test_second_backward_and_accumulation():
    for retain in (1, 2, 3):
        x, y = leaf([1., 2., 3.]), torch.tensor([1., 2., 3.], dtype=torch.float64, requires_grad=True)
        out, ref = ((x * x).tanh() * x).sum(), ((y * y).tanh() * y).sum()
        for _ in range(retain): out.backward(), ref.backward(retain_graph=True)
        assert_close(x.grad, y.grad)
        (x * 2).sum().backward(), (y * 2).sum().backward()         # another loss on the same leaf
        assert_close(x.grad, y.grad)
    x.grad = None
    out.backward()
    assert out.grad is None and all(t.grad is None for t in _topological(out) if t.parents)
    assert_close(x.grad * 3 + 2, y.grad)


def test_gradients_have_memory_of_their_own():
    a, b, g = leaf([1., 2.]), leaf([3., 4.]), torch.ones(2, dtype=torch.float64)
    (a + b).backward(g)
    a.sum().backward()
    kept = a.grad
    a.sum().backward()
    a.grad.mul_(10), b.grad.zero_()
    assert a.grad.tolist() == [30, 30] and kept.tolist() == [2, 2] and g.tolist() == [1, 1]
    c = leaf([1., 2.])
    c.sum().backward()
    c.grad += 1                                                   # not an expanded view
    assert c.grad.tolist() == [2, 2]


def test_gradient_argument():
    for gradient in (torch.tensor([1., 10.]), Tensor([1., 10.]), [1., 10.], torch.tensor([1, 10])):
        x = leaf([3., 4.])
        (x * x).backward(gradient)
        assert x.grad.tolist() == [6, 80] and x.grad.dtype == torch.float64
    x = leaf([[2.]])
    (x * x).backward()                                            # one entry, two dimensions
    assert x.grad.tolist() == [[4]]
    x.backward(0.5 * torch.ones(1, 1))                            # a leaf itself
    assert x.grad.tolist() == [[4.5]]
    leaf(1.).backward(2.0)


def test_only_what_requires_grad_is_served():
    calls = []
    w, x = leaf([1., 2.]), Tensor([3., 4.], dtype=torch.float64)
    out = w * x
    out.parents = tuple((p, lambda g, p=p, vjp=vjp: (calls.append(p), vjp(g))[1]) for p, vjp in out.parents)
    out.sum().backward()
    assert calls[0] is w and len(calls) == 1 and x.grad is None
    assert (x * 2).parents == () and not (x * 2).requires_grad and not w.detach().requires_grad
    (w.detach() * w).sum().backward()
    assert w.grad.tolist() == [4, 6]


def test_graphs_hold_no_cycles():
    gc.collect()
    gc.disable()
    try:
        x = leaf([[1., 2.], [3., 4.]])
        out = ((x @ x).exp().log().tanh().relu()[0] / 2 - x.sum() ** 2).mean(0).reshape(1).permute(0).T
        ref = weakref.ref(out)
        out.backward()
        del out
        assert ref() is None
    finally: gc.enable()


# ---- modes

def test_no_grad_nested_and_left_by_an_exception():
    x = leaf(1.)
    with no_grad():
        assert not (x * 2).requires_grad
        with no_grad(): assert not (x * 2).requires_grad
        assert not (x * 2).requires_grad
        with pytest.raises(ValueError):
            with no_grad(): raise ValueError
        assert not (x * 2).requires_grad and x.requires_grad
    assert (x * 2).requires_grad
    with pytest.raises(ValueError):
        with no_grad(), no_grad(): raise ValueError
    assert (x * 2).requires_grad


def test_no_grad_decorates():
    x = leaf(1.)

    @no_grad()
    def down(n):
        "A docstring."
        if n == 0: raise ValueError
        assert not (x * 2).requires_grad
        try: down(n - 1)
        finally: assert not (x * 2).requires_grad

    with pytest.raises(ValueError): down(3)
    assert (x * 2).requires_grad and down.__name__ == "down" and down.__doc__ == "A docstring."
    mode = no_grad()
    with mode, mode: pass
    assert (x * 2).requires_grad


def test_no_grad_belongs_to_its_thread():
    x, inside, left, seen = leaf(1.), threading.Event(), threading.Event(), []

    def work():
        seen.append((x * 2).requires_grad)
        with no_grad():
            inside.set()
            left.wait(10)
            seen.append((x * 2).requires_grad)

    with no_grad():
        thread = threading.Thread(target=work)
        thread.start()
        inside.wait(10)
    seen.append((x * 2).requires_grad)
    left.set()
    thread.join()
    assert seen == [True, True, False]


# ---- errors

def test_errors_of_backward():
    x = leaf([1., 2.])
    with pytest.raises(RuntimeError, match="does not require grad"): Tensor([1., 2.]).sum().backward()
    with pytest.raises(RuntimeError, match=r"shape \(2,\)"): (x * 2).backward()
    with pytest.raises(RuntimeError, match=r"gradient has shape \(1, 2\), the Tensor \(2,\)"): (x * 2).backward(torch.ones(1, 2))
    with no_grad(): y = x.sum()
    with pytest.raises(RuntimeError, match="no_grad"): y.backward()
    assert x.grad is None


def test_errors_of_construction():
    with pytest.raises(RuntimeError, match="int64"): Tensor([1, 2], requires_grad=True)
    with pytest.raises(RuntimeError, match="bool"): Tensor(True, requires_grad=True)
    with pytest.raises(TypeError, match="detach"): Tensor(Tensor(1.))
    with pytest.raises(TypeError, match="detach"): Tensor(torch.ones(2, requires_grad=True))
    with pytest.raises(TypeError, match="detach"): Tensor([1., 2.]) * torch.ones(2, requires_grad=True)
    with pytest.raises(TypeError): Tensor([Tensor(1.), Tensor(2.)])
    with pytest.raises(TypeError): leaf([1.]) + "a"
    with pytest.raises(RuntimeError): leaf([1., 2.]) + leaf([1., 2., 3.])
    with pytest.raises(RuntimeError): leaf(1.) @ leaf([1.])
    assert Tensor([1, 2], requires_grad=True, dtype=torch.float32).requires_grad


@pytest.mark.parametrize("change", ["left", "right", "plain", "result"])
def test_change_in_place_between_the_passes(change):
    a, b, p = leaf([1., 2.]), leaf([3., 4.]), torch.tensor([5., 6.], dtype=torch.float64)
    product = a * b
    powers = (product * p).exp()
    loss = powers.sum()
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


def test_in_place_operators():
    w = leaf([1., 2.])
    for statement in ("w += 1", "w -= 1", "w *= 2", "w /= 2", "w **= 2", "w @= w"):
        for mode in ("with no_grad(): ", ""):
            with pytest.raises(RuntimeError, match="w.data -="): exec(mode + statement, {"w": w, "no_grad": no_grad})
    with pytest.raises(TypeError): w[0] = 1.
    total = 0
    for t in (w[0], w[1]): total += t
    total *= 2
    total.backward()
    assert w.grad.tolist() == [2, 2]
    x = Tensor([1.])
    x -= 1
    assert x.data.tolist() == [0]


# ---- looking

def test_repr():
    assert repr(Tensor([1., 2.])) == "Tensor([1., 2.])"
    assert repr(Tensor(1., requires_grad=True)) == "Tensor(1., requires_grad=True)"
    assert repr(leaf([1.]) * 2) == "Tensor([2.], dtype=torch.float64, op='*')"


def test_draw_graph():
    import matplotlib
    matplotlib.use("Agg")
    import matplotlib.pyplot as plt
    a, b = leaf(2.), leaf([1., 2.])
    out = (a * b + 1).sum()
    ax = draw_graph(out, dict(a=a, out=out))
    text = [t.get_text() for t in ax.texts if t.get_text()]
    assert text == ["a", "2", "grad 3", "(2,)", "grad (2,)", "*", "(2,)", "grad (2,)", "1", "+", "(2,)", "grad (2,)", "out: sum", "8", "grad 1"]
    assert a.grad is None and len(ax.patches) == 6
    arrows = [(t.xyann, t.xy) for t in ax.texts if not t.get_text()]
    assert len(arrows) == 5 and all(start[0] < end[0] for start, end in arrows)
    boxes = [(p.get_x(), p.get_y()) for p in ax.patches]
    assert len(set(boxes)) == 6
    ax = draw_graph(Tensor([1., 2.]))                             # a leaf that requires nothing
    assert [t.get_text() for t in ax.texts] == ["(2,)"]
    same = leaf(3.)
    assert len(draw_graph((same * same).exp() + (same * same).tanh()).patches) == 6
    plt.close("all")


def test_import_leaves_matplotlib_alone():
    code = "import sys, fdl.autograd; print([m for m in sys.modules if m.split('.')[0] in ('matplotlib', 'graphviz', 'IPython')])"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert out.stdout == "[]\n", out.stdout + out.stderr
