"fdl.nn beside torch.nn: the same programs on both, and weights, optimizers and layers that cross over, either one holding the other."
import copy
import inspect
import io
import pickle
from collections import OrderedDict

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import torch.nn.utils.prune
from helpers import reads_nothing_back
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.testing import assert_close
from torch.testing._internal.common_modules import module_db

import fdl.nn as nn

BOTH = (nn, torch.nn)


def exactly(a, b): assert_close(a, b, rtol=0, atol=0)


def mlp(lib, seed=0):
    torch.manual_seed(seed)
    return lib.Sequential(lib.Flatten(), lib.Linear(12, 8), lib.ReLU(), lib.Sequential(lib.Linear(8, 8), lib.ReLU()), lib.Linear(8, 5, bias=False))


class Nested(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = mlp(nn)
        self.layers = nn.ModuleList([nn.Linear(2, 2), torch.nn.BatchNorm1d(2)])
        self.tied, self.also_tied = self.layers[0].weight, self.layers[0]
        self.register_buffer("counter", torch.tensor(3))
        self.register_buffer("scratch", torch.zeros(2), persistent=False)

    def forward(self, x): return self.layers[0](x) @ self.tied


def through_pickle(model): return pickle.loads(pickle.dumps(model))

def through_a_file(model):
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    return torch.load(file, weights_only=False)

COPIES = [copy.copy, copy.deepcopy, through_pickle, through_a_file]


# Assignments

NAMES = ["a", "b", "c"]
VALUES = {"parameter": lambda lib: lib.Parameter(torch.ones(1)), "none": lambda lib: None, "module": lambda lib: lib.ReLU(), "number": lambda lib: 3}


def act(lib, steps):
    "What is registered after each step; and whether the step was refused."
    module, log = lib.Module(), []
    for action, name, value in steps:
        try:
            if action == "set": setattr(module, name, VALUES[value](lib))
            elif action == "del": delattr(module, name)
            elif action == "buffer": module.register_buffer(name, torch.zeros(1), persistent=value == "none")
            else: module.add_module(name, lib.ReLU())
            refused = False
        except (TypeError, KeyError, AttributeError): refused = True
        if refused: return log
        log.append([sorted(n for n, _ in getattr(module, f"named_{kind}")()) for kind in ("parameters", "children", "buffers")]
                   + [sorted(module.state_dict()), [hasattr(module, n) for n in NAMES]])
    return log


@settings(max_examples=200)
@given(st.lists(st.tuples(st.sampled_from(["set", "del", "buffer", "add_module"]), st.sampled_from(NAMES), st.sampled_from(sorted(VALUES))), max_size=10))
def test_any_assignments(steps):
    "The same parameters, modules and buffers, as long as neither refuses a step."
    mine, theirs = (act(lib, steps) for lib in BOTH)
    for a, b in zip(mine, theirs): assert a == b


def test_a_plain_tensor_never_replaces_a_parameter():
    layer = nn.Linear(1, 1)
    for value in (torch.ones(1), 3, nn.ReLU()):
        with pytest.raises(TypeError, match=f"Linear.weight must be a Parameter or None, not a {type(value).__name__}"): layer.weight = value
    layer.weight = None
    assert [n for n, _ in layer.named_parameters()] == ["bias"]


def test_only_a_module_replaces_a_module():
    for layer in (nn.ReLU(), torch.nn.ReLU()):
        model = nn.Module()
        model.act = layer
        for value in (torch.relu, nn.ReLU, torch.ones(1)):
            with pytest.raises(TypeError, match=f"Module.act must be a Module or None, not a {type(value).__name__}"): model.act = value
        assert model.act is layer
        model.act = nn.Linear(1, 1)
        model.act = None
        assert not list(model.children())


@pytest.mark.parametrize("method, value", [("add_module", torch.relu), ("add_module", nn.ReLU), ("add_module", torch.ones(1)), ("register_parameter", torch.ones(1)),
                                           ("register_parameter", nn.ReLU()), ("register_buffer", [1.]), ("register_buffer", nn.ReLU())])
def test_refused_kinds(method, value):
    model = nn.Module()
    with pytest.raises(TypeError, match=f"'a' cannot be a {type(value).__name__}: use Lambda / Parameter"): getattr(model, method)("a", value)
    assert not hasattr(model, "a")


def test_an_empty_place_may_be_registered():
    model = nn.Module()
    model.register_parameter("bias", None)
    model.register_buffer("mean", None)
    model.add_module("downsample", None)
    assert model.downsample is model.bias is None and model.mean is None and not model.state_dict()


def test_load_by_assignment():
    with torch.device("meta"): model = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm2d(3))
    saved = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm2d(3)).state_dict()
    model.load_state_dict(saved, assign=True)
    assert not any(t.is_meta for t in model.state_dict().values()) and isinstance(model[0].weight, nn.Parameter) and model[0].weight.requires_grad
    assert all(t.data_ptr() == saved[name].data_ptr() for name, t in model.state_dict().items())


