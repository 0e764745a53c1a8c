"""Training runs with one planted fault each, and healthy ones: a corpus for `fdl.diagnose.diagnose`, run once a week.

Each run is a function that returns the keyword arguments of `diagnose`. `PLANTED` and `HEALTHY` are those that its
thresholds were chosen on; `HELD_OUT` and `HEALTHY_HELD_OUT` were written afterwards. When they were first run, 50 of 52 faults
were named, and 1 of 25 healthy runs was accused, of too low a learning rate. That limit, and that for shuffled labels, were
then moved, so that these runs are held out no longer. Since the second edition freezing is no fault: the runs with a frozen part
are healthy, and so is one with a nan that the backward pass of a ReLU masks.
"""
from collections.abc import Callable
from functools import cache, partial

import torch
import torch.nn.functional as F

import fdl.data
import fdl.functional
import fdl.nn
import fdl.optim
from fdl.core import set_seed
from fdl.datasets import load_mnist
from fdl.training import loss_batch

ROWS = 1200
NN, OPTIM, DATA = ({"fdl": ours, "torch": theirs} for ours, theirs in ((fdl.nn, torch.nn), (fdl.optim, torch.optim), (fdl.data, torch.utils.data)))


@cache
def digits() -> tuple[torch.Tensor, torch.Tensor]:
    (x, y), _, _ = load_mnist(device="cpu")
    return x[:ROWS], y[:ROWS]


class Hand(torch.nn.Module):
    "A network written as a class, its ReLUs as functions."
    def __init__(self, sizes=(784, 50, 10), relu=F.relu):
        super().__init__()
        self.layers, self.relu = torch.nn.ModuleList(torch.nn.Linear(m, n) for m, n in zip(sizes, sizes[1:])), relu

    def forward(self, x):
        for layer in self.layers[:-1]: x = self.relu(layer(x))
        return self.layers[-1](x)


def layers(kind: str, nn, relu=None, n_in=784, n_out=10) -> list:
    "The layers of a model, to be put into a `Sequential`."
    relu = relu or nn.ReLU
    image = fdl.nn.Lambda(lambda x: x.reshape(-1, 1, 28, 28)) if nn is fdl.nn else torch.nn.Unflatten(1, (1, 28, 28))
    if kind == "linear": return [nn.Linear(n_in, n_out)]
    if kind == "mlp": return [nn.Linear(n_in, 50), relu(), nn.Linear(50, n_out)]
    if kind == "deep": return [nn.Linear(n_in, 100), relu(), nn.Linear(100, 50), relu(), nn.Linear(50, 30), relu(), nn.Linear(30, n_out)]
    if kind == "dropout": return [nn.Linear(n_in, 50), relu(), nn.Dropout(0.5), nn.Linear(50, n_out)]
    if kind == "cnn": return [image, nn.Conv2d(1, 8, 5, 4, 1), relu(), nn.Conv2d(8, 16, 3, 2, 1), relu(), nn.Flatten(), nn.Linear(256, n_out)]
    if kind == "norm": return [image, nn.Conv2d(1, 8, 5, 4, 1, bias=False), nn.BatchNorm2d(8), relu(), nn.Flatten(), nn.Linear(392, n_out)]
    raise ValueError(kind)


def build(kind="mlp", lib="fdl", opt=("SGD", dict(lr=0.1)), loss=None, data=None, batch_size=64, seed=0, tail=(), opt_lib=None, shuffle=True, **options) -> dict:
    "A healthy run, unless `options` say otherwise: the keyword arguments of `diagnose`."
    set_seed(seed)
    nn, (x, y) = NN[lib], data or digits()
    model = Hand(**options) if kind == "hand" else nn.Sequential(*layers(kind, nn, **options), *(layer(nn) if isinstance(layer, partial) else layer for layer in tail))
    optimizer = getattr(OPTIM[opt_lib or lib], opt[0])(model.parameters(), **opt[1])
    loaders = DATA[opt_lib or lib]
    return dict(model=model, loss_func=loss or nn.CrossEntropyLoss(), opt=optimizer, dl=loaders.DataLoader(loaders.TensorDataset(x, y), batch_size, shuffle=shuffle))


