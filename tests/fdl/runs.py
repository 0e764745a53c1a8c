"""One table of training runs for `fdl.diagnose`: faults to be named, and healthy runs that nobody may accuse.

A row is (cause, model, data, optimizer, change). Model, data and optimizer are names in the tables below; a change is made to the
keyword arguments of `diagnose`, or to the data before. faults.py and unseen.py hold more such runs, for the weekly tests.
"""
import copy
from collections.abc import Callable

import torch
import torch.nn.functional as F

import fdl.nn
import fdl.optim
import unseen as u
from faults import accumulating, clipped, digits, forgetful
from fdl.core import set_seed
from fdl.training import loss_batch
from unseen import BCE, MSE

DATA = {  # (x, y), and the loss that they are made for
    "digits": (digits, fdl.nn.CrossEntropyLoss()), "words": (u.text, F.cross_entropy), "waves": (u.waves, F.cross_entropy),
    "pictures": (u.textures, F.cross_entropy), "table": (u.table, MSE), "yes or no": (u.sorts, BCE), "series": (u.series, MSE),
    "letters": (u.chain, u.per_letter), "masks": (u.squares, BCE), "codes": (u.codes, MSE), "switches": (u.either, F.cross_entropy),
    "bunches": (u.bunches, MSE)}

MODELS = {
    "ours": lambda: fdl.nn.Sequential(fdl.nn.Linear(784, 50), fdl.nn.ReLU(), fdl.nn.Linear(50, 10)),
    "dropped": lambda: fdl.nn.Sequential(fdl.nn.Linear(784, 50), fdl.nn.ReLU(), fdl.nn.Dropout(0.5), fdl.nn.Linear(50, 10)),
    "our cnn": u.our_vision(), "residual": u.vision(), "signal": u.signal(), "bag": u.Bag, "attention": u.Attention, "letters": u.Letters,
    "mlp": u.mlp(10, 50, 50, 1), "tanh": u.mlp(10, 50, 50, 1, act=torch.nn.Tanh), "normed": u.mlp(10, 50, 50, 1, norm=torch.nn.BatchNorm1d),
    "lstm": u.Memory, "masks": u.segmenter(), "coder": u.coder(torch.nn.Sigmoid()), "switches": u.mlp(6, 40, 2), "bunch": u.Bunch}

OPTIMIZERS = {
    "SGD": lambda p: torch.optim.SGD(p, 0.05), "momentum": lambda p: fdl.optim.SGD(p, 0.03, momentum=0.9),
    "our Adam": lambda p: fdl.optim.Adam(p, 3e-3), "AdamW": lambda p: torch.optim.AdamW(p, 3e-3),
    "RMSprop": lambda p: torch.optim.RMSprop(p, 1e-3)}


def build(model: str, data: str, optimizer: str, change: Callable = lambda run: None, seed: int = 0) -> dict:
    "The keyword arguments of `diagnose` for a row of the table."
    set_seed(seed)
    make, loss_func = DATA[data]
    net = MODELS[model]()
    run = dict(model=net, loss_func=loss_func, opt=OPTIMIZERS[optimizer](net.parameters()), data=make(), step=loss_batch)
    change(run)
    loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(*run.pop("data")), 32, shuffle=True)
    return run | dict(dl=loader)


# changes
def step(function: Callable) -> Callable: return lambda run: run.update(step=function)
def lr(value: float) -> Callable: return lambda run: [group.update(lr=value) for group in run["opt"].param_groups]
def inputs(times: float, plus: float = 0.) -> Callable: return lambda run: run.update(data=(run["data"][0]*times + plus, run["data"][1]))
def targets(f: Callable) -> Callable: return lambda run: run.update(data=(run["data"][0], f(run["data"][1])))
def bias(index: int, value: float) -> Callable: return lambda run: torch.nn.init.constant_([p for p in run["model"].parameters() if p.ndim == 1][index], value)
def mode(*kinds: str) -> Callable: return lambda run: [m.eval() for m in run["model"].modules() if not kinds or any(kind in type(m).__name__ for kind in kinds)]
def copied(run: dict) -> None: run["model"] = copy.deepcopy(run["model"])
def shuffled(y: torch.Tensor) -> torch.Tensor: return y[torch.randperm(len(y), generator=u.drawn(9))]
def frozen(run: dict) -> None: next(run["model"].parameters()).requires_grad_(False)


