"Lesson 05, cross-entropy."
import torch

from .engine import Exercise, wrong


def scores(randn):
    "Inputs of the functions that take (input, dim): small ones first, then the awkward ones."
    d = lambda *x: torch.tensor(x).double()
    yield "two rows of three classes", (d([0., 1., 2.], [3., 1., 0.]), 1)
    yield "as many rows as classes", (d([0., 1.], [3., 5.]), 1)
    yield "along the rows", (d([0., 1., 2.], [3., 1., 0.]), 0)
    yield "one class", (d([4.], [-1.]), 1)
    yield "ties", (d([2., 2.]), 1)
    yield "huge scores", (d([1000., -1000.], [-1000., -1001.]), 1)
    yield "three dimensions", (randn(2, 3, 4), -1)
    yield "float32", (torch.tensor([[0., 1.]]), 1)
    yield "an empty batch", (torch.zeros(0, 3).double(), 1)


class softmax(Exercise):
    title, kind, replaces = "Your own softmax", "rewrite", "fdl.functional.softmax"
    hints = ("Exponentials, divided by their sum along `dim`; keep that dimension with `keepdim=True`.",
             "Take the largest score away first: the answer stays, and nothing overflows.")
    forbidden = ("softmax", "log_softmax")
    cases = scores

    def solution(input, dim):
        exps = (input - input.amax(dim, keepdim=True)).exp()
        return exps / exps.sum(dim, keepdim=True)

    def second(input, dim):
        return (input - input.logsumexp(dim, keepdim=True)).exp()

    @wrong("took no care of huge scores: exp(1000) is infinite", "Take away the largest first.")
    def overflows(input, dim): return input.exp() / input.exp().sum(dim, keepdim=True)

    @wrong("summed over the batch instead of the classes, or took no notice of `dim`")
    def over_batch(input, dim): return softmax.solution(input, 0)

    @wrong("divided by the sum of all entries: each row must sum to 1 by itself")
    def over_all(input, dim):
        exps = (input - input.max()).exp() if input.numel() else input
        return exps / exps.sum()

    @wrong("left out the exponential")
    def no_exp(input, dim): return input / input.sum(dim, keepdim=True)

    @wrong("returned logarithms: that is log_softmax")
    def logs(input, dim): return input - input.logsumexp(dim, keepdim=True)

    @wrong("did not divide by the sum")
    def not_divided(input, dim): return (input - input.amax(dim, keepdim=True)).exp()

    @wrong("took `dim` to be 1 always")
    def always_one(input, dim): return softmax.solution(input, 1)


class logsumexp(Exercise):
    title, kind, replaces = "Your own logsumexp", "rewrite", "fdl.functional.logsumexp"
    hints = ("Take the largest away inside, and add it again outside.", "`m + (input - m).exp().sum(dim).log()`; which shape must `m` have in each place?")
    forbidden = ("logsumexp", "log_softmax", "softmax", "logaddexp")
    cases = scores

    def solution(input, dim):
        largest = input.amax(dim, keepdim=True)
        return largest.squeeze(dim) + (input - largest).exp().sum(dim).log()

    def second(input, dim):
        largest = input.detach().max(dim, keepdim=True).values
        return (torch.log(torch.sum(torch.exp(input - largest), dim, keepdim=True)) + largest).squeeze(dim)

    @wrong("took no care of huge scores: exp(1000) is infinite", "Take the largest away first.")
    def overflows(input, dim): return input.exp().sum(dim).log()

    @wrong("took the largest away and did not add it again")
    def not_added(input, dim): return (input - input.amax(dim, keepdim=True)).exp().sum(dim).log()

    @wrong("took the mean of the exponentials, not their sum")
    def mean(input, dim): return logsumexp.solution(input, dim) - torch.tensor(float(input.shape[dim]), dtype=input.dtype).log()

    @wrong("returned the largest score alone")
    def only_max(input, dim): return input.amax(dim)

    @wrong("kept the summed dimension: it goes, as in a sum")
    def kept(input, dim): return logsumexp.solution(input, dim).unsqueeze(dim)

    @wrong("took no notice of `dim`: always 1")
    def always_one(input, dim): return logsumexp.solution(input, 1)

    @wrong("forgot the logarithm")
    def no_log(input, dim): return input.exp().sum(dim)