@pytest.mark.parametrize("name", ["", "a.b", "forward", "training"])
@pytest.mark.parametrize("method, value", [("register_parameter", nn.Parameter(torch.ones(1))), ("register_buffer", torch.ones(1)), ("add_module", nn.ReLU())])
def test_refused_names(name, method, value):
    with pytest.raises(KeyError, match=name): getattr(nn.Module(), method)(name, value)


def test_errors_name_class_and_attribute():
    with pytest.raises(AttributeError, match="'Linear' object has no attribute 'wieght'"): nn.Linear(1, 1).wieght
    with pytest.raises(NotImplementedError, match="Nothing"): type("Nothing", (nn.Module,), {})()(1)
    with pytest.raises(NotImplementedError): nn.ModuleList()(1)
    with pytest.raises(TypeError, match="groups|argument"): nn.Linear(1, 1, groups=2)
    with pytest.raises(ValueError, match=r"in_channels/2.*not \(1, 3, 8, 8\) and \(4, 1, 3, 3\)"): nn.Conv2d(3, 4, 3, groups=2)(torch.ones(1, 3, 8, 8))
    with pytest.raises(ValueError, match="kernel_size must be an int of at least 1"): nn.Conv2d(3, 4, 0)(torch.ones(1, 3, 8, 8))
    with pytest.raises(ValueError, match=r"input must be \(n, 4, height, width\), but has shape \(2, 3, 5, 5\)"): nn.BatchNorm2d(4)(torch.ones(2, 3, 5, 5))
    with pytest.raises(ValueError, match=r"has shape \(2, 4, 5\)"): nn.BatchNorm2d(4)(torch.ones(2, 4, 5))
    with pytest.raises(TypeError, match="mapping"): nn.Linear(1, 1).load_state_dict("model.pt")


def test_what_is_not_built_is_torchs():
    from fdl.nn import BatchNorm1d, Tanh
    assert Tanh is torch.nn.Tanh and BatchNorm1d is torch.nn.BatchNorm1d and nn.utils is torch.nn.utils and "Tanh" not in dir(nn)
    assert nn.functional.__name__ == "fdl.functional" and nn.init.kaiming_uniform_ and nn.Parameter is torch.nn.Parameter
    with pytest.raises(AttributeError, match="module 'fdl.nn' has no attribute 'Tahn'"): nn.Tahn
    assert hasattr(torch.nn, "_reduction") and not hasattr(nn, "_reduction")
    model = nn.Sequential(nn.Embedding(5, 4), nn.Linear(4, 3), nn.Tanh())
    assert model(torch.arange(5)).shape == (5, 3) and len(list(model.parameters())) == 3


# Trees

def grow(lib, plan):
    "A module built from `plan`: each step adds something to one of the modules made so far, and may use one of the others again."
    made, tensors = [lib.Module()], []
    for what, at, which, name in plan:
        at, name = made[at % len(made)], f"n{name}"
        held = getattr(at, name, None)
        if what in ("linear", "module") and not isinstance(held, torch.Tensor):
            made.append(lib.Linear(which % 3 + 1, 2, bias=which % 2 == 0) if what == "linear" else lib.Module())
            setattr(at, name, made[-1])
        elif what == "parameter":
            tensors.append(lib.Parameter(torch.ones(which % 3 + 1)))
            setattr(at, name, tensors[-1])
        elif what == "buffer" and held is None: at.register_buffer(name, torch.ones(which % 3 + 1), persistent=which % 2 == 0)
        elif what == "share tensor" and tensors and held is None: setattr(at, name, tensors[which % len(tensors)])
        elif what == "share module" and held is None and at not in (shared := made[which % len(made)]).modules(): setattr(at, name, shared)
    return made[0]


KINDS = ["linear", "module", "parameter", "buffer", "share tensor", "share module"]
PLANS = st.lists(st.tuples(st.sampled_from(KINDS), st.integers(0, 9), st.integers(0, 9), st.integers(0, 9)), max_size=14)


