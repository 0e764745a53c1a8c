"Lesson 03, backpropagation."
import torch

from .engine import Exercise, wrong


def step(answer, *args, inputs=1):
    "The gradients that an answer leaves in the `.g` of its first arguments, and what it returns."
    args = [x.clone() for x in args]
    for x in args[:inputs]: x.g = None
    value = answer(*args)
    return {f"{name}.g": x.g for name, x in zip("xwb", args[:inputs])} | {"what it returns": value}


X, W, B = (torch.tensor(x).double() for x in ([[1., 2.], [3., -1.]], [[1., -1.], [2., 1.]], [1., 1.]))
T = torch.tensor([[4., 4.], [0., 2.]]).double()


def paper(x, w, b, gx=((2., 1.), (1., 2.)), gw=((4., -1.), (1., -2.)), gb=(2., -1.), relu=True, mean=True):
    "The first exercise, with any numbers for the gradients."
    x.g, w.g, b.g = (torch.tensor(g).double() for g in (gx, gw, gb))
    z = x @ w + b
    errors = ((z.clamp(min=0) if relu else z) - T).square()
    return errors.mean() if mean else errors.sum()


class pencil(Exercise):
    title, kind, gradients = "Pencil and paper", "derive", False
    hints = ("Forward: Z = XW + b, A is Z without what is negative, L the mean of (A - T)² over four entries. L is 4.",
             "Backward: the slope along A is 2/4 (A - T). ReLU lets it through where Z is positive: that is G.",
             "G is [[1, -1], [1, 0]]. The slopes are the sum of its rows, XᵀG and G Wᵀ.")
    then = "Now let `Sequential` find the same numbers."

    def cases(randn):
        yield "the numbers of the exercise", (X.clone(), W.clone(), B.clone())
        for name, i in ("another x", 0), ("another w", 1), ("another b", 2):
            point = [X.clone(), W.clone(), B.clone()]
            point[i] = point[i] + torch.linspace(.1, .4, point[i].numel()).double().view(point[i].shape)
            yield f"{name}: what it returns", tuple(point)

    def run(answer, x, w, b):
        found = step(answer, x, w, b, inputs=3)
        return found if torch.equal(x, X) and torch.equal(w, W) and torch.equal(b, B) else {"what it returns": found["what it returns"]}

    def solution(x, w, b):
        x.g, w.g, b.g = (torch.tensor(g).double() for g in ([[2, 1], [1, 2]], [[4, -1], [1, -2]], [2, -1]))
        return ((x @ w + b).relu() - torch.tensor([[4, 4], [0, 2]])).square().mean()

    def second(x, w, b):
        gate = torch.tensor([[1., -1.], [1., 0.]], dtype=x.dtype)
        b.g, w.g, x.g = gate.sum(0), x.T @ gate, gate @ w.T
        return torch.nn.functional.mse_loss((x @ w + b).clamp(min=0), torch.tensor([[4., 4.], [0., 2.]], dtype=x.dtype))

    @wrong("let the gradient through the ReLU where Z is -3: it is 0 there")
    def no_gate(x, w, b): return paper(x, w, b, ((2., 1.), (2., 1.)), ((4., -4.), (1., -1.)), (2., -2.))

    @wrong("forgot to divide by the 4 entries of the mean", "The mean squared error starts with 2/4 (A - T).")
    def not_mean(x, w, b): return paper(x, w, b, ((8., 4.), (4., 8.)), ((16., -4.), (4., -8.)), (8., -4.))

    @wrong("divided by the 2 rows: the mean goes over all 4 entries")
    def rows(x, w, b): return paper(x, w, b, ((4., 2.), (2., 4.)), ((8., -2.), (2., -4.)), (4., -2.))

    @wrong("forgot the 2 that comes down from the square")
    def no_two(x, w, b): return paper(x, w, b, ((1., .5), (.5, 1.)), ((2., -.5), (.5, -1.)), (1., -.5))

    @wrong("took T - A for A - T: all signs are turned")
    def sign(x, w, b): return paper(x, w, b, ((-2., -1.), (-1., -2.)), ((-4., 1.), (-1., 2.)), (-2., 1.))

    @wrong("took XG for the weights: X is transposed there, since a weight meets its column of X")
    def x_not_transposed(x, w, b): return paper(x, w, b, gw=((3., -1.), (2., -3.)))

    @wrong("took GW for the inputs: W is transposed there")
    def w_not_transposed(x, w, b): return paper(x, w, b, gx=((-1., -2.), (1., -1.)))

    @wrong("summed over the columns of G for the bias: one entry of b stands in every row")
    def columns(x, w, b): return paper(x, w, b, gb=(0., 1.))

    @wrong("left the ReLU out of the loss")
    def no_relu(x, w, b): return paper(x, w, b, relu=False)

    @wrong("returned the sum of the squares, not their mean")
    def summed(x, w, b): return paper(x, w, b, mean=False)

    @wrong("wrote the 4 into the loss: it is computed from x, w and b, so that `check_gradients` can move them")
    def constant(x, w, b):
        paper(x, w, b)
        return torch.tensor(4.).double()


def steps(randn):
    "Inputs of the functions that take (x, g)."
    d = lambda *x: torch.tensor(x).double()
    yield "a column of two", (d([1.], [3.]), d([1.], [4.]))
    yield "two columns", (d([1., -2.], [3., 0.]), d([1., 2.], [4., -1.]))
    yield "three rows, two columns", (d([1., -2.], [3., 0.], [.5, 1.]), d([1., 2.], [4., -1.], [2., 2.]))
    yield "one row", (d([1., 2., 3.]), d([1., 5., -1.]))
    yield "zeros from above", (d([1., 2.], [0., 1.]), torch.zeros(2, 2).double())
    yield "large entries", (d([40., -40.], [800., -800.]), d([1., 2.], [4., -1.]))
    yield "many", (randn(6, 5), randn(6, 5))


