"Lesson 02, matrix products."
import torch

from .engine import Exercise, wrong


class outer(Exercise):
    title, kind = "Outer product", "implement"
    hints = ("Broadcasting lines shapes up from the right. Which shape must `a` have, so that each of its entries meets all of `b`?",
             "A column of shape (n, 1) times a row of shape (p,) gives (n, p).",
             "`a[:, None]` is the column.")
    then = "Time it against three loops, as the lesson did."
    forbidden = ("outer", "ger", "matmul", "__matmul__", "mm", "einsum", "tensordot", "kron")
    most_calls = 12

    def cases(randn):
        yield "different lengths", (torch.tensor([1., 2.]).double(), torch.tensor([3., 4., 5.]).double())
        yield "the same length", (torch.tensor([1., 2.]).double(), torch.tensor([3., 4.]).double())
        yield "one entry each", (torch.tensor([2.]).double(), torch.tensor([3.]).double())
        yield "whole numbers", (torch.tensor([1, 2]), torch.tensor([3, 4, 5]))
        yield "float32", (torch.tensor([1., 2.]), torch.tensor([3., 4., 5.]))
        yield "an empty one", (torch.zeros(0).double(), torch.tensor([3., 4.]).double())
        yield "many entries", (randn(30), randn(40))

    def solution(a, b):
        return a[:, None] * b

    def second(a, b):
        return a.reshape(-1, 1).expand(len(a), len(b)) * b.reshape(1, -1)

    @wrong("made `b` the column and `a` the row: rows and columns are swapped", "Row i of the answer belongs to `a[i]`: make `a` the column.")
    def swapped(a, b): return a * b[:, None]

    @wrong("multiplied entries with the same index: every entry of `a` must meet every entry of `b`")
    def elementwise(a, b): return a * b

    @wrong("added up the products: that is the dot product, one number")
    def dot(a, b): return (a * b).sum()

    @wrong("added the entries instead of multiplying them")
    def added(a, b): return a[:, None] + b

    @wrong("computed in 32-bit floats whatever came in", "`torch.zeros(n, p)` is float32: leave the type to `*`, or give `dtype=a.dtype`.")
    def float32(a, b): return a[:, None].float() * b.float()

    @wrong("called a function of torch's that does the whole exercise")
    def torchs(a, b): return torch.outer(a, b)

    @wrong("went over the entries in a loop: the numbers are right, but broadcasting does them all at once")
    def loop(a, b): return torch.stack([x * b for x in a]) if len(a) else a[:, None] * b

    @wrong("left the products in one long row", "The answer needs the shape (n, p).")
    def flat(a, b): return (a[:, None] * b).flatten()


class tent(Exercise):
    title, kind = "A tent", "derive"
    hints = ("Each neuron bends the output once. Where are the three bends, and by how much does the slope change at each?",
             "The slopes are 0, 1, -1, 0, so they change by 1, -2 and 1.",
             "With a weight of 1, a bias of -1 puts the bend of `relu(weight*t + bias)` at t = 1.")
    then = "Draw it, then make it twice as high and half as wide."
    gradients = False

    def cases(randn):
        yield "the top", (torch.tensor([[2.]]),)
        yield "halfway up, halfway down", (torch.tensor([[1.5], [2.5]]),)
        yield "left of it", (torch.tensor([[0.], [-3.], [1.]]),)
        yield "right of it", (torch.tensor([[3.], [4.], [10.]]),)
        yield "no input", (torch.zeros(0, 1),)
        yield "many", (torch.linspace(-2, 6, 57)[:, None],)

    def solution(t):
        bends = torch.tensor([1., -2., 1.])
        return torch.relu(t - torch.tensor([1., 2., 3.])) @ bends[:, None]

    def second(t):
        return torch.relu(1 - (t - 2).abs())

    @wrong("took away only 1 at the top: that makes the line level, it does not bring it down", "From slope 1 to slope -1 the change is -2.")
    def too_little(t): return torch.relu(t - 1) - torch.relu(t - 2) + torch.relu(t - 3)

    @wrong("let the ends go below 0: left of 1 and right of 3 the output must be 0")
    def below_zero(t): return 1 - (t - 2).abs()

    @wrong("used biases of the wrong sign: `relu(t + 1)` bends at t = -1", "To bend at t = 1, the bias is -1.")
    def sign_of_bias(t): return torch.relu(t + 1) - 2*torch.relu(t + 2) + torch.relu(t + 3)

    @wrong("left out the third bend: right of 3 the line goes on down", "A third neuron must bring the slope back to 0 at t = 3.")
    def stays_down(t): return torch.relu(t - 1) - 2*torch.relu(t - 2)

    @wrong("put the bends at 0, 1 and 2 instead of 1, 2 and 3")
    def shifted(t): return torch.relu(t) - 2*torch.relu(t - 1) + torch.relu(t - 2)

    @wrong("left out ReLU: a sum of straight lines is a straight line")
    def no_relu(t): return (t - 1) - 2*(t - 2) + (t - 3)

    @wrong("returned the three neurons side by side, not their sum", "The second layer adds them up, with the weights 1, -2 and 1.")
    def not_summed(t): return torch.relu(t - torch.tensor([1., 2., 3.])) * torch.tensor([1., -2., 1.])

    @wrong("dropped the last dimension: (n, 1) comes in and must come out")
    def squeezed(t): return torch.relu(1 - (t - 2).abs())[:, 0]


