"""The rules that turn gradients into better weights: SGD with momentum, RMSprop, Adam and AdamW."""
import math
from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

from . import lr_scheduler

__all__ = ["Optimizer", "SGD", "RMSprop", "Adam", "AdamW", "lr_scheduler", "missing_parameters"]


def _check(group: dict[str, Any]) -> None:
    "Refuses settings for which an update makes no sense, and torch's settings that are not built."
    for name in ("lr", "momentum", "weight_decay", "alpha", "eps"):
        if not group.get(name, 0) >= 0: raise ValueError(f"Invalid {name} value: {group[name]} < 0")
    for i, beta in enumerate(group.get("betas", ())):
        if not 0 <= beta < 1: raise ValueError(f"Invalid beta parameter at index {i}: {beta}")
    if group.get("nesterov") and not group["momentum"] > 0 == group["dampening"]:
        raise ValueError("Nesterov momentum requires a momentum and zero dampening")
    for name in ("amsgrad", "centered", "maximize"):
        if group.get(name): raise ValueError(f"{name} is not built here: torch.optim has it")

def _is_plain(grad: Tensor) -> bool: return grad.layout == torch.strided and not grad.is_complex()

class Optimizer(torch.optim.Optimizer):
    """Base of every optimizer: groups of parameters with settings, and a state for each parameter.

    Torch's class lends its name only, because torch's schedules and trainers ask for it.
    Shapes: parameters of any shape; each state tensor has the shape of its parameter.
    Raises `TypeError` for what is not a tensor; `ValueError` for an empty list, a tensor that is no
    leaf or comes twice, a setting out of range, a gradient that the rule cannot take.
    """
    linear = False           # a rule that only adds gradients is right for complex and sparse ones

    def __init__(self, params: Iterable[Tensor] | Iterable[dict[str, Any]],
                 defaults: dict[str, Any]) -> None:
        if isinstance(params, (Tensor, set)):
            raise TypeError("params argument given to the optimizer should be an iterable of "
                            f"Tensors or dicts, in order, not a {type(params).__name__}")
        self.defaults, self.state, self.param_groups = defaults, defaultdict(dict), []
        groups = list(params)
        if not groups: raise ValueError("optimizer got an empty parameter list")
        if not isinstance(groups[0], dict): groups = [{"params": groups}]
        for group in groups: self.add_param_group(group)

    def __setstate__(self, state: dict[str, Any]) -> None: vars(self).update(state)

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        "Adds parameters with settings of their own; what `param_group` leaves out has the default."
        params = param_group["params"]
        params = [params] if isinstance(params, Tensor) else list(params)
        for p in params:
            if not isinstance(p, Tensor):
                raise TypeError(f"optimizer can only optimize Tensors, not a {type(p).__name__}")
            if not (p.is_leaf or p.retains_grad):
                raise ValueError(f"can't optimize a non-leaf Tensor (of shape {tuple(p.shape)})")
        held = [p for group in self.param_groups for p in group["params"]] + params
        if len(set(held)) < len(held):
            raise ValueError("some parameters appear in more than one parameter group, or twice "
                             "in one: each step would update them twice")
        group = {**self.defaults, **param_group, "params": params}
        _check(group)
        self.param_groups.append(group)

    @torch.no_grad()
    def step(self, closure: Callable[[], Tensor] | None = None) -> Tensor | None:
        "Updates every parameter that has a gradient; returns what `closure` returns."
        loss = None
        if closure is not None:
            with torch.enable_grad(): loss = closure()
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is None: continue
                grad, state = p.grad, self.state[p]
                if not (state or self.linear or _is_plain(grad)):
                    raise ValueError(f"{type(self).__name__} takes real and dense gradients, not a "
                                     f"{grad.layout} one of {grad.dtype}")
                if group.get("weight_decay"): grad = self.decay(p, group)
                self.update(p, grad, state, group)
        return loss

    def decay(self, p: Tensor, group: dict[str, Any]) -> Tensor:
        "The gradient of the loss plus `weight_decay/2` times the squared parameters."
        return p.grad.add(p, alpha=group["weight_decay"])

    def update(self, p: Tensor, grad: Tensor, state: dict[str, Any], group: dict[str, Any]) -> None:
        "Changes the parameter `p` in place; every optimizer writes its own."
        raise NotImplementedError(f"{type(self).__name__} has no update method: define one")

    def zero_grad(self, set_to_none: bool = True) -> None:
        "Drops every gradient, or fills it with zeros."
        for group in self.param_groups:
            for p in group["params"]:
                if set_to_none: p.grad = None
                elif p.grad is not None: p.grad = p.grad.detach().zero_()

    def state_dict(self) -> dict[str, Any]:
        "The state and the settings, with a number in place of each parameter: torch's format."
        params = [p for group in self.param_groups for p in group["params"]]
        number = {p: i for i, p in enumerate(params)}
        groups = [{**group, "params": [number[p] for p in group["params"]]}
                  for group in self.param_groups]
        return {"state": {number[p]: state for p, state in self.state.items() if state},
                "param_groups": groups}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Takes over a copy of the state and the settings of such an optimizer, fdl's or torch's.

        Raises `ValueError`, with nothing changed, for groups of other sizes, the state of another
        kind of optimizer, or tensors that do not fit the parameters.
        """
        saved, params, loaded = state_dict["param_groups"], {}, defaultdict(dict)
        sizes, wanted = ([len(g["params"]) for g in each] for each in (saved, self.param_groups))
        if sizes != wanted:
            raise ValueError(f"loaded parameter groups of sizes {sizes}, wanted sizes {wanted}")
        for old, group in zip(saved, self.param_groups):
            _check(old)
            rules = {each.get("decoupled_weight_decay") for each in (old, self.defaults)}
            if self.defaults.keys() - old.keys() or len(rules) > 1:
                raise ValueError(f"loaded state is not that of {type(self).__name__}: {old}")
            params.update(zip(old["params"], group["params"]))
        for number, state in state_dict["state"].items():
            p = params[number]
            for name, value in state.items():
                if name == "step": loaded[p][name] = int(value)
                elif value is not None and value.shape == p.shape:
                    loaded[p][name] = value.to(p, copy=True)
                elif value is not None:
                    raise ValueError(f"loaded {name} is {tuple(value.shape)}, not {tuple(p.shape)}")
        self.state = loaded
        for old, group in zip(saved, self.param_groups):
            group.update({**old, "params": group["params"]})

class SGD(Optimizer):
    """Gradient descent with momentum, Nesterov's or the plain one, and weight decay.

    Source: Polyak, Some Methods of Speeding up the Convergence of Iteration Methods (1964);
    Sutskever et al., On the Importance of Initialization and Momentum (2013), section 2.
    """
    linear = True

    def __init__(self, params: Iterable, lr: float = 1e-3, momentum: float = 0,
                 dampening: float = 0, weight_decay: float = 0, nesterov: bool = False) -> None:
        super().__init__(params, dict(lr=lr, momentum=momentum, dampening=dampening,
                                      weight_decay=weight_decay, nesterov=nesterov))

    def update(self, p: Tensor, grad: Tensor, state: dict[str, Any], group: dict[str, Any]) -> None:
        "Moves against the gradient, or against its running sum."
        if momentum := group["momentum"]:
            buf, rest = state.get("momentum_buffer"), 1 - group["dampening"]
            if buf is None: buf = state["momentum_buffer"] = grad.clone()
            else: torch.add(grad*rest if rest != 1 else grad, buf, alpha=momentum, out=buf)
            grad = grad.add(buf, alpha=momentum) if group["nesterov"] else buf
        p.add_(grad, alpha=-group["lr"])

class RMSprop(Optimizer):
    """Gradient descent with each gradient divided by its recent root mean square.

    Source: Tieleman and Hinton, Neural Networks for Machine Learning, lecture 6.5 (2012).
    """
    def __init__(self, params: Iterable, lr: float = 1e-2, alpha: float = 0.99, eps: float = 1e-8,
                 weight_decay: float = 0, momentum: float = 0) -> None:
        super().__init__(params, dict(lr=lr, alpha=alpha, eps=eps, weight_decay=weight_decay,
                                      momentum=momentum))

    def update(self, p: Tensor, grad: Tensor, state: dict[str, Any], group: dict[str, Any]) -> None:
        "Moves against the gradient divided by its recent size."
        alpha, momentum = group["alpha"], group["momentum"]
        if not state: state.update(step=0, square_avg=torch.zeros_like(p))
        state["step"] += 1
        square_avg = state["square_avg"].mul_(alpha).addcmul_(grad, grad, value=1 - alpha)
        size = square_avg.sqrt().add_(group["eps"])
        if momentum:
            buf = state.setdefault("momentum_buffer", torch.zeros_like(p))
            p.add_(buf.mul_(momentum).addcdiv_(grad, size), alpha=-group["lr"])
        else: p.addcdiv_(grad, size, value=-group["lr"])

class Adam(Optimizer):
    """Gradient descent with running means of the gradient and of its square, both corrected for
    their start at zero; `amsgrad` is not built.

    Source: Kingma and Ba, Adam: A Method for Stochastic Optimization (2015), algorithm 1.
    """
    decoupled = False        # whether weight decay acts on the parameters directly: torch's setting

    def __init__(self, params: Iterable, lr: float = 1e-3,
                 betas: tuple[float, float] = (0.9, 0.999), eps: float = 1e-8,
                 weight_decay: float = 0, amsgrad: bool = False) -> None:
        super().__init__(params, dict(lr=lr, betas=betas, eps=eps, weight_decay=weight_decay,
                                      amsgrad=amsgrad, decoupled_weight_decay=self.decoupled))

    def update(self, p: Tensor, grad: Tensor, state: dict[str, Any], group: dict[str, Any]) -> None:
        "Moves against the mean gradient divided by its recent size."
        lr, (beta1, beta2) = group["lr"], group["betas"]
        if not state:
            state.update(step=0, exp_avg=torch.zeros_like(p), exp_avg_sq=torch.zeros_like(p))
        state["step"] += 1
        mean = state["exp_avg"].lerp_(grad, 1 - beta1)
        square = state["exp_avg_sq"].mul_(beta2).addcmul_(grad, grad, value=1 - beta2)
        correction1, correction2 = 1 - beta1**state["step"], math.sqrt(1 - beta2**state["step"])
        size = square.sqrt().add_(group["eps"]*correction2)
        p.addcdiv_(mean, size, value=-lr*correction2/correction1)

class AdamW(Adam):
    """Adam whose weight decay acts on the parameters directly, not through the gradient.

    Source: Loshchilov and Hutter, Decoupled Weight Decay Regularization (2019), algorithm 2.
    """
    decoupled = True

    def __init__(self, params: Iterable, lr: float = 1e-3,
                 betas: tuple[float, float] = (0.9, 0.999), eps: float = 1e-8,
                 weight_decay: float = 1e-2, amsgrad: bool = False) -> None:
        super().__init__(params, lr, betas, eps, weight_decay, amsgrad)

    def decay(self, p: Tensor, group: dict[str, Any]) -> Tensor:
        "The gradient as it is, after the parameter has been shrunk."
        p.mul_(1 - group["lr"]*group["weight_decay"])
        return p.grad

def missing_parameters(optimizer: Any, model: Any) -> list[str]:
    "Names of the parameters of `model` that require gradients and that `optimizer` does not hold."
    held = {p for group in optimizer.param_groups for p in group["params"]}
    return [name for name, p in model.named_parameters() if p.requires_grad and p not in held]

def __getattr__(name: str) -> Any:
    "What is not built here is torch's: `fdl.optim.Adadelta` is `torch.optim.Adadelta`."
    for module in (lr_scheduler, torch.optim):               # old callers look for schedules here
        if name[0] != "_" and hasattr(module, name): return getattr(module, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

def __dir__() -> list[str]: return __all__
