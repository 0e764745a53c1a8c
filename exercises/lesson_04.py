"Lesson 04, autograd: what is built here works on `Tensor` of fdl.autograd, or of the learner's notebook."
import torch

from fdl.autograd import Tensor, _node

from .engine import Exercise, wrong


def tensor_of(answer):
    "The `Tensor` that an answer works on: that of the notebook, where the lesson has built one."
    return getattr(answer, "__globals__", {}).get("Tensor", Tensor)


def result(answer, x, *rest):
    "What an answer gives for a Tensor of `x`, and the gradient that comes back when its square is summed."
    kind = tensor_of(answer)
    kind = kind if hasattr(kind, "births") else Tensor   # not torch's
    leaf = kind(x, requires_grad=True)
    out = answer(leaf * 1., *rest)
    if not hasattr(out, "parents"): return {"the result": out}
    found = {"the result": out.data}
    weights = torch.linspace(.5, 1.5, out.data.numel(), dtype=x.dtype).view(out.data.shape)
    if out.requires_grad: (out * weights).sum().backward()
    return found | {"the gradient": leaf.grad, "it is one node": bool(out.parents) and out.parents[0][0].birth == leaf.birth + 1}


class reshape(Exercise):
    title, kind, gradients = "Reshape", "implement", False
    hints = ("Forward is `t.data.reshape(shape)`. Nothing is computed, so what must the share do?",
             "The gradient has the new shape. The share gives it the old one.",
             '`_node("reshape", t.data.reshape(shape), (t, lambda g: ...))`')
    then = "Write `flatten` with it."

    def cases(randn):
        yield "six entries, two rows", (torch.arange(6.).double(), (2, 3))
        yield "rows and columns swapped", (torch.arange(6.).double().view(2, 3), (3, 2))
        yield "flat", (randn(2, 2), (4,))
        yield "one entry", (torch.tensor(3.).double(), (1, 1))
        yield "float32", (torch.arange(4.), (2, 2))
        yield "three dimensions", (randn(2, 3, 4), (4, 6))

    def run(answer, x, shape): return result(answer, x, shape)
    def solution(t, shape): return _node("reshape", t.data.reshape(shape), (t, lambda g: g.reshape(t.data.shape)))

    def second(t, shape):
        old = t.shape
        def share(g): return torch.reshape(g, old)
        return _node("view", t.data.clone().view(*shape), (t, share))

    @wrong("sent the gradient back in the new shape: the share must have that of `t`", "`g.reshape(t.data.shape)`")
    def new_shape(t, shape): return _node("reshape", t.data.reshape(shape), (t, lambda g: g))

    @wrong("made a Tensor that does not know its parents: use `_node`, and no gradient gets lost")
    def no_graph(t, shape): return type(t)(t.data.reshape(shape))

    @wrong("returned torch's tensor, not a `Tensor`")
    def raw(t, shape): return t.data.reshape(shape)

    @wrong("sent ones back: the share rearranges what comes, and forgets nothing")
    def ones(t, shape): return _node("reshape", t.data.reshape(shape), (t, lambda g: torch.ones_like(t.data)))

    @wrong("sent the entries back in another order", "`reshape` reads row by row, forward and backward.")
    def order(t, shape): return _node("reshape", t.data.reshape(shape), (t, lambda g: g.flatten().flip(0).reshape(t.data.shape)))

    @wrong("multiplied the gradient by the entries of `t`: reshaping only moves, so the local slope is 1")
    def times(t, shape): return _node("reshape", t.data.reshape(shape), (t, lambda g: g.reshape(t.data.shape) * t.data))


