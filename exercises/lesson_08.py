"Lesson 08, optimizers."
import torch

from fdl.optim import Optimizer

from .engine import Exercise, wrong


class Base(Optimizer):
    "An Adagrad whose `divisor` is to be written: what a mistake changes."
    def __init__(self, params, lr=0.01, eps=1e-10): super().__init__(params, dict(lr=lr, eps=eps))
    def divisor(self, state, grad, eps): return self.total(state, grad.square()).sqrt() + eps
    def total(self, state, new):
        if not state: state["sum"] = torch.zeros_like(new)
        return state["sum"].add_(new)
    def update(self, p, grad, state, group): p.sub_(group["lr"]*grad/self.divisor(state, grad, group["eps"]))


class Adagrad(Exercise):
    title, kind, gradients = "Adagrad", "implement", False
    hints = ("What does a parameter need to remember from step to step, and what is it before the first?",
             'In the first step `state["sum"]` is made: `torch.zeros_like(p)`. Each step adds `grad.square()` to it.',
             "Then `p` moves by `-lr * grad / (sum.sqrt() + eps)`, in place.")
    then = "`step_sizes(Adagrad)`: is step 100 a tenth of a rate long?"

    def cases(randn):
        Base([torch.zeros(1, requires_grad=True)]).step()  # torch imports much with the first: not in the answer's time
        d = lambda *x: torch.tensor(x).double()
        yield "two steps", (d(1.), [d(3.), d(4.)], dict(lr=.1))
        yield "entries of different sizes", (d(1., 1.), [d(2., .01), d(-1., .02), d(.5, .01)], dict(lr=.1))
        yield "a gradient of 0", (d(1., 1.), [d(0., 2.), d(0., 1.)], dict(lr=.1))
        yield "a large eps", (d(1.), [d(2.), d(1.)], dict(lr=.1, eps=1.))
        yield "the settings left out", (d(1.), [d(2.), d(1.)], {})
        yield "a number", (torch.tensor(1.).double(), [torch.tensor(2.).double()]*2, dict(lr=.5))
        yield "float32", (torch.ones(2), [torch.tensor([1., -2.])]*2, dict(lr=.1))
        yield "many", (randn(4, 3), [randn(4, 3) for _ in range(5)], dict(lr=.3, eps=1e-3))

    def run(answer, start, grads, settings):
        p = torch.nn.Parameter(start.clone())
        opt = answer([p], **settings)
        found = {}
        for t, grad in enumerate(grads, 1):
            p.grad = grad.clone()
            opt.step()
            found |= {f"parameter after step {t}": p.detach().clone(), f"gradient after step {t}": p.grad.clone()}
        return found | {'state["sum"]': opt.state[p].get("sum")}

    class solution(Optimizer):
        def __init__(self, params, lr=0.01, eps=1e-10): super().__init__(params, dict(lr=lr, eps=eps))
        def update(self, p, grad, state, group):
            if not state: state["sum"] = torch.zeros_like(p)
            s = state["sum"].add_(grad.square())
            p.sub_(group["lr"]*grad/(s.sqrt() + group["eps"]))

    class second(Optimizer):
        def __init__(self, params, lr=0.01, eps=1e-10): super().__init__(params, {"lr": lr, "eps": eps})
        def update(self, p, grad, state, group):
            state["sum"] = state["sum"] + grad**2 if "sum" in state else grad**2
            p.addcdiv_(grad, state["sum"]**.5 + group["eps"], value=-group["lr"])

    @wrong("kept a running mean of the squares: Adagrad's sum forgets nothing", "Nothing shrinks the old sum.")
    class running_mean(Base):
        def total(self, state, new):
            state["sum"] = .99*state.get("sum", torch.zeros_like(new)) + .01*new
            return state["sum"]

    @wrong("divided by the sum of squares without its root")
    class no_root(Base):
        def divisor(self, state, grad, eps): return self.total(state, grad.square()) + eps

    @wrong("summed the gradients, not their squares: opposite ones cancel, and the root of a negative sum is nan")
    class not_squared(Base):
        def divisor(self, state, grad, eps): return self.total(state, grad).sqrt() + eps

    @wrong("summed the absolute values, and took no root of a sum of squares")
    class absolute(Base):
        def divisor(self, state, grad, eps): return self.total(state, grad.abs()) + eps

    @wrong("left out `eps`: where no gradient has come yet, this is 0/0")
    class no_eps(Base):
        def divisor(self, state, grad, eps): return self.total(state, grad.square()).sqrt()

    @wrong("put `eps` under the root: it is added to the root")
    class eps_inside(Base):
        def divisor(self, state, grad, eps): return (self.total(state, grad.square()) + eps).sqrt()

    @wrong("counted the first gradient twice: once as the start of the sum, and once more when it was added", "Start from zeros, or do not add in the first step.")
    class first_twice(Base):
        def total(self, state, new):
            if not state: state["sum"] = new.clone()
            return state["sum"].add_(new)

    @wrong("kept only the last square: the sum starts again in each step")
    class forgets(Base):
        def total(self, state, new):
            state["sum"] = new
            return new

    @wrong("moved with the gradient: a step goes against it")
    class uphill(Base):
        def update(self, p, grad, state, group): p.add_(group["lr"]*grad/self.divisor(state, grad, group["eps"]))

    @wrong("kept one sum for the whole parameter: each entry has its own")
    class one_sum(Base):
        def total(self, state, new): return super().total(state, new.sum().expand_as(new))

    @wrong("made a new tensor instead of changing `p`: `p = p - ...` is lost when `update` ends", "`p.sub_(...)` or `p -= ...` changes it in place.")
    class not_in_place(Base):
        def update(self, p, grad, state, group): p = p - group["lr"]*grad/self.divisor(state, grad, group["eps"])

    @wrong("squared the gradient in place: it is needed once more in the same step", "`grad.square()` makes a new tensor, `grad.square_()` does not.")
    class squares_in_place(Base):
        def divisor(self, state, grad, eps): return self.total(state, grad.square_()).sqrt() + eps


