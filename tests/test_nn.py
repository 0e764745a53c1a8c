"fdl.nn beside torch.nn: the same programs on both, and weights, optimizers and layers that cross over."
import copy
import inspect
import io
import itertools
import pickle
from collections import OrderedDict

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.testing import assert_close

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


# Parameter

def test_parameter_is_one_for_torch():
    p = nn.Parameter(torch.randn(3, 2))
    assert isinstance(p, torch.nn.Parameter) and isinstance(p, nn.Parameter) and p.is_leaf and p.requires_grad
    for result in (p + 1, p[0], p.T, p.detach(), p.data, p.clone(), torch.stack([p, p]), torch.ones(4, 3) @ p): assert type(result) is torch.Tensor
    assert len({p, p, nn.Parameter(p.detach())}) == 2
    assert repr(p) == repr(torch.nn.Parameter(p.detach()))
    with pytest.raises(RuntimeError, match="floating point"): nn.Parameter(torch.tensor([1, 2]))
    assert not nn.Parameter(torch.tensor([1, 2]), requires_grad=False).requires_grad


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy, lambda p: pickle.loads(pickle.dumps(p))])
@pytest.mark.parametrize("requires_grad", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_parameter_copies(copied, requires_grad, dtype):
    p = nn.Parameter(torch.randn(4, 3, dtype=dtype).T, requires_grad)
    twin = copied(p)
    assert type(twin) is nn.Parameter and twin.is_leaf and twin.requires_grad == requires_grad
    exactly(twin, p)
    if copied is not copy.copy: assert twin.data_ptr() != p.data_ptr()


def test_a_shared_parameter_stays_shared_in_copies():
    p = nn.Parameter(torch.ones(2))
    for twins in (copy.deepcopy([p, p]), pickle.loads(pickle.dumps([p, p]))): assert twins[0] is twins[1] is not p


OPTIMIZERS = [torch.optim.SGD, torch.optim.Adam, torch.optim.AdamW, torch.optim.RMSprop, torch.optim.Adagrad, torch.optim.NAdam, torch.optim.LBFGS]


OPTIONS = [(o, {option: True} if option else {}) for o in OPTIMIZERS for option in ("", "foreach", "fused") if not option or option in inspect.signature(o).parameters]


@pytest.mark.parametrize("optimizer, options", OPTIONS, ids=lambda x: getattr(x, "__name__", str(x)))
def test_torch_optimizers_train_ours(optimizer, options):
    results = []
    for lib in BOTH:
        model = mlp(lib).double()
        opt = optimizer(model.parameters(), lr=0.01, **options)
        torch.manual_seed(1)
        x, y = torch.randn(6, 3, 4).double(), torch.randint(5, (6,))
        def closure():
            opt.zero_grad()
            loss = F.cross_entropy(model(x), y)
            loss.backward()
            return loss
        results.append([opt.step(closure).item() for _ in range(10)])
    assert_close(*results)


def test_torch_tools_take_our_parameters():
    ours, theirs = (mlp(lib) for lib in BOTH)
    for model in (ours, theirs): model(torch.ones(2, 3, 4)).square().sum().backward()
    exactly(torch.nn.utils.clip_grad_norm_(ours.parameters(), 0.1), torch.nn.utils.clip_grad_norm_(theirs.parameters(), 0.1))
    exactly([p.grad for p in ours.parameters()], [p.grad for p in theirs.parameters()])
    exactly(torch.nn.utils.parameters_to_vector(ours.parameters()), torch.nn.utils.parameters_to_vector(theirs.parameters()))


# Registration: random assignments, the same registries and the same refusals as torch's

NAMES = ["a", "b", "c"]
VALUES = {"parameter": lambda lib: lib.Parameter(torch.ones(1)), "torch parameter": lambda lib: torch.nn.Parameter(torch.ones(1)), "none": lambda lib: None,
          "module": lambda lib: lib.ReLU(), "tensor": lambda lib: torch.zeros(1), "number": lambda lib: 3}
ACTIONS = ["set", "del", "register_parameter", "register_buffer", "add_module", "non-persistent"]


def act(lib, steps):
    "What the registries hold after each step, and whether it was refused."
    module, log = lib.Module(), []
    for action, name, value in steps:
        value = VALUES[value](lib)
        try:
            if action == "set": setattr(module, name, value)
            elif action == "del": delattr(module, name)
            elif action == "non-persistent": module.register_buffer(name, value, persistent=False)
            else: getattr(module, action)(name, value)
            error = None
        except (TypeError, KeyError, AttributeError): error = "refused"
        log.append((error, *[[(n, v is None) for n, v in registry.items()] for registry in (module._parameters, module._buffers, module._modules)],
                    [type(getattr(module, n, "no such attribute")) in (int, str, type(None)) for n in NAMES], [hasattr(module, n) for n in NAMES], list(module.state_dict())))
        for registry in (module._parameters, module._buffers, module._modules):
            for n, v in registry.items(): assert getattr(module, n) is v
    return log


@settings(max_examples=300, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(ACTIONS), st.sampled_from(NAMES), st.sampled_from(sorted(VALUES))), max_size=12))
def test_any_assignments(steps):
    assert act(nn, steps) == act(torch.nn, steps)


