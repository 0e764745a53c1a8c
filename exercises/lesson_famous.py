"""Bugs of famous programs: each planted in a short program that runs, and whose numbers look right.

`program("clipped")` shows one. It is mended where `check` says *passed*; as it was given it is not started.
"""
import torch
from torch import nn

from .engine import Exercise, wrong


class accuracy_between_epochs(Exercise):
    lesson, title, kind = "11", "A bug: the accuracy between two epochs", "debug"
    hints = ("Call it twice on the same rows. Should the two answers differ?",
             "The model is in training mode: dropout drops, and batch normalization learns from the validation rows. Which modules were in which mode before?",
             "Note each module's `training`, call `model.eval()`, and put every one back at the end.")
    then = "`evaluate` of lesson 11 does this too. Look at how it puts the modes back when the model raises."
    gradients = False

    def cases(randn):
        def model(seed, mode=True, rest=None):
            torch.manual_seed(seed)
            net = nn.Sequential(nn.Linear(4, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout(.8), nn.Linear(16, 3)).double().train(mode)
            if rest is not None: net[rest].eval()
            return net
        rows = lambda n: (randn(n, 4), torch.arange(n) % 3)
        yield "a model that is being trained", (model(0), *rows(30))
        yield "a model at rest", (model(1, False), *rows(30))
        yield "a batch normalization that stays at rest while the rest is trained", (model(2, True, 1), *rows(30))
        yield "a dropout at rest", (model(3, True, 3), *rows(30))
        yield "two rows", (model(4), *rows(2))

    def run(answer, model, x, y):
        torch.manual_seed(0)
        return {"the accuracy": float(answer(model, x, y)), "the modes afterwards": [m.training for m in model.modules()]}

    def given(model, x, y):
        "The share of the validation rows `x` (n, 4) that `model` calls `y` (n,); it is called between two epochs of training."
        with torch.no_grad(): preds = model(x).argmax(1)
        return (preds == y).double().mean().item()

    def solution(model, x, y):
        modes = [(module, module.training) for module in model.modules()]
        model.eval()
        with torch.no_grad(): preds = model(x).argmax(1)
        for module, mode in modes: module.training = mode
        return (preds == y).double().mean().item()

    def second(model, x, y):
        import copy
        with torch.no_grad(): scores = copy.deepcopy(model).eval()(x)
        return int((scores.argmax(1) == y).sum())/len(y)

    @wrong("left the model in training mode: dropout drops, and batch normalization takes these rows into its running statistics")
    def in_training_mode(model, x, y):
        with torch.no_grad(): return (model(x).argmax(1) == y).double().mean().item()

    @wrong("did not put the model back: it would be trained at rest from now on", "What does the next epoch need?")
    def left_at_rest(model, x, y):
        model.eval()
        with torch.no_grad(): return (model(x).argmax(1) == y).double().mean().item()

    @wrong("called `model.train()` at the end: what was at rest before is trained from now on", "Note the mode of each module before you change it.")
    def always_trained_after(model, x, y):
        model.eval()
        with torch.no_grad(): found = (model(x).argmax(1) == y).double().mean().item()
        model.train()
        return found

    @wrong("noted the mode of the whole only: modules in it may have a mode of their own", "`model.modules()` goes through all of them.")
    def mode_of_the_whole(model, x, y):
        before = model.training
        model.eval()
        with torch.no_grad(): found = (model(x).argmax(1) == y).double().mean().item()
        model.train(before)
        return found

    @wrong("switched off dropout only: batch normalization still learns from these rows", "Which other layer behaves differently in training?")
    def dropout_only(model, x, y):
        modes = [(m, m.training) for m in model.modules()]
        for m in model.modules():
            if isinstance(m, nn.Dropout): m.eval()
        with torch.no_grad(): found = (model(x).argmax(1) == y).double().mean().item()
        for m, mode in modes: m.training = mode
        return found


class mean_loss(Exercise):
    lesson, title, kind = "11", "A bug: the loss of an epoch", "debug"
    hints = ("Try 5 losses in batches of 4: how much does the fifth count?", "A batch's mean must count as much as its rows.")
    then = "The same mistake between processes is the last bug of lesson 21's list."
    gradients = False

    def cases(randn):
        d = lambda *x: torch.tensor(x).double()
        yield "a short last batch", (d(1., 1., 1., 1., 6.), 4)
        yield "whole batches", (d(1., 2., 3., 6.), 2)
        yield "one row a batch", (d(1., 2., 6.), 1)
        yield "one batch", (d(1., 2., 6.), 5)
        yield "many", (randn(103), 8)

    def given(losses, size):
        "The mean of `losses` (n,), one for each row of an epoch, found from batches of `size`."
        means = [batch.mean() for batch in losses.split(size)]
        return sum(means)/len(means)

    def solution(losses, size):
        total = sum(batch.mean()*len(batch) for batch in losses.split(size))
        return total/len(losses)

    def second(losses, size):
        batches = losses.split(size)
        weights = torch.tensor([len(b) for b in batches]).to(losses)
        return weights @ torch.stack([b.mean() for b in batches]) / weights.sum()

    @wrong("took a mean of means: the rows of a short batch count more than the others")
    def mean_of_means(losses, size): return torch.stack([b.mean() for b in losses.split(size)]).mean()

    @wrong("left out the short batch", "All rows count.")
    def without_the_last(losses, size):
        whole = losses[:len(losses)//size*size] if len(losses) >= size else losses
        return whole.mean()

    @wrong("counted each batch with `size` rows, the short one too", "`len(batch)` knows how many there are.")
    def size_for_all(losses, size): return sum(b.mean()*size for b in losses.split(size))/len(losses)

    @wrong("summed the means of the batches", "By what must it be divided?")
    def sum_of_means(losses, size): return sum(b.mean() for b in losses.split(size))

    @wrong("divided the sum of all losses by the number of batches")
    def by_batches(losses, size): return losses.sum()/len(losses.split(size))

    @wrong("returned the loss of the last batch")
    def last(losses, size): return losses.split(size)[-1].mean()


class trained_classifier(Exercise):
    lesson, title, kind = "17", "A bug: a classifier that learns slowly", "debug"
    hints = ("Ask `diagnose` of a run with these scores and this loss, or print the loss: can it come below 0.55 for three classes?",
             "What does `cross_entropy` do with what it is given? (Lesson 05.)", "It takes scores, and does the softmax itself.")
    then = "Give `diagnose` the run with the bug in it: which of its tests says so?"
    gradients = False

    def cases(randn):
        d = lambda *x: torch.tensor(x).double()
        yield "one step", (torch.zeros(2, 3).double(), d([1., 0.], [0., 1.], [1., 1.]), torch.tensor([0, 1, 2]), 1., 1)
        yield "no step", (d([1., 0.], [0., 1.]), d([1., 2.]), torch.tensor([1]), 1., 0)
        yield "many steps", (randn(4, 3), randn(20, 4), torch.arange(20) % 3, .5, 20)
        yield "one row", (randn(2, 2), randn(1, 2), torch.tensor([1]), .1, 3)

    def given(w, x, y, lr, steps):
        "The weights `w` (m, c) of the scores `x @ w` after `steps` updates on the rows `x` (n, m), whose classes are `y` (n,)."
        for _ in range(steps):
            w = w.detach().requires_grad_()
            probs = torch.softmax(x @ w, 1)
            loss = nn.functional.cross_entropy(probs, y)
            grad, = torch.autograd.grad(loss, w)
            w = w - lr*grad
        return w.detach()

    def solution(w, x, y, lr, steps):
        for _ in range(steps):
            w = w.detach().requires_grad_()
            loss = nn.functional.cross_entropy(x @ w, y)
            grad, = torch.autograd.grad(loss, w)
            w = w - lr*grad
        return w.detach()

    def second(w, x, y, lr, steps):
        targets = torch.eye(w.shape[1]).to(w)[y]
        for _ in range(steps): w = w - lr * x.T @ (torch.softmax(x @ w, 1) - targets)/len(x)
        return w.detach()

    @wrong("took the softmax twice: `cross_entropy` does one itself")
    def twice(w, x, y, lr, steps):
        for _ in range(steps):
            w = w.detach().requires_grad_()
            w = w - lr*torch.autograd.grad(nn.functional.cross_entropy(torch.softmax(x @ w, 1), y), w)[0]
        return w.detach()

    @wrong("gave probabilities to `nll_loss`, which wants their logarithms")
    def no_logarithm(w, x, y, lr, steps):
        for _ in range(steps):
            w = w.detach().requires_grad_()
            w = w - lr*torch.autograd.grad(nn.functional.nll_loss(torch.softmax(x @ w, 1), y), w)[0]
        return w.detach()

    @wrong("took the softmax over the rows instead of the classes")
    def over_rows(w, x, y, lr, steps):
        for _ in range(steps):
            w = w.detach().requires_grad_()
            w = w - lr*torch.autograd.grad(nn.functional.nll_loss(torch.log_softmax(x @ w, 0), y), w)[0]
        return w.detach()

    @wrong("went up the slope: an update goes against the gradient")
    def uphill(w, x, y, lr, steps): return trained_classifier.solution(w, x, y, -lr, steps)

    @wrong("summed the loss over the rows: the given program takes their mean")
    def summed(w, x, y, lr, steps): return trained_classifier.solution(w, x, y, lr*len(x), steps)

    @wrong("measured by the squared error of the probabilities, and no longer by the cross-entropy")
    def squared(w, x, y, lr, steps):
        for _ in range(steps):
            w = w.detach().requires_grad_()
            error = torch.softmax(x @ w, 1) - torch.eye(w.shape[1]).to(w)[y]
            w = w - lr*torch.autograd.grad((error**2).mean(), w)[0]
        return w.detach()


class clipped(Exercise):
    lesson, title, kind = "18", "A bug: clipping with a scaled loss", "debug"
    hints = ("With scale 1 the program is right. With another, compare the lengths of the updates.",
             "How long is the gradient of a loss that is multiplied by `scale`?", "Unscale first, then clip: the limit is meant for the true gradient.")
    then = "`torch.amp.GradScaler` has `unscale_` for this, and lesson 18 a hook."
    gradients = False

    def cases(randn):
        d = lambda *x: torch.tensor(x).double()
        one = [(d([1., 0.], [0., 1.]), d(.3, .4))]
        yield "a gradient within the limit", (torch.zeros(2).double(), one, 1.5, 1., .5)
        yield "a long gradient", (torch.zeros(2).double(), [(d([1., 0.], [0., 1.]), d(30., 40.))], 64., 1., .5)
        yield "no scaling", (torch.zeros(2).double(), one, 1., .1, .5)
        yield "no gradient", (d(.3, .4), one, 8., 1., .5)
        yield "several batches", (randn(4), [(randn(8, 4), 3*randn(8)) for _ in range(5)], 1024., 2., .1)

    def given(w, batches, scale, max_norm, lr):
        "The weights `w` (d,) after one step of least squares for each of `batches`, pairs (x, y); gradients are clipped to `max_norm`."
        for x, y in batches:
            w = w.detach().requires_grad_()
            loss = ((x @ w - y)**2).mean()*scale               # so large that float16 does not make 0 of its gradient
            grad, = torch.autograd.grad(loss, w)
            grad = grad*(max_norm/grad.norm()).clamp(max=1)    # clip
            w = w - lr*grad/scale                              # unscale
        return w.detach()

    def solution(w, batches, scale, max_norm, lr):
        for x, y in batches:
            w = w.detach().requires_grad_()
            loss = ((x @ w - y)**2).mean()*scale
            grad = torch.autograd.grad(loss, w)[0]/scale
            w = w - lr*grad*(max_norm/grad.norm()).clamp(max=1)
        return w.detach()

    def second(w, batches, scale, max_norm, lr):
        for x, y in batches:
            grad = 2*x.T @ (x @ w - y)/len(y)
            norm = float(grad.norm())
            if norm > max_norm: grad = grad*max_norm/norm
            w = w - lr*grad
        return w

    @wrong("clipped the scaled gradient: it is `scale` times too long, so the limit is `scale` times too low")
    def clips_scaled(w, batches, scale, max_norm, lr):
        for x, y in batches:
            grad = scale*2*x.T @ (x @ w - y)/len(y)
            w = w - lr*grad*(max_norm/grad.norm()).clamp(max=1)/scale
        return w

    @wrong("did not unscale", "By what is the gradient too long?")
    def never_unscaled(w, batches, scale, max_norm, lr):
        for x, y in batches:
            grad = scale*2*x.T @ (x @ w - y)/len(y)
            w = w - lr*grad*(max_norm/grad.norm()).clamp(max=1)
        return w

    @wrong("unscaled twice", "Once before clipping is all.")
    def unscaled_twice(w, batches, scale, max_norm, lr): return clipped.solution(w, batches, scale, max_norm, lr/scale)

    @wrong("did not clip at all")
    def not_clipped(w, batches, scale, max_norm, lr): return clipped.solution(w, batches, scale, float("inf"), lr)

    @wrong("gave every gradient the length `max_norm`: short ones stay as they are", "`clamp(max=1)`.")
    def always_full_length(w, batches, scale, max_norm, lr):
        for x, y in batches:
            grad = 2*x.T @ (x @ w - y)/len(y)
            w = w - lr*grad*max_norm/grad.norm().clamp(min=1e-300)
        return w

    @wrong("clipped each number by itself: that turns the gradient", "One factor for all numbers.")
    def by_value(w, batches, scale, max_norm, lr):
        for x, y in batches: w = w - lr*(2*x.T @ (x @ w - y)/len(y)).clamp(-max_norm, max_norm)
        return w


class batches_left(Exercise):
    lesson, title, kind = "18", "A bug: a run that goes on", "debug"
    hints = ("Kill a run of two epochs in the middle of the first, and count how often each row is trained on.",
             "The order is drawn again, so that it is the same one. Which of its batches have been trained on?", "Leave out the first `saved['done']` batches.")
    then = "Lesson 18 does this with a dataset that draws random numbers of its own, too. What more must it do for the batches that it leaves out?"
    gradients = False

    def cases(randn):
        def saved(seed, done, epochs, n=None, epoch=0):
            generator = torch.Generator().manual_seed(seed)
            for _ in range(epoch): torch.randperm(n, generator=generator)
            return {"state": generator.get_state(), "done": done, "epochs_left": epochs}
        yield "killed after one batch of two", (saved(0, 1, 1), 4, 2)
        yield "killed between epochs", (saved(1, 0, 2), 6, 2)
        yield "a short last batch", (saved(2, 2, 2), 7, 3)
        yield "in the third epoch", (saved(3, 1, 2, 6, 2), 6, 2)
        yield "all batches done", (saved(4, 3, 1), 6, 2)

    def given(saved, n, size):
        "The batches of rows that a run trains on after it was killed: `saved` has the generator's state at the epoch's start, how many of its batches are `done`, and how many epochs are left, this one among them."
        generator, batches = torch.Generator(), []
        generator.set_state(saved["state"])
        for _ in range(saved["epochs_left"]):
            batches += torch.randperm(n, generator=generator).split(size)
        return batches

    def solution(saved, n, size):
        generator, batches = torch.Generator(), []
        generator.set_state(saved["state"])
        for _ in range(saved["epochs_left"]):
            batches += torch.randperm(n, generator=generator).split(size)
        return batches[saved["done"]:]

    def second(saved, n, size):
        generator, left, skip = torch.Generator(), [], saved["done"]*size
        generator.set_state(saved["state"])
        for _ in range(saved["epochs_left"]):
            left += [part for part in torch.randperm(n, generator=generator)[skip:].split(size) if len(part)]
            skip = 0
        return left

    @wrong("trained once more on the batches that were done: the epoch is repeated")
    def repeated(saved, n, size):
        return batches_left.solution(saved | {"done": 0}, n, size)

    @wrong("drew another order: rows are left out, and others come twice", "`set_state` brings the order of the killed run.")
    def another_order(saved, n, size):
        state = torch.Generator().manual_seed(99).get_state()
        return batches_left.solution(saved | {"state": state}, n, size)

    @wrong("gave up the rest of the epoch", "The run had begun it, and not finished.")
    def next_epoch(saved, n, size):
        return batches_left.solution(saved | {"done": -(-n//size) if saved["done"] else 0}, n, size)

    @wrong("left the batches out of every epoch: only the first one had begun")
    def of_every_epoch(saved, n, size):
        generator, batches = torch.Generator(), []
        generator.set_state(saved["state"])
        for _ in range(saved["epochs_left"]): batches += torch.randperm(n, generator=generator).split(size)[saved["done"]:]
        return batches

    @wrong("left out rows in the place of batches", "`done` counts batches.")
    def rows(saved, n, size):
        generator, batches, skip = torch.Generator(), [], saved["done"]
        generator.set_state(saved["state"])
        for _ in range(saved["epochs_left"]):
            batches += torch.randperm(n, generator=generator)[skip:].split(size)
            skip = 0
        return batches

    @wrong("left out one batch too many")
    def one_too_many(saved, n, size): return batches_left.solution(saved | {"done": saved["done"] + 1}, n, size)


class rows_of_a_process(Exercise):
    lesson, title, kind = "21", "A bug: every epoch the same", "debug"
    hints = ("Print the rows of two epochs beside each other.", "What is the generator's seed in the second epoch?",
             "torch's `DistributedSampler` takes `seed + epoch`, once `set_epoch(epoch)` has told it.")
    then = "`Sharded` of this lesson needs no such call. Why not?"
    gradients = False

    def cases(randn):
        yield "two epochs", (4, 2, 0, 0, 2)
        yield "another process", (4, 2, 1, 0, 2)
        yield "one process", (5, 1, 0, 7, 2)
        yield "three processes", (12, 3, 2, 3, 4)
        yield "a share that is shorter", (7, 3, 2, 1, 2)

    def given(n, world, rank, seed, n_epochs):
        "The rows that process `rank` of `world` trains on: a list with a tensor for each epoch, in an order that is new in each."
        orders = []
        for epoch in range(n_epochs):
            generator = torch.Generator().manual_seed(seed)
            orders.append(torch.randperm(n, generator=generator)[rank::world])
        return orders

    def solution(n, world, rank, seed, n_epochs):
        orders = []
        for epoch in range(n_epochs):
            generator = torch.Generator().manual_seed(seed + epoch)
            orders.append(torch.randperm(n, generator=generator)[rank::world])
        return orders

    def second(n, world, rank, seed, n_epochs):
        drawn = [torch.randperm(n, generator=torch.Generator().manual_seed(number)) for number in range(seed, seed + n_epochs)]
        return [order[torch.arange(n) % world == rank] for order in drawn]

    @wrong("forgot the epoch: each one has the same order", "What should the seed hang on?")
    def no_set_epoch(n, world, rank, seed, n_epochs):
        return rows_of_a_process.solution(n, world, rank, seed, 1)*n_epochs

    @wrong("gave each process an order of its own: they train on some rows twice, and on others never", "All draw the same order, and each takes its part.")
    def order_of_its_own(n, world, rank, seed, n_epochs):
        return [rows_of_a_process.solution(n, world, rank, seed + rank*100 + e, 1)[0] for e in range(n_epochs)]

    @wrong("went on with one generator: a process that is started again draws another order", "`seed + epoch` can be drawn at any time.")
    def one_generator(n, world, rank, seed, n_epochs):
        generator = torch.Generator().manual_seed(seed)
        return [torch.randperm(n, generator=generator)[rank::world] for _ in range(n_epochs)]

    @wrong("gave all rows to each process", "Each takes every `world`-th row.")
    def all_rows(n, world, rank, seed, n_epochs): return rows_of_a_process.solution(n, 1, 0, seed, n_epochs)

    @wrong("took blocks of rows, where the given program takes every `world`-th")
    def blocks(n, world, rank, seed, n_epochs):
        return [order.tensor_split(world)[rank] for order in rows_of_a_process.solution(n, 1, 0, seed, n_epochs)]

    @wrong("did not shuffle")
    def in_order(n, world, rank, seed, n_epochs): return [torch.arange(n)[rank::world]]*n_epochs


class validation_loss(Exercise):
    lesson, title, kind = "21", "A bug: validation by several processes", "debug"
    hints = ("Try 3 rows and 2 processes: which row counts twice?", "Equal shares are a need of training steps. Validation has none.",
             "Let each process sum what it has, a shorter share too, and divide by the number of rows once.")
    then = "How would a process that has no row at all take part in the `all_reduce`?"
    gradients = False

    def cases(randn):
        d = lambda *x: torch.tensor(x).double()
        yield "three rows, two processes", (d(6., 0., 0.), 2)
        yield "equal shares", (d(1., 2., 3., 6.), 2)
        yield "one process", (d(1., 5.), 1)
        yield "more processes than rows", (d(4., 1.), 3)
        yield "many rows", (randn(101), 4)

    def given(losses, world):
        "The mean of `losses` (n,), one for each validation row, as `world` processes find it together."
        short = -len(losses) % world                           # as many rows for each process
        padded = torch.cat([losses, losses[:short]])
        sums = [padded[rank::world].sum() for rank in range(world)]
        return sum(sums)/len(padded)

    def solution(losses, world):
        sums = [losses[rank::world].sum() for rank in range(world)]
        return sum(sums)/len(losses)

    def second(losses, world):
        shares = [losses[rank::world] for rank in range(world)]
        total = torch.stack([torch.stack([share.sum(), share.new_tensor(len(share))]) for share in shares]).sum(0)
        return total[0]/total[1]

    @wrong("counted the rows twice that fill the shares up")
    def padded(losses, world):
        return torch.cat([losses, losses[:-len(losses) % world]]).mean()

    @wrong("divided the padded sum by the number of rows", "Neither should have the rows that fill up.")
    def half_padded(losses, world): return torch.cat([losses, losses[:-len(losses) % world]]).sum()/len(losses)

    @wrong("took a mean of the processes' means: the rows of a shorter share count more", "Sum first, and divide once.")
    def mean_of_means(losses, world):
        shares = [losses[rank::world] for rank in range(world) if len(losses[rank::world])]
        return sum(share.mean() for share in shares)/len(shares)

    @wrong("left out the rows that do not share out evenly", "All rows count.")
    def cut(losses, world): return losses[:len(losses)//world*world].mean()

    @wrong("filled up with zeros, and counted them", "The sum may have zeros in it. What is it divided by?")
    def zeros(losses, world): return losses.sum()/(len(losses) + -len(losses) % world)

    @wrong("returned what the first process has found")
    def first_only(losses, world): return losses[::world].mean()

    @wrong("returned the sum of all losses")
    def only_sum(losses, world): return losses.sum()