def changed(change: Callable[[dict], object], **options) -> dict:
    "The run that `build` makes, after `change`."
    run = build(**options)
    change(run)
    return run


def trained(epochs: int, **options) -> dict:
    "A run some way into its training: the optimizer has a state, the loss is small."
    run = build(**options)
    for _ in range(epochs):
        for xb, yb in run["dl"]: loss_batch(run["model"], run["loss_func"], xb, yb, run["opt"])
    return run


ADAM, MOMENTUM = ("Adam", dict(lr=1e-3)), ("SGD", dict(lr=0.05, momentum=0.9))
KINDS = [dict(kind="mlp"), dict(kind="deep", lib="torch", opt=ADAM), dict(kind="cnn", opt=MOMENTUM, seed=1), dict(kind="norm", lib="torch", seed=2),
         dict(kind="dropout", opt=ADAM, seed=3), dict(kind="hand", lib="torch", opt=MOMENTUM, seed=4), dict(kind="mlp", lib="fdl", opt_lib="torch", opt=ADAM, seed=5)]


def parameters(run: dict) -> list: return list(run["model"].parameters())


# gradients not zeroed
def no_zeroing(run: dict) -> None: run["opt"].zero_grad = lambda *args, **kwargs: None


def forgetful(model, loss_func, xb, yb, opt):
    "A training step that never zeroes."
    loss = loss_func(model(xb), yb)
    loss.backward()
    opt.step()
    return loss.detach(), len(yb)


def zero_first_only(run: dict) -> None:
    def zero_grad(): parameters(run)[0].grad = None
    run["opt"].zero_grad = zero_grad


def zero_the_wrong_place(model, loss_func, xb, yb, opt):
    "Zeroes between backward and the next batch, but a copy."
    loss = loss_func(model(xb), yb)
    loss.backward()
    opt.step()
    for p in model.parameters(): p.grad.clone().zero_()
    return loss.detach(), len(yb)


# the optimizer's parameters
def other_model(run: dict, **options) -> None: run["opt"] = build(**options)["opt"]


def last_layer_missing(run: dict) -> None: run["opt"] = type(run["opt"])(parameters(run)[:-2], lr=0.01)


def replaced_layer(run: dict) -> None:
    "A new last layer, after the optimizer was made."
    old = list(run["model"].children())[-1]
    name = list(dict(run["model"].named_children()))[-1]
    setattr(run["model"], name, type(old)(old.in_features, old.out_features))


class Hidden(torch.nn.Module):
    "Keeps its layers in a plain list, where nobody finds them, but for the last."
    def __init__(self):
        super().__init__()
        self.hidden, self.last = [torch.nn.Linear(784, 50)], torch.nn.Linear(50, 10)
    def forward(self, x): return self.last(F.relu(self.hidden[0](x)))


def hidden_layers(run: dict) -> None:
    run["model"] = Hidden()
    run["opt"] = torch.optim.SGD(run["model"].parameters(), lr=0.1)


# modes
def left_in_eval(run: dict) -> None: run["model"].eval()


def part_in_eval(run: dict) -> None:
    for module in run["model"].modules():
        if "Dropout" in type(module).__name__ or "Norm" in type(module).__name__: module.eval()


# layers for the end of a model
def softmax(nn): return fdl.nn.Lambda(lambda x: x.softmax(1)) if nn is fdl.nn else torch.nn.Softmax(1)
def relu(nn): return nn.ReLU()
def tanh(nn): return fdl.nn.Lambda(torch.tanh) if nn is fdl.nn else torch.nn.Tanh()
def sigmoid(nn): return fdl.nn.Lambda(torch.sigmoid) if nn is fdl.nn else torch.nn.Sigmoid()
def end(layer: Callable) -> tuple: return (partial(lambda make, nn: make(nn), layer),)


def softmaxed_loss(lib: str) -> Callable: return lambda preds, target: NN[lib].CrossEntropyLoss()(preds.softmax(1), target)


# data
def scaled(times: float, plus: float = 0.) -> tuple:
    x, y = digits()
    return x*times + plus, y


def shuffled(seed: int) -> tuple:
    x, y = digits()
    return x, y[torch.randperm(len(y), generator=torch.Generator().manual_seed(seed))]