@settings(max_examples=150)
@given(PLANS, st.booleans(), st.booleans(), st.sampled_from(["", "top"]))
def test_any_tree(plan, recurse, remove_duplicate, prefix):
    ours, theirs = (grow(lib, plan) for lib in BOTH)
    options = dict(prefix=prefix, remove_duplicate=remove_duplicate)
    def names(model, method, **options): return [n for n, _ in getattr(model, method)(**options)]
    assert names(ours, "named_modules", **options) == names(theirs, "named_modules", **options)
    assert names(ours, "named_parameters", recurse=recurse, **options) == names(theirs, "named_parameters", recurse=recurse, **options)
    assert sorted(names(ours, "named_buffers", recurse=recurse, **options)) == sorted(names(theirs, "named_buffers", recurse=recurse, **options))
    assert names(ours, "named_children") == names(theirs, "named_children")
    assert [p.shape for p in ours.parameters()] == [p.shape for p in theirs.parameters()] and len(list(ours.modules())) == len(list(theirs.modules()))
    assert {k: v.shape for k, v in ours.state_dict().items()} == {k: v.shape for k, v in theirs.state_dict().items()}
    orders = ([], [])
    for model, order in zip((ours, theirs), orders): model.apply(lambda m: order.append(len(list(m.parameters()))))
    assert orders[0] == orders[1]
    theirs.load_state_dict(ours.state_dict())
    assert ours.load_state_dict(theirs.state_dict()) == ([], [])
    holder = torch.nn.Module()
    holder.mine = ours
    assert names(holder, "named_parameters") == [f"mine.{n}" for n in names(ours, "named_parameters")]
    assert list(holder.state_dict()) == [f"mine.{n}" for n in ours.state_dict()]
    holder.load_state_dict(holder.state_dict())


def test_printouts():
    assert repr(mlp(nn)) == repr(mlp(torch.nn))
    class Net(nn.Module):
        def __init__(self): self.width, self.head = 7, nn.Linear(2, 1)
    assert repr(Net()) == "Net(\n  width=7\n  (head): Linear(in_features=2, out_features=1, bias=True)\n)"
    assert repr(nn.Flatten()) == repr(torch.nn.Flatten()) and repr(nn.Module()) == "Module()"
    assert repr(nn.MaxPool2d((2, 1))) == "MaxPool2d(kernel_size=(2, 1), stride=(2, 1), padding=0)"
    assert [repr(m) for m in (nn.Dropout(0.5), nn.ReLU(True), nn.MSELoss())] == ["Dropout(p=0.5)", "ReLU(inplace=True)", "MSELoss(reduction=mean)"]


def test_modes_reach_torch_children():
    model = Nested()
    model.eval()
    assert not any(m.training for m in model.modules()) and isinstance(list(model.modules())[-1], torch.nn.BatchNorm1d)
    model.requires_grad_(False)
    assert not any(p.requires_grad for p in model.parameters())
    model.train()
    assert all(m.training for m in model.modules())


def test_zero_grad():
    model = mlp(nn)
    model(torch.ones(1, 3, 4)).sum().backward()
    assert model[1].weight.grad.any()
    model[1].weight.grad = None
    model.zero_grad()
    assert all(p.grad is None for p in model.parameters())


# Layers

BUILT = ["Linear", "ReLU", "Flatten", "MSELoss", "CrossEntropyLoss", "Conv2d", "AvgPool2d", "MaxPool2d", "Dropout", "BatchNorm2d", "Sequential", "ModuleList"]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", [n for n in BUILT if any(m.name == f"nn.{n}" for m in module_db)])
def test_pytorchs_own_samples(name):
    info, = (m for m in module_db if m.name == f"nn.{name}")
    tried, known = 0, inspect.signature(getattr(nn, name)).parameters
    for training in (True, False):
        samples = info.module_inputs_func(info, device="cpu", dtype=torch.float64, requires_grad=True, training=training)
        for sample in samples[::8 if len(samples) > 100 else 1]:
            args, kwargs = sample.constructor_input.args, sample.constructor_input.kwargs
            pool = "Pool" in name and len(args) > 3 or isinstance(kwargs.get("padding"), str)
            if pool or kwargs.keys() - known.keys() or name == "Conv2d" and len(args) > 5 or name == "BatchNorm2d" and len(args) > 3: continue
            results = []
            for lib in BOTH:
                torch.manual_seed(0)
                module = getattr(lib, name)(*args, **kwargs).double().train(training)
                inputs = [a.detach().clone().requires_grad_(a.requires_grad) if isinstance(a, torch.Tensor) else a for a in sample.forward_input.args]
                out = module(*inputs, **sample.forward_input.kwargs)
                if out.requires_grad: out.sum().backward()
                grads = [t.grad for t in (*inputs, *module.parameters()) if isinstance(t, torch.Tensor) and t.requires_grad]
                results.append([out, *grads, dict(module.state_dict())])
            assert_close(*results, equal_nan=True)
            tried += 1
    assert tried >= (1 if name != "Conv2d" else 4), tried