def through(f: Callable, where: str) -> Callable:
    "`f` behind the module `where` of the model."
    def change(run):
        module = dict(run["model"].named_modules())[where]
        forward = module.forward
        module.forward = lambda *args: f(forward(*args))
    return change


def ended(end: Callable) -> Callable:
    "A module behind the end of the model."
    def change(run):
        run["model"] = torch.nn.Sequential(run["model"], end)
        run["opt"] = type(run["opt"])(run["model"].parameters(), lr=run["opt"].param_groups[0]["lr"])
    return change


def trained(run: dict) -> None:
    "Two passes of training before."
    for _ in range(2):
        for xb, yb in zip(*(t.split(32) for t in run["data"])): loss_batch(run["model"], run["loss_func"], xb, yb, run["opt"])


def only_backward(model, loss_func, xb, yb, opt):
    opt.zero_grad()
    loss_func(model(xb), yb).backward()


def too_early(model, loss_func, xb, yb, opt):
    loss_func(model(xb), yb).backward()
    opt.zero_grad()
    opt.step()


def part_held(run: dict) -> None: run["opt"] = torch.optim.Adam([*run["model"].parameters()][:-2], lr=3e-3)
def softmax_inside(run: dict) -> None: run["loss_func"] = lambda p, t: F.cross_entropy(p.softmax(1), t)
def hole(y: torch.Tensor) -> torch.Tensor: return y.masked_fill(torch.arange(len(y))[:, None] % 25 == 0, float("nan"))
Softmax, Lambda = torch.nn.Softmax, fdl.nn.Lambda


FAULTS = [
    ("gradients not zeroed", "ours", "digits", "momentum", step(forgetful)),
    ("gradients not zeroed", "bag", "words", "AdamW", step(u.forgets)),
    ("gradients not zeroed", "lstm", "series", "SGD", step(u.zeroes_weights)),
    ("gradients not zeroed", "our cnn", "pictures", "our Adam", step(u.zeroes_some(20))),
    ("no update", "signal", "waves", "AdamW", step(only_backward)),
    ("no update", "ours", "digits", "our Adam", step(too_early)),
    ("no update", "mlp", "table", "RMSprop", step(too_early)),
    ("optimizer holds other parameters", "ours", "digits", "momentum", copied),
    ("optimizer holds other parameters", "residual", "pictures", "AdamW", part_held),
    ("optimizer holds other parameters", "bag", "words", "SGD", lambda run: u.new_layer("head")(run["model"])),
    ("detached part", "bag", "words", "AdamW", lambda run: setattr(run["model"], "cut", torch.Tensor.detach)),
    ("detached part", "lstm", "series", "RMSprop", lambda run: setattr(run["model"], "cut", u.without_grad)),
    ("detached part", "ours", "digits", "our Adam", through(torch.Tensor.detach, "1")),
    ("nan", "mlp", "table", "AdamW", targets(hole)),
    ("nan", "ours", "digits", "momentum", through(torch.log, "0")),
    ("nan", "tanh", "table", "SGD", lambda run: run.update(loss_func=lambda p, t: MSE(p, t) + (p*0).square().sum().sqrt())),
    ("eval mode", "dropped", "digits", "our Adam", mode()),
    ("eval mode", "signal", "waves", "AdamW", mode("Norm")),
    ("eval mode", "normed", "table", "SGD", mode("Norm")),
    ("eval mode", "our cnn", "pictures", "momentum", step(u.evaluates_too)),
    ("inputs not scaled", "ours", "digits", "momentum", inputs(255)),
    ("inputs not scaled", "dropped", "digits", "our Adam", inputs(1/255)),
    ("inputs not scaled", "mlp", "table", "SGD", inputs(200, 1000)),
    ("inputs not scaled", "lstm", "series", "AdamW", inputs(4e3, 3e4)),
    ("squashed scores", "bag", "words", "AdamW", ended(Softmax(1))),
    ("squashed scores", "residual", "pictures", "AdamW", ended(torch.nn.Sigmoid())),
    ("squashed scores", "signal", "waves", "SGD", softmax_inside),
    ("squashed scores", "tanh", "table", "our Adam", ended(torch.nn.Tanh())),
    ("squashed scores", "masks", "masks", "AdamW", ended(torch.nn.ReLU())),
    ("dead units", "ours", "digits", "momentum", bias(0, -30.)),
    ("dead units", "our cnn", "pictures", "our Adam", bias(3, -30.)),
    ("dead units", "mlp", "table", "AdamW", bias(1, -20.)),
    ("labels shuffled", "ours", "digits", "momentum", targets(shuffled)),
    ("labels shuffled", "bag", "words", "AdamW", targets(shuffled)),
    ("labels shuffled", "mlp", "table", "our Adam", targets(shuffled)),
    ("labels shuffled", "masks", "masks", "AdamW", targets(shuffled)),
    ("learning rate: too high", "ours", "digits", "momentum", lr(30.)),
    ("learning rate: too high", "attention", "words", "AdamW", lr(0.5)),
    ("learning rate: too high", "tanh", "table", "our Adam", lr(3.)),
    ("learning rate: too low", "residual", "pictures", "AdamW", lr(1e-8)),
    ("learning rate: too low", "masks", "masks", "SGD", lr(1e-7)),
]