def shifted(by: int) -> tuple:
    x, y = digits()
    return x, y.roll(by)


def binary(seed: int = 0) -> tuple:
    "Odd digits against even ones, as floats of shape (n, 1)."
    x, y = digits()
    return x, (y % 2).float()[:, None]


def regression(seed: int = 0, n: int = ROWS, shuffle: bool = False) -> tuple:
    "A smooth function of 8 standardized inputs, with noise; targets from about -3 to 3."
    g = torch.Generator().manual_seed(seed)
    x = torch.randn(n, 8, generator=g)
    y = (x[:, :1] + (2*x[:, 1:2]).sin() + 0.1*torch.randn(n, 1, generator=g))
    return x, y[torch.randperm(n, generator=g)] if shuffle else y


def blobs(seed: int = 0, n: int = ROWS, c: int = 10, d: int = 784) -> tuple:
    "Images of Fashion-MNIST's range that are a prototype of their class plus noise."
    g = torch.Generator().manual_seed(seed)
    means, y = torch.rand(c, d, generator=g), torch.randint(c, (n,), generator=g)
    return (means[y] + 0.3*torch.randn(n, d, generator=g)).clamp(0, 1), y


def moons(seed: int = 0, n: int = ROWS) -> tuple:
    "Two rings, one in the other: no line tells them apart."
    g = torch.Generator().manual_seed(seed)
    y, angle = torch.randint(2, (n,), generator=g), 6.283*torch.rand(n, generator=g)
    r = 0.7 + 0.8*y + 0.1*torch.randn(n, generator=g)
    return torch.stack([r*angle.cos(), r*angle.sin()], 1), y


def noisy(share: float) -> tuple:
    "Labels of which some are drawn at random."
    x, y = digits()
    g = torch.Generator().manual_seed(0)
    return x, torch.where(torch.rand(len(y), generator=g) < share, torch.randint(10, y.shape, generator=g), y)


def clipped(model, loss_func, xb, yb, opt):
    "A step with its gradients clipped."
    opt.zero_grad()
    loss_func(model(xb), yb).backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 0.1)
    opt.step()


def accumulating(every: int = 2) -> Callable:
    "A step that updates on every second call, on purpose."
    calls = []
    def step(model, loss_func, xb, yb, opt):
        loss_func(model(xb), yb).backward()
        calls.append(1)
        if len(calls) % every == 0:
            opt.step()
            opt.zero_grad()
    return step


# dead, frozen, detached, nan
def kill(layer: int, bias: float) -> Callable[[dict], None]:
    def change(run):
        module = [m for m in run["model"].modules() if getattr(m, "bias", None) is not None][layer]
        with torch.no_grad(): module.bias.fill_(bias)
    return change


def negative_weights(run: dict) -> None:
    "The first layer's weights and biases negative, its inputs positive."
    with torch.no_grad():
        for p in parameters(run)[:2]: p.abs_().neg_()


def freeze(*which: int) -> Callable[[dict], None]:
    def change(run):
        for i in which: parameters(run)[i].requires_grad_(False)
    return change


class Wrapped(torch.nn.Module):
    "`first`, then `between` as a function, then `last`."
    def __init__(self, between, wide=50):
        super().__init__()
        self.first, self.last, self.between = torch.nn.Linear(784, wide), torch.nn.Linear(wide, 10), between
    def forward(self, x): return self.last(self.between(self.first(x)))


def wrapped(between: Callable, opt=("SGD", dict(lr=0.1)), **options) -> dict:
    run = build("mlp", "torch", **options)
    run["model"] = Wrapped(between)
    run["opt"] = getattr(torch.optim, opt[0])(run["model"].parameters(), **opt[1])
    return run


def no_grad_relu(x):
    with torch.no_grad(): return x.relu()


def poisoned(value: float, row: int = 3) -> tuple:
    x, y = digits()
    x = x.clone()
    x[::40, 300] = value
    return x, y


def naive_cross_entropy(preds, target):
    "Overflows for scores beyond 88."
    e = preds.exp()
    return -(e/e.sum(1, keepdim=True))[range(len(target)), target].log().mean()


