"Lesson 06, the training loop."
import math

import torch

from fdl.core import default_device
from fdl.functional import cross_entropy, linear, relu

from .engine import Exercise, wrong


class balanced_accuracy(Exercise):
    title, kind = "Balanced accuracy", "implement"
    hints = ("For each class: which rows have it as their target, and what share of them is right?",
             "Leave out a class without rows: its share is 0/0. `target.unique()` has those that occur.",
             "Collect `right[target == c].float().mean()` for every such class, and take the mean of them.")
    then = "Find scores and targets for which it equals the accuracy although the classes are not equally frequent."
    gradients = False

    def cases(randn):
        rows = lambda c, *preds: torch.eye(c)[list(preds)]
        t = torch.tensor
        yield "three of class 0, one of class 1, and all are called 0", (rows(2, 0, 0, 0, 0), t([0, 0, 0, 1]))
        yield "the same, with a class 2 that nobody meets", (rows(3, 0, 0, 0, 0), t([0, 0, 0, 1]))
        yield "a class in between that does not occur", (rows(3, 0, 2, 2, 0), t([0, 2, 2, 2]))
        yield "a class that is predicted and does not occur", (rows(3, 0, 0, 2, 1, 1), t([0, 1, 0, 0, 1]))
        yield "one row, right", (rows(2, 1), t([1]))
        yield "one row, wrong", (rows(4, 1), t([3]))
        yield "all of one class", (rows(2, 0, 1, 0), t([0, 0, 0]))
        yield "many", (randn(60, 5), torch.arange(60)**2 % 7 % 5)

    def run(answer, input, target):
        found = answer(input, target)
        if isinstance(found, torch.Tensor) and found.numel() == 1: found = float(found)
        return "nan" if isinstance(found, float) and math.isnan(found) else found

    def solution(input, target):
        right = input.argmax(1) == target
        return torch.stack([right[target == c].double().mean() for c in target.unique()]).mean().item()

    def second(input, target):
        counts = target.bincount(minlength=input.shape[1]).float()
        hits = target[input.argmax(1) == target].bincount(minlength=input.shape[1])
        return (hits[counts > 0] / counts[counts > 0]).mean()

    @wrong("took the share of all rows: that is the plain accuracy, in which a rare class hardly counts", "First a share for each class, then their mean.")
    def plain(input, target): return (input.argmax(1) == target).double().mean().item()

    @wrong("counted a class that does not occur as 0", "Divide by the number of classes that occur.")
    def absent_is_0(input, target):
        right = input.argmax(1) == target
        return sum(right[target == c].double().mean().item() for c in target.unique()) / input.shape[1]

    @wrong("took the mean of no rows, which is nan, for a class that does not occur", "Go through `target.unique()`, not through all columns of the scores.")
    def absent_is_nan(input, target):
        right = input.argmax(1) == target
        return torch.stack([right[target == c].double().mean() for c in range(input.shape[1])]).mean().item()

    @wrong("counted a class that does not occur as wholly right", "It says nothing, so it does not count.")
    def absent_is_1(input, target):
        right = input.argmax(1) == target
        return sum(right[target == c].double().mean().item() if (target == c).any() else 1. for c in range(input.shape[1])) / input.shape[1]

    @wrong("grouped the rows by what was predicted: a class's accuracy is among the rows whose *target* it is", "That would be the precision.")
    def by_prediction(input, target):
        preds = input.argmax(1)
        return torch.stack([(target[preds == c] == c).double().mean() for c in preds.unique()]).mean().item()

    @wrong("added up the accuracies of the classes, where their mean is asked for")
    def summed(input, target):
        right = input.argmax(1) == target
        return sum(right[target == c].double().mean().item() for c in target.unique())

    @wrong("returned the share of wrong answers")
    def errors(input, target): return 1 - balanced_accuracy.solution(input, target)

    @wrong("returned the accuracy of each class: one number is asked for, their mean")
    def each(input, target):
        right = input.argmax(1) == target
        return torch.stack([right[target == c].float().mean() for c in target.unique()])

    @wrong("divided the right answers of a class by the number of all rows, not of its own")
    def by_all_rows(input, target):
        return (input.argmax(1) == target).double().mean().item() / len(target.unique())