class sigmoid_step(Exercise):
    title, kind, gradients = "A smooth gate", "derive", False
    hints = ("Local slope times what comes from above, entry by entry.", "With y = torch.sigmoid(x), the local slope is y (1 - y).",
             "`x.g = g * y * (1 - y)`, and return `(g * y).sum()`.")
    then = "Make it a `Module`. Which of `out` and `x` does its `bwd` need?"
    cases = steps

    def run(answer, x, g): return step(answer, x, g)

    def solution(x, g):
        y = torch.sigmoid(x)
        x.g = g * y * (1 - y)
        return (g * y).sum()

    def second(x, g):
        x.g = torch.sigmoid(x) * torch.sigmoid(-x) * g
        return torch.dot(g.flatten(), torch.sigmoid(x).flatten())

    @wrong("wrote x (1 - x): the slope is made of the outputs, y (1 - y)")
    def of_x(x, g):
        x.g = g * x * (1 - x)
        return (g * x.sigmoid()).sum()

    @wrong("left out what comes from above: the local slope is multiplied by g")
    def no_g(x, g):
        x.g = x.sigmoid() * (1 - x.sigmoid())
        return (g * x.sigmoid()).sum()

    @wrong("left out the factor 1 - y")
    def one_factor(x, g):
        x.g = g * x.sigmoid()
        return (g * x.sigmoid()).sum()

    @wrong("wrote 1 - y²: that is the slope of tanh")
    def tanh(x, g):
        x.g = g * (1 - x.sigmoid().square())
        return (g * x.sigmoid()).sum()

    @wrong("took y - 1 for 1 - y: the sigmoid climbs everywhere")
    def sign(x, g):
        x.g = g * x.sigmoid() * (x.sigmoid() - 1)
        return (g * x.sigmoid()).sum()

    @wrong("returned the gradient, and left nothing in `x.g`")
    def returned(x, g): return g * x.sigmoid() * (1 - x.sigmoid())

    @wrong("returned y: what comes back is the sum of `g * y`, one number")
    def returned_y(x, g):
        x.g = g * x.sigmoid() * (1 - x.sigmoid())
        return x.sigmoid()

    @wrong("returned the sum of y, without g: then g has no part in the loss, and the gradient does not fit it")
    def sum_of_y(x, g):
        x.g = g * x.sigmoid() * (1 - x.sigmoid())
        return x.sigmoid().sum()

    @wrong("returned nothing: what comes back is the sum of `g * y`, one number")
    def no_return(x, g): x.g = g * x.sigmoid() * (1 - x.sigmoid())


class center_step(Exercise):
    title, kind, gradients = "Taking the mean away", "derive", False
    hints = ("One entry goes two ways: straight to its own output, with slope 1, and to all outputs of its column through the mean.",
             "Through the mean, each output of the column has the slope -1/n. Routes add.",
             "So from each g its column's mean is taken away.")
    then = "A column of `x.g` sums to 0. Why must it? (Add 1 to a whole column of x.)"
    cases = steps

    def run(answer, x, g): return step(answer, x, g)

    def solution(x, g):
        x.g = g - g.mean(0)
        return (g * (x - x.mean(0))).sum()

    def second(x, g):
        n = len(x)
        away = torch.eye(n, dtype=x.dtype) - torch.full((n, n), 1/n, dtype=x.dtype)
        x.g = away.T @ g
        return (g * (away @ x)).sum()

    @wrong("left out the route through the mean: each entry moves its whole column")
    def no_mean(x, g):
        x.g = g.clone()
        return (g * (x - x.mean(0))).sum()

    @wrong("gave each entry its own share of the mean only, (1 - 1/n) g: it moves the other outputs of its column too")
    def own_share(x, g):
        x.g = g * (1 - 1/len(x))
        return (g * (x - x.mean(0))).sum()

    @wrong("took the sum of the column away: each slope through the mean is -1/n")
    def sum_away(x, g):
        x.g = g - g.sum(0)
        return (g * (x - x.mean(0))).sum()

    @wrong("took the mean over the columns of g: the mean goes over the rows, dimension 0")
    def other_dim(x, g):
        x.g = g - g.mean(1, keepdim=True)
        return (g * (x - x.mean(0))).sum()

    @wrong("took the mean of all entries: each column has its own")
    def all_entries(x, g):
        x.g = g - g.mean()
        return (g * (x - x.mean(0))).sum()

    @wrong("added the mean: it is taken away forward, and so backward")
    def plus(x, g):
        x.g = g + g.mean(0)
        return (g * (x - x.mean(0))).sum()

    @wrong("took the mean of x away, not that of g: the gradient is made of what comes from above")
    def of_x(x, g):
        x.g = g - x.mean(0)
        return (g * (x - x.mean(0))).sum()

    @wrong("returned the gradient, and left nothing in `x.g`")
    def returned(x, g): return g - g.mean(0)

    @wrong("returned the sum of y without g: the centred entries sum to 0")
    def sum_of_y(x, g):
        x.g = g - g.mean(0)
        return (x - x.mean(0)).sum()

    @wrong("returned nothing: what comes back is the sum of `g * y`, one number")
    def no_return(x, g): x.g = g - g.mean(0)
