"""One epoch of the network 784-50-10 with batches of 64 and SGD, by each trainer that a learner might pick.

A side is made outside the timing: it builds a fresh model. Its run trains one epoch and returns the model, as a
function of images, and the number of updates made. Peers do nothing that could be switched off: no progress bar, no
log, no checkpoint, no metric, no validation. fdl has its bar on.
"""
import logging
import os
import warnings
from collections.abc import Callable
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from tempfile import TemporaryFile
from unittest.mock import patch

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import fdl.data
import fdl.functional
import fdl.nn
import fdl.optim
import fdl.training

BATCH, LR = 64, 0.1
Run = Callable[[], tuple[Callable[[Tensor], Tensor], int]]


def network(lib=nn):
    "784-50-10, from torch or from fdl."
    return lib.Sequential(lib.Linear(784, 50), lib.ReLU(), lib.Linear(50, 10))


def torch_loader(x: Tensor, y: Tensor, **options) -> DataLoader:
    "torch's loader, shuffling."
    return DataLoader(TensorDataset(x, y), BATCH, shuffle=True, **options)


def count_updates(opt) -> list:
    "A list that gets an entry at each `opt.step()`."
    updates, step = [], opt.step
    opt.step = lambda: updates.append(step())
    return updates


def bare(x: Tensor, y: Tensor) -> Run:
    "The loop of lesson 06 with torch's model, loss and optimizer: slices in order, no shuffling."
    model = network()
    opt = torch.optim.SGD(model.parameters(), LR)
    updates = count_updates(opt)

    def run():
        for start in range(0, len(x), BATCH):
            loss = F.cross_entropy(model(x[start:start + BATCH]), y[start:start + BATCH])
            loss.backward()
            opt.step()
            opt.zero_grad()
        return model, len(updates)
    return run


def bare_shuffled(x: Tensor, y: Tensor) -> Run:
    "The same loop over the rows in random order: the shortest way to shuffle."
    model = network()
    opt = torch.optim.SGD(model.parameters(), LR)
    updates = count_updates(opt)

    def run():
        for rows in torch.randperm(len(x)).split(BATCH):
            loss = F.cross_entropy(model(x.index_select(0, rows)), y.index_select(0, rows))
            loss.backward()
            opt.step()
            opt.zero_grad()
        return model, len(updates)
    return run


def torch_loop(x: Tensor, y: Tensor, **options) -> Run:
    "The same loop over torch's shuffling loader."
    model, loader = network(), torch_loader(x, y, **options)
    opt = torch.optim.SGD(model.parameters(), LR)
    updates = count_updates(opt)

    def run():
        for xb, yb in loader:
            loss = F.cross_entropy(model(xb), yb)
            loss.backward()
            opt.step()
            opt.zero_grad()
        return model, len(updates)
    return run


def torch_loop_workers(x: Tensor, y: Tensor) -> Run:
    "The same with two worker processes, their start included."
    return torch_loop(x, y, num_workers=2)


@contextmanager
def shown():
    "Inside, what is printed goes to a file that must not stay empty: the progress bar is drawn, and nobody's screen is filled."
    if "TQDM_DISABLE" in os.environ: raise RuntimeError("the progress bar must be on: unset TQDM_DISABLE")
    with TemporaryFile("w") as file, redirect_stderr(file), redirect_stdout(file):
        yield
        if not file.tell(): raise RuntimeError("fit drew no progress bar")


def ours(x: Tensor, y: Tensor) -> Run:
    "fdl's model, loss, optimizer, shuffling loader and `fit`, with history and progress bar."
    model = network(fdl.nn)
    opt = fdl.optim.SGD(model.parameters(), LR)
    updates, loader = count_updates(opt), fdl.data.DataLoader(fdl.data.TensorDataset(x, y), BATCH, shuffle=True)

    def run():
        with shown(): fdl.training.fit(1, model, fdl.functional.cross_entropy, opt, loader)
        return model, len(updates)
    return run


class Learner:
    "A training loop that asks its callbacks at every step, in the manner of fast.ai's course; the words are ours."
    def __init__(self, model, loader, loss_func, opt, callbacks):
        self.model, self.loader, self.loss_func, self.opt, self.callbacks = model, loader, loss_func, opt, callbacks

    def fit(self, n_epochs):
        with self.around("fit"):
            for self.epoch in range(n_epochs):
                self.model.train()
                with self.around("epoch"):
                    for self.batch in self.loader: self.one_batch()

    def one_batch(self):
        with self.around("batch"):
            for event in ("predict", "get_loss", "backward", "step", "zero_grad"): self.tell(event)

    @contextmanager
    def around(self, name):
        self.tell(f"before_{name}")
        yield
        self.tell(f"after_{name}")

    def tell(self, event):
        for callback in self.callbacks:
            method = getattr(callback, event, None)
            if method is not None: method(self)