def scaled(params, norm, max_norm):
    "Scales the gradients if the norm is too large; returns the norm."
    for p in params: p.grad *= (max_norm/norm).clamp(max=1)
    return norm


def joint(tensors): return sum(t.square().sum() for t in tensors).sqrt()


class clip_grad_norm(Exercise):
    title, kind, gradients = "Clip the gradient", "implement", False
    hints = ("The norm is one number for all gradients together: as if they stood in one long vector.",
             "The factor is `max_norm / norm`, but at most 1: which function of tensors does that without an `if`?",
             "`(max_norm / norm).clamp(max=1)`; multiply each `p.grad` by it.")
    then = "Clip in lesson 07's training loop, between `backward` and `step`, and note the norms."
    forbidden = ("item", "__bool__", "__float__", "tolist", "cpu", "numpy")
    compare = dict(rtol=1e-5, atol=1e-5)

    def cases(randn):
        d = lambda *x: torch.tensor(x).double()
        yield "two parameters, too long", ([d(30.), d(40.)], 1.)
        yield "short enough", ([d(30.), d(40.)], 100.)
        yield "each short enough, together not", ([d(3.), d(4.)], 4.5)
        yield "one parameter", ([d(3., -4.)], 2.)
        yield "different shapes", ([randn(3, 4), randn(5), torch.tensor(-2.).double()], .5)
        yield "zeros", ([d(0., 0.)], 1.)
        yield "float32", ([torch.tensor([3.]), torch.tensor([[4.]])], 1.)

    def run(answer, grads, max_norm):
        params = [torch.nn.Parameter(torch.full_like(g, 2)) for g in grads]
        for p, g in zip(params, grads): p.grad = g.clone()
        norm = answer(params, max_norm)
        return {"gradients": [p.grad for p in params], "norm returned": norm, "parameters": [p.detach() for p in params]}

    def solution(params, max_norm):
        norm = sum(p.grad.square().sum() for p in params).sqrt()
        factor = (max_norm/norm).clamp(max=1)
        for p in params: p.grad *= factor
        return norm

    def second(params, max_norm):
        norm = torch.cat([p.grad.flatten() for p in params]).norm()
        for p in params: p.grad = p.grad*max_norm/torch.clamp(norm, min=max_norm)
        return norm

    @wrong("clipped each parameter by its own norm: one number scales all, so that the direction stays")
    def each_alone(params, max_norm):
        norm = joint([p.grad for p in params])
        for p in params: scaled([p], joint([p.grad]), max_norm)
        return norm

    @wrong("clipped each entry: that changes the direction of the step")
    def entries(params, max_norm):
        norm = joint([p.grad for p in params])
        for p in params: p.grad.clamp_(-max_norm, max_norm)
        return norm

    @wrong("added up the norms of the parameters: the squares are added, and the root comes last")
    def sum_of_norms(params, max_norm): return scaled(params, sum(p.grad.norm() for p in params), max_norm)

    @wrong("forgot the root: this is the squared norm")
    def no_root(params, max_norm): return scaled(params, joint([p.grad for p in params]).square(), max_norm)

    @wrong("scaled short gradients up to `max_norm` too: the factor is at most 1", "`.clamp(max=1)`")
    def always(params, max_norm):
        norm = joint([p.grad for p in params])
        for p in params: p.grad *= max_norm/norm
        return norm

    @wrong("returned the norm after clipping: asked for is the one from before")
    def norm_after(params, max_norm):
        scaled(params, joint([p.grad for p in params]), max_norm)
        return joint([p.grad for p in params])

    @wrong("measured the parameters, not their gradients")
    def of_parameters(params, max_norm): return scaled(params, joint([p.detach() for p in params]), max_norm)

    @wrong("changed copies: the gradients are as they were", "`g = g * factor` gives a new tensor; `p.grad *= factor` changes the old one.")
    def copies(params, max_norm): return joint([p.grad for p in params])

    @wrong("read the norm back, with an `if`, `min` or `float`: on a GPU, the program waits for it there", "`clamp(max=1)` decides without looking.")
    def reads_back(params, max_norm):
        norm = joint([p.grad for p in params])
        if norm > max_norm: scaled(params, norm, max_norm)
        return norm

    @wrong("returned a Python number: that reads the value back, and on a GPU the program waits for it", "Return the tensor.")
    def number(params, max_norm): return scaled(params, joint([p.grad for p in params]), max_norm).item()

    @wrong("returned nothing, or not the norm")
    def nothing(params, max_norm): scaled(params, joint([p.grad for p in params]), max_norm)