def rate(name: str, lr: float, **more) -> tuple: return name, dict(lr=lr, **more)


PLANTED: dict[str, list[Callable[[], dict]]] = {
    "gradients not zeroed": [*(partial(changed, no_zeroing, **kind) for kind in KINDS[:4]), *(lambda kind=kind: build(**kind) | dict(step=forgetful) for kind in KINDS[4:]),
                             partial(changed, zero_first_only), lambda: build() | dict(step=zero_the_wrong_place)],
    "optimizer holds other parameters": [*(partial(changed, partial(other_model, **kind), **kind) for kind in KINDS[:5]), partial(changed, last_layer_missing, kind="deep", lib="torch"),
                                         partial(changed, replaced_layer, kind="cnn"), partial(changed, hidden_layers)],
    "eval mode": [partial(changed, left_in_eval, **kind) for kind in (KINDS[3], KINDS[4], dict(kind="norm", opt=MOMENTUM), dict(kind="dropout", lib="torch", seed=7))]
                 + [partial(changed, part_in_eval, **kind) for kind in KINDS[3:5]],
    "softmax before the loss": [*(partial(build, tail=end(softmax), **kind) for kind in KINDS[:5]), lambda: build(tail=end(softmax), opt=MOMENTUM, data=moons(), n_in=2, n_out=2),
                                lambda: build(lib="torch", tail=end(sigmoid), data=binary(), n_out=1, loss=F.binary_cross_entropy_with_logits)],
    "labels shuffled": [*(lambda kind=kind, seed=seed: build(data=shuffled(seed), **kind) for seed, kind in enumerate(KINDS)), lambda: build(data=shifted(1)), lambda: build("deep", data=shifted(64)),
                        lambda: build(lib="torch", data=regression(shuffle=True), n_in=8, n_out=1, loss=F.mse_loss, opt=ADAM)],
    "inputs not scaled": [*(lambda kind=kind: build(data=scaled(255), **kind) for kind in KINDS[:3] + KINDS[4:]), lambda: build(data=scaled(255, -128)), lambda: build(data=scaled(1/255)),
                          lambda: build("cnn", "torch", data=scaled(1/255))],
    "learning rate too high": [lambda name=name, lr=lr, kind=kind: build(**kind | dict(opt=rate(name, lr))) for name, lr, kind in (
        ("SGD", 10, KINDS[0]), ("SGD", 30, KINDS[1]), ("SGD", 100, KINDS[2]), ("Adam", 1, KINDS[3]), ("Adam", 3, KINDS[4]), ("SGD", 1000, KINDS[5]), ("AdamW", 1, KINDS[0]))]
        + [lambda: build(data=regression(), n_in=8, n_out=1, loss=F.mse_loss, lib="torch", opt=rate("SGD", 3)), lambda: build(opt=rate("SGD", 10, momentum=0.9))],
    "learning rate too low": [lambda name=name, lr=lr, kind=kind: build(**kind | dict(opt=rate(name, lr))) for name, lr, kind in (
        ("SGD", 1e-6, KINDS[0]), ("SGD", 1e-7, KINDS[1]), ("SGD", 1e-8, KINDS[2]), ("Adam", 1e-8, KINDS[3]), ("Adam", 1e-8, KINDS[4]), ("SGD", 1e-6, KINDS[5]), ("SGD", 0., KINDS[0]))],
    "dead ReLUs": [partial(changed, kill(0, -30.)), partial(changed, kill(1, -10.), kind="deep", lib="torch", opt=ADAM), partial(changed, kill(0, -20.), kind="cnn"), partial(changed, kill(0, -15.), kind="hand"),
                   partial(changed, negative_weights, kind="dropout"), partial(changed, kill(0, -8.), kind="norm", lib="torch")],
    "activation after the last layer": [*(partial(build, tail=end(relu), **kind) for kind in KINDS[:5]), partial(build, tail=end(tanh)), partial(build, "cnn", "torch", tail=end(sigmoid)),
                                        lambda: build(data=regression(), n_in=8, n_out=1, loss=F.mse_loss, lib="torch", tail=end(relu)),
                                        lambda: build(data=regression(), n_in=8, n_out=1, loss=F.mse_loss, tail=end(sigmoid))],
    "detached part": [partial(wrapped, lambda x: x.relu().detach()),
                                partial(wrapped, no_grad_relu), partial(wrapped, lambda x: torch.tensor(x.relu().tolist())), partial(build, tail=(fdl.nn.Lambda(torch.Tensor.detach),))],
    "nan": [partial(wrapped, lambda x: x.log()), partial(wrapped, lambda x: x/(x - x)), lambda: build(data=poisoned(float("nan"))),
            lambda: build("cnn", "torch", data=poisoned(float("inf"))), lambda: build(loss=lambda p, t: naive_cross_entropy(100*p + 80, t)), partial(wrapped, lambda x: x*(x.relu() == 0)/x.relu())],
}

