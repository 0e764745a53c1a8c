"""The rows that are measured in one process. A group is a function of the number of rounds that returns rows; `run.py` gives each a process of its own.

Every row says whom it compares, in which sense, and what the target is.
"""
import time
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import fdl.data
import fdl.functional
import fdl.metrics
import fdl.nn
import fdl.optim
import fdl.training
from benchmarks import peers
from benchmarks.measure import Row, at_least, at_most, in_turn, medians, per_call, summary
from fdl import backprop
from fdl.core import set_seed
from fdl.datasets import load_mnist

CPU = torch.device("cpu")


def mnist(part: int = 0) -> tuple[Tensor, Tensor]:
    "Images and labels of MNIST: of part 0 the 50,000 to train on, of part 1 the 10,000 for validation."
    return load_mnist(device=CPU)[part]


class HandLoss:
    "Mean squared error against one-hot targets; its result can go back through `model`."
    def __init__(self, model): self.model, self.mse, self.one_hot = model, backprop.MSE(), torch.eye(10)

    def __call__(self, preds: Tensor, target: Tensor) -> Tensor:
        loss = self.mse(preds, self.one_hot[target])
        loss.backward = self.backward
        return loss

    def backward(self) -> None:
        self.mse.out.g = 1.
        self.mse.backward()
        self.model.backward()


class HandSGD:
    "The update rule for gradients in `.g`."
    def __init__(self, params: list[Tensor], lr: float): self.params, self.lr = params, lr

    def zero_grad(self) -> None:
        for p in self.params: p.g = None

    def step(self) -> None:
        for p in self.params: p -= self.lr*p.g


def hand_network(x: Tensor, y: Tensor) -> peers.Run:
    "The network of lesson 03, whose backward passes are written by hand, trained by `fit`."
    set_seed(0)
    params = [torch.randn(784, 50)*(2/784)**0.5, torch.zeros(50), torch.randn(50, 10)*0.1, torch.zeros(10)]
    model = backprop.Sequential(backprop.Linear(*params[:2]), backprop.ReLU(), backprop.Linear(*params[2:]))
    opt = HandSGD(params, lr=1.0)
    updates, loader = peers.count_updates(opt), fdl.data.DataLoader(fdl.data.TensorDataset(x, y), peers.BATCH, shuffle=True)

    def run():
        with peers.shown(): fdl.training.fit(1, model, HandLoss(model), opt, loader)
        return model, len(updates)
    return run


def epochs(sides: dict, x: Tensor, y: Tensor, rounds: int) -> dict[str, list[float]]:
    "The seconds of one epoch by each of the sides, all checked to have trained."
    return in_turn({name: partial(side, x, y) for name, side in sides.items()}, rounds, peers.check_trained(x, y))


def fit(rounds: int) -> list[Row]:
    "One epoch by `fit`, beside the bare loop and what else needs nothing but torch."
    x, y = mnist()
    theirs = {"torch's DataLoader": peers.torch_loop, "miniai-style Learner": peers.miniai_style, "torch's DataLoader, two workers": peers.torch_loop_workers}
    sides = {"fdl": peers.ours, "bare loop": peers.bare, "shuffling bare loop": peers.bare_shuffled, "lesson 03": hand_network}
    seconds = epochs({**sides, **theirs}, x, y, rounds)
    rows = [at_most(1.00, "fit, one epoch, over the bare loop", seconds, "fdl", "bare loop"),
            at_most(0.90, "fit, one epoch, over the bare loop that shuffles", seconds, "fdl", "shuffling bare loop"),
            at_most(0.55, "fit of lesson 03's network over the bare loop", seconds, "lesson 03", "bare loop")]
    targets = {"torch's DataLoader": 1.6, "miniai-style Learner": 1.7, "torch's DataLoader, two workers": 2}
    rows += [at_least(targets[name], f"fit, one epoch, beside {name}", seconds, "fdl", name) for name in theirs]
    threads = torch.get_num_threads()
    torch.set_num_threads(max(2, threads))
    seconds = epochs({"fdl": peers.ours, "bare loop": peers.bare}, x, y, rounds)
    return rows + [at_most(None, f"fit over the bare loop, both on {torch.get_num_threads()} threads", seconds, "fdl", "bare loop")]


def trainers(rounds: int) -> list[Row]:
    "One epoch by `fit`, beside the trainers that have to be installed."
    x, y = mnist()
    theirs, rows = {"skorch": peers.skorch, "Lightning": peers.lightning, "fastai": peers.fastai, "Keras": peers.keras}, []
    targets = {"skorch": 2, "Lightning": 2.5, "fastai": 2.5, "Keras": 5}
    for name, side in list(theirs.items()):
        try: side(x, y)
        except Exception as error:  # whatever a peer stumbles over is reported, and the others are measured
            rows.append(Row(f"fit, one epoch, beside {name}", "at least", targets[name], note=f"could not be started: {type(error).__name__}: {error}"))
            theirs.pop(name)
    seconds = epochs({"fdl": peers.ours, **theirs}, x, y, rounds)
    return [at_least(targets[name], f"fit, one epoch, beside {name}", seconds, "fdl", name) for name in theirs] + rows