@pytest.mark.parametrize("name", ["", "a.b", "forward", "training"])
@pytest.mark.parametrize("method, value", [("register_parameter", nn.Parameter(torch.ones(1))), ("register_buffer", torch.ones(1)), ("add_module", nn.ReLU())])
def test_refused_names(name, method, value):
    with pytest.raises(KeyError, match=name or "empty"): getattr(nn.Module(), method)(name, value)


def test_errors_name_class_and_attribute():
    class Forgot(nn.Module):
        def __init__(self): self.weight = nn.Parameter(torch.ones(1))
    with pytest.raises(AttributeError, match=r"Forgot.*super\(\).*'weight'"): Forgot()
    with pytest.raises(AttributeError, match="'Linear' object has no attribute 'wieght'"): nn.Linear(1, 1).wieght
    with pytest.raises(NotImplementedError, match="Nothing"): type("Nothing", (nn.Module,), {})()(1)
    with pytest.raises(NotImplementedError): nn.ModuleList()(1)
    for value in (torch.ones(1), 3, nn.ReLU()):
        with pytest.raises(TypeError, match=f"Linear.weight.*{type(value).__name__}"): nn.Linear(1, 1).weight = value


# Trees: random shapes with shared modules and tensors, the same walk as torch's

def grow(lib, plan):
    "A module built from `plan`: each step adds something to one of the modules made so far, and may use one of the others again."
    made, tensors = [lib.Module()], []
    for what, at, which, name in plan:
        at, name = made[at % len(made)], f"n{name}"
        if what == "linear": made.append(lib.Linear(which % 3 + 1, 2, bias=which % 2 == 0)); setattr(at, name, made[-1])
        elif what == "module": made.append(lib.Module()); setattr(at, name, made[-1])
        elif what == "parameter": tensors.append(lib.Parameter(torch.ones(which % 3 + 1))); setattr(at, name, tensors[-1])
        elif what == "buffer" and not hasattr(at, name): at.register_buffer(name, torch.ones(which % 3 + 1), persistent=which % 2 == 0)
        elif what == "nothing" and not hasattr(at, name): at.add_module(name, None)
        elif what == "share tensor" and tensors and name not in at._parameters: setattr(at, name, tensors[which % len(tensors)])
        elif what == "share module":
            shared = made[which % len(made)]
            if at not in shared.modules() and name not in at._parameters: setattr(at, name, shared)
    return made[0]