def model(x, params):
    w1, b1, w2, b2 = params
    return linear(relu(linear(x, w1, b1)), w2, b2)


def descend(params, grads, lr):
    with torch.no_grad():
        for p, g in zip(params, grads): p -= lr*g


def in_pieces(weight, stop=None):
    "A step whose pieces have the weights `weight(rows in it, piece, rows in all, pieces)`."
    def step(params, xb, yb, lr, piece=8):
        pairs = list(zip(xb.split(piece), yb.split(piece)))
        total = [torch.zeros_like(p) for p in params]
        for x, y in pairs[:stop]:
            grads = torch.autograd.grad(cross_entropy(model(x, params), y), params)
            total = [t + weight(len(x), piece, len(xb), len(pairs))*g for t, g in zip(total, grads)]
        descend(params, total, lr)
    return step


class step_in_pieces(Exercise):
    title, kind = "A step in pieces", "extend"
    hints = ("`backward` adds to `.grad`: call it once a piece, and update after the last.",
             "In (06.1), piece k counts with n_k/n: its rows over those of the batch.",
             "`(cross_entropy(model(x, params), y) * len(x)/len(xb)).backward()` for each piece; then update, then zero.")
    then = "How large may a batch now be? What does a step cost?"
    gradients = False

    def most_numbers(params, xb, yb, lr, piece):
        return max(*[p.numel() for p in params], (piece or 8)*max(len(params[0]), xb.shape[1]), len(yb))

    def cases(randn):
        params = lambda: [randn(3, 2), randn(3), randn(2, 3), randn(2)]
        rows = lambda n: (randn(n, 2), torch.arange(n) % 2)
        yield "two pieces of the same size", (params(), *rows(4), .5, 2)
        yield "a short last piece", (params(), *rows(5), .5, 3)
        yield "one piece", (params(), *rows(3), .5, 8)
        yield "a row a piece", (params(), *rows(4), .1, 1)
        yield "`piece` left out, 20 rows", (params(), *rows(20), .5, None)
        yield "many", (params(), *rows(50), 1., 7)

    def run(answer, params, xb, yb, lr, piece):
        params = [p.clone().requires_grad_() for p in params]
        more = {} if piece is None else {"piece": piece}
        answer(params, xb, yb, lr, **more)
        first = [p.detach().clone() for p in params]
        answer(params, xb, 1 - yb, lr, **more)
        return {"list of weights after a step": first, "list of weights after another step": [p.detach() for p in params]}

    def solution(params, xb, yb, lr, piece=8):
        for x, y in zip(xb.split(piece), yb.split(piece)):
            loss = cross_entropy(model(x, params), y) * len(x)/len(xb)
            loss.backward()
        with torch.no_grad():
            for p in params:
                p -= lr * p.grad
                p.grad.zero_()

    def second(params, xb, yb, lr, piece=8):
        for i in range(0, len(xb), piece):
            scores = model(xb[i:i + piece], params)
            torch.nn.functional.cross_entropy(scores, yb[i:i + piece], reduction="sum").backward()
        for p in params:
            p.data.sub_(lr/len(xb) * p.grad)
            p.grad = None

    @wrong("added up the gradients of the pieces as they are: the step is as many times too long as there are pieces", "Each loss is a mean of its piece. By what share must it be multiplied?")
    def not_weighted(params, xb, yb, lr, piece=8): in_pieces(lambda k, piece, n, pieces: 1)(params, xb, yb, lr, piece)

    @wrong("divided by the number of pieces: a row of a short piece then counts more than the others", "Multiply by the rows of the piece, over the rows of the batch.")
    def mean_of_means(params, xb, yb, lr, piece=8): in_pieces(lambda k, piece, n, pieces: 1/pieces)(params, xb, yb, lr, piece)

    @wrong("counted each piece with `piece` rows, the short one too", "`len(x)` knows how many there are.")
    def size_for_all(params, xb, yb, lr, piece=8): in_pieces(lambda k, piece, n, pieces: piece/n)(params, xb, yb, lr, piece)

    @wrong("divided by `piece`: the share of a piece is its rows over those of the whole batch")
    def by_piece(params, xb, yb, lr, piece=8): in_pieces(lambda k, piece, n, pieces: k/piece)(params, xb, yb, lr, piece)

    @wrong("left out the last piece", "All rows of the batch count.")
    def short_left_out(params, xb, yb, lr, piece=8): in_pieces(lambda k, piece, n, pieces: k/n, stop=-1)(params, xb, yb, lr, piece)

    @wrong("added the gradient to the weights: that goes uphill", "`p -= lr * p.grad`.")
    def uphill(params, xb, yb, lr, piece=8): in_pieces(lambda k, piece, n, pieces: -k/n)(params, xb, yb, lr, piece)

    @wrong("updated after each piece: the next one then sees other weights, and these are many small steps, not one", "Update once, after the last piece.")
    def update_each(params, xb, yb, lr, piece=8):
        for x, y in zip(xb.split(piece), yb.split(piece)):
            loss = cross_entropy(model(x, params), y) * len(x)/len(xb)
            descend(params, torch.autograd.grad(loss, params), lr)

    @wrong("did not zero the gradients after the update: the next step repeats this one", "Call it twice in a row, and look at `.grad` in between.")
    def not_zeroed(params, xb, yb, lr, piece=8):
        for x, y in zip(xb.split(piece), yb.split(piece)):
            (cross_entropy(model(x, params), y) * len(x)/len(xb)).backward()
        descend(params, [p.grad for p in params], lr)

    @wrong("zeroed the gradients before each piece: only the last piece is left at the update", "Zero once, after the update.")
    def zeroed_each(params, xb, yb, lr, piece=8):
        for x, y in zip(xb.split(piece), yb.split(piece)):
            for p in params: p.grad = None
            (cross_entropy(model(x, params), y) * len(x)/len(xb)).backward()
        descend(params, [p.grad for p in params], lr)

    @wrong("put the whole batch through the model at once: the step is right, but this is what does not fit in memory", "Cut it with `split(piece)`.")
    def whole(params, xb, yb, lr, piece=8):
        descend(params, torch.autograd.grad(cross_entropy(model(xb, params), yb), params), lr)