class fold(Exercise):
    title, kind = "Fold a stack", "derive"
    hints = ("Fold the first two into one, by the formula (02.3). Then that one with the third, and so on.",
             "The weights multiply with the later layer on the left: `w2 @ w1`. What happens to the first layer's bias in the second layer?",
             "The new bias is `b1 @ w2.T + b2`.")
    then = "How many multiplications does the folded layer save, for 784 to 50 to 10?"
    gradients = False

    def cases(randn):
        d = lambda *x: torch.tensor(x).double()
        yield "two layers", ([(d([1., 2.], [0., 1.]), d(1., 0.)), (d([0., 1.], [3., 0.]), d(0., 5.))],)
        yield "two layers of other sizes", ([(d([1.], [2.]), d(1., 3.)), (d([1., 1.]), d(5.))],)
        yield "one layer", ([(d([2., 1.]), d(3.))],)
        yield "three layers", ([(randn(4, 3), randn(4)), (randn(5, 4), randn(5)), (randn(2, 5), randn(2))],)
        yield "four square layers", ([(randn(3, 3), randn(3)) for _ in range(4)],)
        yield "float32", ([(torch.ones(2, 3), torch.ones(2)), (torch.ones(1, 2), torch.ones(1))],)

    def solution(layers):
        weight, bias = layers[0]
        for w, b in layers[1:]: weight, bias = w @ weight, bias @ w.T + b
        return weight, bias

    def second(layers):
        product = torch.eye(len(layers[-1][1]), dtype=layers[-1][1].dtype)  # of the weights behind
        bias = torch.zeros_like(layers[-1][1])
        for w, b in reversed(layers): product, bias = product @ w, bias + product @ b
        return product, bias

    @wrong("multiplied the weights in the order of the layers: the later layer stands on the left", "x goes through W1 first: W2 (W1 x).")
    def order(layers):
        weight, bias = layers[0]
        for w, b in layers[1:]: weight, bias = weight @ w, bias @ w.T + b
        return weight, bias

    @wrong("added up the biases: an earlier bias goes through all later weights", "Put x = 0 into both networks: what comes out of each?")
    def bias_added(layers):
        weight, bias = layers[0]
        for w, b in layers[1:]: weight, bias = w @ weight, bias + b
        return weight, bias

    @wrong("kept only the last bias: the earlier ones go through the later weights, but do not vanish")
    def last_bias(layers):
        weight, _ = layers[0]
        for w, b in layers[1:]: weight = w @ weight
        return weight, layers[-1][1]

    @wrong("multiplied the new bias by the weights too: the bias of a layer is added after its weights")
    def bias_too(layers):
        weight, bias = layers[0]
        for w, b in layers[1:]: weight, bias = w @ weight, (bias + b if bias.shape == b.shape else bias) @ w.T
        return weight, bias

    @wrong("folded only the first two layers")
    def two_only(layers):
        if len(layers) == 1: return layers[0]
        (w1, b1), (w2, b2) = layers[:2]
        return w2 @ w1, b1 @ w2.T + b2

    @wrong("returned the weights transposed: they keep the shape (outputs, inputs)")
    def transposed(layers):
        weight, bias = layers[0]
        for w, b in layers[1:]: weight, bias = w @ weight, bias @ w.T + b
        return weight.T, bias

    @wrong("took the layers out of the list: afterwards the caller's list is empty", "Go over the list with `for`, or over a copy.")
    def emptied(layers):
        weight, bias = layers.pop(0)
        while layers:
            w, b = layers.pop(0)
            weight, bias = w @ weight, bias @ w.T + b
        return weight, bias