HEALTHY: list[Callable[[], dict]] = [
    *(partial(build, **kind) for kind in KINDS),
    *(partial(changed, freeze(*which), **kind) for which, kind in zip(((0, 1), (2,), (0,)), KINDS)), partial(wrapped, lambda x: (x.relu()**2).sqrt()),
    *(partial(build, **kind | dict(seed=kind.get("seed", 0) + 10, opt=ADAM)) for kind in KINDS),
    *(partial(build, opt=rate("SGD", lr), seed=seed) for seed, lr in enumerate((0.005, 0.01, 0.03, 0.3, 0.5))),
    *(partial(build, kind, lib="torch", opt=rate("SGD", 0.01), seed=8) for kind in ("deep", "cnn", "norm")),
    partial(build, opt=rate("Adam", 1e-4)), partial(build, "cnn", opt=rate("AdamW", 3e-3)), partial(build, opt=rate("RMSprop", 1e-3), lib="torch"),
    partial(build, shuffle=False), partial(build, batch_size=600), partial(build, "cnn", "torch", batch_size=1000, opt=ADAM), partial(build, batch_size=8, opt=rate("SGD", 0.05)),
    lambda: build(data=tuple(t[:40] for t in digits())), lambda: build("norm", data=tuple(t[:100] for t in digits()), batch_size=20),
    lambda: build(lib="torch", data=regression(), n_in=8, n_out=1, loss=F.mse_loss, opt=ADAM), lambda: build(data=regression(1), n_in=8, n_out=1, loss=fdl.nn.MSELoss(), opt=rate("SGD", 0.05)),
    lambda: build("linear", data=regression(2), n_in=8, n_out=1, loss=F.mse_loss, opt=rate("SGD", 0.1)),
    lambda: build(data=moons(), n_in=2, n_out=2, lib="torch", opt=rate("Adam", 1e-2)), lambda: build("deep", data=blobs(), opt=ADAM), lambda: build("norm", "torch", data=blobs(1)),
    lambda: build(lib="torch", data=binary(), n_out=1, loss=F.binary_cross_entropy_with_logits), lambda: build(lib="torch", data=binary(), n_out=1, loss=F.binary_cross_entropy, tail=end(sigmoid)),
    lambda: build(tail=end(softmax), loss=lambda p, t: F.nll_loss((p + 1e-9).log(), t)), lambda: build(lib="torch", tail=(torch.nn.LogSoftmax(1),), loss=F.nll_loss),
    lambda: build(data=scaled(1/0.3081, -0.1307/0.3081)), lambda: build("cnn", data=scaled(2, -1), opt=ADAM), partial(build, "linear", lib="torch"),
    lambda: build() | dict(step=lambda model, loss_func, xb, yb, opt: (forgetful(model, loss_func, xb, yb, opt), opt.zero_grad())),
    lambda: build("cnn", "torch") | dict(step=lambda model, loss_func, xb, yb, opt: (opt.zero_grad(), forgetful(model, loss_func, xb, yb, opt))),
    partial(changed, left_in_eval, kind="mlp"), *(partial(trained, epochs, **kind) for kind, epochs in zip(KINDS, (1, 3, 10, 3, 10, 1, 20))),
    partial(trained, 3, opt=rate("SGD", 0.5)), partial(trained, 2, opt=rate("SGD", 0.3, momentum=0.9)),
    lambda: build("norm", data=scaled(255)), lambda: build(data=regression(), n_in=8, n_out=1, loss=F.l1_loss, lib="torch", opt=rate("SGD", 0.01)),
    lambda: build(lib="torch", loss=torch.nn.CrossEntropyLoss(label_smoothing=0.1)), lambda: build(loss=lambda p, t: F.mse_loss(p, F.one_hot(t, 10).float()), lib="torch", opt=MOMENTUM),
    lambda: build(tail=(fdl.nn.Lambda(lambda x: 0.5 + x/100),), data=binary(), n_out=1, loss=F.binary_cross_entropy_with_logits, opt=ADAM),  # scores that happen to lie in [0, 1]
    lambda: build(data=noisy(0.4)), lambda: build() | dict(step=clipped), lambda: build() | dict(step=accumulating()), partial(build, opt=rate("SGD", 0.001)), partial(build, opt=rate("Adam", 1e-5)),
]