def sweep(params, x, y, first, last, updates, rate=None, stop=lambda loss, losses: loss > 4*min(losses), note="before", step=True, zero=True, append=True):
    "A learning rate test with one thing different."
    ratio, rates, losses = (last/first)**(1/(updates - 1)), [], []
    for k, rows in enumerate(torch.randperm(len(x), device=x.device).split(32)[:updates]):
        lr = rate(k, first, last, updates) if rate else first*ratio**k
        loss = cross_entropy(model(x[rows], params), y[rows])
        loss.backward()
        if not append and losses and stop(loss.item(), losses): break
        with torch.no_grad():
            for p in params:
                if step: p -= lr*p.grad
                if zero: p.grad.zero_()
            if note == "after": loss = cross_entropy(model(x[rows], params), y[rows])
        rates.append(lr)
        losses.append(loss.item())
        if append and stop(losses[-1], losses): break
    return rates, losses


class Sizes(torch.overrides.TorchFunctionMode):
    "Notes how many rows are taken from a table of this shape at a time."
    def __init__(self, shape):
        super().__init__()
        self.shape, self.found = shape, set()

    def __torch_function__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        if getattr(func, "__name__", "") in ("__getitem__", "index_select", "split", "narrow"):
            parts = result if isinstance(result, (tuple, list)) else [result]
            self.found |= {len(t) for t in parts if t.ndim == len(self.shape) and t.shape[1:] == self.shape[1:] and len(t) < self.shape[0]}
        return result