KINDS = ["linear", "module", "parameter", "buffer", "nothing", "share tensor", "share module"]
PLANS = st.lists(st.tuples(st.sampled_from(KINDS), st.integers(0, 9), st.integers(0, 9), st.integers(0, 9)), max_size=14)


def safe(plan):
    "Without the steps that torch refuses: a module in a parameter's place."
    taken, kept = set(), []
    for step in plan:
        key = step[3]
        if step[0] in ("parameter", "share tensor"): taken.add(key)
        if step[0] in ("linear", "module") and key in taken: continue
        kept.append(step)
    return kept


@settings(max_examples=200, deadline=None)
@given(PLANS)
def test_any_tree(plan):
    ours, theirs = (grow(lib, safe(plan)) for lib in BOTH)
    for prefix, remove_duplicate in itertools.product(("", "top"), (True, False)):
        for method, recursive in (("named_modules", False), ("named_parameters", True), ("named_buffers", True)):
            for more in ({"recurse": True}, {"recurse": False}) if recursive else ({},):
                kwargs = {"prefix": prefix, "remove_duplicate": remove_duplicate, **more}
                names, want = ([n for n, _ in getattr(model, method)(**kwargs)] for model in (ours, theirs))
                assert names == want, (method, kwargs)
    assert [n for n, _ in ours.named_children()] == [n for n, _ in theirs.named_children()]
    assert [tuple(p.shape) for p in ours.parameters()] == [tuple(p.shape) for p in theirs.parameters()]
    assert {k: v.shape for k, v in ours.state_dict().items()} == {k: v.shape for k, v in theirs.state_dict().items()}
    assert list(ours.state_dict()) == list(theirs.state_dict())
    assert repr(ours) == repr(theirs)
    orders = ([], [])
    for model, order in zip((ours, theirs), orders): model.apply(lambda m: order.append(len(list(m.parameters()))))
    assert orders[0] == orders[1]
    theirs.load_state_dict(ours.state_dict())
    assert ours.load_state_dict(theirs.state_dict()) == ([], [])


def test_orders_reach_torch_children():
    model = Nested()
    model.eval()
    assert not any(m.training for m in model.modules()) and isinstance(list(model.modules())[-1], torch.nn.BatchNorm1d)
    model.requires_grad_(False)
    assert not any(p.requires_grad for p in model.parameters())
    seen = []
    model.apply(lambda m: seen.append(type(m).__name__))
    assert "BatchNorm1d" in seen and seen[-1] == "Nested"
    with pytest.raises(ValueError, match="mode"): model.train(1)


@pytest.mark.parametrize("set_to_none", [True, False])
def test_zero_grad(set_to_none):
    model = mlp(nn)
    model(torch.ones(1, 3, 4)).sum().backward(create_graph=True)
    model[1].weight.grad = None
    model.zero_grad(set_to_none)
    assert model[1].weight.grad is None
    if set_to_none: assert all(p.grad is None for p in model.parameters())
    else: assert not model[1].bias.grad.any() and not model[1].bias.grad.requires_grad


# Layers

@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("bias", [True, False])
def test_linear_starts_as_torchs(dtype, bias):
    for n in (1, 2, 3, 5, 7, 10, 49, 100, 784, 1001):
        layers = []
        for lib in BOTH:
            torch.manual_seed(n)
            layers.append(lib.Linear(n, 6, bias, dtype=dtype))
        exactly([layers[0].weight, layers[0].bias], [layers[1].weight, layers[1].bias])
        torch.manual_seed(n)
        layers[0].reset_parameters()
        exactly(layers[0].weight, layers[1].weight)


def test_linear_follows_the_default_dtype_and_device():
    torch.set_default_dtype(torch.float64)
    try: assert nn.Linear(2, 2).bias.dtype == torch.float64
    finally: torch.set_default_dtype(torch.float32)
    with torch.device("meta"): assert nn.Linear(2, 2).weight.is_meta and nn.Linear(2, 2).bias.is_meta