class critical_momentum(Exercise):
    title, kind, gradients = "Neither swings nor creeps", "derive", False
    hints = ("Put z^t into the rule, and divide by z^(t-1): a quadratic equation for z.",
             "Its two roots are one where (1 + mu - lr*c)² = 4 mu. Write mu as a square.",
             "1 + mu - 2√mu = (1 - √mu)², and this is lr*c.")
    then = "Plot θ₂ of `down_valley(SGD, lr=0.02, momentum=...)` for a smaller and a larger one."

    def cases(randn):
        yield "a flat direction", (.01, 1.)
        yield "the lesson's", (.02, 30.)
        yield "where plain steps arrive at once", (.5, 2.)
        yield "steeper", (.5, 4.5)
        yield "almost level", (.001, .1)

    def run(answer, lr, c): return float(answer(lr, c))
    def solution(lr, c): return (1 - (lr*c)**.5)**2

    def second(lr, c):
        import math
        return 1 + lr*c - 2*math.sqrt(lr*c)

    @wrong("found √μ, not μ")
    def not_squared(lr, c): return 1 - (lr*c)**.5

    @wrong("took the other root, which is above 1: with so much momentum, nothing settles")
    def too_large(lr, c): return (1 + (lr*c)**.5)**2

    @wrong("forgot the root of η c")
    def no_root(lr, c): return (1 - lr*c)**2

    @wrong("set the middle coefficient 1 + μ - ηc to 0: the discriminant has to vanish")
    def middle(lr, c): return lr*c - 1

    @wrong("made one step arrive: that is the rate that suits without momentum")
    def linear(lr, c): return 1 - lr*c

    @wrong("multiplied out (1 - √(ηc))² without its factor 2")
    def no_two(lr, c): return 1 + lr*c - (lr*c)**.5