class squared_distances(Exercise):
    title, kind = "All distances", "extend"
    hints = ("Multiply out: (a - b)² = a² - 2ab + b², summed over the m numbers of a row.",
             "The sums of a² and b² need one number a row, of shapes (n, 1) and (p,). The sum of ab over m, for all pairs of rows, is a matrix product.",
             "`a.square().sum(1, keepdim=True)` and `a @ b.T` are two of the three parts.")
    then = "Find the nearest training image of each validation image with it."
    forbidden = ("cdist", "pairwise_distance", "einsum")

    def most_numbers(a, b): return max(a.numel(), b.numel(), len(a) * len(b), 1)

    def cases(randn):
        d = lambda *x: torch.tensor(x).double()
        yield "two rows, three rows", (d([0., 0.], [1., 2.]), d([1., 1.], [3., 0.], [0., 2.]))
        yield "as many rows here as there", (d([0., 0., 1.], [1., 2., 2.]), d([1., 1., 0.], [3., 0., 5.]))
        yield "one row each", (d([1., 2.]), d([4., 6.]))
        yield "a row from itself", (d([1., 2.], [3., 4.]), d([1., 2.], [3., 4.]))
        yield "one number a row", (d([1.], [2.]), d([4.]))
        yield "float32", (torch.tensor([[0., 0.], [1., 2.]]), torch.tensor([[1., 1.]]))
        yield "no rows", (torch.zeros(0, 2).double(), d([1., 1.]))
        yield "many", (randn(20, 9), randn(30, 9))

    def solution(a, b):
        return a.square().sum(1, keepdim=True) - 2 * a @ b.T + b.square().sum(1)

    def second(a, b):
        lengths = (a * a).sum(-1).unsqueeze(1) + (b * b).sum(-1).unsqueeze(0)
        return torch.addmm(lengths, a, b.t(), alpha=-2)

    @wrong("took the square root: the squared distance is asked for")
    def root(a, b): return (a[:, None] - b).square().sum(2).sqrt()

    @wrong("made a tensor of shape (n, p, m): the numbers are right, but this is the step to do without", "Let `@` do the sum over m.")
    def big(a, b): return (a[:, None] - b).square().sum(2)

    @wrong("compared only rows with the same number: every row of `a` must meet every row of `b`")
    def pairs(a, b): return (a - b).square().sum(1)

    @wrong("swapped the two: row i of the answer belongs to row i of `a`")
    def swapped(a, b): return b.square().sum(1, keepdim=True) - 2 * b @ a.T + a.square().sum(1)

    @wrong("forgot the 2 in front of the product ab")
    def half_cross(a, b): return a.square().sum(1, keepdim=True) - a @ b.T + b.square().sum(1)

    @wrong("left out the product: (a - b)² is not a² + b²")
    def no_cross(a, b): return a.square().sum(1, keepdim=True) + b.square().sum(1)

    @wrong("added 2ab instead of taking it away: that is (a + b)²")
    def plus(a, b): return a.square().sum(1, keepdim=True) + 2 * a @ b.T + b.square().sum(1)

    @wrong("took the mean over the numbers of a row, not their sum")
    def mean(a, b): return (a.square().sum(1, keepdim=True) - 2 * a @ b.T + b.square().sum(1)) / a.shape[1]

    @wrong("called a function of torch's that does the whole exercise")
    def torchs(a, b): return torch.cdist(a, b).square()