@pytest.mark.parametrize("shape", [(3,), (4, 3), (2, 4, 3), (0, 3), (2, 0, 3)])
def test_layers_compute_as_torchs(shape):
    x = torch.randn(shape, dtype=torch.float64)
    for make in (lambda lib: lib.Linear(3, 2, dtype=torch.float64), lambda lib: lib.Linear(3, 2, bias=False, dtype=torch.float64), lambda lib: lib.ReLU()):
        values = []
        for lib in BOTH:
            torch.manual_seed(0)
            layer, xi = make(lib), x.clone().requires_grad_()
            y = layer(xi)
            y.square().sum().backward()
            values.append([y, xi.grad, *[p.grad for p in layer.parameters()]])
        assert_close(*values)


@pytest.mark.parametrize("args", [(), (0,), (1, 2), (0, -2), (2,), (-2, -1)])
def test_flatten(args):
    x = torch.randn(2, 3, 4, 5)
    exactly(nn.Flatten(*args)(x), torch.nn.Flatten(*args)(x))


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("weighted", [True, False])
@pytest.mark.parametrize("label_smoothing", [0.0, 0.2])
@pytest.mark.parametrize("ignore_index", [-100, 1])
def test_losses(reduction, weighted, label_smoothing, ignore_index):
    x, y = torch.randn(7, 4, dtype=torch.float64), torch.randint(4, (7,))
    kwargs = dict(weight=torch.rand(4, dtype=torch.float64) if weighted else None, ignore_index=ignore_index, reduction=reduction, label_smoothing=label_smoothing)
    ours, theirs = nn.CrossEntropyLoss(**kwargs), torch.nn.CrossEntropyLoss(**kwargs)
    assert_close(ours(x, y), theirs(x, y))
    assert list(ours.state_dict()) == list(theirs.state_dict())
    assert_close(nn.MSELoss(reduction=reduction)(x, x.cos()), torch.nn.MSELoss(reduction=reduction)(x, x.cos()))


def test_loss_weight_moves_and_the_callers_tensor_stays():
    weight = torch.ones(3)
    loss = nn.CrossEntropyLoss(weight).double()
    assert loss.weight.dtype == torch.float64 and weight.dtype == torch.float32


# Containers

@settings(max_examples=100, deadline=None)
@given(st.integers(0, 5), st.integers(-7, 7), st.integers(-7, 7), st.sampled_from([None, 1, 2, -1]))
def test_slices(n, start, stop, step):
    for kind, wrap in (("Sequential", lambda layers: layers), ("ModuleList", lambda layers: [layers])):
        models = [getattr(lib, kind)(*wrap([lib.Linear(i + 1, 1) for i in range(n)])) for lib in BOTH]
        if not (kind == "ModuleList" and n > 1): assert repr(models[0][start:stop:step]) == repr(models[1][start:stop:step])
        assert list(models[0][start:stop:step].state_dict()) == list(models[1][start:stop:step].state_dict())
        assert [m.in_features for m in models[0][start:stop:step]] == [m.in_features for m in models[1][start:stop:step]]
        for i in range(-n, n): assert models[0][i].in_features == models[1][i].in_features
        for i in (n, -n - 1):
            with pytest.raises(IndexError): models[0][i]


def test_nothing_vanishes_from_a_slice():
    model = nn.Sequential(*[nn.Linear(1, 1) for _ in range(4)])
    for start in range(4):
        part = model[start:]
        assert len(part.append(nn.ReLU()).append(nn.ReLU())) == 6 - start


def test_module_list_insert_everywhere():
    for index in range(-4, 5):
        layers, plain = nn.ModuleList([nn.Linear(i + 1, 1) for i in range(3)]), [1, 2, 3]
        layers.insert(index, nn.Linear(9, 1))
        plain.insert(index, 9)
        assert [layer.in_features for layer in layers] == plain and list(layers._modules) == ["0", "1", "2", "3"]
        assert all(getattr(layers, str(i)) is layer for i, layer in enumerate(layers))