@pytest.mark.parametrize("n", [0, 1, 2, 3, 7, 49, 784, 1001])
def test_layers_start_as_torchs(n):
    for make in (lambda lib: lib.Linear(n, 6), lambda lib: lib.Linear(n, 6, bias=False), lambda lib: lib.Conv2d(4, 6, (1, n or 1), groups=2),
                 lambda lib: lib.BatchNorm2d(n)):
        layers = []
        for lib in BOTH:
            torch.manual_seed(n)
            layers.append(make(lib))
        exactly(*(dict(layer.state_dict()) for layer in layers))
        if hasattr(layers[0], "reset_parameters"):
            torch.manual_seed(n)
            layers[0].reset_parameters()
            exactly(*(dict(layer.state_dict()) for layer in layers))


def test_layers_follow_the_default_dtype_and_device_and_numpys_numbers():
    torch.set_default_dtype(torch.float64)
    try: assert nn.Linear(2, 2).bias.dtype == torch.float64
    finally: torch.set_default_dtype(torch.float32)
    with torch.device("meta"): assert all(t.is_meta for layer in (nn.Conv2d(2, 2, 1), nn.BatchNorm2d(2)) for t in (*layer.parameters(), *layer.buffers()))
    layer = nn.Conv2d(1, np.int64(2), np.int64(3), np.int64(2), np.int64(1))
    assert layer.kernel_size == (3, 3) and layer(torch.ones(1, 1, 8, 8)).shape == (1, 2, 4, 4)
    assert nn.Linear(0, 2)(torch.ones(3, 0)).tolist() == [[0, 0]]*3 == torch.nn.Linear(0, 2)(torch.ones(3, 0)).tolist()


@pytest.mark.parametrize("momentum", [0.1, None, 1.0])
def test_batchnorm_over_many_batches(momentum):
    results = []
    for lib in BOTH:
        torch.manual_seed(0)
        layer = lib.BatchNorm2d(3, momentum=momentum).double()
        out = [layer(torch.randn(4, 3, 2, 2, dtype=torch.float64)) for _ in range(20)]
        results.append([out[-1], layer.eval()(out[0]), dict(layer.state_dict())])
    assert_close(*results, rtol=1e-13, atol=1e-13)                              # float64 keeps its digits without momentum too


def test_relu_and_dropout_in_place():
    for layer in (nn.ReLU(True), nn.ReLU(inplace=True), nn.Dropout(0.5, True)):
        x = torch.randn(100)
        assert layer(x) is x and (x == 0).any()


def test_loss_weight_moves_and_the_callers_tensor_stays():
    weight = torch.ones(3)
    loss = nn.CrossEntropyLoss(weight).double()
    assert loss.weight.dtype == torch.float64 and weight.dtype == torch.float32 and list(loss.state_dict()) == ["weight"]


def test_a_training_step_reads_nothing_back():
    def step(device):
        with torch.device(device):
            net = nn.Sequential(nn.Conv2d(1, 4, 3, 2, 1), nn.BatchNorm2d(4, momentum=None), nn.ReLU(), nn.MaxPool2d(2), nn.Dropout(), nn.AdaptiveAvgPool2d(2), nn.Flatten())
            return net(torch.empty(5, 1, 28, 28))
    reads_nothing_back(step)


# Containers

@settings(max_examples=60)
@given(st.integers(0, 5), st.integers(-7, 7), st.integers(-7, 7), st.sampled_from([None, 1, 2, -1]))
def test_slices(n, start, stop, step):
    models = [lib.Sequential(*[lib.Linear(i + 1, 1) for i in range(n)]) for lib in BOTH]
    assert repr(models[0][start:stop:step]) == repr(models[1][start:stop:step]) and type(models[0][start:stop:step]) is nn.Sequential
    for i in range(-n, n): assert models[0][i].in_features == models[1][i].in_features
    for i in (n, -n - 1):
        with pytest.raises(IndexError): models[0][i]
    assert [m.in_features for m in nn.ModuleList(models[0])[start:stop:step]] == [m.in_features for m in torch.nn.ModuleList(models[1])[start:stop:step]]