class log_softmax(Exercise):
    title, kind, replaces = "Your own log_softmax", "rewrite", "fdl.functional.log_softmax"
    hints = ("The logarithm of a quotient is a difference: no softmax is needed.", "`input - logsumexp(input, dim)`, the dimension kept.")
    forbidden = ("log_softmax", "softmax")
    cases = scores

    def solution(input, dim):
        shifted = input - input.amax(dim, keepdim=True)
        return shifted - shifted.exp().sum(dim, keepdim=True).log()

    def second(input, dim):
        return input - torch.logsumexp(input, dim).unsqueeze(dim)

    @wrong("took the logarithm of a softmax without care for huge scores: exp(1000) is infinite", "Write the logarithm of the quotient as a difference.")
    def overflows(input, dim): return (input.exp() / input.exp().sum(dim, keepdim=True)).log()

    @wrong("returned probabilities, not their logarithms")
    def no_log(input, dim): return log_softmax.solution(input, dim).exp()

    @wrong("summed over the batch instead of the classes, or took no notice of `dim`")
    def over_batch(input, dim): return log_softmax.solution(input, 0)

    @wrong("took `dim` to be 1 always")
    def always_one(input, dim): return log_softmax.solution(input, 1)

    @wrong("took away only the largest: the logarithm of the sum is missing")
    def only_shifted(input, dim): return input - input.amax(dim, keepdim=True)

    @wrong("returned positive numbers: a log-probability is at most 0")
    def negated(input, dim): return -log_softmax.solution(input, dim)

    @wrong("handed the work to torch's own function")
    def torchs(input, dim): return torch.log_softmax(input, dim)


def labelled(randn, log):
    "Inputs of the functions that take (input, target)."
    d = lambda *x: torch.tensor(x).double()
    ready = (lambda x: torch.log_softmax(x, 1)) if log else (lambda x: x)
    yield "two rows of three classes", (ready(d([0., 1., 2.], [3., 1., 0.])), torch.tensor([2, 1]))
    yield "as many rows as classes", (ready(d([0., 1.], [3., 5.])), torch.tensor([0, 1]))
    yield "one row", (ready(d([1., 0., 0.])), torch.tensor([1]))
    yield "one class", (ready(d([1.], [2.])), torch.tensor([0, 0]))
    yield "huge scores", (ready(d([1000., 0.], [0., -1000.])), torch.tensor([1, 0]))
    yield "float32", (ready(torch.tensor([[0., 1.]])), torch.tensor([1]))
    yield "many", (ready(randn(8, 5)), torch.tensor([0, 1, 2, 3, 4, 0, 1, 2]))


class nll_loss(Exercise):
    title, kind, replaces = "Your own nll_loss", "rewrite", "fdl.functional.nll_loss"
    hints = ("For row i take the entry of class `target[i]`.", "`input[torch.arange(len(target)), target]` takes one from each row.", "Minus their mean.")
    forbidden = ("nll_loss", "cross_entropy")

    def cases(randn): return labelled(randn, log=True)

    def solution(input, target):
        return -input[torch.arange(len(target)), target].mean()

    def second(input, target):
        return -input.gather(1, target.unsqueeze(1)).sum() / target.numel()

    @wrong("forgot the minus: a smaller loss must be better")
    def sign(input, target): return input[torch.arange(len(target)), target].mean()

    @wrong("summed where the mean is asked for")
    def summed(input, target): return -input[torch.arange(len(target)), target].sum()

    @wrong("indexed whole columns, `input[:, target]`: every row then meets every target")
    def columns(input, target): return -input[:, target].mean()

    @wrong("took the logarithm again: the input holds log-probabilities")
    def log_again(input, target): return -input[torch.arange(len(target)), target].log().mean()

    @wrong("returned the loss of each row, not their mean")
    def each(input, target): return -input[torch.arange(len(target)), target]

    @wrong("divided by the number of all entries, not of the rows")
    def by_all(input, target): return -input[torch.arange(len(target)), target].sum() / input.numel()


