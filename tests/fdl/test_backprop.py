"`fdl.backprop`: gradients equal to torch's, the checker's verdicts, what is added and what is refused."
import pytest
import torch
from hypothesis import given, settings, strategies as st
from torch import nn
from torch.testing import assert_close

from fdl.backprop import MSE, Linear, Module, ReLU, Sequential, add_grad, check_gradients

size = st.integers(1, 6)


def randn(*shape): return torch.randn(shape, dtype=torch.float64)


def forward_backward(model, loss_func, x, target):
    loss = loss_func(model(x), target)
    loss.g = 1.
    loss_func.backward()
    model.backward()
    return loss


# Networks.

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


def test_sequential_nests_and_shares():
    torch.manual_seed(0)
    x, t, w, b = randn(4, 3), randn(4, 3), randn(3, 3), randn(3)
    model = Sequential(Sequential(Linear(w, b), ReLU()), Sequential(Linear(w, b)), Sequential())
    assert check_gradients(lambda x, *_: forward_backward(model, MSE(), x, t), x, w, b) < 1e-7


def test_a_layer_that_stands_twice_is_refused():
    "It would remember its last call only, and go back through that one twice; copies on the same tensors are right."
    w, b, relu = randn(3, 3), randn(3), ReLU()
    lin = Linear(w, b)
    for layers in ((relu, lin, relu), (lin, Sequential(lin)), (Sequential(Sequential(relu), lin), relu), (Sequential(lin), Sequential(lin))):
        with pytest.raises(ValueError, match="give each place its own layer"): Sequential(*layers)
    assert len(Sequential(relu, lin, ReLU(), Linear(w, b)).layers) == 4


def test_a_value_that_is_used_by_two_layers():
    "It collects from both before it passes anything on; when its layer goes back too early, the second share is lost."
    torch.manual_seed(0)
    inputs = randn(4, 3), randn(3, 3), randn(3), randn(3, 3), randn(3, 3)

    def fork(order):
        def f(x, w, b, w_left, w_right):
            layers = first, left, right = Linear(w, b), Linear(w_left, b), Linear(w_right, b)
            h = first(x)
            y, z = left(h), right(h)
            y.g, z.g = z, y                             # the slopes of the sum of y * z
            for k in order: layers[k].backward()
            return (y * z).sum()
        return f

    for order in ((1, 2, 0), (2, 1, 0)): assert check_gradients(fork(order), *inputs) < 1e-7
    with pytest.raises(AssertionError, match=r"12 of 12 entries of inputs\[0\] are wrong"): check_gradients(fork((1, 0, 2)), *inputs)


def test_two_losses_on_the_same_values():
    torch.manual_seed(0)

    def f(input, target):
        first, second = MSE(), MSE()
        losses = first(input, target), second(target, input)
        losses[0].g, losses[1].g = 1., 3.
        for loss_func in (first, second): loss_func.backward()
        return losses[0] + 3*losses[1]

    assert check_gradients(f, randn(4, 3), randn(4, 3)) < 1e-7


def test_passes_add_until_they_are_cleared():
    torch.manual_seed(0)
    x, t, w, b = randn(4, 3), randn(4, 2), randn(3, 2), randn(2)
    model = Sequential(Linear(w, b))
    forward_backward(model, MSE(), x, t)
    once = w.g
    forward_backward(model, MSE(), x, t)
    assert_close(w.g, 2*once)
    w.g = None
    forward_backward(model, MSE(), x, t)
    assert_close(w.g, once)


def test_relu_selects():
    "At its corner the slope is 0; where it is shut, an infinite slope from above stays outside."
    x = torch.tensor([-1., 0., 2.])
    x.g, relu = torch.ones(3), ReLU()
    relu(x).g = torch.tensor([torch.inf, torch.nan, 3.])
    relu.backward()
    assert x.g.tolist() == [1, 1, 4]
    root = torch.tensor([-1.])
    root.g = None
    out = relu(root)
    out.g = out**-.5 / 2                                # the slope of a square root at 0
    relu.backward()
    assert root.g == 0


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