def test_lists_and_sequences():
    shared = nn.Linear(2, 2)
    model = nn.Sequential(shared, nn.ReLU(), shared)
    assert len(model) == len(list(model)) == 3 and len(list(model.children())) == 2 and len(list(model.parameters())) == 2
    model[-1] = nn.Linear(2, 3)
    assert model(torch.ones(1, 2)).shape == (1, 3) and len(list(model.parameters())) == 4
    named = nn.Sequential(OrderedDict(one=nn.Linear(2, 3), two=nn.ReLU()))
    assert named.one is named[0] and list(named.state_dict()) == ["one.weight", "one.bias"]
    class Head(nn.Sequential):
        def __init__(self): super().__init__(nn.Linear(2, 3), nn.ReLU())
    assert len(Head()) == 2 and len(Head()[:1]) == 1 and list(Head().state_dict()) == ["0.weight", "0.bias"]
    layers = nn.ModuleList([nn.Linear(1, 1)]).append(nn.ReLU()).append(nn.ReLU())
    assert [n for n, _ in layers.named_children()] == ["0", "1", "2"]
    part = nn.Sequential(*[nn.Linear(1, 1) for _ in range(4)])[2:].append(nn.ReLU()).append(nn.ReLU())
    assert len(part) == 4                                                       # nothing vanishes from a slice


# Hooks

def test_hooks_see_and_replace():
    results = []
    for lib in BOTH:
        layer, seen = lib.Flatten(), []
        with layer.register_forward_hook(lambda m, args, out: seen.append((type(m).__name__, args[0].shape, out.shape))):
            first = layer.register_forward_pre_hook(lambda m, args: args[0] + 1)
            second = layer.register_forward_pre_hook(lambda m, args: (args[0]*2,))
            third = layer.register_forward_hook(lambda m, args, out: -out)
            out = [layer(torch.ones(1, 2, 2))]
            first.remove(), third.remove()
            out.append(layer(torch.ones(1, 2, 2)))
        second.remove()
        results.append([out, layer(torch.ones(1, 2, 2)), seen])
    assert results[0][2] == results[1][2] and len(results[0][2]) == 2
    exactly(results[0][:2], results[1][:2])
    for lib in BOTH:
        layer = type("Times", (lib.Module,), {"forward": lambda self, x, *, by: x*by})()
        layer.register_forward_pre_hook(lambda m, args, kwargs: ((args[0] + 1,), {"by": kwargs["by"] + 1}), with_kwargs=True)
        layer.register_forward_hook(lambda m, args, kwargs, out: (out, kwargs), with_kwargs=True)
        assert layer(1, by=2) == (6, {"by": 3})
    def once(m, args, out): handle.remove()
    handle = nn.ReLU().register_forward_hook(once)                              # other modules have hooks of their own
    assert not nn.ReLU()._forward_hooks


def test_hooks_of_a_whole_model():
    model, shapes = mlp(nn), []
    handles = [m.register_forward_hook(lambda m, args, out: shapes.append(tuple(out.shape))) for m in model.modules()]
    model(torch.ones(2, 3, 4))
    assert len(shapes) == len(handles) == 8 and shapes[-1] == (2, 5)


# Moving

FORMS = [((torch.float64,), {}), (("cpu", torch.float64), {}), ((torch.device("cpu"), torch.float64), {}), ((), {"dtype": torch.float64}),
         ((None, torch.float64), {}), (("cpu",), {"dtype": torch.float64, "non_blocking": True})]


@pytest.mark.parametrize("held", [False, True], ids=["alone", "in torch's"])
@pytest.mark.parametrize("args, kwargs", FORMS, ids=str)
def test_to(args, kwargs, held):
    model = Nested()
    moved = torch.nn.Sequential(model) if held else model
    before, buffers = dict(model.named_parameters()), dict(model.named_buffers())
    model(torch.ones(1, 2)).sum().backward()
    assert moved.to(*args, **kwargs) is moved
    assert all(p is before[n] and p.dtype == torch.float64 for n, p in model.named_parameters())
    assert model.tied.grad.dtype == torch.float64 and model.tied is model.layers[0].weight and model.also_tied is model.layers[0]
    assert model.counter.dtype == torch.int64 and model.scratch.dtype == torch.float64 and buffers["scratch"].dtype == torch.float32
    assert model.layers[1].running_mean.dtype == torch.float64 and model.layers[1].num_batches_tracked.dtype == torch.int64
    model(torch.ones(1, 2, dtype=torch.float64)).sum().backward()