class cross_entropy(Exercise):
    title, kind, replaces = "Your own cross_entropy", "rewrite", "fdl.functional.cross_entropy"
    hints = ("Log-probabilities first, then the mean of minus those of the right classes.", "Along which dimension do the classes lie?",
             "`logsumexp` of each row minus the score of the right class, and the mean of that.")
    forbidden = ("cross_entropy", "nll_loss")

    def cases(randn): return labelled(randn, log=False)

    def solution(input, target):
        return (input.logsumexp(1) - input[torch.arange(len(target)), target]).mean()

    def second(input, target):
        return -input.log_softmax(-1).gather(1, target[:, None]).mean()

    @wrong("normalized over the batch instead of the classes", "The classes lie along dimension 1.")
    def over_batch(input, target): return -input.log_softmax(0)[torch.arange(len(target)), target].mean()

    @wrong("applied softmax twice: the input holds scores, and one is enough")
    def twice(input, target): return cross_entropy.solution(input.softmax(1), target)

    @wrong("went through the probabilities: they underflow to 0, whose logarithm is minus infinity", "Stay with logarithms.")
    def through_probs(input, target): return -input.softmax(1)[torch.arange(len(target)), target].log().mean()

    @wrong("forgot to normalize: the mean of minus the right scores is no loss")
    def no_normalizing(input, target): return -input[torch.arange(len(target)), target].mean()

    @wrong("summed where the mean is asked for")
    def summed(input, target): return (input.logsumexp(1) - input[torch.arange(len(target)), target]).sum()

    @wrong("forgot the minus")
    def sign(input, target): return -cross_entropy.solution(input, target)

    @wrong("forgot the logarithm: that is minus the mean probability")
    def no_log(input, target): return -input.softmax(1)[torch.arange(len(target)), target].mean()


class softmax_at(Exercise):
    title, kind = "Temperature", "implement"
    hints = ("Which numbers go into softmax?", "Divide the scores by the temperature, then take the softmax along `dim`.",
             "`softmax(input / temperature, dim)` may be all of it.")
    then = "Count the accuracy on `logits` and `y` for three temperatures. Why is it the same number three times?"

    def cases(randn):
        d = lambda *x: torch.tensor(x).double()
        yield "hot", (2., d(1., 2., 3.), 0)
        yield "temperature 1", (1., d([1., 2., 4.], [3., 1., 0.]), 1)
        yield "along the rows", (2., d([0., 1., 2.], [3., 1., 0.]), 0)
        yield "cold", (.001, d([1., 2., 3.], [5., 4., 3.]), 1)
        yield "very hot", (1e6, d([1., 2., 3.]), 1)
        yield "ties", (.5, d([2., 2.]), -1)
        yield "float32", (.5, torch.tensor([[0., 1.]]), 1)
        yield "three dimensions", (3., randn(2, 3, 4), 1)
        yield "an empty batch", (3., torch.zeros(0, 3).double(), 1)

    def solution(temperature, input, dim): return torch.softmax(input / temperature, dim)

    def second(temperature, input, dim):
        exps = ((input - input.amax(dim, keepdim=True)) / temperature).exp()
        return exps / exps.sum(dim, keepdim=True)

    @wrong("multiplied by the temperature: a large one should level the probabilities, not sharpen them")
    def multiplied(temperature, input, dim): return torch.softmax(input * temperature, dim)

    @wrong("divided the probabilities, after the softmax: they no longer sum to 1", "The scores are divided.")
    def after(temperature, input, dim): return torch.softmax(input, dim) / temperature

    @wrong("took no notice of the temperature, or took it away from all scores, which changes nothing: only their differences count")
    def ignored(temperature, input, dim): return torch.softmax(input, dim)

    @wrong("took no care of huge scores: a small temperature makes scores of thousands", "`softmax` takes away the largest first.")
    def overflows(temperature, input, dim): return (input/temperature).exp() / (input/temperature).exp().sum(dim, keepdim=True)

    @wrong("took the last dimension, whatever `dim` says")
    def always_last(temperature, input, dim): return torch.softmax(input / temperature, -1)

    @wrong("divided only in the numerator: both exponentials, above and below, need it")
    def half(temperature, input, dim): return (input/temperature).exp() / input.exp().sum(dim, keepdim=True)

    @wrong("divided by the temperature plus 1: at temperature 1 nothing may change")
    def shifted(temperature, input, dim): return torch.softmax(input / (1 + temperature), dim)

    @wrong("returned logarithms")
    def logs(temperature, input, dim): return torch.log_softmax(input / temperature, dim)


