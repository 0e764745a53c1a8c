"Mechanical corners of fdl.backprop; what teaches stands in nbs/03_backprop.ipynb."
import pytest
import torch
from hypothesis import given, settings, strategies as st
from torch import nn
from torch.testing import assert_close

from fdl.backprop import MSE, Linear, Module, ReLU, Sequential, _add_grad, check_gradients

size = st.integers(1, 6)


def randn(*shape): return torch.randn(shape, dtype=torch.float64)


def forward_backward(model, loss_func, x, target):
    loss = loss_func(model(x), target)
    loss.g = 1.
    loss_func.backward()
    model.backward()
    return loss


@settings(max_examples=60, deadline=None)
@given(n=size, m=size, layers=st.lists(st.tuples(size, st.booleans()), min_size=1, max_size=4), seed=st.integers(0, 2**31))
def test_sequential_equals_torch(n, m, layers, seed):
    torch.manual_seed(seed)
    ours, theirs, params, width = [], [], [], m
    for h, relu in layers:
        params += [randn(width, h), randn(h)]
        ours.append(Linear(*params[-2:]))
        theirs.append(nn.Linear(width, h, dtype=torch.float64))
        theirs[-1].load_state_dict({"weight": params[-2].T, "bias": params[-1]})
        if relu:
            ours.append(ReLU())
            theirs.append(nn.ReLU())
        width = h
    x, target = randn(n, m), randn(n, width)
    x.g = None
    loss = forward_backward(Sequential(*ours), MSE(), x, target)
    assert not loss.requires_grad and not hasattr(target, "g")

    x_, theirs = x.clone().requires_grad_(), nn.Sequential(*theirs)
    loss_ = nn.MSELoss()(theirs(x_), target)
    loss_.backward()
    assert_close(loss, loss_.detach())
    assert_close(x.g, x_.grad)
    for p, p_ in zip(params, theirs.parameters(), strict=True): assert_close(p.g, p_.grad.T if p.ndim == 2 else p_.grad)


@settings(max_examples=60, deadline=None)
@given(shapes=st.lists(st.lists(st.integers(1, 3), max_size=3), min_size=1, max_size=3), data=st.data())
def test_planted_fault_is_named(shapes, data):
    torch.manual_seed(0)
    inputs = [randn(*shape) for shape in shapes]
    k = data.draw(st.integers(0, len(shapes) - 1))
    i = tuple(data.draw(st.integers(0, s - 1)) for s in shapes[k])

    def f(*ts, fault=0.):
        for t in ts: t.g = t.cos()
        ts[k].g[i] += fault
        return sum(t.sin().sum() for t in ts)

    before = [t.clone() for t in inputs]
    assert check_gradients(f, *inputs) < 1e-8
    with pytest.raises(AssertionError) as e: check_gradients(lambda *ts: f(*ts, fault=.5), *inputs)
    expected = inputs[k][i].cos().item()
    assert str(e.value) == (f"worst entry inputs[{k}]{list(i) or ''}: expected {expected:.6g}, got {expected + .5:.6g} "
                            f"(1 of {inputs[k].numel()} entries of inputs[{k}] are wrong)")
    assert abs(check_gradients(lambda *ts: f(*ts, fault=.5), *inputs, tol=1.) - .5) < 1e-8
    for t, b in zip(inputs, before): assert torch.equal(t, b) and (t.g != b.cos()).sum() == (t is inputs[k])


def leaves(g, out=torch.tensor(1.)):
    "An `f` of one input that leaves `g` as its gradient and returns `out`."
    def f(x):
        x.g = g
        return out
    return f


@pytest.mark.parametrize("f, inputs, error, message", [
    (leaves(None), [randn(2)], AssertionError, r"inputs\[0\].g must have shape \(2,\), not None"),
    (leaves(0.), [randn(2)], AssertionError, r"must have shape \(2,\), not None"),
    (leaves(torch.zeros(2, 1)), [randn(2)], AssertionError, r"must have shape \(2,\), not \(2, 1\)"),
    (leaves(torch.full((2,), torch.inf)), [randn(2)], AssertionError, "got inf .2 of 2"),
    (leaves(torch.full((2,), torch.nan)), [randn(2)], AssertionError, "got nan .2 of 2"),
    (leaves(torch.zeros(2), out=None), [randn(2)], ValueError, r"a tensor of shape \(\), not None"),
    (leaves(torch.zeros(2), out=torch.ones(1)), [randn(2)], ValueError, r"a tensor of shape \(\), not \(1,\)"),
    (leaves(None), [], ValueError, "at least one entry"),
    (leaves(None), [randn(0, 3)], ValueError, "at least one entry"),
    (leaves(None), [torch.ones(2)], TypeError, r"inputs\[0\] must be float64, not torch.float32"),
    (leaves(None), [torch.ones(2, dtype=torch.long)], TypeError, "not torch.int64"),
])
def test_check_gradients_refuses(f, inputs, error, message):
    with pytest.raises(error, match=message): check_gradients(f, *inputs)