class sigmoid(Exercise):
    title, kind, gradients = "Sigmoid as one operation", "implement", False
    hints = ("`torch.sigmoid(t.data)` is the forward line; keep it, the share needs it.", "The slope is y (1 - y).",
             '`_node("sigmoid", y, (t, lambda g: g * y * (1 - y)))`')
    then = "Build it from `exp` and `/` too: how many nodes does `draw_graph` draw, and what happens at -1000?"

    def cases(randn):
        d = lambda *x: torch.tensor(x).double()
        yield "zero and two", (d(0., 2.),)
        yield "a number", (torch.tensor(-1.).double(),)
        yield "huge", (d(-1000., 1000.),)
        yield "float32", (torch.tensor([1., -1.]),)
        yield "two dimensions", (randn(3, 4),)

    def run(answer, x): return result(answer, x)

    def solution(t):
        y = torch.sigmoid(t.data)
        return _node("sigmoid", y, (t, lambda g: g * y * (1 - y)))

    def second(t):
        return _node("sigmoid", t.data.sigmoid(), (t, lambda g: t.data.sigmoid() * (-t.data).sigmoid() * g))

    @wrong("wrote t (1 - t): the slope is made of the outputs, y (1 - y)")
    def of_t(t): return _node("sigmoid", t.data.sigmoid(), (t, lambda g: g * t.data * (1 - t.data)))

    @wrong("left out what comes from above: the share is multiplied by g")
    def no_g(t):
        y = t.data.sigmoid()
        return _node("sigmoid", y, (t, lambda g: y * (1 - y)))

    @wrong("left out the factor 1 - y")
    def one_factor(t):
        y = t.data.sigmoid()
        return _node("sigmoid", y, (t, lambda g: g * y))

    @wrong("wrote 1 - y²: that is the slope of tanh")
    def tanh(t):
        y = t.data.sigmoid()
        return _node("sigmoid", y, (t, lambda g: g * (1 - y*y)))

    @wrong("built it from several operations: one node is asked for", "Use `_node` once.")
    def several(t): return 1. / ((-t).exp() + 1.)

    @wrong("made a Tensor that does not know its parents: use `_node`, and no gradient gets lost")
    def no_graph(t): return type(t)(t.data.sigmoid())

    @wrong("returned torch's tensor, not a `Tensor`")
    def raw(t): return t.data.sigmoid()

    @wrong("turned the sign: 1 / (1 + exp(-t)) climbs")
    def falling(t):
        y = (-t.data).sigmoid()
        return _node("sigmoid", y, (t, lambda g: -g * y * (1 - y)))


class grad(Exercise):
    title, kind, gradients = "Gradients without a trace", "extend", False
    hints = ("`backward` adds to what is in `.grad`. What has to be noted first, and put back last?",
             "Note each input's `.grad`, set it to None, call `output.backward()`, read, put back.")
    then = "A leaf that is no input gets a gradient too. How could `_walk` be told to leave it alone?"

    def cases(randn):
        d = lambda *x: torch.tensor(x).double()
        yield "two inputs", (d(2.), d(3.), None, 2)
        yield "a gradient that was there before", (d(2.), d(3.), d(10.), 2)
        yield "one input", (d(2.), d(3.), None, 1)
        yield "several entries", (d(1., 2.), d(3., -4.), d(5., 6.), 2)
        yield "many", (randn(3, 4), randn(3, 4), None, 2)

    def run(answer, a, b, before, number):
        kind = tensor_of(answer)
        kind = kind if hasattr(kind, "births") else Tensor
        leaves = [kind(x, requires_grad=True) for x in (a, b)]
        for leaf, sign in zip(leaves, (1, -1)): leaf.grad = None if before is None else sign*before
        output = (leaves[0] * leaves[0] * leaves[1] + leaves[0]).sum()
        found = answer(output, leaves[:number])
        return {"what it returns": list(found) if isinstance(found, tuple) else found, ".grad of the inputs afterwards": [x.grad for x in leaves[:number]]}

    def solution(output, inputs):
        before = [x.grad for x in inputs]
        for x in inputs: x.grad = None
        output.backward()
        found = [x.grad for x in inputs]
        for x, old in zip(inputs, before): x.grad = old
        return found

    def second(output, inputs):
        before = {x: x.grad for x in inputs}
        output.backward()
        found = [x.grad if before[x] is None else x.grad - before[x] for x in inputs]
        for x in inputs: x.grad = before[x]
        return found

    @wrong("left the gradients in `.grad`: they are to be as they were")
    def trace(output, inputs):
        for x in inputs: x.grad = None
        output.backward()
        return [x.grad for x in inputs]

    @wrong("returned old and new gradients added up: `backward` adds to what is there")
    def old_and_new(output, inputs):
        before = [x.grad for x in inputs]
        output.backward()
        found = [x.grad for x in inputs]
        for x, old in zip(inputs, before): x.grad = old
        return found

    @wrong("cleared `.grad` at the end: what was there before is lost", "Put the old one back.")
    def cleared(output, inputs):
        for x in inputs: x.grad = None
        output.backward()
        found = [x.grad for x in inputs]
        for x in inputs: x.grad = None
        return found

    @wrong("called `backward` and returned nothing")
    def nothing(output, inputs): output.backward()

    @wrong("called `backward` once for each input: one pass finds them all, and the second adds to the first")
    def often(output, inputs):
        before = [x.grad for x in inputs]
        for x in inputs: x.grad = None
        for _ in inputs: output.backward()
        found = [x.grad for x in inputs]
        for x, old in zip(inputs, before): x.grad = old
        return found

    @wrong("put the old gradients back before you read the new ones")
    def too_early(output, inputs):
        before = [x.grad for x in inputs]
        output.backward()
        for x, old in zip(inputs, before): x.grad = old
        return [x.grad for x in inputs]

    @wrong("called `backward` and left it at that: it adds to `.grad`, and what it added stays there", "Note each `.grad` first, and put it back last.")
    def plain_backward(output, inputs):
        output.backward()
        return [x.grad for x in inputs]