class two_class_loss(Exercise):
    title, kind = "Two classes, one score", "derive"
    hints = ("Cross-entropy is logsumexp of the scores minus the score of the right class. Here the scores are 0 and z.",
             "The score of the right class is `y * z`. And 1 is exp(0).",
             "`torch.logaddexp(torch.zeros_like(z), z)` is log(1 + exp(z)), and does not overflow.")
    then = 'Compare with `F.binary_cross_entropy_with_logits(z, y, reduction="none")`.'
    forbidden = ("binary_cross_entropy_with_logits", "binary_cross_entropy", "cross_entropy")

    def cases(randn):
        d = lambda *x: torch.tensor(x).double()
        still = lambda y: y.float()                   # a target gets no gradient
        yield "a score of 2, right and wrong", (d(2., 2.), still(d(1., 0.)))
        yield "a negative score", (d(-1., -1.), still(d(1., 0.)))
        yield "undecided", (d(.001, -.001), still(d(1., 0.)))
        yield "huge scores", (d(1000., -1000., 1000., -1000.), still(d(1., 1., 0., 0.)))
        yield "float32", (torch.tensor([1.]), torch.tensor([0.]))
        yield "no rows", (torch.zeros(0).double(), torch.zeros(0))
        yield "many", (3*randn(20), (randn(20) > 0).float())

    def solution(z, y):
        return torch.logaddexp(torch.zeros_like(z), z) - y*z

    def second(z, y):
        return torch.stack([torch.zeros_like(z), z]).logsumexp(0) - torch.where(y == 1, z, 0)

    @wrong("took no care of huge scores: exp(1000) is infinite", "`logsumexp` of which two numbers is log(1 + exp(z))?")
    def overflows(z, y): return (1 + z.exp()).log() - y*z

    @wrong("took the logarithm of a sigmoid: for huge scores it is rounded to 0 or 1, and the logarithm is infinite")
    def log_sigmoid(z, y): return -(y*z.sigmoid().log() + (1 - y)*(1 - z.sigmoid()).log())

    @wrong("left out the score of the right class, y z")
    def no_target(z, y): return torch.logaddexp(torch.zeros_like(z), z)

    @wrong("swapped the classes: z is the score of class 1")
    def swapped(z, y): return torch.logaddexp(torch.zeros_like(z), z) - (1 - y)*z

    @wrong("took the mean: one loss for each row is asked for")
    def mean(z, y): return two_class_loss.solution(z, y).mean()

    @wrong("returned the logarithm of the probability: the loss is minus that")
    def negated(z, y): return -two_class_loss.solution(z, y)

    @wrong("wrote log(exp(z)) for log(1 + exp(z)): the first score is 0, and exp(0) is 1")
    def no_one(z, y): return z - y*z

    @wrong("replaced log(1 + exp(z)) by max(z, 0): near 0, they differ by up to log 2")
    def hinge(z, y): return z.clamp(min=0) - y*z

    @wrong("handed the work to torch's own function")
    def torchs(z, y): return torch.nn.functional.binary_cross_entropy_with_logits(z, y.to(z), reduction="none")


