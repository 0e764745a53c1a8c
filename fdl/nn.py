"""Modules that find their own parameters however deep they are nested, and the layers made of them;
weights travel to torch's and back, name by name, and a module of torch's may hold one of these."""
import functools
import math
from collections import OrderedDict, namedtuple
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import count
from textwrap import indent
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor
from torch.nn import Parameter
from torch.utils.hooks import RemovableHandle

from . import functional, init
from .functional import Size2, size2

__all__ = ["Parameter", "Module", "Linear", "ReLU", "ModuleList", "Sequential", "Lambda", "Flatten",
           "MSELoss", "CrossEntropyLoss", "Conv2d", "AvgPool2d", "MaxPool2d", "AdaptiveAvgPool2d",
           "Dropout", "BatchNorm2d"]


def __getattr__(name: str) -> Any:
    "A name that the course has not built is torch's."
    if name[0] != "_" and hasattr(torch.nn, name): return getattr(torch.nn, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


# Lesson 07

@functools.cache
def _as_torchs(cls: type) -> type:
    "A class like `cls` that is also one of torch's modules; called, it makes a `cls`."
    def make(_, *args, **kwargs): return cls(*args, **kwargs)
    names = {"__new__": make, "__module__": cls.__module__}
    return type(cls.__name__, (cls, torch.nn.Module), names)

_Loaded = namedtuple("_Loaded", ["missing_keys", "unexpected_keys"])

def _compare(own: Mapping[str, Tensor], given: Mapping[str, Tensor]) -> tuple[list, list, list]:
    "The keys that are missing in `given`, the unexpected ones, and the shapes that are wrong."
    return ([k for k in own if k not in given], [k for k in given if k not in own],
            [f"{k} {tuple(given[k].shape)}, needs {tuple(t.shape)}" for k, t in own.items()
             if k in given and given[k].shape != t.shape])

class Module:
    """Base of every layer and model: its parameters and modules are those among its attributes.

    Torch's modules ask `isinstance(child, torch.nn.Module)`: `__class__` makes that hold. They then
    register this one, and call the methods below by the names and arguments that torch's have.
    Shapes: whatever `forward` takes and returns.
    """
    training = True
    _forward_hooks = _forward_pre_hooks = _load_state_dict_post_hooks = {}
    _persistent = {}                      # the names of buffers: whether saved
    __class__ = property(lambda self: _as_torchs(type(self)))

    def __reduce_ex__(self, protocol: int) -> tuple:
        make, *rest = super().__reduce_ex__(2)              # its `make` insists on `__class__`
        return object.__new__ if make.__name__ == "__newobj__" else make, *rest

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        "What `forward` returns; what a hook returns, if anything, replaces the arguments or output."
        for hook, with_kwargs in tuple(self._forward_pre_hooks.values()):
            new = hook(self, args, kwargs) if with_kwargs else hook(self, args)
            if new is not None and with_kwargs: args, kwargs = new
            elif new is not None: args = new if isinstance(new, tuple) else (new,)
        output = self.forward(*args, **kwargs)
        for hook, with_kwargs in tuple(self._forward_hooks.values()):
            new = hook(self, args, kwargs, output) if with_kwargs else hook(self, args, output)
            if new is not None: output = new
        return output

    _call_impl = __call__                                   # for torch.compile

    def forward(self, *input: Any) -> Any:
        "The computation; every module writes its own."
        raise NotImplementedError(f"{type(self).__name__} has no forward method: define one")

    def _hook(self, kind: str, *hook_and_mode: Any) -> RemovableHandle:
        hooks = vars(self).setdefault(kind, OrderedDict())
        handle = RemovableHandle(hooks)
        hooks[handle.id] = hook_and_mode
        return handle

    def register_forward_hook(self, hook: Callable, *,
                              with_kwargs: bool = False) -> RemovableHandle:
        "Calls `hook(module, args, output)`, or with kwargs after args, after each `forward`."
        return self._hook("_forward_hooks", hook, with_kwargs)

    def register_forward_pre_hook(self, hook: Callable, *,
                                  with_kwargs: bool = False) -> RemovableHandle:
        "Calls `hook(module, args)`, or with kwargs after args, before each `forward`."
        return self._hook("_forward_pre_hooks", hook, with_kwargs)

    def __setattr__(self, name: str, value: Any) -> None:
        old, registered = vars(self).get(name), (Parameter, torch.nn.Module)
        if isinstance(old, Parameter) and not isinstance(value, (Parameter, type(None))):
            raise TypeError(f"{type(self).__name__}.{name} must be a Parameter or None, "
                            f"not a {type(value).__name__}")
        if isinstance(value, registered) and not isinstance(old, registered):
            vars(self).pop(name, None)                      # what is new comes last, as with torch
        super().__setattr__(name, value)

    def add_module(self, name: str, module: "Module | torch.nn.Module | None") -> None:
        "Assigns a module by name, which need not be an identifier."
        held = getattr(self, name, None)
        if not name or "." in name or not isinstance(held, (Tensor, torch.nn.Module, type(None))):
            raise KeyError(f"{name!r} cannot be registered: it is empty, has a dot, or is taken")
        setattr(self, name, module)

    register_parameter = add_module

    def register_buffer(self, name: str, tensor: Tensor | None, persistent: bool = True) -> None:
        "Assigns a tensor that moves with the module but is not trained; saved if `persistent`."
        self.add_module(name, tensor)
        self._persistent = {**self._persistent, name: persistent}

    def _held(self, kind: type) -> Mapping[str, Any]:
        "The attributes of this kind; read-only, because a change would change nothing."
        return MappingProxyType({k: v for k, v in vars(self).items() if isinstance(v, kind)})

    _parameters = property(lambda self: self._held(Parameter))
    _modules = property(lambda self: self._held(torch.nn.Module))
    _buffers = property(lambda self: {name: t for name, t in self._held(Tensor).items()
                                      if name in self._persistent and not isinstance(t, Parameter)})

    def named_modules(self, memo: set | None = None, prefix: str = "",
                      remove_duplicate: bool = True) -> Iterator[tuple[str, "Module"]]:
        "This module and all below it with dotted names, each after its parent; a shared one once."
        memo = set() if memo is None else memo
        if self in memo: return
        if remove_duplicate: memo.add(self)
        yield prefix, self
        for name, child in self._modules.items():
            yield from child.named_modules(memo, f"{prefix}.{name}".strip("."), remove_duplicate)

    def _named_members(self, members: Callable, prefix: str = "", recurse: bool = True,
                       remove_duplicate: bool = True) -> Iterator[tuple[str, Tensor]]:
        "The tensors among `members` of this module and of all below it, with dotted names."
        seen = set()
        found = self.named_modules(None, prefix, remove_duplicate) if recurse else [(prefix, self)]
        for path, module in found:
            for name, t in members(module):
                if t is not None and t not in seen: yield f"{path}.{name}".strip("."), t
                if remove_duplicate: seen.add(t)

    def named_parameters(self, prefix: str = "", recurse: bool = True,
                         remove_duplicate: bool = True) -> Iterator[tuple[str, Parameter]]:
        "All parameters with their dotted names, a shared one once."
        return self._named_members(lambda module: module._parameters.items(), prefix, recurse,
                                   remove_duplicate)

    def parameters(self, recurse: bool = True) -> Iterator[Parameter]:
        "All parameters, a shared one once: what an optimizer is given."
        return (p for _, p in self.named_parameters(recurse=recurse))

    def named_children(self) -> Iterator[tuple[str, "Module"]]:
        "The modules directly below this one with their names; a shared one once."
        first = {child: name for name, child in reversed(self._modules.items())}
        return ((name, child) for name, child in self._modules.items() if first[child] == name)

    def children(self) -> Iterator["Module"]:
        "The modules directly below this one, a shared one once."
        return (child for _, child in self.named_children())

    def zero_grad(self, set_to_none: bool = True) -> None:
        "Drops every parameter's gradient, or fills it with zeros."
        for p in self.parameters():
            p.grad = None if set_to_none or p.grad is None else torch.zeros_like(p.grad)

    def train(self, mode: bool = True) -> "Module":
        "This module with `training` set, here and in all below it."
        self.training = mode
        for child in self.children(): child.train(mode)
        return self

    def eval(self) -> "Module":
        "This module with `training` False, here and in all below it."
        return self.train(False)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "Module":
        "This module with `fn` of every tensor in its place; parameters stay the same objects."
        for child in self.children() if recurse else (): child._apply(fn)
        for p in self._parameters.values():
            data, grad = fn(p.data), p.grad
            if data.is_meta == p.is_meta: p.data = data
            else: torch.utils.swap_tensors(p, Parameter(data, p.requires_grad))
            if grad is not None: p.grad = fn(grad)
        for name, b in self._buffers.items(): setattr(self, name, fn(b))
        return self

    def to(self, device: torch.device | str | torch.dtype | None = None,
           dtype: torch.dtype | None = None, non_blocking: bool = False) -> "Module":
        "This module with all tensors on `device`, the floating-point ones of type `dtype`."
        if isinstance(device, torch.dtype): device, dtype = None, device
        if dtype is not None and not dtype.is_floating_point:
            raise TypeError(f"dtype must be a floating-point type, not {dtype}")
        return self._apply(
            lambda t: t.to(device, dtype if t.is_floating_point() else None, non_blocking))

    # What no lesson builds is torch's, written in terms of what stands above.
    buffers, named_buffers = torch.nn.Module.buffers, torch.nn.Module.named_buffers
    modules, apply, requires_grad_ = (
        torch.nn.Module.modules, torch.nn.Module.apply, torch.nn.Module.requires_grad_)
    cpu, cuda, half = torch.nn.Module.cpu, torch.nn.Module.cuda, torch.nn.Module.half
    float, double, bfloat16 = (
        torch.nn.Module.float, torch.nn.Module.double, torch.nn.Module.bfloat16)

    def _own_state(self) -> dict[str, Tensor]:
        "The parameters and persistent buffers of this module alone."
        kept = {name: b for name, b in self._buffers.items() if self._persistent[name]}
        return {**self._parameters, **kept}

    def state_dict(self, *, destination: dict | None = None, prefix: str = "",
                   keep_vars: bool = False) -> dict[str, Tensor]:
        "Every parameter and persistent buffer by its dotted name: the memory itself, not a copy."
        state = {} if destination is None else destination
        for name, t in self._own_state().items():
            state[prefix + name] = t if keep_vars else t.detach()
        for name, child in self._modules.items():
            child.state_dict(destination=state, prefix=f"{prefix}{name}.", keep_vars=keep_vars)
        return state

    def load_state_dict(self, state_dict: Mapping[str, Tensor],
                        strict: bool = True) -> tuple[list[str], list[str]]:
        "Copies `state_dict` into this module; raises if a shape, or with `strict` a key, is wrong."
        if not isinstance(state_dict, Mapping):
            raise TypeError(f"state_dict must be a mapping, not a {type(state_dict).__name__}")
        own = self.state_dict()
        missing, unexpected, wrong = _compare(own, state_dict)
        if wrong or strict and (missing or unexpected):
            keys = f"missing keys {missing}, unexpected keys {unexpected}, " if strict else ""
            raise RuntimeError(f"state_dict does not fit {type(self).__name__}: {keys}"
                               f"wrong shapes {wrong}")
        for key in own.keys() & state_dict.keys(): own[key].copy_(state_dict[key])
        return _Loaded(missing, unexpected)

    def _load_from_state_dict(self, state_dict: Mapping[str, Tensor], prefix: str, metadata: dict,
                              strict: bool, missing: list, unexpected: list, errors: list) -> None:
        "Loads this module without those below it, as a module of torch's above it asks."
        own = {prefix + name: t.detach() for name, t in self._own_state().items()}
        given = {key: t for key, t in state_dict.items() if key.startswith(prefix)
                 and key[len(prefix):].split(".")[0] not in self._modules}
        for found, more in zip((missing, unexpected, errors), _compare(own, given)): found += more
        for key in own.keys() & given.keys():
            if own[key].shape == given[key].shape: own[key].copy_(given[key])

    def extra_repr(self) -> str:
        "What stands in brackets when the module is printed: the settings among its attributes."
        plain = (bool, int, float, str, tuple)
        return ", ".join(f"{name}={value}" for name, value in vars(self).items()
                         if isinstance(value, plain) and value is not False and name != "training")

    def __repr__(self) -> str:
        children = [f"({name}): {child!r}" for name, child in self._modules.items()]
        if not children: return f"{type(self).__name__}({self.extra_repr()})"
        lines = "\n".join([self.extra_repr(), *children]).strip()
        return f"{type(self).__name__}(\n{indent(lines, '  ')}\n)"

def _draw(layer: Module) -> None:
    "Draws weight and bias anew, evenly within 1/sqrt(inputs of one output) of zero."
    init.kaiming_uniform_(layer.weight, a=math.sqrt(5))
    fan_in = math.prod(layer.weight.shape[1:])
    bound = 1/math.sqrt(fan_in) if fan_in else 0
    if layer.bias is not None: init.uniform_(layer.bias, -bound, bound)

class Linear(Module):
    """The layer `input @ weight.T + bias`, starting from the random weights of torch's.

    Shapes: `input` (..., in_features); returns (..., out_features); `weight` (out_features,
    in_features), `bias` (out_features,).
    Source: He et al., Delving Deep into Rectifiers (2015), section 2.2, with a = sqrt(5).
    """
    def __init__(self, in_features: int, out_features: int, bias: bool = True):
        self.in_features, self.out_features = in_features, out_features
        self.weight = Parameter(torch.empty(out_features, in_features))
        self.bias = Parameter(torch.empty(out_features)) if bias else None
        self.reset_parameters()

    reset_parameters = _draw

    def forward(self, input: Tensor) -> Tensor:
        "`input @ weight.T + bias`."
        return functional.linear(input, self.weight, self.bias)

    def extra_repr(self) -> str:
        "The settings, and whether there is a bias."
        return f"{super().extra_repr()}, bias={self.bias is not None}"

class ReLU(Module):
    """`max(input, 0)`, element by element; in the memory of `input` if `inplace`. Shapes: any."""
    def __init__(self, inplace: bool = False): self.inplace = inplace

    def forward(self, input: Tensor) -> Tensor:
        "`input` with its negative entries set to zero."
        return functional.relu(input, self.inplace)

class ModuleList(Module):
    """A list of modules, which the module that holds it finds; it computes nothing itself."""
    def __init__(self, modules: Iterable[Module] = ()): self.extend(modules)

    def append(self, module: Module) -> "ModuleList":
        "This list with `module` at its end."
        free = (str(i) for i in count(len(self)) if str(i) not in self._modules)
        self.add_module(next(free), module)
        return self

    def extend(self, modules: Iterable[Module]) -> "ModuleList":
        "This list with all of `modules` at its end."
        for module in modules: self.append(module)
        return self

    def __len__(self) -> int: return len(self._modules)
    def __iter__(self) -> Iterator[Module]: return iter(self._modules.values())

    def __getitem__(self, index: int | slice) -> Module:
        if not isinstance(index, slice): return list(self)[index]
        part = type(self).__new__(type(self))
        vars(part).update(list(self._modules.items())[index])
        return part

    def __setitem__(self, index: int, module: Module) -> None:
        setattr(self, list(self._modules)[index], module)

class Sequential(ModuleList):
    """Modules that run one after the other, each on what the one before it returned.

    Shapes: takes what the first takes; returns what the last returns.
    """
    def __init__(self, *modules: Module | dict[str, Module]):
        one_dict = len(modules) == 1 and isinstance(modules[0], dict)
        for name, module in modules[0].items() if one_dict else enumerate(modules):
            self.add_module(str(name), module)

    def forward(self, input: Any) -> Any:
        "`input` after every module in turn."
        for module in self: input = module(input)
        return input

class Lambda(Module):
    """Any function as a module. Shapes: those of `func`."""
    def __init__(self, func: Callable): self.func = func

    def forward(self, *input: Any) -> Any:
        "`func(*input)`."
        return self.func(*input)

class Flatten(Module):
    """`input` with the dimensions from `start_dim` to `end_dim` made one.

    Shapes: as it is by default, (n, a, b, ...); returns (n, a*b*...).
    """
    def __init__(self, start_dim: int = 1, end_dim: int = -1):
        self.start_dim, self.end_dim = start_dim, end_dim

    def forward(self, input: Tensor) -> Tensor:
        "The flattened tensor."
        return input.flatten(self.start_dim, self.end_dim)

class MSELoss(Module):
    """The mean squared error, with its setting. Shapes: those of `mse_loss`."""
    def __init__(self, reduction: str = "mean"): self.reduction = reduction

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        "The loss."
        return functional.mse_loss(input, target, self.reduction)

class CrossEntropyLoss(Module):
    """The cross-entropy of scores, with its settings; `weight` is a buffer.

    Shapes: those of `cross_entropy`.
    """
    def __init__(self, weight: Tensor | None = None, *, ignore_index: int = -100,
                 reduction: str = "mean", label_smoothing: float = 0.0):
        self.register_buffer("weight", weight)
        self.ignore_index, self.reduction = ignore_index, reduction
        self.label_smoothing = label_smoothing

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        "The loss."
        return functional.cross_entropy(input, target, self.weight, self.ignore_index,
                                        self.reduction, self.label_smoothing)


# Lesson 14

class Conv2d(Module):
    """`out_channels` kernels slid over an image, starting from torch's random weights.

    Shapes: `input` (n, in_channels, h, w) or without n; returns (n, out_channels, oh, ow), see
    `conv2d`; `weight` (out_channels, in_channels/groups, kh, kw), `bias` (out_channels,).
    Raises `ValueError` when a size does not fit.
    Source: LeCun et al., Gradient-Based Learning Applied to Document Recognition (1998), II.
    """
    def __init__(self, in_channels: int, out_channels: int, kernel_size: Size2, stride: Size2 = 1,
                 padding: Size2 = 0, *, groups: int = 1, bias: bool = True):
        if in_channels % groups:
            raise ValueError(f"in_channels {in_channels} must be a multiple of groups {groups}")
        self.in_channels, self.out_channels, self.groups = in_channels, out_channels, groups
        self.kernel_size, self.stride = size2(kernel_size, "kernel_size"), size2(stride, "stride")
        self.padding = size2(padding, "padding", 0)
        self.weight = Parameter(torch.empty(out_channels, in_channels//groups, *self.kernel_size))
        self.bias = Parameter(torch.empty(out_channels)) if bias else None
        self.reset_parameters()

    reset_parameters = _draw

    def forward(self, input: Tensor) -> Tensor:
        "The feature maps of `input`."
        return functional.conv2d(input, self.weight, self.bias, self.stride, self.padding,
                                 groups=self.groups)

class AvgPool2d(Module):
    """The mean of each window. Shapes: those of `avg_pool2d`."""
    def __init__(self, kernel_size: Size2, stride: Size2 | None = None, padding: Size2 = 0,
                 *, ceil_mode: bool = False):
        self.kernel_size, self.stride = kernel_size, kernel_size if stride is None else stride
        self.padding, self.ceil_mode = padding, ceil_mode

    def forward(self, input: Tensor) -> Tensor:
        "`input`, averaged window by window."
        return functional.avg_pool2d(input, self.kernel_size, self.stride, self.padding,
                                     ceil_mode=self.ceil_mode)

class MaxPool2d(AvgPool2d):
    """The largest value of each window. Shapes: those of `max_pool2d`."""
    def forward(self, input: Tensor) -> Tensor:
        "The largest value of each window of `input`."
        return functional.max_pool2d(input, self.kernel_size, self.stride, self.padding,
                                     ceil_mode=self.ceil_mode)

class AdaptiveAvgPool2d(Module):
    """The mean over a grid of `output_size` cells. Shapes: those of `adaptive_avg_pool2d`."""
    def __init__(self, output_size: Size2): self.output_size = output_size

    def forward(self, input: Tensor) -> Tensor:
        "`input`, averaged cell by cell."
        return functional.adaptive_avg_pool2d(input, self.output_size)


# Lesson 15

class Dropout(Module):
    """Sets each number to 0 with probability `p` while training; in eval mode it changes nothing.

    Shapes: any; returns the same, in the memory of `input` if `inplace`.
    Source: Srivastava et al., Dropout: A Simple Way to Prevent Overfitting (2014).
    """
    def __init__(self, p: float = 0.5, inplace: bool = False): self.p, self.inplace = p, inplace

    def forward(self, input: Tensor) -> Tensor:
        "`input` with some numbers dropped, in training mode."
        return functional.dropout(input, self.p, self.training, self.inplace)

class BatchNorm2d(Module):
    """Each channel with mean 0 and deviation 1 over the batch, then scaled and shifted.

    Shapes: `input` (n, num_features, h, w); returns the same; `weight`, `bias` and the running
    statistics (num_features,). `momentum` None weighs all batches alike.
    Raises `ValueError` when `input` has another shape.
    Source: Ioffe and Szegedy, Batch Normalization (2015), algorithms 1 and 2.
    """
    def __init__(self, num_features: int, eps: float = 1e-5, momentum: float | None = 0.1):
        self.num_features, self.eps, self.momentum = num_features, eps, momentum
        self.weight = Parameter(torch.ones(num_features))
        self.bias = Parameter(torch.zeros(num_features))
        self.register_buffer("running_mean", torch.zeros(num_features))
        self.register_buffer("running_var", torch.ones(num_features))
        self.register_buffer("num_batches_tracked", torch.tensor(0))

    def forward(self, input: Tensor) -> Tensor:
        "`input`, normalized by the batch in training mode, else by the running statistics."
        if input.ndim != 4 or input.shape[1] != self.num_features:
            raise ValueError(f"input must be (n, {self.num_features}, height, width), "
                             f"but has shape {tuple(input.shape)}")
        if self.training: self.num_batches_tracked.add_(1)
        share = self.momentum
        if share is None: share = 1/self.num_batches_tracked.to(self.running_mean.dtype)
        return functional.batch_norm(input, self.running_mean, self.running_var, self.weight,
                                     self.bias, self.training, share, self.eps)