def test_short_names_of_to():
    for name, dtype in dict(half=torch.float16, bfloat16=torch.bfloat16, double=torch.float64, float=torch.float32, cpu=torch.float32).items():
        model = Nested()
        assert getattr(model, name)() is model and model.tied.dtype == model.scratch.dtype == dtype and model.counter.dtype == torch.int64
    if not torch.cuda.is_available():
        with pytest.raises((AssertionError, RuntimeError)): Nested().cuda()
    else: assert Nested().cuda().tied.is_cuda
    for args in ((torch.int64,), ("cpu", torch.int32)):
        with pytest.raises(TypeError, match="floating point"): Nested().to(*args)


def test_to_meta_keeps_identity():
    model = Nested()
    model.layers[1] = nn.Linear(2, 2)                                           # torch's layers make new parameters there
    opt = torch.optim.Adam(model.parameters())
    ids = [id(p) for p in model.parameters()]
    copy.deepcopy(model).to("meta")
    assert not model.tied.is_meta
    model.to("meta")
    assert ids == [id(p) for p in model.parameters()] == [id(p) for p in opt.param_groups[0]["params"]]
    assert all(t.is_meta for t in [*model.parameters(), *model.buffers()]) and type(model.tied) is nn.Parameter
    with pytest.raises(NotImplementedError, match="meta"): model.to("cpu")


def test_a_move_may_leave_the_children_where_they_are():
    model = Nested().to_empty(device="meta", recurse=False)
    assert model.tied.is_meta and model.counter.is_meta and not any(p.is_meta for p in model.body.parameters())


def test_an_optimizer_made_before_the_move_still_trains():
    model = mlp(nn)
    opt, preds = torch.optim.SGD(model.parameters(), lr=0.1), model(torch.ones(1, 3, 4))
    model.double()
    assert preds.dtype == torch.float32                                         # a graph was in use
    before = copy.deepcopy(model.state_dict())
    model(torch.ones(2, 3, 4).double()).sum().backward()
    opt.step()
    assert not torch.equal(model.state_dict()["1.weight"], before["1.weight"])


# State

def test_weights_travel_both_ways_through_a_file():
    x = torch.randn(4, 3, 4)
    for source, target in ((mlp(nn, 1), mlp(torch.nn, 2)), (mlp(torch.nn, 3), mlp(nn, 4))):
        assert list(source.state_dict()) == list(target.state_dict())
        target.load_state_dict(through_a_file(source.state_dict()))
        assert_close(source(x), target(x))


def test_load_copies_into_what_is_there():
    model = mlp(nn)
    ids, other = [id(p) for p in model.parameters()], mlp(nn, seed=1).double()
    model.load_state_dict(other.state_dict())
    assert ids == [id(p) for p in model.parameters()] and model[1].weight.dtype == torch.float32 and model[1].weight.requires_grad
    with torch.no_grad(): other[1].weight.zero_()
    assert model[1].weight.any()


@pytest.mark.parametrize("strict", [True, False])
def test_a_refused_load_changes_nothing(strict):
    model = mlp(nn)
    before = copy.deepcopy(model.state_dict())
    wrong = {k: torch.zeros_like(v) for k, v in before.items()} | {"4.weight": torch.zeros(2, 2), "1.bias": torch.zeros(3), "extra.0": torch.zeros(1), "more": torch.zeros(1)}
    del wrong["1.weight"], wrong["3.0.bias"]
    with pytest.raises(RuntimeError) as error: model.load_state_dict(wrong, strict=strict)
    for key in ("4.weight", "1.bias", "(2, 2)", "(5, 8)"): assert key in str(error.value)
    for key in ("1.weight", "3.0.bias", "extra.0", "more"): assert key in str(error.value)
    exactly(model.state_dict(), before)
    del wrong["4.weight"], wrong["1.bias"]
    result = model.load_state_dict(wrong, strict=False)
    assert sorted(result.missing_keys) == ["1.bias", "1.weight", "3.0.bias", "4.weight"] and result.unexpected_keys == ["extra.0", "more"]
    assert not model[3][0].weight.any() and model[1].weight.any()