def test_sequential_from_names_and_subclasses():
    named = nn.Sequential(OrderedDict(one=nn.Linear(2, 3), two=nn.ReLU()))
    assert named.one is named[0] and list(named.state_dict()) == ["one.weight", "one.bias"]
    class Head(nn.Sequential):
        def __init__(self): super().__init__(nn.Linear(2, 3), nn.ReLU())
    assert len(Head()) == 2 and len(Head()[:1]) == 1 and list(Head().state_dict()) == ["0.weight", "0.bias"]
    with pytest.raises(TypeError): nn.Sequential(torch.relu)


# Moving

FORMS = [((torch.float64,), {}), (("cpu", torch.float64), {}), ((torch.device("cpu"), torch.float64), {}), ((), {"dtype": torch.float64}), ((), {"device": "cpu", "dtype": torch.float64}),
         ((None, torch.float64), {}), (("cpu",), {"dtype": torch.float64, "non_blocking": True})]


@pytest.mark.parametrize("args, kwargs", FORMS, ids=str)
def test_to(args, kwargs):
    model = Nested()
    before, buffers = dict(model.named_parameters()), dict(model.named_buffers())
    model(torch.ones(1, 2)).sum().backward()
    assert model.to(*args, **kwargs) is model
    assert all(p is before[n] and p.dtype == torch.float64 for n, p in model.named_parameters())
    assert model.tied.grad.dtype == torch.float64 and model.tied is model.layers[0].weight and model.also_tied is model.layers[0]
    assert model.counter.dtype == torch.int64 and model.scratch.dtype == torch.float64 and buffers["scratch"].dtype == torch.float32
    assert model.layers[1].running_mean.dtype == torch.float64 and model.layers[1].num_batches_tracked.dtype == torch.int64
    assert model._buffers["scratch"] is model.scratch
    model(torch.ones(1, 2, dtype=torch.float64)).sum().backward()


def test_to_refuses_integers():
    for args in ((torch.int64,), ("cpu", torch.int32)):
        with pytest.raises(TypeError, match="floating-point"): Nested().to(*args)


def test_to_meta_keeps_identity():
    model = Nested()
    opt = torch.optim.Adam(model.parameters())
    ids = [id(p) for p in model.parameters()]
    copy.deepcopy(model).to("meta")
    assert not model.tied.is_meta
    model.to("meta")
    assert ids == [id(p) for p in model.parameters()] == [id(p) for p in opt.param_groups[0]["params"]]
    assert all(t.is_meta for t in [*model.parameters(), *model.buffers()]) and type(model.tied) is nn.Parameter
    assert model(torch.ones(3, 2, device="meta")).shape == (3, 2)
    with pytest.raises(NotImplementedError, match="meta"): model.to("cpu")


def test_to_while_a_graph_is_in_use():
    model = mlp(nn)
    preds = model(torch.ones(1, 3, 4))
    model.double()
    assert preds.dtype == torch.float32 and model(torch.ones(1, 3, 4).double()).dtype == torch.float64


def test_an_optimizer_made_before_the_move_still_trains():
    model = mlp(nn)
    opt = torch.optim.SGD(model.parameters(), lr=0.1)
    model.double()
    before = copy.deepcopy(model.state_dict())
    model(torch.ones(2, 3, 4).double()).sum().backward()
    opt.step()
    assert not torch.equal(model.state_dict()["1.weight"], before["1.weight"])


# State

def test_weights_travel_both_ways_through_a_file():
    ours, theirs = mlp(nn, seed=1), mlp(torch.nn, seed=2)
    x = torch.randn(4, 3, 4)
    for source, target in ((ours, theirs), (mlp(torch.nn, seed=3), mlp(nn, seed=4))):
        assert list(source.state_dict()) == list(target.state_dict())
        file = io.BytesIO()
        torch.save(source.state_dict(), file)
        file.seek(0)
        target.load_state_dict(torch.load(file, weights_only=True))
        assert_close(source(x), target(x))


