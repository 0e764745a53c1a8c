"What several test files share: the same call on ours and on torch's, values, gradients and all."
import inspect

import torch
from torch.testing import assert_close
from torch.testing._internal.common_methods_invocations import op_db
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


def is_tensor(x) -> bool: return isinstance(x, torch.Tensor)

def is_real(x) -> bool: return is_tensor(x) and x.is_floating_point()

def value_and_grads(f, *args, **kwargs):
    "The result of `f` on copies, the gradient of every tensor that wants one, and the copies afterwards."
    copy = lambda x: x.detach().clone(memory_format=torch.preserve_format).requires_grad_(x.requires_grad) if is_tensor(x) else x
    args, kwargs = [copy(x) for x in args], {k: copy(x) for k, x in kwargs.items()}
    tensors = [x for x in (*args, *kwargs.values()) if is_tensor(x)]
    out = f(*args, **kwargs)
    leaves = [x for x in tensors if x.requires_grad]
    grads = ()
    if out.requires_grad:
        upstream = torch.arange(out.numel(), device=out.device).remainder(5).sub(1).reshape(out.shape).to(out.dtype)
        grads = torch.autograd.grad(out, leaves, upstream, allow_unused=True)
    return [out.detach(), *grads, *(x.detach() for x in tensors)]


def assert_same(ours, theirs, *args, **kwargs):
    "The two give the same values, dtypes and gradients, and change the same arguments in the same way."
    for got, want in zip(value_and_grads(ours, *args, **kwargs), value_and_grads(theirs, *args, **kwargs), strict=True):
        assert (got is None) == (want is None)
        if got is None: continue
        size = max(1, want.abs().nan_to_num(0, 0, 0).max().item()) if want.numel() and want.dtype == torch.float32 else 0
        assert_close(got, want, equal_nan=True, **(dict(rtol=1.3e-6, atol=1e-5*size) if size else {}))  # a sum rounds by the size of its terms


def samples(name: str, dtype: torch.dtype):
    "PyTorch's own samples of the operation `name` as (torch's function, arguments, keywords)."
    found = [op for op in op_db if op.name == name]
    assert found, name
    for op in found:
        for s in op.sample_inputs("cpu", dtype, requires_grad=True): yield op.op, (s.input, *s.args), dict(s.kwargs)


def as_dtype(x, dtype):
    "`x` with every floating-point tensor in it as `dtype`."
    return x.detach().to(dtype).requires_grad_(x.requires_grad) if is_real(x) else x


def reads_nothing_back(f) -> None:
    "Runs `f(device)` forward and backward on the device `meta`, which has no values to read."
    f("meta").sum().backward()
def seeded(seed: int = 0) -> torch.Generator:
    "A generator that starts from `seed`."
    return torch.Generator().manual_seed(seed)


def assert_alike(ours, theirs):
    "Equal in values, types, dtypes and structure."
    assert type(ours) is type(theirs), (type(ours), type(theirs))
    if isinstance(ours, torch.Tensor): assert_close(ours, theirs, rtol=0, atol=0, equal_nan=True)
    elif isinstance(ours, dict):
        assert list(ours) == list(theirs)
        for key in ours: assert_alike(ours[key], theirs[key])
    elif isinstance(ours, (list, tuple)):
        assert len(ours) == len(theirs)
        for a, b in zip(ours, theirs): assert_alike(a, b)
    else: assert ours == theirs


def defaults(f) -> dict:
    "The arguments of a function that have defaults; those of torch that are not written in Python show none, and its global generator is None."
    try: found = {name: p.default for name, p in inspect.signature(f).parameters.items() if p.default is not p.empty}
    except (ValueError, TypeError): return {}
    return {name: None if value is torch.default_generator else value for name, value in found.items()}


def assert_same_defaults(ours, theirs):
    "The arguments that both have have the same defaults."
    mine, torchs = defaults(ours), defaults(theirs)
    both = mine.keys() & torchs.keys()
    assert {name: mine[name] for name in both} == {name: torchs[name] for name in both}, ours


def assert_hands_on(ours, theirs, name: str):
    "A module of ours gives torch's object for a name that it has not built, lists its own names only, and has torch's defaults."
    for own in ours.__all__:
        if hasattr(theirs, own): assert_same_defaults(getattr(ours, own), getattr(theirs, own))
    assert name not in dir(ours) and getattr(ours, name) is getattr(theirs, name)
    assert sorted(dir(ours)) == sorted(ours.__all__)
    for missing in ("NoSuchName", "_private", next(name for name in dir(theirs) if name[0] == "_" != name[1] and name not in vars(ours))):
        try: getattr(ours, missing)
        except AttributeError as error: assert ours.__name__ in str(error) and missing in str(error)
        else: raise AssertionError(missing)


class Crossings(TorchDispatchMode):
    "Counts the operations that touch numbers on two devices: for most of them the host waits."
    count = 0
    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        tensors = [t for t in tree_leaves((args, kwargs, result)) if isinstance(t, torch.Tensor) and t.numel()]
        self.count += len({t.device for t in tensors}) > 1
        return result
