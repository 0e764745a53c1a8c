"""The first numbers in a network, chosen by two short derivations instead of by luck: Xavier's and
Kaiming's initializations, with the same weights as torch's, bit for bit."""
import math
from typing import Any

import torch
from torch import Tensor

__all__ = ["calculate_gain", "xavier_uniform_", "xavier_normal_", "kaiming_uniform_",
           "kaiming_normal_"]


def __getattr__(name: str) -> Any:
    "A name that the course has not built is torch's."
    if hasattr(torch.nn.init, name) and name[0] != "_": return getattr(torch.nn.init, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def _fans(tensor: Tensor) -> tuple[int, int]:
    "How many inputs an output of the weight `tensor` sums, and how many outputs an input reaches."
    if tensor.ndim < 2:
        raise ValueError(f"tensor must be a weight (out, in) or (out, in, *kernel), "
                         f"but it has shape {tuple(tensor.shape)}")
    area = math.prod(tensor.shape[2:])
    return tensor.shape[1]*area, tensor.shape[0]*area

def calculate_gain(nonlinearity: str, param: float | None = None) -> float:
    """The factor for a weight's deviation that makes up for what `nonlinearity` does to the signal.

    `param` is the negative slope of "leaky_relu", by default 0.01.
    Raises `ValueError` for an unknown name.
    Source: He et al., Delving Deep into Rectifiers (2015), 2.2; tanh and selu are torch's choice.
    """
    slope = 0.01 if param is None else param
    gains = {"linear": 1.0, "sigmoid": 1.0, "tanh": 5/3, "selu": 3/4, "relu": math.sqrt(2),
             "leaky_relu": math.sqrt(2/(1 + slope**2))}
    if nonlinearity in gains: return gains[nonlinearity]
    raise ValueError(f"nonlinearity must be one of {', '.join(gains)}, not {nonlinearity!r}")

@torch.no_grad()
def xavier_normal_(tensor: Tensor, gain: float = 1.0) -> Tensor:
    """`tensor`, filled from a normal distribution of variance 2 `gain`² / (fan_in + fan_out).

    Shapes: `tensor` (out, in) or (out, in, *kernel), else `ValueError`; returns the same tensor.
    Source: Glorot and Bengio, Understanding the Difficulty of Training Deep Networks (2010), 4.2.
    """
    return tensor.normal_(0, gain*math.sqrt(2/sum(_fans(tensor))))

@torch.no_grad()
def xavier_uniform_(tensor: Tensor, gain: float = 1.0) -> Tensor:
    """As `xavier_normal_`, from the uniform distribution of that variance. Shapes: the same."""
    bound = math.sqrt(3)*(gain*math.sqrt(2/sum(_fans(tensor))))
    return tensor.uniform_(-bound, bound)

def _kaiming_std(tensor: Tensor, a: float, mode: str, nonlinearity: str) -> float:
    "The standard deviation of Kaiming's initialization."
    if mode not in ("fan_in", "fan_out"):
        raise ValueError(f"mode must be 'fan_in' or 'fan_out', not {mode!r}")
    fan = _fans(tensor)[mode == "fan_out"]
    return calculate_gain(nonlinearity, a)/math.sqrt(fan or 1)            # no fan: nothing to fill

@torch.no_grad()
def kaiming_normal_(tensor: Tensor, a: float = 0, mode: str = "fan_in",
                    nonlinearity: str = "leaky_relu") -> Tensor:
    """`tensor`, filled in place from a normal distribution of variance gain² / fan.

    The gain is that of `nonlinearity`, with slope `a` if it is "leaky_relu"; `mode` names the fan.
    Shapes: `tensor` (out, in) or (out, in, *kernel), else `ValueError`; returns the same tensor.
    Source: He et al., Delving Deep into Rectifiers (2015), section 2.2.
    """
    return tensor.normal_(0, _kaiming_std(tensor, a, mode, nonlinearity))

@torch.no_grad()
def kaiming_uniform_(tensor: Tensor, a: float = 0, mode: str = "fan_in",
                     nonlinearity: str = "leaky_relu") -> Tensor:
    """As `kaiming_normal_`, from the uniform distribution of that variance. Shapes: the same."""
    bound = math.sqrt(3)*_kaiming_std(tensor, a, mode, nonlinearity)
    return tensor.uniform_(-bound, bound)