class Train:
    "The callback that does the work."
    def predict(self, learner): learner.preds = learner.model(learner.batch[0])
    def get_loss(self, learner): learner.loss = learner.loss_func(learner.preds, learner.batch[1])
    def backward(self, learner): learner.loss.backward()
    def step(self, learner): learner.opt.step()
    def zero_grad(self, learner): learner.opt.zero_grad()


def miniai_style(x: Tensor, y: Tensor) -> Run:
    "A Learner with callbacks over torch's loader."
    model = network()
    opt = torch.optim.SGD(model.parameters(), LR)
    updates, learner = count_updates(opt), Learner(model, torch_loader(x, y), F.cross_entropy, opt, [Train()])

    def run():
        learner.fit(1)
        return model, len(updates)
    return run


def skorch(x: Tensor, y: Tensor) -> Run:
    "`NeuralNet` with callbacks and the validation split off."
    from skorch import NeuralNet

    net = NeuralNet(network(), criterion=nn.CrossEntropyLoss, optimizer=torch.optim.SGD, lr=LR, batch_size=BATCH, max_epochs=1,
                    iterator_train__shuffle=True, train_split=None, callbacks="disable", verbose=0).initialize()

    def run():
        net.partial_fit(x, y)
        return net.module_, net.history[-1]["train_batch_count"]
    return run


def import_lightning():
    "Lightning; where torchvision is of another build of torch and cannot be imported, Lightning is told that it is not there."
    try: import torchvision  # noqa: F401
    except RuntimeError:
        from lightning_utilities.core.imports import RequirementCache
        met = RequirementCache.__bool__
        with patch.object(RequirementCache, "__bool__", lambda self: "torchvision" not in str(vars(self)) and met(self)): import lightning.pytorch
    except ImportError: pass
    import lightning.pytorch
    return lightning.pytorch


def lightning(x: Tensor, y: Tensor) -> Run:
    "`Trainer(barebones=True)`: Lightning's own setting for measuring its overhead, with everything off."
    L = import_lightning()
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module="lightning")

    class Module(L.LightningModule):
        def __init__(self):
            super().__init__()
            self.model = network()

        def training_step(self, batch, index): return F.cross_entropy(self.model(batch[0]), batch[1])
        def configure_optimizers(self): return torch.optim.SGD(self.parameters(), LR)

    module, loader = Module(), torch_loader(x, y)
    trainer = L.Trainer(max_epochs=1, accelerator="cpu", devices=1, barebones=True)

    def run():
        trainer.fit(module, loader)
        return module.model, trainer.global_step
    return run


def fastai(x: Tensor, y: Tensor) -> Run:
    "`Learner` with its own `SGD` over torch's loader, a fifth faster than its own; recorder and validation off, the progress bar not loaded."
    from fastai.basics import SGD, CancelValidException, Callback, DataLoaders, Learner

    class NoValidation(Callback):
        def before_validate(self): raise CancelValidException

    loader = torch_loader(x, y)
    learner = Learner(DataLoaders(loader, loader), network(), loss_func=F.cross_entropy, opt_func=SGD, lr=LR, wd=0, cbs=[NoValidation()])
    learner.remove_cbs([learner.recorder])

    def run():
        learner.fit(1)
        return learner.model, learner.train_iter
    return run


def keras(x: Tensor, y: Tensor) -> Run:
    "`Sequential`, `compile` and `fit` with torch as its backend, arrays in memory, silent."
    os.environ["KERAS_BACKEND"] = "torch"
    import keras

    if keras.backend.backend() != "torch": raise RuntimeError("Keras must run on torch")
    model = keras.Sequential([keras.layers.Input((784,)), keras.layers.Dense(50, activation="relu"), keras.layers.Dense(10)])
    opt = keras.optimizers.SGD(LR)
    model.compile(optimizer=opt, loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    images, labels = x.numpy(), y.numpy()

    def run():
        model.fit(images, labels, batch_size=BATCH, epochs=1, shuffle=True, verbose=0)
        return model, int(opt.iterations)
    return run


def check_trained(x: Tensor, y: Tensor) -> Callable:
    "A check for `in_turn`: as many updates as there are batches, and 85% of the training images right."
    def check(name, result):
        model, updates = result
        batches = -(-len(x)//BATCH)
        if updates != batches: raise RuntimeError(f"{name} made {updates} updates in an epoch of {batches} batches")
        with torch.no_grad(): right = (torch.as_tensor(model(x)).argmax(1) == y).float().mean().item()
        if right < 0.85: raise RuntimeError(f"{name} did not learn: {right:.1%} of the training images right")
    return check
