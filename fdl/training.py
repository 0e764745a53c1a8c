"""A `fit` that trains any model with any loss, optimizer and loader, and judges it honestly."""
import math
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from operator import length_hint
from time import perf_counter
from typing import Any

import torch
from torch import Generator, Tensor
from tqdm.auto import tqdm

from fdl.core import to_device
from fdl.data import DataLoader
from fdl.metrics import accuracy

__all__ = ["evaluate", "loss_batch", "get_dls", "History", "fit"]

Metrics = Iterable[Callable] | dict[str, Callable] | None


def _mean(values: list[Tensor], weights: list, name: str) -> float:
    "The mean of the `values` of batches that weigh so much, in float64; what weighs 0 is left out."
    weights = torch.stack([torch.as_tensor(w) for w in weights]).cpu().double() if weights else 0
    if not values or not weights.sum():
        raise ValueError(f"{name} gave no batches: it is empty, or an iterator that has been used "
                         "up, or all of its targets are ignored")
    values = torch.stack(values).cpu().double().where(weights > 0, 0)
    return (weights @ values / weights.sum()).item()

def _first(target: Any) -> Any:
    "The first tensor of targets in a list or a dict; the targets themselves where there is none."
    found = target
    while isinstance(found, (list, tuple, dict)) and found:
        found = next(iter(found.values() if isinstance(found, dict) else found))
    return found if isinstance(found, Tensor) else target

def _weigher(f: Callable) -> Callable[[Any], int | Tensor]:
    "Tells what a mean by `f` counts in targets: rows; of classes, those not ignored, by weight."
    said = getattr(f, "keywords", {})                        # those of a partial
    ignored = said.get("ignore_index", getattr(f, "ignore_index", -100))
    weight = said.get("weight", getattr(f, "weight", None))

    def weigh(target: Any) -> int | Tensor:
        target = _first(target)
        if not isinstance(target, Tensor) or target.is_floating_point(): return len(target)
        counts = target.long() != ignored
        if not isinstance(weight, Tensor) or weight.ndim != 1: return counts.count_nonzero()
        return weight.take(target.long().where(counts, 0)).mul(counts).sum()
    return weigh

@contextmanager
def _mode(model: Any, training: bool) -> Iterator[None]:
    """Inside, `model` is in evaluation mode, or in training mode but for parts that somebody has
    put in evaluation mode on purpose; afterwards each module is as it was."""
    modules = list(model.modules()) if hasattr(model, "modules") else []
    before = [module.training for module in modules]
    try:
        if modules and not (training and model.training): model.train(training)
        yield
    finally:
        for module, mode in zip(modules, before): module.training = mode

def _batches(dl: Iterable, model: Any) -> Iterator:
    "The pairs that `dl` gives, on the device of the model's parameters, if it has any."
    parameters = model.parameters() if hasattr(model, "parameters") else []
    device = next((p.device for p in parameters), None)
    for batch in dl:
        if not isinstance(batch, (tuple, list)) or len(batch) != 2:
            raise TypeError("a batch must be a pair (inputs, targets), not "
                            f"{len(batch)} fields in a {type(batch).__name__}")
        yield batch if device is None else to_device(batch, device)

def _measures(loss_func: Callable, metrics: Metrics, target: Any) -> dict[str, tuple]:
    "Loss and metrics by name, each with its weigher; None means accuracy if `target` is classes."
    if metrics is None:
        classes = isinstance(target, Tensor) and not target.is_floating_point()
        metrics = [accuracy] if classes else []
    pairs = metrics.items() if isinstance(metrics, dict) else [
        (getattr(getattr(f, "func", f), "__name__", type(f).__name__), f) for f in metrics]
    measures = dict([("loss", loss_func), *pairs])
    if len(measures) <= len(pairs):
        raise ValueError("each metric needs a name of its own, and none is 'loss', unlike "
                         f"{[name for name, _ in pairs]}: pass a dict of names and functions")
    return {name: (f, _weigher(f)) for name, f in measures.items()}

@torch.no_grad()
def evaluate(model: Callable, loss_func: Callable, dl: Iterable,
             metrics: Metrics = None) -> dict[str, float]:
    """The `loss` of `model` over all of `dl`, and each of `metrics` by name: means over all rows.

    Batches go to the device of the model's parameters. The model is in evaluation mode and builds
    no graph; afterwards each module is in the mode it was in. `metrics` None means accuracy if the
    targets are integers. Integer targets of -100, or the `ignore_index` that a loss or a metric
    has, do not count, and class weights do.

    Shapes: batches (`xb`, `yb`) of n rows; the functions turn `model(xb)` and `yb` into a mean.
    Raises `ValueError` when `dl` gives no batches, a mean is not 0-d, or two metrics share a name.
    """
    found, measures = {}, None
    with _mode(model, False):
        for xb, yb in _batches(dl, model):
            preds = model(xb)
            measures = measures or _measures(loss_func, metrics, yb)
            for name, (f, weigh) in measures.items():
                value = f(preds, yb)
                if not isinstance(value, Tensor): value = torch.tensor(value, dtype=torch.float64)
                if value.ndim:
                    raise ValueError(f"{name} must be a mean over the batch, a 0-d tensor, but has "
                                     f"shape {tuple(value.shape)}")
                values, weights = found.setdefault(name, ([], []))
                values.append(value)
                weights.append(weigh(yb))
    return {name: _mean(*each, "dl") for name, each in (found or {"": ([], [])}).items()}