class linear(Exercise):
    title, kind, replaces = "Your own linear", "rewrite", "fdl.functional.linear"
    hints = ("The weight has one row for each output: shape (out, in). What does `input @ weight` need to fit?",
             "Transpose it: `input @ weight.T` has the shape (..., out). The bias may be None.")
    then = "Then let the lesson's network run on it."
    forbidden = ("linear", "addmm")

    def cases(randn):
        d = lambda *x: torch.tensor(x).double()
        yield "two rows", (d([1., 2.], [0., 1.]), d([1., 0.], [3., 1.]), d(5., 7.))
        yield "other sizes", (d([1., 2., 3.]), d([1., 0., 1.], [0., 1., 0.]), d(1., 2.))
        yield "no bias", (d([1., 2.]), d([3., 4.]), None)
        yield "no batch", (d(1., 2.), d([1., 0.], [3., 1.]), d(5., 7.))
        yield "two batch dimensions", (randn(2, 3, 4), randn(5, 4), randn(5))
        yield "float32", (torch.ones(2, 3), torch.ones(1, 3), torch.ones(1))
        yield "an empty batch", (torch.zeros(0, 2).double(), d([1., 0.]), d(1.))

    def run(answer, input, weight, bias):
        return answer(input, weight) if bias is None else answer(input, weight, bias)

    def solution(input, weight, bias=None):
        output = input @ weight.T
        return output if bias is None else output + bias

    def second(input, weight, bias=None):
        output = torch.einsum("...i,oi->...o", input, weight)
        return output + bias if bias is not None else output

    @wrong("forgot to transpose the weight: its rows are the outputs")
    def not_transposed(input, weight, bias=None): return input @ weight + (0 if bias is None else bias)

    @wrong("left the bias out")
    def no_bias(input, weight, bias=None): return input @ weight.T

    @wrong("took the bias away instead of adding it")
    def minus(input, weight, bias=None): return input @ weight.T - (0 if bias is None else bias)

    @wrong("added the bias to the input, before the weights")
    def bias_first(input, weight, bias=None): return (input + (0 if bias is None else bias)) @ weight.T

    @wrong("did not think of `bias=None`, a layer without one")
    def needs_bias(input, weight, bias=None): return input @ weight.T + bias

    @wrong("added the bias once for each input: it is added once")
    def bias_often(input, weight, bias=None): return input @ weight.T + (0 if bias is None else bias * input.shape[-1])

    @wrong("handed the work to torch's own function")
    def torchs(input, weight, bias=None): return torch.nn.functional.linear(input, weight, bias)


class relu(Exercise):
    title, kind, replaces = "Your own ReLU", "rewrite", "fdl.functional.relu"
    hints = ("Each number on its own: what is negative becomes 0.", "`input * (input > 0)` is one way; what does it do with inf?",
             "With `inplace`, the tensor that came in is changed and returned: `input.clamp_(min=0)`.")
    forbidden = ("relu", "relu_", "threshold", "leaky_relu")

    def cases(randn):
        d = lambda *x: torch.tensor(x).double()
        yield "both signs", (d(-2., 3.), False)
        yield "zero", (d(0., -1., 1.), False)
        yield "two dimensions", (d([-1., 2.], [3., -4.]), False)
        yield "a single number", (torch.tensor(-1.).double(), False)
        yield "infinite", (d(float("inf"), float("-inf")), False)
        yield "in place", (d(-2., 3.), True)
        yield "float32", (torch.tensor([-1., 1.]), False)
        yield "nothing", (torch.zeros(0).double(), False)
        yield "many", (randn(4, 5), False)

    def run(answer, input, inplace):
        given = input.clone()
        output = answer(given, inplace) if inplace else answer(given)
        result = {"output": output, "input afterwards": given}
        if input.requires_grad and isinstance(output, torch.Tensor) and output.requires_grad:
            result["gradient"] = torch.autograd.grad(output.sum(), input, retain_graph=True)[0]
        elif input.requires_grad: result["gradient"] = None
        return result

    def solution(input, inplace=False):
        if inplace: return input.clamp_(min=0)
        return input.where(input > 0, torch.zeros_like(input))

    def second(input, inplace=False):
        output = input.masked_fill(input <= 0, 0)
        return input.copy_(output) if inplace else output

    @wrong("took the absolute value: a negative number becomes 0, not positive")
    def absolute(input, inplace=False): return input.abs_() if inplace else input.abs()

    @wrong("kept the negative numbers and dropped the positive ones")
    def wrong_side(input, inplace=False): return input.masked_fill_(input > 0, 0) if inplace else input.masked_fill(input > 0, 0)

    @wrong("returned 1 and 0, the slope of ReLU and not its value")
    def slope(input, inplace=False): return (input > 0).to(input.dtype)

    @wrong("changed the tensor that came in, though `inplace` is False")
    def always_in_place(input, inplace=False): return input.clamp_(min=0)

    @wrong("made a new tensor though `inplace` is True")
    def never_in_place(input, inplace=False): return input.masked_fill(input <= 0, 0)

    @wrong("multiplied by 0: infinity times 0 is nan")
    def times_mask(input, inplace=False): return input.mul_(input > 0) if inplace else input * (input > 0)

    @wrong("took the maximum with 0 in a way whose slope at 0 is a half; the lesson's is 0", "`where(input > 0, ...)` gives 0 the slope 0.")
    def half_at_zero(input, inplace=False):
        output = torch.maximum(input, torch.zeros_like(input))
        return input.copy_(output) if inplace else output