# Written after the thresholds were chosen: other architectures, optimizers and data, and the mistakes made in other ways.
class Residual(torch.nn.Module):
    "Blocks with layer normalization and a way around them."
    def __init__(self, wide=40, blocks=2, cut=lambda x: x):
        super().__init__()
        self.start, self.end, self.cut = torch.nn.Linear(784, wide), torch.nn.Linear(wide, 10), cut
        self.blocks = torch.nn.ModuleList(torch.nn.Sequential(torch.nn.LayerNorm(wide), torch.nn.Linear(wide, wide), torch.nn.GELU(), torch.nn.Dropout(0.1)) for _ in range(blocks))

    def forward(self, x):
        x = self.cut(self.start(x))
        for block in self.blocks: x = x + block(x)
        return self.end(x)


class Rows(torch.nn.Module):
    "A recurrent network that reads an image row by row."
    def __init__(self, wide=32):
        super().__init__()
        self.gru, self.end = torch.nn.GRU(28, wide, batch_first=True), torch.nn.Linear(wide, 10)
    def forward(self, x): return self.end(self.gru(x.reshape(-1, 28, 28))[0][:, -1])


def pooling(nn=fdl.nn) -> torch.nn.Module:
    image = fdl.nn.Lambda(lambda x: x.reshape(-1, 1, 28, 28)) if nn is fdl.nn else torch.nn.Unflatten(1, (1, 28, 28))
    return nn.Sequential(image, nn.Conv2d(1, 6, 5, 2), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(6, 12, 3), nn.BatchNorm2d(12), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(48, 10))


@cache
def late(times: float = 1., plus: float = 0.) -> tuple:
    "Other digits than those above."
    (x, y), _, _ = load_mnist(device="cpu")
    return x[-800:]*times + plus, y[-800:]


def other(make: Callable = Residual, opt: str = "Adam", lr: float = 2e-3, data: tuple | None = None, loss: Callable | None = None, seed: int = 0, change: Callable = lambda model: None,
          batch_size: int = 50, step: Callable = loss_batch, **options) -> dict:
    set_seed(seed)
    x, y = data or late()
    model = make()
    optimizer = (getattr(torch.optim, opt) if hasattr(torch.optim, opt) else getattr(fdl.optim, opt))(model.parameters(), lr=lr, **options)
    change(model)
    return dict(model=model, loss_func=loss or torch.nn.CrossEntropyLoss(), opt=optimizer, dl=torch.utils.data.DataLoader(torch.utils.data.TensorDataset(x, y), batch_size, shuffle=True), step=step)


def followed(make: Callable, *tail) -> Callable: return lambda: fdl.nn.Sequential(make(), *tail)


def zero_before_the_model_was_moved(run: dict) -> dict:
    "zero_grad of another optimizer, as after copying a cell."
    stale = torch.optim.SGD(build()["model"].parameters(), lr=0.1)
    run["opt"].zero_grad = stale.zero_grad
    return run


def swapped(run: dict) -> dict:
    "The model was made anew after the optimizer."
    import copy
    run["model"] = copy.deepcopy(run["model"])
    return run


def zero_input_norm(x): return x/x.clamp(max=0).norm(dim=1, keepdim=True).mul(0)


def set_mode(*parts: str) -> Callable:
    def change(model):
        for name, module in model.named_modules():
            if any(part in type(module).__name__ for part in parts): module.eval()
    return change