def test_state_dict_is_the_models_memory():
    model = mlp(nn)
    state = model.state_dict()
    assert all(type(t) is torch.Tensor and not t.requires_grad for t in state.values())
    with torch.no_grad(): model[1].weight.fill_(3)
    assert (state["1.weight"] == 3).all() and model.state_dict(keep_vars=True)["1.weight"] is model[1].weight


@pytest.mark.parametrize("copied", COPIES[1:])
@pytest.mark.parametrize("wrap", [lambda m: m, torch.nn.Sequential], ids=["alone", "in torch's"])
def test_models_copy(copied, wrap):
    model = wrap(Nested())
    twin = copied(model)
    mine, other = ([m for m in x.modules() if isinstance(m, Nested)][0] for x in (model, twin))
    assert type(other) is Nested and other.tied is other.layers[0].weight is not mine.tied and other.also_tied is other.layers[0]
    exactly(dict(twin.state_dict()), dict(model.state_dict()))
    assert [n for n, _ in twin.named_buffers()] == [n for n, _ in model.named_buffers()]
    with torch.no_grad(): other.tied.zero_()
    assert mine.tied.any()


def test_every_protocol_of_pickle():
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1): exactly(dict(pickle.loads(pickle.dumps(mlp(nn), protocol)).state_dict()), dict(mlp(nn).state_dict()))
    assert copy.copy(model := mlp(nn))[1].weight is model[1].weight


# Inside torch's

class Held(torch.nn.Module):
    def __init__(self, lib):
        super().__init__()
        self.body, self.norm, self.head = mlp(lib), lib.BatchNorm2d(1), torch.nn.Linear(5, 5)

    def forward(self, x): return self.head(self.body(self.norm(x[:, None])))


def test_a_module_of_torchs_registers_trains_saves_and_loads_ours():
    results = []
    for lib in BOTH:
        torch.manual_seed(0)
        model = torch.nn.Sequential(Held(lib)).double()
        opt, x, y = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9), torch.randn(16, 3, 4).double(), torch.randint(5, (16,))
        for _ in range(10):
            opt.zero_grad()
            F.cross_entropy(model(x), y).backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            opt.step()
        model.eval()
        assert not any(m.training for m in model.modules())
        results.append([model(x), dict(model.state_dict()), [n for n, _ in model.named_modules()], [n for n, _ in model.named_buffers()]])
        fresh = torch.nn.Sequential(Held(lib)).double().eval()
        fresh.load_state_dict(model.state_dict())
        exactly(fresh(x), model(x))
        averaged = torch.optim.swa_utils.AveragedModel(model)
        averaged.update_parameters(model)
        exactly(averaged(x), model(x))
    assert results[0][2:] == results[1][2:]
    assert_close(results[0][:2], results[1][:2])


def test_loading_through_torchs_names_what_does_not_fit():
    model = torch.nn.Sequential(Nested())
    state = dict(model.state_dict())
    assert model.load_state_dict(state).missing_keys == []
    del state["0.body.1.weight"], state["0.layers.1.bias"]
    state |= {"0.body.1.more": torch.ones(1), "0.other.weight": torch.ones(1), "0.body.1.bias": torch.ones(2)}
    with pytest.raises(RuntimeError) as error: model.load_state_dict(state)
    for key in ("0.body.1.weight", "0.layers.1.bias", "0.body.1.more", "0.other.weight", "0.body.1.bias"): assert str(error.value).count(key) == 1


def test_ours_is_one_of_torchs_and_itself():
    layer = nn.Linear(2, 2)
    assert isinstance(layer, torch.nn.Module) and isinstance(layer, nn.Module) and not isinstance(layer, torch.nn.Linear)
    assert layer.__class__ is type(layer) is nn.Linear and nn.Linear.__module__ == "fdl.nn" and not isinstance(torch.nn.Linear(2, 2), nn.Module)


def test_no_call_of_init_is_needed():
    class Scale(nn.Module):
        def __init__(self): self.by = nn.Parameter(torch.full((1,), 2.0))
        def forward(self, x): return self.by*x
    class Named(Scale):
        def __init__(self):
            super().__init__()
            self.name = "twice"
    for model in (Scale(), Named(), nn.Sequential(Scale())):
        assert model(3*torch.ones(1)) == 6 and len(list(model.parameters())) == 1 and model.training


