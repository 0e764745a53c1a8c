"""The device to compute on, data moved there, and random numbers that repeat."""
import copy
import operator
import os
import random
from typing import Any

import numpy as np
import torch

__all__ = ["default_device", "to_device", "set_seed"]


def _find_device(name: str | None, source: str) -> torch.device:
    "The device called `name`, which `source` gave."
    names = ["cpu", "meta"]
    if torch.accelerator.is_available():
        kind = torch.accelerator.current_accelerator().type
        names = [kind, *(f"{kind}:{i}" for i in range(torch.accelerator.device_count())), *names]
    if source == "FDL_DEVICE" and not name: name = names[0]
    if name in names: return torch.device(name)
    raise ValueError(f"{source} must be one of {', '.join(names)} on this machine, not {name!r}")

def default_device() -> torch.device:
    """The device to compute on: `FDL_DEVICE` if that is set, else an accelerator, else the CPU.

    Raises `ValueError` when `FDL_DEVICE` names a device that this machine does not have.
    """
    return _find_device(os.environ.get("FDL_DEVICE"), "FDL_DEVICE")

def to_device(x: Any, device: torch.device | str | None = None) -> Any:
    """`x` with every tensor in it on `device`, by default `default_device()`, copied if need be.

    Shapes: `x` is a tensor, something else with a method `to`, or a dict, list, tuple or namedtuple
    of such, nested as deep as you like; shapes and types stay. Anything else is returned as it is.
    Raises `ValueError` when `device` is the name of a device that this machine does not have.
    """
    if not isinstance(device, torch.device):
        device = default_device() if device is None else _find_device(device, "device")
    if callable(getattr(x, "to", None)): return x.to(device)
    if isinstance(x, dict):
        moved = copy.copy(x)
        for key, value in x.items(): moved[key] = to_device(value, device)
        return moved
    if not isinstance(x, (list, tuple)): return x
    moved = [to_device(value, device) for value in x]
    return x._make(moved) if hasattr(x, "_make") else type(x)(moved)

def set_seed(seed: int) -> None:
    """Starts the random generators of Python, NumPy and torch (on every device) from `seed`.

    Raises `TypeError` when `seed` is not an integer, `ValueError` unless it is in [0, 2**32).
    """
    seed = operator.index(seed)
    np.random.seed(seed)                                    # the first, because it refuses the most
    random.seed(seed)
    torch.manual_seed(seed)