class mse_loss(Exercise):
    title, kind, replaces = "Your own mean squared error", "rewrite", "fdl.functional.mse_loss"
    hints = ("Difference, square, mean over all numbers.", "Two shapes that do not agree broadcast in silence: raise a ValueError.")
    then = "Feed it (n, 1) against (n,) once without your check, and look at the number."
    forbidden = ("mse_loss",)

    def cases(randn):
        d = lambda *x: torch.tensor(x).double()
        yield "three numbers", (d(1., 2., 3.), d(1., 0., 0.), "mean")
        yield "two dimensions", (d([1., 2.], [3., 4.]), d([0., 2.], [3., 0.]), "mean")
        yield "their sum", (d(1., 2., 3.), d(1., 0., 0.), "sum")
        yield "each one", (d(1., 2., 3.), d(1., 0., 0.), "none")
        yield "shapes that do not agree", (d([1.], [2.]), d(1., 2.), "mean")
        yield "float32", (torch.tensor([1., 2.]), torch.tensor([0., 0.]), "mean")
        yield "many", (randn(6, 5), randn(6, 5), "mean")

    def run(answer, input, target, reduction):
        if input.shape == target.shape:
            return answer(input, target) if reduction == "mean" else answer(input, target, reduction=reduction)
        try: answer(input, target)
        except ValueError: return "a ValueError"
        return "no error"

    def solution(input, target, reduction="mean"):
        if input.shape != target.shape: raise ValueError(f"the shapes {input.shape} and {target.shape} differ")
        losses = (input - target).square()
        return losses if reduction == "none" else losses.sum() if reduction == "sum" else losses.mean()

    def second(input, target, reduction="mean"):
        if input.shape != target.shape: raise ValueError("input and target must have the same shape")
        error = torch.sub(input, target)
        return {"mean": torch.mean, "sum": torch.sum, "none": torch.clone}[reduction](error * error)

    @wrong("took no notice of the shapes: (n, 1) against (n,) broadcasts to n² differences, and nobody says so")
    def broadcasts(input, target, reduction="mean"):
        losses = (input - target).square()
        return losses if reduction == "none" else losses.sum() if reduction == "sum" else losses.mean()

    @wrong("summed where the mean is asked for")
    def summed(input, target, reduction="mean"):
        if input.shape != target.shape: raise ValueError
        losses = (input - target).square()
        return losses if reduction == "none" else losses.sum()

    @wrong("took the absolute difference, not its square")
    def absolute(input, target, reduction="mean"):
        if input.shape != target.shape: raise ValueError
        losses = (input - target).abs()
        return losses if reduction == "none" else losses.sum() if reduction == "sum" else losses.mean()

    @wrong("put a half in front: that is common on paper, but not what torch means")
    def halved(input, target, reduction="mean"):
        if input.shape != target.shape: raise ValueError
        losses = (input - target).square() / 2
        return losses if reduction == "none" else losses.sum() if reduction == "sum" else losses.mean()

    @wrong("squared the mean, where the mean of the squares is asked for", "Errors of 1 and -1 must not cancel.")
    def squared_mean(input, target, reduction="mean"):
        if input.shape != target.shape: raise ValueError
        return {"mean": torch.mean, "sum": torch.sum, "none": torch.clone}[reduction](input - target).square()

    @wrong("took the root: that is the root mean squared error")
    def root(input, target, reduction="mean"): return mse_loss.solution(input, target, reduction).sqrt()

    @wrong("divided by the number of rows only; the mean is over all numbers")
    def by_rows(input, target, reduction="mean"):
        total = mse_loss.solution(input, target, "sum")
        return total / len(input) if reduction == "mean" else mse_loss.solution(input, target, reduction)

    @wrong("forgot `reduction`: it may be \"mean\", \"sum\" or \"none\"")
    def no_reduction(input, target, reduction="mean"): return mse_loss.solution(input, target)