def test_torchs_tools_that_work_on_ours():
    results, x = [], torch.randn(5, 3, 4)
    for lib in BOTH:
        model, seen = mlp(lib), []
        torch.nn.utils.parametrizations.weight_norm(model[1])
        model[4].register_full_backward_hook(lambda m, before, after: seen.append(after[0]))
        model(x).square().sum().backward()
        norm = torch.nn.utils.clip_grad_norm_(model.parameters(), 0.1)
        results.append([norm, seen, torch.nn.utils.parameters_to_vector(model.parameters()), [p.grad for p in model.parameters()]])
    assert len(results[0][1]) == 1 and results[0][0] > 0.1
    assert_close(*results)
    compiled = torch.compile(model := mlp(nn), backend="eager", fullgraph=True)
    exactly(compiled(x), model(x))


OPTIMIZERS = [torch.optim.SGD, torch.optim.Adam, torch.optim.RMSprop, torch.optim.LBFGS]


@pytest.mark.parametrize("optimizer, options", [(o, {option: True} if option else {}) for o in OPTIMIZERS for option in ("", "foreach", "fused")
                                                if not option or option in inspect.signature(o).parameters], ids=lambda x: getattr(x, "__name__", str(x)))
def test_torchs_optimizers_train_ours(optimizer, options):
    results = []
    for lib in BOTH:
        model = mlp(lib).double()
        opt = optimizer(model.parameters(), lr=0.01, **options)
        torch.manual_seed(1)
        x, y, loss_func = torch.randn(6, 3, 4).double(), torch.randint(5, (6,)), lib.CrossEntropyLoss()
        def closure():
            opt.zero_grad()
            loss = loss_func(model(x), y)
            loss.backward()
            return loss
        results.append([opt.step(closure).item() for _ in range(2 if optimizer is torch.optim.LBFGS else 10)])
    assert_close(*results)


def test_calls_pass_everything_on():
    class Echo(nn.Module):
        def forward(self, *args, **kwargs): return args, kwargs
    assert Echo()(1, 2, key=3) == ((1, 2), {"key": 3})
    assert nn.Lambda(lambda a, b: a - b)(5, 3) == 2


@pytest.mark.parametrize("make", [lambda: nn.Sequential(nn.Linear(2, 2), torch.relu), lambda: nn.Sequential([nn.Linear(2, 2), nn.ReLU()]), lambda: nn.Sequential({"a": nn.ReLU}),
                                  lambda: nn.ModuleList([nn.Linear(2, 2), nn.ReLU]), lambda: nn.ModuleList().append(torch.zeros(2)),
                                  lambda: nn.Sequential(nn.ReLU()).__setitem__(0, torch.tanh)], ids=["function", "list", "class in a dict", "class", "tensor", "set"])
def test_containers_refuse_what_is_no_module(make):
    with pytest.raises(TypeError, match="cannot be a .*: use Lambda"): make()


def test_a_list_takes_many():
    layers = nn.ModuleList([nn.ReLU()])
    assert layers.extend([nn.Linear(1, 2), nn.ReLU()]) is layers and list(layers._modules) == ["0", "1", "2"]
    with pytest.raises(TypeError, match="'3' cannot be a NoneType"): layers.extend([None])


def test_tools_of_torch_that_exchange_tensors():
    from torch.nn.utils import prune
    x, model = torch.randn(5, 4), nn.Sequential(nn.Linear(4, 3), nn.ReLU(), torch.nn.Linear(3, 2))
    model.register_buffer("mean", torch.zeros(2))
    own = dict(model.named_parameters())
    twice = {name: 2*p.detach() for name, p in own.items()}
    twin = torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.ReLU(), torch.nn.Linear(3, 2))
    expected = torch.func.functional_call(twin, twice, (x,))
    torch.testing.assert_close(torch.func.functional_call(model, {**twice, "mean": torch.ones(2)}, (x,)), expected)
    assert all(p is own[name] for name, p in model.named_parameters()) and model.mean.sum() == 0
    grads = torch.func.grad(lambda given: torch.func.functional_call(model, given, (x,)).sum())(twice)
    assert grads["0.weight"].shape == (3, 4)
    torch.testing.assert_close(torch.export.export(model, (x,)).module()(x), model(x))
    prune.l1_unstructured(model[0], "weight", 0.5)
    assert (model[0].weight == 0).sum() == 6 and "0.weight_orig" in model.state_dict()
    prune.remove(model[0], "weight")
    assert isinstance(model[0].weight, torch.nn.Parameter) and (model[0].weight == 0).sum() == 6