def test_load_copies_into_what_is_there():
    model = mlp(nn)
    ids, other = [id(p) for p in model.parameters()], mlp(nn, seed=1).double()
    model.load_state_dict(other.state_dict())
    assert ids == [id(p) for p in model.parameters()] and model[1].weight.dtype == torch.float32 and model[1].weight.requires_grad
    with torch.no_grad(): other[1].weight.zero_()
    assert model[1].weight.any()
    opt = torch.optim.SGD(model.parameters(), lr=1.0)
    model(torch.ones(1, 3, 4)).sum().backward()
    opt.step()


@pytest.mark.parametrize("strict", [True, False])
def test_a_refused_load_changes_nothing(strict):
    model = mlp(nn)
    before = copy.deepcopy(model.state_dict())
    wrong = {k: torch.zeros_like(v) for k, v in before.items()} | {"4.weight": torch.zeros(2, 2), "1.bias": torch.zeros(3), "extra.0": torch.zeros(1), "more": torch.zeros(1)}
    del wrong["1.weight"], wrong["3.0.bias"]
    with pytest.raises(RuntimeError) as error: model.load_state_dict(wrong, strict=strict)
    for key in ("4.weight", "1.bias", "(2, 2)", "(5, 8)"): assert key in str(error.value)
    for key in ("1.weight", "3.0.bias", "extra.0", "more"): assert (key in str(error.value)) == strict
    exactly(model.state_dict(), before)


def test_state_dict_is_the_models_memory():
    model = mlp(nn)
    state = model.state_dict()
    assert all(type(t) is torch.Tensor and not t.requires_grad for t in state.values())
    with torch.no_grad(): model[1].weight.fill_(3)
    assert (state["1.weight"] == 3).all()
    with pytest.raises(TypeError, match="mapping"): model.load_state_dict("model.pt")


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))])
def test_models_copy(copied):
    model = Nested()
    twin = copied(model)
    assert twin.tied is twin.layers[0].weight is twin._parameters["tied"] is not model.tied and twin.also_tied is twin.layers[0]
    assert list(twin.state_dict()) == list(model.state_dict()) and [n for n, _ in twin.named_buffers()] == [n for n, _ in model.named_buffers()]
    exactly(twin.state_dict(), model.state_dict())
    with torch.no_grad(): twin.tied.zero_()
    assert model.tied.any()


def test_models_save_whole():
    file = io.BytesIO()
    torch.save(Nested(), file)
    file.seek(0)
    assert list(torch.load(file, weights_only=False).state_dict()) == list(Nested().state_dict())


# Training

@pytest.mark.parametrize("mixed", [False, True])
def test_training_in_step_with_torch(mixed):
    losses = []
    for lib in BOTH:
        torch.manual_seed(0)
        first = (torch.nn if mixed else lib).Linear(20, 16)
        model = lib.Sequential(first, lib.ReLU(), lib.Linear(16, 4)).double()
        opt, loss_func = torch.optim.SGD(model.parameters(), lr=0.5, momentum=0.9), lib.CrossEntropyLoss()
        x, y = torch.randn(64, 20).double(), torch.randint(4, (64,))
        history = []
        for _ in range(50):
            loss = loss_func(model(x), y)
            loss.backward()
            opt.step()
            model.zero_grad()
            history.append(loss.item())
        losses.append(history)
    assert losses[0][-1] < losses[0][0]/2
    assert_close(losses[0], losses[1], rtol=1e-10, atol=1e-10)


def test_calls_pass_everything_on():
    class Echo(nn.Module):
        def forward(self, *args, **kwargs): return args, kwargs
    assert Echo()(1, 2, key=3) == ((1, 2), {"key": 3})
    assert nn.Lambda(lambda a, b: a - b)(5, 3) == 2