def fill(name: str, value: float) -> Callable:
    def change(model):
        with torch.no_grad(): dict(model.named_parameters())[name].fill_(value)
    return change


def freeze_named(*starts: str) -> Callable:
    def change(model):
        for name, p in model.named_parameters(): p.requires_grad_(not name.startswith(starts))
    return change


def sine(seed=5, shuffle=False, n=900):
    g = torch.Generator().manual_seed(seed)
    x = torch.randn(n, 4, generator=g)
    y = torch.stack([x[:, 0]*x[:, 1] + x[:, 2], x[:, 3] - x[:, 2]], 1)
    return x, y[torch.randperm(n, generator=g)] if shuffle else y


def regressor(*tail) -> Callable: return lambda: torch.nn.Sequential(torch.nn.Linear(4, 32), torch.nn.ReLU(), torch.nn.Linear(32, 2), *tail)


def mixed_within_batches(n: int = 800) -> tuple:
    "Each label belongs to another image of the same batch of 50."
    x, y = late()
    g = torch.Generator().manual_seed(3)
    return x, torch.cat([part[torch.randperm(len(part), generator=g)] for part in y.split(50)])


HELD_OUT: dict[str, list[Callable[[], dict]]] = {
    "gradients not zeroed": [lambda: other(step=forgetful), lambda: zero_before_the_model_was_moved(other(pooling, "SGD", 0.05)), lambda: other(Rows, "RMSprop", 1e-3, step=forgetful),
                             lambda: other(partial(pooling, torch.nn), "Adagrad", 1e-2, step=zero_the_wrong_place)],
    "optimizer holds other parameters": [lambda: swapped(other()), lambda: swapped(other(Rows, "SGD", 0.1)), lambda: other(pooling) | dict(opt=fdl.optim.Adam(pooling().parameters())),
                                         lambda: (run := other(Residual)) | dict(opt=torch.optim.SGD(run["model"].blocks.parameters(), lr=0.1))],
    "eval mode": [lambda: other(change=torch.nn.Module.eval), lambda: other(pooling, change=set_mode("BatchNorm")), lambda: other(change=set_mode("Dropout"), seed=3), lambda: other(partial(pooling, torch.nn), "SGD", 0.1, change=torch.nn.Module.eval)],
    "softmax before the loss": [lambda: other(followed(Residual, torch.nn.Softmax(dim=-1))), lambda: other(followed(Rows, torch.nn.Softmax(1)), "SGD", 0.1), lambda: other(followed(pooling, fdl.nn.Lambda(partial(fdl.functional.softmax, dim=1)))),
                                lambda: other(loss=softmaxed_inside, seed=1, make=followed(Residual, torch.nn.Softmax(1))), lambda: other(followed(Rows, torch.nn.Softmax(1)), loss=torch.nn.CrossEntropyLoss(label_smoothing=0.1))],
    "labels shuffled": [lambda: other(data=mixed_within_batches()), lambda: other(pooling, "SGD", 0.1, data=(late()[0], late()[1].roll(7))), lambda: other(Rows, data=(late()[0].flip(0), late()[1])),
                        lambda: other(regressor(), data=sine(shuffle=True), loss=torch.nn.MSELoss())],
    "inputs not scaled": [lambda: other(lambda: torch.nn.Sequential(torch.nn.Linear(784, 200), torch.nn.ReLU(), torch.nn.Linear(200, 10)), data=late(255.)), lambda: other(partial(pooling, torch.nn), data=late(1/255)),
                          lambda: other(Residual, "SGD", 0.01, data=late(255.)), lambda: other(regressor(), "SGD", 0.01, data=(sine()[0]*200 + 1000, sine()[1]), loss=torch.nn.MSELoss())],
    "learning rate too high": [lambda: other(lr=3.), lambda: other(Rows, "SGD", 300.), lambda: other(pooling, "RMSprop", 1.), lambda: other(regressor(), "SGD", 5., data=sine(), loss=torch.nn.MSELoss()), lambda: other(Rows, "Adam", 1.)],
    "learning rate too low": [lambda: other(lr=1e-9), lambda: other(Rows, "SGD", 1e-7), lambda: other(pooling, "RMSprop", 1e-9), lambda: other(regressor(), "SGD", 1e-7, data=sine(), loss=torch.nn.MSELoss()), lambda: other(pooling, "SGD", 1e-6, momentum=0.9)],
    "dead ReLUs": [lambda: other(pooling, change=fill("1.bias", -9.)), lambda: other(pooling, change=fill("5.bias", -40.)), lambda: other(regressor(), data=sine(), loss=torch.nn.MSELoss(), change=fill("0.bias", -30.)),
                   lambda: other(partial(Hand, (784, 60, 40, 10)), change=fill("layers.1.weight", -1.))],
    "activation after the last layer": [lambda: other(followed(Residual, torch.nn.ReLU())), lambda: other(followed(Rows, torch.nn.Tanh())), lambda: other(followed(pooling, torch.nn.Sigmoid()), "SGD", 0.1),
                                        lambda: other(regressor(torch.nn.ReLU()), data=sine(), loss=torch.nn.MSELoss()), lambda: other(regressor(torch.nn.Tanh()), data=sine(), loss=torch.nn.L1Loss())],
    "detached part": [lambda: other(partial(Residual, cut=torch.Tensor.detach)), lambda: other(change=freeze_named(""))],
    "nan": [lambda: other(partial(Residual, cut=lambda x: x.log())), lambda: other(partial(Residual, cut=zero_input_norm)), lambda: other(pooling, data=(late()[0].index_fill(1, torch.tensor([5]), float("nan")), late()[1])),
            lambda: other(regressor(), data=sine(), loss=lambda p, t: (p - p).norm() + torch.nn.functional.mse_loss(p, t).pow(0.5)*(p - p.detach()).abs().sum().sqrt())],
}


