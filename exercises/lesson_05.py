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