NOTHING = lambda run: None
HEALTHY = [(None, *row) for row in [
    ("ours", "digits", "SGD", NOTHING), ("ours", "digits", "our Adam", NOTHING), ("ours", "digits", "momentum", trained), ("dropped", "digits", "AdamW", NOTHING),
    ("dropped", "digits", "momentum", trained), ("ours", "digits", "RMSprop", frozen), ("ours", "digits", "momentum", step(clipped)),
    ("ours", "digits", "SGD", step(accumulating(3))), ("our cnn", "pictures", "momentum", NOTHING), ("our cnn", "pictures", "our Adam", trained),
    ("our cnn", "pictures", "our Adam", step(u.sets_mode)), ("residual", "pictures", "AdamW", NOTHING), ("residual", "pictures", "momentum", frozen),
    ("residual", "pictures", "SGD", lambda run: u.zero_head(run["model"])), ("signal", "waves", "AdamW", NOTHING), ("signal", "waves", "momentum", NOTHING),
    ("signal", "waves", "RMSprop", trained), ("signal", "waves", "AdamW", ended(torch.nn.LogSoftmax(1))), ("bag", "words", "AdamW", NOTHING),
    ("bag", "words", "our Adam", frozen), ("bag", "words", "our Adam", mode()), ("attention", "words", "AdamW", NOTHING), ("attention", "words", "our Adam", trained),
    ("letters", "letters", "AdamW", NOTHING), ("letters", "letters", "our Adam", trained), ("mlp", "table", "SGD", NOTHING), ("mlp", "table", "AdamW", trained),
    ("tanh", "table", "our Adam", NOTHING), ("tanh", "yes or no", "AdamW", NOTHING), ("normed", "table", "AdamW", NOTHING),
    ("normed", "yes or no", "momentum", frozen), ("mlp", "yes or no", "RMSprop", NOTHING), ("lstm", "series", "AdamW", NOTHING), ("lstm", "series", "our Adam", trained),
    ("masks", "masks", "AdamW", NOTHING), ("masks", "masks", "our Adam", trained), ("coder", "codes", "AdamW", NOTHING), ("coder", "codes", "our Adam", trained),
    ("switches", "switches", "AdamW", NOTHING), ("bunch", "bunches", "AdamW", NOTHING)]]