def softmaxed_inside(preds, target): return F.cross_entropy(preds, target, weight=torch.linspace(0.5, 1.5, 10))


HEALTHY_HELD_OUT: list[Callable[[], dict]] = [
    lambda: other(pooling, change=freeze_named("1.", "4.")), lambda: other(Rows, change=freeze_named("gru")),
    *(lambda make=make, opt=opt, lr=lr: other(make, opt, lr) for make, opt, lr in ((Residual, "Adam", 1e-3), (Residual, "SGD", 0.1), (Rows, "Adam", 3e-3), (Rows, "SGD", 0.5), (pooling, "SGD", 0.1),
      (pooling, "AdamW", 3e-3), (partial(pooling, torch.nn), "RMSprop", 1e-3), (partial(pooling, torch.nn), "Adagrad", 1e-2), (Residual, "NAdam", 1e-3), (Rows, "Adam", 1e-4), (Residual, "SGD", 3e-3))),
    lambda: other(regressor(), data=sine(), loss=torch.nn.MSELoss()), lambda: other(regressor(), "SGD", 0.05, data=sine(), loss=torch.nn.HuberLoss(), momentum=0.9),
    lambda: other(regressor(torch.nn.Tanh()), data=(sine()[0], sine()[1].tanh()), loss=torch.nn.MSELoss()), lambda: other(regressor(torch.nn.Sigmoid()), data=(sine()[0], (sine()[1] > 0).float()), loss=torch.nn.BCELoss()),
    lambda: other(regressor(), data=(sine()[0], (sine()[1] > 0).float()), loss=torch.nn.BCEWithLogitsLoss()), lambda: other(followed(Rows, torch.nn.LogSoftmax(1)), loss=torch.nn.NLLLoss()),
    lambda: other(loss=torch.nn.MultiMarginLoss()), lambda: other(followed(lambda: torch.nn.BatchNorm1d(784), torch.nn.Linear(784, 10)), data=late(255.)), lambda: other(data=late(2., -1.), batch_size=400),
    lambda: other(Rows, data=tuple(t[:20] for t in late()), batch_size=4), lambda: other(make=lambda: torch.nn.Linear(784, 10), opt="SGD", lr=0.05), lambda: other(step=clipped), lambda: other(pooling, step=accumulating(3)),
    lambda: other(lambda: torch.nn.Sequential(torch.nn.Linear(784, 64), torch.nn.Sigmoid(), torch.nn.Linear(64, 10)), "SGD", 0.5),
]
