"""The arithmetic of every neural network: linear layer, ReLU, losses, convolution, pooling, dropout
and batch normalization, each a function of tensors."""
import math
from itertools import product
from numbers import Integral
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["linear", "relu", "mse_loss", "softmax", "logsumexp", "log_softmax", "nll_loss",
           "cross_entropy", "size2", "conv2d", "avg_pool2d", "max_pool2d", "adaptive_avg_pool2d",
           "dropout", "batch_norm"]


def __getattr__(name: str) -> Any:
    "A name that the course has not built is torch's."
    if name[0] != "_" and hasattr(F, name): return getattr(F, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


# Lesson 02

def _shapes(*tensors: Tensor | None) -> str:
    return " and ".join(str(tuple(t.shape)) for t in tensors if t is not None)

def linear(input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """The linear layer `input @ weight.T + bias`.

    Shapes: `input` (..., in_features), `weight` (out_features, in_features), `bias`
    (out_features,); returns (..., out_features).
    Raises `ValueError` when the shapes do not fit.
    """
    if input.shape[-1:] != weight.shape[1:] or bias is not None and bias.shape != weight.shape[:1]:
        raise ValueError("input must be (..., in_features), weight (out_features, in_features) and "
                         f"bias (out_features,), not {_shapes(input, weight, bias)}")
    if bias is None: return input @ weight.T
    if input.ndim == 2: return torch.addmm(bias, input, weight.T)
    rows = input.reshape(input.shape[:-1].numel(), input.shape[-1])
    return torch.addmm(bias, rows, weight.T).view(input.shape[:-1] + bias.shape)

def relu(input: Tensor, inplace: bool = False) -> Tensor:
    """`input` with its negative values replaced by 0: max(x, 0). Its gradient at 0 is 0.

    Shapes: any; returns the same shape: `input` itself, changed, if `inplace`.
    Source: Nair and Hinton, Rectified Linear Units Improve Restricted Boltzmann Machines (2010).
    """
    return torch.relu_(input) if inplace else torch.relu(input)

def _reduce(losses: Tensor, reduction: str, total: Tensor | int, dtype: torch.dtype) -> Tensor:
    "`losses` as they are, their sum, or their sum over `total`; as `dtype`."
    if reduction not in ("mean", "sum", "none"):
        raise ValueError(f"reduction must be 'mean', 'sum' or 'none', not {reduction!r}")
    if reduction != "none": losses = losses.sum()
    return (losses / total if reduction == "mean" else losses).to(dtype)

def _wide(input: Tensor) -> Tensor:
    "`input` in floating-point numbers of 32 bits or more: others overflow in a square or a sum."
    return input.to(torch.promote_types(input.dtype, torch.float32))

def mse_loss(input: Tensor, target: Tensor, reduction: str = "mean") -> Tensor:
    """The squared differences of `input` and `target`: their mean, sum, or (`"none"`) each one.

    Shapes: `input` and `target` the same, any; returns a scalar, or that shape for `"none"`.
    Raises `ValueError` when the shapes differ or `reduction` is unknown, `TypeError` when neither
    holds floating-point numbers, or one holds complex ones.
    Source: Bishop, Pattern Recognition and Machine Learning (2006), 1.1 and 3.1.1.
    """
    if input.shape != target.shape:
        raise ValueError(f"input and target must have the same shape, not {_shapes(input, target)}")
    dtype = torch.result_type(input, target)
    if not dtype.is_floating_point:
        raise TypeError(f"input and target must hold real, one of them floating-point, numbers, "
                        f"not {input.dtype} and {target.dtype}")
    return _reduce((_wide(input) - _wide(target)).square(), reduction, input.numel(), dtype)


# Lesson 05

def softmax(input: Tensor, dim: int, dtype: torch.dtype | None = None) -> Tensor:
    """The probabilities of the scores `input`: positive, and their sum along `dim` is one.

    Shapes: `input` any, first converted to `dtype` if that is given; returns the same shape.
    Source: Bridle, Probabilistic Interpretation of Feedforward Network Outputs (1990).
    """
    return torch.softmax(input, dim, dtype)

def log_softmax(input: Tensor, dim: int, dtype: torch.dtype | None = None) -> Tensor:
    """The logarithms of the probabilities of `softmax`, right even where those round to 0 or 1.

    Shapes: `input` any, first converted to `dtype` if that is given; returns the same shape.
    Source: Blanchard, Higham and Higham, Computing the Log-Sum-Exp and Softmax Functions (2021).
    """
    return torch.log_softmax(input, dim, dtype)

def logsumexp(input: Tensor, dim: int | tuple[int, ...], keepdim: bool = False) -> Tensor:
    """The logarithm of the sum of the exponentials of `input` along `dim`, without overflow.

    Shapes: `input` any; returns it without dimension `dim`, or with size 1 there if `keepdim`.
    Source: Blanchard, Higham and Higham, Computing the Log-Sum-Exp and Softmax Functions (2021).
    """
    wide = _wide(input)
    peak = wide.detach().amax(dim, keepdim=True)
    peak = peak.masked_fill(peak.isinf(), 0)                             # inf - inf would be nan
    result = (wide - peak).exp().sum(dim, keepdim=True).log() + peak
    return (result if keepdim else result.squeeze(dim)).to(torch.result_type(input, 1.0))

def _weigh(log_probs: Tensor, weight: Tensor | None, dim: int) -> Tensor:
    "`log_probs`, each class along `dim` times its weight."
    if weight is None: return log_probs
    return log_probs * weight.view(-1, *[1] * (log_probs.ndim - dim - 1))

def _pick(input: Tensor, target: Tensor, dim: int) -> Tensor:
    "The entry of `input` along `dim` at each `target`; on the CPU, one that is no class is named."
    try: return input.gather(dim, target.unsqueeze(dim)).squeeze(dim)
    except RuntimeError:
        c = input.shape[dim]
        bad = target[(target < 0) | (target >= c)]
        if not len(bad): raise
        raise IndexError(f"target holds {bad[0]}, but the {c} classes are 0 to {c - 1}") from None

def _choose(log_probs: Tensor, target: Tensor, dim: int, weight: Tensor | None, ignore_index: int,
            reduction: str, eps: float = 0.0) -> Tensor:
    "Minus the weighted `log_probs` of the right classes, smoothed by `eps`, reduced."
    kind, dtype = getattr(target, "dtype", type(target)), log_probs.dtype
    if kind not in (torch.int64, torch.uint8) or not dtype.is_floating_point:
        raise TypeError("target must hold class indices (torch.int64) and input floating-point "
                        f"numbers, not {kind} and {dtype}")
    if target.shape != log_probs.shape[:dim] + log_probs.shape[dim + 1:]:
        raise ValueError("target must have the shape of input without its classes, "
                         f"but input and target are {_shapes(log_probs, target)}")
    target = target.long()
    ignored = target == ignore_index
    right, weighed = target.masked_fill(ignored, 0), _weigh(_wide(log_probs), weight, dim)
    losses = -_pick(weighed, right, dim)
    if eps: losses = (1 - eps) * losses - eps * weighed.mean(dim)
    counts = ~ignored if weight is None else _wide(weight).take(right).masked_fill(ignored, 0)
    return _reduce(losses.masked_fill(ignored, 0), reduction, counts.sum(), dtype)

def nll_loss(input: Tensor, target: Tensor, weight: Tensor | None = None, ignore_index: int = -100,
             reduction: str = "mean") -> Tensor:
    """Minus the log-probability of the right class: weighted mean, sum, or (`"none"`) each one.

    Shapes: log-probabilities `input` (n, c), (n, c, ...) or (c,); `target` the same without c, of
    classes in [0, c) or `ignore_index`; `weight` (c,). Returns a scalar, or for `"none"` the shape
    of `target`. "mean" divides by the weights of the targets that are not ignored.
    Raises `TypeError` or `ValueError` if a dtype, shape or `reduction` does not fit, and on the
    CPU `IndexError` for a class that does not exist.
    Source: Bishop, Pattern Recognition and Machine Learning (2006), 4.3.4.
    """
    return _choose(input, target, min(input.ndim - 1, 1), weight, ignore_index, reduction)

def cross_entropy(input: Tensor, target: Tensor, weight: Tensor | None = None,
                  ignore_index: int = -100, reduction: str = "mean",
                  label_smoothing: float = 0.0) -> Tensor:
    """Minus the log-probability of the right class, from scores.

    Shapes: and errors as for `nll_loss`, but `input` holds scores, and `target` may also hold
    probabilities, in the shape of `input`; "mean" then divides by their number, also with weights.
    `label_smoothing` in [0, 1] moves that share of each target to all c classes alike.
    Source: Bishop (2006), 4.3.4; Szegedy and others, Rethinking Inception (2016), section 7.
    """
    if not 0 <= label_smoothing <= 1:
        raise ValueError(f"label_smoothing must be from 0 to 1, not {label_smoothing}")
    dim = min(input.ndim - 1, 1)
    log_probs = log_softmax(input, dim)
    soft = isinstance(target, Tensor) and target.is_floating_point() and target.shape == input.shape
    if not soft:
        return _choose(log_probs, target, dim, weight, ignore_index, reduction, label_smoothing)
    if ignore_index >= 0: raise ValueError(f"ignore_index={ignore_index} needs class indices")
    probs = (1 - label_smoothing) * _wide(target) + label_smoothing / input.shape[dim]
    losses = -(_weigh(_wide(log_probs), weight, dim) * probs).sum(dim)
    return _reduce(losses, reduction, losses.numel(), torch.result_type(log_probs, target))


# Lesson 14

Size2 = int | tuple[int, int]

def size2(value: Size2, name: str = "size", least: int = 1) -> tuple[int, int]:
    """`value` for height and width, two ints: `ValueError` if not integers of at least `least`."""
    pair = value if isinstance(value, (tuple, list)) else (value, value)
    if len(pair) == 2 and all(isinstance(v, Integral) and v >= least for v in pair):
        return int(pair[0]), int(pair[1])
    raise ValueError(f"{name} must be an int of at least {least}, or two of them, not {value!r}")

class _Windows(torch.autograd.Function):
    "The windows of images (..., h, w, c), as a view (..., oh, ow, kh, kw, c); backward adds them."
    @staticmethod
    def forward(ctx, input, kernel, stride):
        (*n, h, w, c), (*sn, sh, sw, sc) = input.shape, input.stride()
        (kh, kw), (th, tw) = kernel, stride
        oh, ow = (h - kh)//th + 1, (w - kw)//tw + 1
        ctx.args = input.shape, oh, ow, kernel, stride
        return input.as_strided((*n, oh, ow, kh, kw, c), (*sn, th*sh, tw*sw, sh, sw, sc))

    @staticmethod
    def backward(ctx, grad):
        shape, oh, ow, (kh, kw), (th, tw) = ctx.args
        total = grad.new_zeros(shape)
        for a, b in product(range(kh), range(kw)):
            total[..., a:a + th*oh:th, b:b + tw*ow:tw, :] += grad[..., a, b, :]
        return total, None, None

def _windows(input: Tensor, kernel: Size2, stride: Size2, padding: Size2, ceil_mode: bool = False,
             fill: float = 0.0) -> Tensor:
    "The windows of `input` (..., c, h, w), padded with `fill`, as (..., oh, ow, kh*kw, c)."
    kernel, stride, sides = size2(kernel, "kernel_size"), size2(stride, "stride"), [0, 0]
    for i in (1, 0):                                   # the width first, as constant_pad_nd has it
        size, k, s, p = input.shape[i - 2], kernel[i], stride[i], size2(padding, "padding", 0)[i]
        steps, left = divmod(size + 2*p - k, s)
        if steps < 0 or input.ndim < 3 or fill and 2*p > k:
            raise ValueError(f"windows of {kernel} with padding {padding} do not fit into input "
                             f"{tuple(input.shape)}, which must be (n, channels, height, width)")
        more = ceil_mode and left > 0 and (steps + 1)*s < size + p         # one that starts inside
        sides += [p, p + s - left if more else p]
    x = input.movedim(-3, -1)
    if any(sides): x = torch.constant_pad_nd(x, sides, fill)
    return _Windows.apply(x, kernel, stride).flatten(-3, -2)

def _channels_last(x: Tensor) -> bool:
    "Whether `x` lies in memory with its channels innermost, as torch decides it."
    if x.ndim != 4: return False
    (_, C, H, W), (n, c, h, w) = x.shape, x.stride()
    return 0 < c and c*C <= w and w*W <= h and c < h*H <= n

def _images(x: Tensor, *like: Tensor) -> Tensor:
    "`x` (..., oh, ow, c) as images (..., c, oh, ow), channels last in memory if one of `like` is."
    kind = torch.channels_last if any(map(_channels_last, like)) else torch.contiguous_format
    return x.movedim(-1, -3).contiguous(memory_format=kind)

def conv2d(input: Tensor, weight: Tensor, bias: Tensor | None = None, stride: Size2 = 1,
           padding: Size2 = 0, *, groups: int = 1) -> Tensor:
    """The scalar product of each kernel in `weight` with each window of `input`, plus `bias`.

    Shapes: `input` (n, in_channels, h, w) or without n, `weight` (out_channels, in_channels/groups,
    kh, kw), `bias` (out_channels,); returns (n, out_channels, oh, ow), where
    oh = (h + 2 padding - kh)//stride + 1.
    Raises `ValueError` when shapes or arguments do not fit.
    Source: Dumoulin and Visin, A Guide to Convolution Arithmetic for Deep Learning (2016).
    """
    if weight.ndim != 4 or len(weight) % groups or input.shape[-3:-2] != (weight.shape[1]*groups,):
        raise ValueError("input must be (n, in_channels, height, width) and weight (out_channels, "
                         f"in_channels/{groups}, kh, kw), not {_shapes(input, weight)}")
    if groups > 1:
        biases = [None]*groups if bias is None else bias.chunk(groups)
        parts = zip(input.chunk(groups, -3), weight.chunk(groups), biases)
        maps = torch.cat([conv2d(*part, stride, padding) for part in parts], -3).movedim(-3, -1)
    else:
        rows = _windows(input, tuple(weight.shape[2:]), stride, padding).flatten(-2)
        maps = linear(rows, weight.permute(0, 2, 3, 1).flatten(1), bias)
    return _images(maps, input, weight)

def avg_pool2d(input: Tensor, kernel_size: Size2, stride: Size2 | None = None, padding: Size2 = 0,
               ceil_mode: bool = False) -> Tensor:
    """The mean of each window of `input`, channel by channel; padding counts as zeros.

    Shapes: `input` (n, c, h, w) or (c, h, w); returns (n, c, oh, ow) with
    oh = (h + 2 padding - kernel_size)//stride + 1, rounded up if `ceil_mode`.
    Raises `ValueError` when shapes or arguments do not fit.
    Source: LeCun et al., Gradient-Based Learning Applied to Document Recognition (1998), II.B.
    """
    stride = kernel_size if stride is None else stride
    windows = _windows(input, kernel_size, stride, padding, ceil_mode)
    sizes = zip(input.shape[-2:], windows.shape[-4:-2], size2(kernel_size), size2(stride),
                size2(padding, least=0))
    rows, cols = ((size + 2*p - s*torch.arange(out, device=input.device)).clamp(max=k)
                  for size, out, k, s, p in sizes)          # the pixels of a window that are inside
    means = _wide(windows).sum(-2) / (rows[:, None]*cols)[..., None]
    return _images(means.to(torch.result_type(input, 1.0)), input)

def max_pool2d(input: Tensor, kernel_size: Size2, stride: Size2 | None = None, padding: Size2 = 0,
               *, ceil_mode: bool = False) -> Tensor:
    """The largest value of each window of `input`, channel by channel; padding never wins.

    Shapes: and errors as for `avg_pool2d`; `padding` is at most half of `kernel_size`.
    Source: Goodfellow, Bengio and Courville, Deep Learning (2016), 9.3.
    """
    stride = kernel_size if stride is None else stride
    windows = _windows(input, kernel_size, stride, padding, ceil_mode, -math.inf)
    return _images(windows.max(-2).values, input)

def _cells(size: int, out: int, like: Tensor) -> Tensor:
    "A matrix (out, size) that averages `size` pixels into `out` cells, each rounded outwards."
    start, pixel = (torch.arange(n, device=like.device) for n in (out, size))
    inside = (start[:, None]*size//out <= pixel) & (pixel*out < (start[:, None] + 1)*size)
    return inside.to(like.dtype)/inside.sum(1, keepdim=True)

def adaptive_avg_pool2d(input: Tensor, output_size: Size2) -> Tensor:
    """The mean of `input` over a grid of `output_size` cells, channel by channel.

    Shapes: `input` (n, c, h, w) or (c, h, w); returns (n, c, *output_size).
    Raises `ValueError` when a size is below 1.
    """
    x = _wide(input)
    oh, ow = size2(output_size, "output_size")
    means = _cells(x.shape[-2], oh, x) @ x @ _cells(x.shape[-1], ow, x).T
    return _images(means.movedim(-3, -1).to(torch.result_type(input, 1.0)), input)


# Lesson 15

def dropout(input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
    """`input` with each number set to 0 with probability `p`, the others divided by 1 - p.

    Shapes: any; returns the same shape: `input` itself, changed, if `inplace`, and unchanged unless
    `training`.
    Raises `ValueError` when `p` is not between 0 and 1.
    Source: Srivastava et al., Dropout: A Simple Way to Prevent Overfitting (2014), 4 and 10.
    """
    if not 0 <= p <= 1: raise ValueError(f"p must be a probability between 0 and 1, not {p}")
    if not training or p == 0: return input
    dropped = torch.empty_like(input, dtype=torch.bool).bernoulli_(1 - p).logical_not_()
    scale = 1/(1 - p) if p < 1 else 0.0
    return (input.mul_(scale) if inplace else input*scale).masked_fill_(dropped, 0)

def batch_norm(input: Tensor, running_mean: Tensor | None, running_var: Tensor | None,
               weight: Tensor | None = None, bias: Tensor | None = None, training: bool = False,
               momentum: float | Tensor = 0.1, eps: float = 1e-5) -> Tensor:
    """`input`, shifted and scaled to mean `bias` and deviation `weight` in each channel.

    By the statistics of the batch if `training`, which also move the running ones by the share
    `momentum`; else by the running ones. Shapes: `input` (n, c, ...), all others (c,); returns the
    shape of `input`.
    Raises `ValueError` when there are no statistics to use: no running ones, or one value a channel
    in training.
    Source: Ioffe and Szegedy, Batch Normalization (2015), algorithms 1 and 2.
    """
    x, mean, var = _wide(input), running_mean, running_var
    n, channel = input[:, :1].numel(), (-1, *[1]*(input.ndim - 2))
    if n < 2 if training else mean is None or var is None:
        raise ValueError(f"batch_norm needs running statistics, or in training more than one value "
                         f"a channel; input has shape {tuple(input.shape)}")
    if training:
        var, mean = torch.var_mean(x, [0, *range(2, input.ndim)], correction=0)
        with torch.no_grad():
            for running, now in ((running_mean, mean), (running_var, var*(n/(n - 1)))):
                if running is not None: running.lerp_(now.to(running.dtype), momentum)
    scale = (var + eps).rsqrt() if weight is None else weight*(var + eps).rsqrt()
    shift = -mean*scale if bias is None else bias - mean*scale
    out = torch.addcmul(shift.view(channel), x, scale.view(channel))
    return out.to(torch.result_type(input, 1.0))
