"""Learning rates that change while a network trains, and a test that finds the first one."""
import copy
import math
import random
from collections import Counter
from collections.abc import Callable, Iterable
from itertools import chain, repeat
from typing import Any

import numpy as np
import torch

from fdl.core import to_device

__all__ = ["LRScheduler", "StepLR", "MultiStepLR", "ExponentialLR", "LambdaLR",
           "CosineAnnealingLR", "OneCycleLR", "lr_find"]


class LRScheduler(torch.optim.lr_scheduler.LRScheduler):
    """Base of every schedule: the rates after t steps are the first ones times `factor(t)`.

    A step multiplies what each group has by how much the factor has changed. So schedules compose,
    a rate changed by hand stays changed, and a group added later follows. Torch's class lends its
    name only, because trainers ask for it. Raises `KeyError` when it starts at a `last_epoch` of
    its own and the groups have no `initial_lr`.
    """
    eta_min = 0.0           # the rate that a factor of 0 stands for

    def __init__(self, optimizer: Any, last_epoch: int = -1) -> None:
        self.optimizer, self.last_epoch, self._first = optimizer, last_epoch, 0
        for i, group in enumerate(optimizer.param_groups):
            if last_epoch == -1: group.setdefault("initial_lr", group["lr"])
            elif "initial_lr" not in group:
                raise KeyError(f"param 'initial_lr' is not specified in param_groups[{i}] when "
                               f"resuming with last_epoch={last_epoch}")
        self.base_lrs = [group["initial_lr"] for group in optimizer.param_groups]
        self.step(None if last_epoch == -1 else last_epoch + 1)

    def factor(self, t: int) -> float:
        "What the first rates are multiplied by after `t` steps; every schedule writes its own."
        raise NotImplementedError(f"{type(self).__name__} has no factor method: define one")

    def get_lr(self) -> list[float]:
        "What each group has, times how much the factor has changed since the step before."
        t, low, rates = self.last_epoch, self.eta_min, []
        now, before = self.factor(t), 1 if t == self._first else self.factor(t - 1)
        for group in self.optimizer.param_groups:
            first = group.setdefault("initial_lr", group["lr"])
            lr, had = (group["lr"], before) if before else (first, 1)
            rates.append(low + (lr - low)/had*now)
        return rates

    def step(self, epoch: int | None = None) -> None:
        "Moves on by one, or from the first rates straight to `epoch`, and sets the rates."
        groups = self.optimizer.param_groups
        if epoch is not None:
            self._first = epoch
            for group in groups: group["lr"] = group["initial_lr"]
        self.last_epoch = self.last_epoch + 1 if epoch is None else epoch
        self._last_lr = self.get_lr()
        for group, lr in zip(groups, self._last_lr): group["lr"] = lr

    def _initial_step(self) -> None: self.step(0)                  # torch's SequentialLR calls both
    def _update_lr(self, epoch: int | None = None) -> None: self.step(epoch)

    def get_last_lr(self) -> list[float]:
        "The learning rate that the last `step` gave to each group."
        return self._last_lr

    def state_dict(self) -> dict[str, Any]:
        "Everything but the optimizer and functions."
        return {name: value for name, value in vars(self).items()
                if name != "optimizer" and not callable(value)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        "Takes over what `state_dict` of such a schedule returned, fdl's or torch's."
        mine = self.state_dict()
        wanted, given = ({name for name in each if name[0] != "_"} for each in (mine, state_dict))
        if wanted - given or given - wanted - {"use_beta1", "lr_lambdas"}:
            raise ValueError(f"loaded state dict is not that of {type(self).__name__}: it has "
                             f"{sorted(given)}, wanted {sorted(wanted)}")
        vars(self).update({name: state_dict[name] for name in mine if name in state_dict})

class StepLR(LRScheduler):
    "The first rate, times `gamma` once for every `step_size` steps."
    def __init__(self, optimizer: Any, step_size: int, gamma: float = 0.1,
                 last_epoch: int = -1) -> None:
        self.step_size, self.gamma = step_size, gamma
        super().__init__(optimizer, last_epoch)

    def factor(self, t: int) -> float: return self.gamma**(t//self.step_size)

class MultiStepLR(LRScheduler):
    "The first rate, times `gamma` at each of `milestones`."
    def __init__(self, optimizer: Any, milestones: Iterable[int], gamma: float = 0.1,
                 last_epoch: int = -1) -> None:
        self.milestones, self.gamma = Counter(milestones), gamma
        super().__init__(optimizer, last_epoch)

    def factor(self, t: int) -> float:
        return self.gamma**sum(n for milestone, n in self.milestones.items() if milestone <= t)

class ExponentialLR(LRScheduler):
    "The first rate, times `gamma` at each step."
    def __init__(self, optimizer: Any, gamma: float, last_epoch: int = -1) -> None:
        self.gamma = gamma
        super().__init__(optimizer, last_epoch)

    def factor(self, t: int) -> float: return self.gamma**t

class LambdaLR(LRScheduler):
    "The first rate, times `lr_lambda` of the number of steps."
    def __init__(self, optimizer: Any, lr_lambda: Callable[[int], float],
                 last_epoch: int = -1) -> None:
        if not callable(lr_lambda): raise TypeError("lr_lambda must be one function of the step")
        self.factor = lr_lambda
        super().__init__(optimizer, last_epoch)

def _half_cosine(share: float) -> float:
    "From 1 at 0 to 0 at 1, gently at both ends."
    return (1 + math.cos(math.pi*share))/2

class CosineAnnealingLR(LRScheduler):
    """From the first rate down to `eta_min` in `T_max` steps, along half a cosine.

    Source: Loshchilov and Hutter, SGDR (2017), equation 5, without restarts.
    """
    def __init__(self, optimizer: Any, T_max: int, eta_min: float = 0.0,
                 last_epoch: int = -1) -> None:
        self.T_max, self.eta_min = T_max, eta_min
        super().__init__(optimizer, last_epoch)

    def factor(self, t: int) -> float: return _half_cosine(t/self.T_max)

class OneCycleLR(LRScheduler):
    """Up from `max_lr/div_factor` to `max_lr`, then down to `final_div_factor` times less than at
    the start, along two halves of a cosine; momentum the other way.

    Raises `ValueError` for an option out of range, and when stepped more than `total_steps` times.
    Source: Smith and Topin, Super-Convergence (2019).
    """
    def __init__(self, optimizer: Any, max_lr: float, total_steps: int | None = None,
                 epochs: int | None = None, steps_per_epoch: int | None = None,
                 pct_start: float = 0.3, *, cycle_momentum: bool = True,
                 base_momentum: float = 0.85, max_momentum: float = 0.95, div_factor: float = 25.0,
                 final_div_factor: float = 1e4, last_epoch: int = -1) -> None:
        if total_steps is None and epochs and steps_per_epoch: total_steps = epochs*steps_per_epoch
        if not isinstance(total_steps, int) or total_steps <= 0:
            raise ValueError("You must define either total_steps OR (epochs AND steps_per_epoch), "
                             f"positive integers, not {total_steps}, {epochs}, {steps_per_epoch}")
        if not 0 <= pct_start <= 1: raise ValueError(f"pct_start is {pct_start}, not in [0, 1]")
        self.total_steps, self.cycle_momentum, self._rise = total_steps, cycle_momentum, pct_start
        self._rates = 1, div_factor, 1/final_div_factor
        self._momenta = max_momentum, base_momentum, max_momentum
        for group in optimizer.param_groups if last_epoch == -1 else ():
            group["lr"] = group["initial_lr"] = max_lr/div_factor
        super().__init__(optimizer, last_epoch)

    def _at(self, t: int, first: float, peak: float, last: float) -> float:
        "The value after `t` steps of what goes from `first` to `peak` and on to `last`."
        top, end = self._rise*self.total_steps - 1, self.total_steps - 1
        if t < top: return peak + (first - peak)*_half_cosine(t/top)
        return last + (peak - last)*_half_cosine((t - top)/(end - top or 1))

    def factor(self, t: int) -> float: return self._at(t, *self._rates)

    def step(self, epoch: int | None = None) -> None:
        "Moves on by one batch, and sets learning rates and momenta."
        t = self.last_epoch + 1 if epoch is None else epoch
        if t > self.total_steps:
            raise ValueError(f"Tried to step {t} times. The specified number of total steps is "
                             f"{self.total_steps}")
        super().step(epoch)
        momentum = self._at(t, *self._momenta)
        for group in self.optimizer.param_groups if self.cycle_momentum else ():
            if "betas" in group: group["betas"] = (momentum, *group["betas"][1:])
            elif "momentum" in group: group["momentum"] = momentum

def lr_find(model: Any, loss_func: Callable, opt: Any, dl: Iterable, start_lr: float = 1e-6,
            end_lr: float = 10.0, steps: int = 100) -> tuple[list[float], list[float]]:
    """Trains a copy of `model` at rates that grow from `start_lr` to `end_lr`; returns the rates
    and the loss at each. It stops early once a loss is four times the lowest, or not finite.

    Model, optimizer, random numbers and the loader's generator are left as they were.
    Source: Smith, Cyclical Learning Rates for Training Neural Networks (2017), section 3.3.
    """
    model, loss_func, opt = copy.deepcopy((model, loss_func, opt))
    device, generator = next(model.parameters()).device, getattr(dl, "generator", None)
    before = random.getstate(), np.random.get_state(), generator and generator.get_state()
    rates, losses = [start_lr*(end_lr/start_lr)**(i/(steps - 1)) for i in range(steps)], []
    try:
        with torch.random.fork_rng():
            for lr, batch in zip(rates, chain.from_iterable(repeat(dl, steps))):
                xb, yb = to_device(batch, device)
                for group in opt.param_groups: group["lr"] = lr
                loss = loss_func(model(xb), yb)
                opt.zero_grad()
                loss.backward()
                opt.step()
                losses.append(loss.item())
                if not losses[-1] <= 4*min(losses): break
    finally:
        random.setstate(before[0])
        np.random.set_state(before[1])
        if generator is not None: generator.set_state(before[2])
    return rates[:len(losses)], losses

def __getattr__(name: str) -> Any:
    "A schedule that is not built here is torch's."
    if name[0] != "_" and hasattr(torch.optim.lr_scheduler, name):
        return getattr(torch.optim.lr_scheduler, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

def __dir__() -> list[str]: return __all__