def test_check_gradients_puts_entries_back_when_f_fails():
    x = randn(3)
    start = x.clone()

    def f(x):
        if not torch.equal(x, start): raise KeyError
        x.g = torch.ones(3)
        return x.sum()

    with pytest.raises(KeyError): check_gradients(f, x)
    assert torch.equal(x, start)


def test_check_gradients_copies_a_reused_buffer():
    x, buffer = randn(3), torch.empty(3, dtype=torch.float64)

    def f(x):
        x.g = torch.mul(x, 2, out=buffer)
        return (x*x).sum()

    assert check_gradients(f, x) < 1e-8
    assert torch.equal(x.g, 2*x)


def test_check_gradients_nudges_through_a_view():
    whole = randn(3, 4)

    def f(x):
        x.g = torch.full_like(x, 3.)
        return 3*whole.sum()

    assert check_gradients(f, whole[:, ::2]) < 1e-7


@pytest.mark.parametrize("weight, bias", [((3,), (3,)), ((3, 2), (3,)), ((3, 2), (1,)), ((3, 2), (1, 2)), ((3, 2), ()), ((1, 3, 2), (2,))])
def test_linear_refuses_parameters(weight, bias):
    with pytest.raises(ValueError, match="weight and bias must have shapes"): Linear(randn(*weight), randn(*bias))


@pytest.mark.parametrize("shape", [(3,), (2, 4), (2, 2), (1, 2, 3)])
def test_linear_refuses_inputs(shape):
    with pytest.raises(ValueError, match=r"x must have shape \(n, 3\), not"): Linear(randn(3, 2), randn(2))(randn(*shape))


@pytest.mark.parametrize("input, target", [((4, 1), (4,)), ((4, 2), (2, 4)), ((4,), ()), ((4, 2), (1, 2))])
def test_mse_refuses(input, target):
    with pytest.raises(ValueError, match="target must have the shape of input"): MSE()(randn(*input), randn(*target))


def test_sequential_refuses_a_layer_twice():
    relu = ReLU()
    with pytest.raises(ValueError, match="given twice"): Sequential(relu, relu)


def test_sequential_nests():
    torch.manual_seed(0)
    x, t, w, b = randn(4, 3), randn(4, 3), randn(3, 3), randn(3)
    model = Sequential(Sequential(Linear(w, b), ReLU()), Sequential(Linear(w, b)), Sequential())
    assert check_gradients(lambda x, *_: forward_backward(model, MSE(), x, t), x, w, b) < 1e-7


def test_module_names_what_is_missing():
    class Half(Module):
        def forward(self, x): return x / 2

    half = Half()
    out = half(randn(2))
    with pytest.raises(RuntimeError, match="the output of Half has no gradient yet"): half.backward()
    out.g = 1.
    with pytest.raises(NotImplementedError, match="Half must define bwd"): half.backward()
    with pytest.raises(NotImplementedError, match="Module must define forward"): Module()(randn(2))


def test_a_shared_gradient_is_not_changed_in_place():
    "`Add` gives one gradient tensor to both inputs; adding to one must leave the other and `out.g` alone."
    class Add(Module):
        def forward(self, a, b): return a + b
        def bwd(self, out, a, b):
            _add_grad(a, out.g)
            _add_grad(b, out.g)

    a, b, add = randn(2), randn(2), Add()
    a.g = b.g = None
    out = add(a, b)
    out.g = torch.ones(2)
    add.backward()
    _add_grad(a, torch.ones(2))
    assert a.g.tolist() == [2, 2] and b.g.tolist() == [1, 1] and out.g.tolist() == [1, 1]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64])
def test_dtype_is_kept(dtype):
    x, t, w, b = (torch.full(s, v, dtype=dtype) for s, v in (((2, 3), 1), ((2, 4), 0), ((3, 4), 1), ((4,), 0)))
    x.g = None
    loss = forward_backward(Sequential(Linear(w, b), ReLU()), MSE(), x, t)
    assert {loss.dtype, x.g.dtype, w.g.dtype, b.g.dtype} == {dtype} and loss == 9


def test_data_costs_no_product(monkeypatch):
    "Without `x.g`, the first layer multiplies once going back: for its weight."
    calls, matmul = [], torch.Tensor.__matmul__
    monkeypatch.setattr(torch.Tensor, "__matmul__", lambda a, b: calls.append(1) or matmul(a, b))
    model, x, t = Sequential(Linear(randn(3, 2), randn(2))), randn(4, 3), randn(4, 2)
    forward_backward(model, MSE(), x, t)
    assert len(calls) == 1 and not hasattr(x, "g")
    x.g = None
    forward_backward(model, MSE(), x, t)
    assert len(calls) == 3