def read_all(loader) -> None:
    "Takes every batch."
    for _ in loader: pass


def index_select(x: Tensor, y: Tensor) -> None:
    "Every shuffled batch, by the shortest loop there is."
    for rows in torch.randperm(len(x)).split(peers.BATCH): x.index_select(0, rows), y.index_select(0, rows)


class Slow(fdl.data.Dataset):
    "Each item is 2 ms of work for the processor."
    def __init__(self, length: int): self.length = length

    def __len__(self) -> int: return self.length

    def __getitem__(self, index: int) -> int:
        start = time.thread_time()
        while time.thread_time() - start < 0.002: pass
        return index


def loader(rounds: int) -> list[Row]:
    "`DataLoader` without a model: shuffled epochs of MNIST, and two workers."
    x, y = mnist()
    ours = lambda **options: fdl.data.DataLoader(fdl.data.TensorDataset(x, y), peers.BATCH, shuffle=True, **options)
    sides = {"fdl": lambda: read_all(ours()), "torch": lambda: read_all(peers.torch_loader(x, y)), "index_select": lambda: index_select(x, y)}
    alone = in_turn({name: lambda side=side: side for name, side in sides.items()}, rounds)
    sides = {"fdl": lambda: read_all(ours(num_workers=2)), "torch": lambda: read_all(peers.torch_loader(x, y, num_workers=2))}
    workers = in_turn({name: lambda side=side: side for name, side in sides.items()}, rounds)
    slow = lambda n: read_all(fdl.data.DataLoader(Slow(512), 16, num_workers=n))
    items = in_turn({"two workers": lambda: lambda: slow(2), "none": lambda: lambda: slow(0)}, max(2, rounds//2))
    return [at_least(8, "DataLoader, shuffled MNIST, beside torch's", alone, "fdl", "torch"),
            at_most(1.3, "DataLoader, shuffled MNIST, over a bare index_select loop", alone, "fdl", "index_select"),
            at_most(0.3, "DataLoader, two workers on MNIST, start included, over torch's", workers, "fdl", "torch"),
            at_least(1.8, "DataLoader, items of 2 ms: two workers beside none", items, "two workers", "none")]


def million() -> nn.Module:
    "A convolutional network with a million parameters in 22 tensors."
    widths, layers = [1, 32, 64, 128, 256, 256], []
    for c_in, c_out in zip(widths, widths[1:]): layers += [nn.Conv2d(c_in, c_out, 3, 2, 1), nn.BatchNorm2d(c_out), nn.ReLU()]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(256, 10))


def steps(make_opt, make_model, calls: int):
    "A run that times `step` and `zero_grad` so many times, and not the handing out of the gradients in between."
    params = list(make_model().parameters())
    grads, opt = [torch.randn_like(p) for p in params], make_opt(params)

    def run():
        taken = 0.0
        for _ in range(calls):
            for p, grad in zip(params, grads): p.grad = grad
            start = time.perf_counter()
            opt.step()
            opt.zero_grad()
            taken += time.perf_counter() - start
        return taken/calls
    return run


def optimizers(rounds: int) -> list[Row]:
    "`step` and `zero_grad` on parameters of `torch.nn`, beside torch's three implementations."
    rows = []
    for size, make_model, calls in (("784-50-10", peers.network, 400), ("a CNN of 1 million", million, 20)):
        for name, options in (("SGD", {"lr": 0.1}), ("Adam", {}), ("AdamW", {})):
            ours, theirs = getattr(fdl.optim, name), getattr(torch.optim, name)
            kinds = {"fdl": partial(ours, **options), "default": partial(theirs, **options),
                     "foreach": partial(theirs, foreach=True, **options), "fused": partial(theirs, fused=True, **options)}
            made = {kind: steps(make_opt, make_model, calls) for kind, make_opt in kinds.items()}
            seconds = in_turn({kind: lambda run=run: run for kind, run in made.items()}, 3*rounds, own_clock=True)
            middle = medians(seconds)
            fastest = min(("default", "foreach", "fused"), key=middle.get)
            default, best = (0.6, 1.5) if name != "SGD" and size != "784-50-10" else (0.8, 1.0)
            rows += [at_most(default, f"{name} on {size} over torch's default", seconds, "fdl", "default"),
                     at_most(best, f"{name} on {size} over torch's fastest", seconds, "fdl", fastest, note=f"torch's fastest is {fastest}")]
    return rows


def losses(rounds: int) -> list[Row]:
    "`cross_entropy` forward and backward."
    rows = []
    for n, classes, target in ((64, 10, 1.4), (1024, 1000, 1.2), (256, 32000, 1.2)):
        scores, labels = torch.randn(n, classes, requires_grad=True), torch.randint(classes, (n,))

        def call(loss_func):
            scores.grad = None
            loss_func(scores, labels).backward()

        seconds = per_call({"fdl": lambda: call(fdl.functional.cross_entropy), "torch": lambda: call(F.cross_entropy)}, 3*rounds)
        rows.append(at_most(target, f"cross_entropy at ({n}, {classes}) over torch's", seconds, "fdl", "torch"))
    return rows


def convolution(rounds: int) -> list[Row]:
    "`conv2d` forward and backward: the three layers of lesson 14's CNN one after another, nothing between them."
    layers = [fdl.nn.Conv2d(1, 16, 3, 2, 1), fdl.nn.Conv2d(16, 16, 3, 2, 1), fdl.nn.Conv2d(16, 10, 3, 2, 1)]
    images = mnist()[0][:128].view(-1, 1, 28, 28)

    def call(conv2d):
        x = images
        for layer in layers:
            layer.weight.grad = layer.bias.grad = None
            x = conv2d(x, layer.weight, layer.bias, layer.stride, layer.padding)
        x.backward(x.detach())

    seconds = per_call({"fdl": lambda: call(fdl.functional.conv2d), "torch": lambda: call(F.conv2d)}, 3*rounds)
    return [at_most(2.5, "conv2d on the layers of lesson 14's CNN, 128 images, over torch's", seconds, "fdl", "torch")]


def validation(rounds: int) -> list[Row]:
    "`evaluate` as `fit` calls it after an epoch, over loss and accuracy of all images at once."
    x, y = mnist(1)
    dataset, model = fdl.data.TensorDataset(x, y), peers.network(fdl.nn)
    valid_dl = fdl.training.get_dls(dataset, dataset, peers.BATCH)[1]

    @torch.no_grad()
    def whole():
        scores = model(x)
        return fdl.functional.cross_entropy(scores, y).item(), fdl.metrics.accuracy(scores, y).item()

    def judge(): return fdl.training.evaluate(model, fdl.functional.cross_entropy, valid_dl)

    torch.testing.assert_close(tuple(judge().values()), whole(), rtol=1e-5, atol=1e-6)
    seconds = per_call({"batches": judge, "one pass": whole}, 3*rounds)
    return [at_most(1.3, f"evaluate, 10,000 images in batches of {2*peers.BATCH}, over one whole pass", seconds, "batches", "one pass")]


SIZES = {"1x": 1, "4x": 4, "16x": 16}


def scaling(rounds: int) -> list[Row]:
    "The cost of an image, and of a loader's first batch, with 1, 4 and 16 times MNIST in memory (3.3 GB in all)."
    x, y = mnist()
    data = {size: (x.repeat(times, 1), y.repeat(times)) for size, times in SIZES.items()}

    def epoch(size):
        model = peers.network(fdl.nn)
        opt = fdl.optim.SGD(model.parameters(), peers.LR)
        loader = fdl.data.DataLoader(fdl.data.TensorDataset(*data[size]), peers.BATCH, shuffle=True)
        return lambda: fdl.training.fit(1, model, fdl.functional.cross_entropy, opt, loader, progress=False)

    def first_batch(size, **options):
        loader = fdl.data.DataLoader(fdl.data.TensorDataset(*data[size]), peers.BATCH, **options)
        return lambda: next(iter(loader))

    def row(name, make, rounds, per=lambda size: 1, **more):
        seconds = in_turn({size: partial(make, size) for size in SIZES}, rounds)
        seconds = {size: [taken/per(size) for taken in values] for size, values in seconds.items()}
        ratios = [a/b for a, b in zip(seconds["16x"], seconds["1x"])]
        return summary(name, "at most", 1.2, ratios, seconds=medians(seconds), **more)

    draw = medians(in_turn({size: lambda n=len(data[size][0]): lambda: torch.randperm(n) for size in SIZES}, 3*rounds))
    note = ", ".join(f"{size} {1000*taken:.2g} ms" for size, taken in draw.items())
    return [row("fit: an image of 16x the data over one of 1x", epoch, max(2, rounds//2), lambda size: len(data[size][0])),
            row("first batch in order: 16x over 1x", first_batch, 3*rounds),
            row("first batch, two workers: 16x over 1x", partial(first_batch, num_workers=2), rounds),
            row("first batch, shuffled in torch's order: 16x over 1x", partial(first_batch, shuffle=True), 3*rounds, note=f"torch.randperm alone: {note}")]