class learning_rate_test(Exercise):
    title, kind = "Learning rate test", "implement"
    hints = ("To go from `first` to `last` by a constant factor in `updates` updates: which factor?",
             "Cut a permutation of the rows of `x` into batches of 32, and do the lesson's step with each. It returns the loss before the update.",
             "After each step note rate and loss, stop if the loss is above four times `min(losses)`, and multiply the rate by `(last/first)**(1/updates)`.")
    then = "Draw it for three seeds. Which rate would you take?"
    gradients = False

    def cases(randn):
        params = lambda: [randn(6, 4).float(), torch.zeros(6), randn(3, 6).float(), torch.zeros(3)]
        same = torch.tensor([[1., -1., .5, 2.]])
        yield "equal rows, so that nothing explodes", (params(), same.repeat(384, 1), torch.ones(384, dtype=torch.int64), .001, .1, 10)
        yield "the same with other rates", (params(), same.repeat(800, 1), torch.zeros(800, dtype=torch.int64), .01, .05, 20)
        uneven = randn(3840, 4).float()*(1.2*randn(3840, 1)).exp().float()
        yield "rows of very different size, so that the losses differ", (params(), uneven, torch.arange(3840) % 3, 1e-6, 1e3, 100)
        yield "rates and updates left out", (params(), 10*randn(6432, 4).float(), torch.arange(6432) % 3, None, None, None)

    def run(answer, params, x, y, first, last, updates):
        threads = torch.get_num_threads()
        torch.set_num_threads(1)   # as in the lesson: hundreds of tiny operations
        try: found = [learning_rate_test.once(seed, answer, params, x, y, first, last, updates) for seed in range(5 if updates == 100 else 1)]
        finally: torch.set_num_threads(threads)
        right = learning_rate_test.RIGHT_END
        return next((f for f in found if isinstance(f, dict) and f.get("end") != right), found[0])

    RIGHT_END = "at four times the smallest loss"

    def once(seed, answer, params, x, y, first, last, updates):
        device = default_device()
        params = [p.to(device, copy=True).requires_grad_() for p in params]
        copies = [p.detach().clone().requires_grad_() for p in params]
        equal = bool((x == x[0]).all())
        more = {} if first is None else dict(first=first, last=last, updates=updates)
        first, last, updates = first or 1e-4, last or 10., updates or 200
        with torch.random.fork_rng(), Sizes(x.shape) as sizes:
            torch.manual_seed(seed)
            found = answer(params, x.to(device), y.to(device), **more)
        if not isinstance(found, (tuple, list)) or len(found) != 2: return found
        rates, losses = ([float(v) for v in part] for part in found)
        if len(rates) != len(losses) or len(rates) < 2: return {"number of rates": "not that of the losses, or less than two"}
        ratios = [b/a for a, b in zip(rates, rates[1:])]
        high = [k for k in range(len(losses)) if not losses[k] <= 4*min(losses[:k + 1])]
        rises = [k for k in range(len(losses)) if losses[k] > min(losses[:k + 1])]
        last_one = [len(losses) - 1]
        end = "at four times the smallest loss" if high == last_one else "later" if high else "at the first rise" if rises == last_one else "before four times the smallest loss"
        facts = {"number of rates": "that of the losses",
                 "first rate": "`first`" if abs(rates[0]/first - 1) < 1e-3 else "another",
                 "way from rate to rate": "no constant factor" if max(ratios) - min(ratios) > 1e-3*min(ratios) or min(ratios) <= 1
                 else "the factor that leads to `last`" if abs(math.log(ratios[0])/math.log(last/first)*updates - 1) < 1.5/updates else "another factor",
                 "number of rows of a batch": 32 if 32 in sizes.found or not sizes.found else max(sizes.found)}
        if not equal: return facts | {"end": end}
        before, after = [], []   # equal rows: every batch has the same loss, and the run can be repeated
        loss_now = lambda: cross_entropy(model(x[:32].to(device), copies), y[:32].to(device))
        for lr in rates:
            before.append(loss_now().item())
            descend(copies, torch.autograd.grad(loss_now(), copies), lr)
            after.append(loss_now().item())
        fits = lambda others: all(abs(a - b) < 1e-3*max(1, abs(b)) for a, b in zip(losses, others))
        kinds = {"before the update": before, "after the update": after, "of weights that stay": before[:1]*len(before)}
        return facts | {"last rate": "about `last`" if last/ratios[-1]**1.1 < rates[-1] < last*ratios[-1]**1.1 else "far from `last`",
                        "number of updates": "`updates`" if abs(len(rates) - updates) <= 1 else str(len(rates)),
                        "loss that is noted": next((kind for kind, others in kinds.items() if fits(others)), "of other weights")}

    def solution(params, x, y, first=1e-4, last=10.0, updates=200):
        lr, rates, losses = first, [], []
        for rows in torch.randperm(len(x), device=x.device).split(32)[:updates]:
            loss = cross_entropy(model(x[rows], params), y[rows])
            grads = torch.autograd.grad(loss, params)
            with torch.no_grad():
                for p, g in zip(params, grads): p -= lr * g
            rates.append(lr)
            losses.append(loss.item())
            if losses[-1] > 4*min(losses): break
            lr *= (last/first)**(1/updates)
        return rates, losses

    def second(params, x, y, first=1e-4, last=10.0, updates=200):
        rates = torch.logspace(torch.tensor(first).log10().item(), torch.tensor(last).log10().item(), updates)
        losses, smallest = [], float("inf")
        for lr in rates:
            rows = torch.randint(len(x), (32,), device=x.device)
            loss = cross_entropy(model(x[rows], params), y[rows])
            loss.backward()
            for p in params:
                p.data -= lr.item() * p.grad
                p.grad = None
            losses.append(loss.detach())
            smallest = min(smallest, loss.item())
            if loss.item() >= 4*smallest: break
        return rates[:len(losses)], torch.stack(losses)

    @wrong("added a constant to the rate: it must be multiplied, or nearly all updates are spent at large rates", "The factor is `(last/first)**(1/updates)`.")
    def linear_rates(params, x, y, first=1e-4, last=10.0, updates=200):
        return sweep(params, x, y, first, last, updates, lambda k, a, b, n: a + (b - a)*k/(n - 1))

    @wrong("went on when the loss had exploded: stop when it is above four times the smallest so far")
    def no_stop(params, x, y, first=1e-4, last=10.0, updates=200):
        return sweep(params, x, y, first, last, updates, stop=lambda loss, losses: False)

    @wrong("noted the loss after the update: it is the one that the step itself has computed, before", "The lesson's `step` returns it.")
    def noted_after(params, x, y, first=1e-4, last=10.0, updates=200):
        return sweep(params, x, y, first, last, updates, note="after")

    @wrong("did not zero the gradients: each update repeats all before it", "Set them to zero after each update.")
    def not_zeroed(params, x, y, first=1e-4, last=10.0, updates=200):
        return sweep(params, x, y, first, last, updates, zero=False)

    @wrong("never changed the weights: the loss then says nothing about the rate", "Each batch takes a step with its own rate.")
    def no_update(params, x, y, first=1e-4, last=10.0, updates=200):
        return sweep(params, x, y, first, last, updates, step=False)

    @wrong("stopped as soon as the loss rose at all: single batches differ, and only four times the smallest counts")
    def first_rise(params, x, y, first=1e-4, last=10.0, updates=200):
        return sweep(params, x, y, first, last, updates, stop=lambda loss, losses: loss > min(losses))

    @wrong("left out the loss at which it stopped: note it first, so that the explosion can be seen")
    def last_left_out(params, x, y, first=1e-4, last=10.0, updates=200):
        return sweep(params, x, y, first, last, updates, append=False)

    @wrong("began at the second rate: the first update has the rate `first`", "Multiply at the end of the loop.")
    def multiplied_first(params, x, y, first=1e-4, last=10.0, updates=200):
        ratio = (last/first)**(1/updates)
        return sweep(params, x, y, first*ratio, last, updates)