def loss_batch(model: Callable, loss_func: Callable, xb: Any, yb: Any,
               opt: Any = None) -> tuple[Tensor, int]:
    """The loss on one batch, and its number of rows; with `opt`, an update has been made by it.

    The loss is detached and stays on its device: nothing waits for its value.
    Shapes: `xb` and `yb` of n rows; `loss_func` turns `model(xb)` and `yb` into a 0-d tensor.
    """
    loss = loss_func(model(xb), yb)
    if opt is not None:
        opt.zero_grad()
        loss.backward()
        opt.step()
    return loss.detach(), len(_first(yb))

def get_dls(train_ds: Any, valid_ds: Any, batch_size: int, num_workers: int = 0,
            collate_fn: Callable[[list], Any] | None = None,
            generator: Generator | None = None) -> tuple[DataLoader, DataLoader]:
    """Two loaders: over `train_ds`, in a new random order each epoch; over `valid_ds`, in order, in
    batches twice as large, and with a generator of its own, so that validating changes no draw."""
    options = dict(num_workers=num_workers, collate_fn=collate_fn)
    return (DataLoader(train_ds, batch_size, shuffle=True, generator=generator, **options),
            DataLoader(valid_ds, 2*batch_size, generator=Generator(), **options))

_HINT = ("A learning rate that is too large is the usual cause: try a tenth of it. Or an input is "
         "not finite, the model divides by 0 or takes the log of 0, or a batch before it had no "
         "target that counts.")

def _train(model: Callable, loss_func: Callable, opt: Any, dl: Iterable, scheduler: Any,
           epoch: int, bar: tqdm) -> float:
    "The mean loss of one epoch's batches, each measured before the update that it led to."
    losses, weights, weigh = [], [], _weigher(loss_func)
    for xb, yb in _batches(dl, model):
        losses.append(loss_batch(model, loss_func, xb, yb, opt)[0])
        weights.append(weigh(yb))
        if scheduler is not None: scheduler.step()
        bar.update()
    mean = _mean(losses, weights, "train_dl")
    if math.isfinite(mean): return mean
    first = next(i for i, loss in enumerate(losses) if weights[i] and not loss.isfinite())
    hint = _HINT if epoch + first > 1 else ("No update had been made yet: look at the inputs, the "
                                            "targets and the first weights.")
    raise FloatingPointError(f"epoch {epoch}, batch {first + 1} of {len(losses)}: the loss is "
                             f"{losses[first]}. {hint}")

class History(list):
    "What `fit` measured: a list with a dict for each epoch, shown as a table; `epoch` is from 1."
    def __repr__(self) -> str:
        return "\n".join([_line(self[0], True), *map(_line, self)]) if self else "no epochs"

def _line(row: dict[str, float], names: bool = False) -> str:
    "One line of the table: the numbers of `row`, or their names."
    digits = {"epoch": "d", "seconds": ".1f"}
    cells = {name: name if names else format(x, digits.get(name, ".4f")) for name, x in row.items()}
    return "  ".join(f"{cell:>{max(len(name), 7)}}" for name, cell in cells.items())

def fit(n_epochs: int, model: Callable, loss_func: Callable, opt: Any, train_dl: Iterable,
        valid_dl: Iterable | None = None, *, metrics: Metrics = None, scheduler: Any = None,
        progress: bool = True) -> History:
    """Trains `model` for `n_epochs` passes over `train_dl`; returns what was measured in each.

    A row has `epoch`; `train_loss`, the mean over batches, each before its update; with a
    `valid_dl`, what `evaluate` finds, as `valid_loss` and so on; `seconds`. Model, loss, optimizer,
    loaders and scheduler may be fdl's or torch's. `scheduler.step()` is called after every batch.
    `progress` shows a bar and a table. Ctrl-C returns the epochs before it. Modules that were put
    in evaluation mode in a model that trains stay there; each has its mode again afterwards.

    Shapes: batches (`xb`, `yb`) of n rows; `loss_func` turns `model(xb)` and `yb` into a mean.
    Raises `FloatingPointError` with epoch, batch and a hint when a loss is not finite; it looks
    once an epoch. Raises `ValueError` when a loader gives no batches.
    """
    history = History()
    off = not progress or bool(os.environ.get("TQDM_DISABLE"))
    try:
        total = n_epochs*length_hint(train_dl) or None
        with tqdm(total=total, leave=False, disable=off) as bar, _mode(model, True):
            for epoch in range(1, n_epochs + 1):
                start = perf_counter()
                bar.set_description(f"epoch {epoch} of {n_epochs}")
                loss = _train(model, loss_func, opt, train_dl, scheduler, epoch, bar)
                row = {"epoch": epoch, "train_loss": loss}
                if valid_dl is not None:
                    found = evaluate(model, loss_func, valid_dl, metrics)
                    row |= {f"valid_{name}": value for name, value in found.items()}
                    if not math.isfinite(row["valid_loss"]):
                        raise FloatingPointError(f"epoch {epoch}, after the last batch: the "
                                                 f"validation loss is {row['valid_loss']}. {_HINT}")
                history.append(row | {"seconds": perf_counter() - start})
                if progress: bar.write(repr(history) if epoch == 1 else _line(history[-1]))
    except KeyboardInterrupt:
        print(f"Ctrl-C in epoch {len(history) + 1}: the history has {len(history)} of {n_epochs} "
              "epochs")
    return history
