"""Honest numbers for what a model has learned: accuracy, and a report over a whole set."""
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

__all__ = ["accuracy", "Report", "report"]


def accuracy(input: Tensor, target: Tensor, ignore_index: int = -100) -> Tensor:
    """The share of targets at which the largest score of their row stands, a 0-d float32 tensor.

    Shapes: scores `input` (n, c) or (n, c, d1, ...); `target` (n,) or (n, d1, ...), of classes or
    `ignore_index`, which does not count: a share of none is nan.
    Raises `ValueError` when the shapes do not fit or there are no rows.
    """
    if input.ndim < 2 or target.shape != input.shape[:1] + input.shape[2:] or not target.numel():
        raise ValueError(f"input must have shape (n, c) and target (n,), or (n, c, d1, ...) and "
                         f"(n, d1, ...), with one row or more, not {tuple(input.shape)} and "
                         f"{tuple(target.shape)}")
    counts = target.long() != ignore_index
    return ((input.argmax(1) == target) & counts).sum().float() / counts.sum()

class Report(NamedTuple):
    """Loss and accuracy of a model over a whole set: two floats."""
    loss: float
    accuracy: float

    def __repr__(self) -> str: return f"Report(loss={self.loss:.4f}, accuracy={self.accuracy:.4f})"

@torch.no_grad()
def report(model: Callable[[Tensor], Tensor], loss_func: Callable[[Tensor, Tensor], Tensor],
           x: Tensor, y: Tensor, batch_size: int = 1000) -> Report:
    """Loss and accuracy of `model` over all of `x` and `y`, seen in batches, without gradients.

    Shapes: `x` (n, ...) and `y` (n,), where `model(x)` is (n, c) and `loss_func` returns a scalar.
    Raises `ValueError` when `x` and `y` differ in length or are empty.
    """
    preds = torch.cat([model(xb) for xb in x.split(batch_size)])
    return Report(accuracy=accuracy(preds, y).item(), loss=loss_func(preds, y).item())