# A module of one's own.

def test_a_shared_gradient_is_not_changed_in_place():
    "`Add` gives one gradient tensor to both inputs; adding to one must leave the other and `out.g` alone."
    class Add(Module):
        def forward(self, a, b): return a + b
        def bwd(self, out, a, b):
            add_grad(a, out.g)
            add_grad(b, out.g)

    a, b, add = randn(2), randn(2), Add()
    a.g = b.g = None
    out = add(a, b)
    out.g = torch.ones(2)
    add.backward()
    add_grad(a, torch.ones(2))
    assert a.g.tolist() == [2, 2] and b.g.tolist() == [1, 1] and out.g.tolist() == [1, 1]


def test_add_grad_leaves_data_alone():
    data = torch.ones(2)
    add_grad(data, torch.ones(2))
    assert not hasattr(data, "g")


def test_refusals():
    x, w, b, relu = randn(4, 3), randn(3, 2), randn(2), ReLU()
    for _ in range(2):                                  # before any call, and after one
        with pytest.raises(RuntimeError, match="no gradient has arrived at ReLU"): relu.backward()
        relu(x)
    for bad in (randn(2, 4), randn(3), randn(1, 4, 3)):
        with pytest.raises(RuntimeError): Linear(w, b)(bad)


@pytest.mark.parametrize("input, target", [((4, 1), (4,)), ((4, 2), (2, 4)), ((4,), ()), ((4, 2), (1, 2))])
def test_mse_refuses(input, target):
    with pytest.raises(ValueError, match="same shape"): MSE()(randn(*input), randn(*target))


# The checker.

@settings(max_examples=60, deadline=None)
@given(shapes=st.lists(st.lists(st.integers(1, 3), max_size=3), min_size=1, max_size=3), data=st.data())
def test_a_planted_fault_is_named(shapes, data):
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


def test_large_slopes_may_be_off_by_more():
    "The error is divided by the slope where that is above 1; the worst entry is the one with the largest such error."
    def f(x):
        x.g = 3*x**2 + torch.tensor([.5, 1.])
        return (x**3).sum()

    x = torch.tensor([1., 4.]).double()
    assert_close(check_gradients(f, x, tol=1.), .5 / 3)
    with pytest.raises(AssertionError, match=r"inputs\[0\]\[0\]: expected 3, got 3.5 .2 of 2 "): check_gradients(f, x)


def leaves(g, out=torch.tensor(1.)):
    "An `f` of one input that leaves `g` as its gradient and returns `out`."
    def f(x):
        x.g = g
        return out
    return f


@pytest.mark.parametrize("f, x, error, message", [
    (leaves(None), randn(2), AssertionError, r"inputs\[0\].g must have shape \(2,\), but is None"),
    (leaves(0.), randn(2), AssertionError, r"must have shape \(2,\), but is 0.0"),
    (leaves(torch.zeros(2, 1)), randn(2), AssertionError, r"must have shape \(2,\)"),
    (leaves(torch.full((2,), torch.inf)), randn(2), AssertionError, "got inf .2 of 2"),
    (leaves(torch.full((2,), torch.nan)), randn(2), AssertionError, "got nan .2 of 2"),
    (leaves(torch.zeros(2), out=torch.ones(2)), randn(2), RuntimeError, "2 elements cannot be converted to Scalar"),
    (leaves(torch.zeros(2)), torch.ones(2), TypeError, r"inputs\[0\] must be float64, not torch.float32"),
])
def test_the_checker_refuses(f, x, error, message):
    with pytest.raises(error, match=message): check_gradients(f, x)


def test_the_checker_nudges_through_a_view():
    whole = randn(3, 4)

    def f(x):
        x.g = torch.full_like(x, 3.)
        return 3*whole.sum()

    assert check_gradients(f, whole[:, ::2]) < 1e-7


def test_gradients_of_an_earlier_run_do_not_count():
    x = randn(3)
    x.g = 2*x

    def f(x): return (x*x).sum()        # leaves nothing

    with pytest.raises(AssertionError, match="but is None"): check_gradients(f, x)