def blockwise(blocks, grow=lambda old, new: (old - new).exp(), end=lambda largest, total: largest + total.log()):
    "The log-sum-exp in pieces; `grow` is the factor for the old sum."
    largest = total = None
    for block in blocks:
        top = block.amax(1)
        new = top if largest is None else torch.maximum(largest, top)
        part = (block - new[:, None]).exp().sum(1)
        total = part if total is None else total*grow(largest, new) + part
        largest = new
    return end(largest, total)


class logsumexp_of_blocks(Exercise):
    title, kind, gradients = "In pieces", "extend", False
    hints = ("Keep `largest` and `total`, both (n,): what is kept stands for `largest + log(total)`.",
             "When the largest grows from a to b, each old exponential exp(x - a) has to become exp(x - b).",
             "So multiply the old sum by exp(a - b), then add the exponentials of the block.")
    then = "Flash attention computes its softmax in this way, in blocks that fit the GPU's fast memory."

    def most_numbers(blocks): return max(64, 2*max(b.numel() for b in blocks))

    def cases(randn):
        d = lambda *x: torch.tensor(x).double()
        yield "a larger score in the second block", ([d([0.]), d([1.])],)
        yield "a smaller one", ([d([1.]), d([0.])],)
        yield "one block", ([d([0., 1.], [2., 0.])],)
        yield "sizes that differ", ([d([0., 1.], [3., 1.]), d([2.], [0.])],)
        yield "huge scores", ([d([1000., 0.]), d([1001., -1000.]), d([-5., 3.])],)
        yield "very negative scores", ([d([-1000.]), d([-1001.])],)
        yield "float32", ([torch.tensor([[0., 1.]]), torch.tensor([[2., 3.]])],)
        yield "a table that is too large", (list(randn(20, 40).split(4, 1)),)

    def run(answer, blocks): return answer(iter(blocks))

    def solution(blocks):
        largest, total = torch.tensor(float("-inf")), torch.tensor(0.)
        for block in blocks:
            new = torch.maximum(largest.to(block), block.amax(1))
            total = total*(largest - new).exp() + (block - new[:, None]).exp().sum(1)
            largest = new
        return largest + total.log()

    def second(blocks):
        found = None
        for block in blocks:
            part = torch.logsumexp(block, 1)
            found = part if found is None else torch.logaddexp(found, part)
        return found

    @wrong("left the old sum as it was when the largest score grew: it belongs to the old one", "By what must it be multiplied?")
    def not_rescaled(blocks): return blockwise(blocks, lambda old, new: 1.)

    @wrong("multiplied the old sum by exp(new - old): the new largest is larger, so the old sum must shrink")
    def wrong_way(blocks): return blockwise(blocks, lambda old, new: (new - old).exp())

    @wrong("took no care of huge scores: exp(1000) is infinite", "Take the largest so far away before the exponential.")
    def overflows(blocks): return sum(b.exp().sum(1) for b in blocks).log()

    @wrong("forgot to add the largest score at the end")
    def not_added(blocks): return blockwise(blocks, end=lambda largest, total: total.log())

    @wrong("forgot the logarithm at the end")
    def no_log(blocks): return blockwise(blocks, end=lambda largest, total: largest + total)

    @wrong("put the blocks together again: the numbers are right, but the table does not fit into memory", "Look at one block at a time.")
    def together(blocks): return torch.cat(list(blocks), 1).logsumexp(1)

    @wrong("added the log-sum-exps of the blocks: their exponentials are added")
    def added(blocks): return sum(b.logsumexp(1) for b in blocks)

    @wrong("kept only the largest score")
    def only_max(blocks): return blockwise(blocks, end=lambda largest, total: largest)

    @wrong("kept only the last block: the sum so far is lost")
    def last_only(blocks): return list(blocks)[-1].logsumexp(1)
