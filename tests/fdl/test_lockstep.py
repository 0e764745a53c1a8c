"`lockstep` finds exactly the fault that was planted, 100 times, and nothing in 50 clean runs; `undone` and `rewound` leave no trace."
import copy
import math
import random

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch.testing import assert_close

import fdl.nn
import fdl.optim
from fdl.core import set_seed
from fdl.lockstep import hooked, lockstep, rewound, tensors_in, undone

LIBS = {"fdl": (fdl.nn, fdl.optim, fdl.nn.CrossEntropyLoss()), "torch": (torch.nn, torch.optim, F.cross_entropy)}
OPTIMIZERS = {"momentum": ("SGD", dict(lr=0.1, momentum=0.9)),
              "nesterov": ("SGD", dict(lr=0.05, momentum=0.9, nesterov=True, weight_decay=1e-3)),
              "Adam": ("Adam", dict(lr=0.01)), "AdamW": ("AdamW", dict(lr=0.01)),
              "RMSprop": ("RMSprop", dict(lr=0.005, momentum=0.5))}
STEPS = 4
ACCELERATOR = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
needs_an_accelerator = pytest.mark.skipif(ACCELERATOR is None or ACCELERATOR.type == "mps", reason="needs one that has float64")
pytestmark = pytest.mark.usefixtures("one_thread")  # networks this small are slower on two


class Written(torch.nn.Module):
    "The MLP as a class, its ReLU and its dropout called as functions."
    def __init__(self):
        super().__init__()
        self.first, self.second = torch.nn.Linear(36, 12), torch.nn.Linear(12, 5)
    def forward(self, x): return self.second(F.dropout(self.first(x.flatten(1)).relu(), 0.3, self.training))


class Turned(torch.nn.Module):
    "Its layers are defined in another order than used."
    def __init__(self):
        super().__init__()
        self.second, self.first = torch.nn.Linear(12, 5), torch.nn.Linear(36, 12)
    def forward(self, x): return self.second(self.first(x.flatten(1)).relu())


class Rows(torch.nn.Module):
    "A recurrent network: its GRU returns a tuple."
    def __init__(self):
        super().__init__()
        self.gru, self.end = torch.nn.GRU(6, 8, batch_first=True), torch.nn.Linear(8, 5)
    def forward(self, x): return self.end(self.gru(x.flatten(1, 2))[0][:, -1])


def make_model(kind: str, lib: str):
    nn = LIBS[lib][0]
    if kind == "mlp": return nn.Sequential(nn.Flatten(), nn.Linear(36, 12), nn.ReLU(), nn.Dropout(0.3), nn.Linear(12, 5))
    if kind == "cnn":
        block = nn.Sequential(nn.Conv2d(4, 6, 3, 1, 1), nn.ReLU())
        return nn.Sequential(nn.Conv2d(1, 4, 3, 2, 1, bias=False), nn.BatchNorm2d(4), nn.ReLU(), block, nn.MaxPool2d(3), nn.Flatten(), nn.Linear(6, 5))
    return Written()


def make_runs(rng: random.Random, dtype: torch.dtype = torch.float64, device: torch.device | str = "cpu", optimizers: tuple = tuple(OPTIMIZERS)) -> tuple:
    "The arguments of `lockstep` for two runs that agree, each of whose parts is drawn from fdl or torch."
    set_seed(rng.randrange(10**6))
    kind, name = rng.choice(["mlp", "cnn", "written"]), rng.choice(optimizers)
    libs = [rng.choice(list(LIBS)) for _ in range(6)]
    if kind != "cnn" and device != "cpu":  # there fdl's dropout and torch's make different masks of the same numbers
        libs[0] = "torch" if kind == "written" else libs[1]
    models = [make_model("mlp" if kind == "written" else kind, libs[0]), make_model(kind, libs[1])]
    with torch.no_grad():
        for p, q in zip(models[0].parameters(), models[1].parameters(), strict=True): q.copy_(p)
    models = [model.to(device, dtype) for model in models]
    opts = [getattr(LIBS[lib][1], OPTIMIZERS[name][0])(model.parameters(), **OPTIMIZERS[name][1]) for lib, model in zip(libs[2:4], models)]
    batches = [(torch.randn(8, 1, 6, 6, dtype=dtype, device=device), torch.randint(5, (8,), device=device)) for _ in range(STEPS)]
    return models, [LIBS[lib][2] for lib in libs[4:]], opts, batches


def twins(model=None) -> tuple:
    "Two copies of one run."
    models, _, _, batches = make_runs(random.Random(0))
    models = [model.double() if model else models[0], None]
    models[1] = copy.deepcopy(models[0])
    return models, [F.cross_entropy]*2, [torch.optim.Adam(model.parameters()) for model in models], batches


def at_step(step: int, fault, function):
    "`function`, after whose call number `step` comes `fault(result)`, which may replace the result."
    calls = []
    def call(*args, **kwargs):
        calls.append(1)
        result = function(*args, **kwargs)
        if len(calls) != step: return result
        other = fault(result)
        return result if other is None else other
    return call


def disturbed(t: torch.Tensor, rng: random.Random, expected: dict, often_nan: bool = False) -> torch.Tensor:
    "`t` with one entry changed, by a thousandth of the largest or more; how much is noted in `expected`."
    by = rng.choice([-1, 1])*10**rng.uniform(-3, 1)*(t.detach().abs().max().item() or 1)
    if often_nan and rng.random() < 0.2: by = math.nan
    expected["difference"] = math.inf if math.isnan(by) else abs(by)
    change = torch.zeros_like(t).reshape(-1)
    change[rng.randrange(len(change))] = by
    return t + change.reshape(t.shape)


def plant(rng: random.Random, models: list, loss_funcs: list, opts: list) -> dict:
    "Plants one fault in the second run; returns what `lockstep` has to say about it, in part filled in when it happens."
    model, opt, step = models[1], opts[1], rng.randint(1, STEPS)
    kinds = ["activation", "loss", "gradient", "parameter", "optimizer state"] + ["buffer"]*bool(list(model.named_buffers()))
    expected = dict(step=step, kind=rng.choice(kinds), other="value")
    modules, parameters = ({name: x for name, x in named} for named in (model.named_modules(), model.named_parameters()))

    def change(owner, key):
        "Changes a tensor or a number that stays, in place."
        value = owner[key]
        if isinstance(value, torch.Tensor) and value.is_floating_point() and value.ndim: value.data.copy_(disturbed(value.detach(), rng, expected))
        else:
            owner[key] += 1
            expected["difference"] = 1

    if expected["kind"] == "activation":
        expected["other"] = name = rng.choice([name for name, module in modules.items() if not list(module.children())])
        modules[name].forward = at_step(step, lambda output: disturbed(output, rng, expected, often_nan=True), modules[name].forward)
    elif expected["kind"] == "loss": loss_funcs[1] = at_step(step, lambda loss: disturbed(loss, rng, expected), loss_funcs[1])
    elif expected["kind"] == "gradient":
        expected["other"] = name = rng.choice(list(parameters))
        parameters[name].register_hook(at_step(step, lambda grad: disturbed(grad, rng, expected), lambda grad: grad))
    elif expected["kind"] == "buffer":
        norm = next(name for name, module in modules.items() if "Norm" in type(module).__name__)
        key = rng.choice(["running_mean", "running_var", "num_batches_tracked"])
        expected["other"] = f"{norm}.{key}"
        modules[norm].forward = at_step(step, lambda output: change(modules[norm]._buffers, key), modules[norm].forward)
    else:
        name = rng.choice(list(parameters))
        expected["other"] = name
        def fault(result):
            if expected["kind"] == "parameter": return change(parameters, name)
            key = rng.choice([key for key, value in opt.state[parameters[name]].items() if value is not None])
            expected["other"] = f"{name}.{key}"
            change(opt.state[parameters[name]], key)
        vars(opt)["step"] = at_step(step, fault, opt.step)
    return expected


def run_named(name: str, models: list) -> str:
    "The name in the first model of what is called `name` in the second."
    if not isinstance(models[1], Written): return name
    return name.replace("first", "1").replace("second", "4")


@pytest.mark.parametrize("seed", range(100))
def test_a_planted_fault_is_found_exactly(seed):
    rng = random.Random(seed)
    models, loss_funcs, opts, batches = make_runs(rng)
    expected = plant(rng, models, loss_funcs, opts)
    found = lockstep(models, loss_funcs, opts, batches)
    assert found, f"nothing found: {expected}"
    assert (found.step, found.kind, found.other) == (expected["step"], expected["kind"], expected["other"]), f"{found}\nplanted: {expected}"
    assert found.name == run_named(expected["other"], models)
    assert found.difference == pytest.approx(expected["difference"], rel=1e-6)
    assert f"step {found.step}" in str(found) and found.name in str(found)


@pytest.mark.parametrize("seed", range(50))
def test_a_clean_run_reports_nothing(seed):
    models, loss_funcs, opts, batches = make_runs(random.Random(1000 + seed))
    before = [[module.training for module in model.modules()] for model in models]
    assert lockstep(models, loss_funcs, opts, batches) is None
    assert before == [[module.training for module in model.modules()] for model in models]
    assert not any(module._forward_hooks for model in models for module in model.modules())


def test_it_trains_as_a_run_alone_does():
    models, loss_funcs, opts, batches = twins()
    alone = copy.deepcopy(models[0])
    opt = torch.optim.Adam(alone.parameters())
    set_seed(1)
    assert lockstep(models, loss_funcs, opts, batches) is None
    drawn = torch.rand(1)
    set_seed(1)
    for xb, yb in batches:
        opt.zero_grad()
        F.cross_entropy(alone(xb), yb).backward()
        opt.step()
    for model in models: assert_close(model.state_dict(), alone.state_dict())
    assert_close(torch.rand(1), drawn)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("seed", range(5))
def test_other_dtypes(dtype, seed):
    def runs():
        models, _, _, batches = make_runs(random.Random(seed))
        models = [models[1].to(dtype), copy.deepcopy(models[1])]
        return models, [F.cross_entropy]*2, [torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9) for model in models], [(x.to(dtype), y) for x, y in batches]

    assert lockstep(*runs()) is None
    models, loss_funcs, opts, batches = runs()
    name, p = random.Random(seed).choice(list(models[1].named_parameters()))
    p.register_hook(at_step(2, lambda grad: grad*2 + 1, lambda grad: grad))
    found = lockstep(models, loss_funcs, opts, batches)
    assert (found.step, found.kind, found.name) == (2, "gradient", name)


def test_float32_libraries_agree_for_some_steps():
    for seed in range(20): assert lockstep(*make_runs(random.Random(seed), torch.float32, optimizers=("momentum", "nesterov"))) is None, seed


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
def test_half_of_the_digits_agree_of_the_largest_entry(dtype):
    def moved(by):
        "Whether a parameter of 1000 that is off by `by` parts."
        models = [torch.nn.Linear(1, 2).to(dtype) for _ in range(2)]
        for model, bias in zip(models, (1000., 1000. + by)): model.load_state_dict({"weight": torch.ones(2, 1), "bias": torch.tensor([bias, 0.], dtype=dtype)})
        return lockstep(models, [F.mse_loss]*2, [torch.optim.SGD(model.parameters()) for model in models], [(torch.ones(1, 1, dtype=dtype), torch.ones(1, 2, dtype=dtype))])
    rtol = torch.finfo(dtype).eps**0.5
    assert moved(1300*rtol).step == 0 and (moved(900*rtol) is None or moved(900*rtol).step > 0)


def test_limits_that_are_given():
    def runs():
        models, loss_funcs, opts, batches = twins()
        with torch.no_grad(): next(models[1].parameters())[0, 0] += 0.25
        return models, loss_funcs, opts, batches[:1]
    assert lockstep(*runs(), rtol=0, atol=0.24).difference == pytest.approx(0.25)
    assert lockstep(*runs(), rtol=1e9) is lockstep(*runs(), rtol=0, atol=10) is None


def test_two_nans_agree():
    models, loss_funcs, opts, batches = twins()
    for model in models: torch.nn.init.constant_(next(model.parameters()), math.nan)
    assert lockstep(models, loss_funcs, opts, batches) is None


@needs_an_accelerator
def test_on_two_devices():
    for seed in range(10):
        models, loss_funcs, opts, batches = make_runs(random.Random(seed))
        for model in models: model.eval()  # the devices draw different random numbers
        models[1].to(ACCELERATOR)
        assert lockstep(models, loss_funcs, opts, batches) is None, seed
        next(models[1].parameters()).register_hook(lambda grad: grad + 1)
        assert lockstep(models, loss_funcs, opts, batches).difference == pytest.approx(1), seed


@needs_an_accelerator
def test_same_random_numbers_on_an_accelerator():
    for seed in range(10): assert lockstep(*make_runs(random.Random(seed), device=ACCELERATOR)) is None, seed


@pytest.fixture
def counters(monkeypatch) -> list[int]:
    "An accelerator with two devices, as far as random numbers go: each counts what was drawn from it."
    drawn = [5, 7]
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: True)
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda *args, **kwargs: torch.device("xpu"))
    monkeypatch.setattr(torch.accelerator, "device_count", lambda: 2)
    monkeypatch.setattr(torch.xpu, "get_rng_state", lambda device: drawn[device])
    def put(state, device): drawn[device] = state
    monkeypatch.setattr(torch.xpu, "set_rng_state", put)
    return drawn


def test_all_generators_are_rewound(counters):
    "Those of Python, NumPy and torch, on the CPU and on every device."
    def states(): return [counters.copy(), random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()]
    def draw():
        counters[1] += 1
        return 1 + counters[1]/10 + random.random() + np.random.rand() + torch.rand(1, dtype=torch.float64)

    before = states()
    with rewound(): draw()
    assert before == states()
    with pytest.raises(KeyboardInterrupt), rewound():
        draw()
        raise KeyboardInterrupt
    assert before == states()
    models, loss_funcs, _, batches = twins(fdl.nn.Sequential(fdl.nn.Flatten(), fdl.nn.Linear(36, 5), fdl.nn.Lambda(lambda x: x*draw())))
    opts = [fdl.optim.SGD(model.parameters(), 0.01) for model in models]
    assert lockstep(models, loss_funcs, opts, batches) is None
    assert counters == [5, 7 + STEPS]


def test_starting_points_that_differ():
    models, loss_funcs, opts, batches = twins()
    for p in opts[1].param_groups[0]["params"]: p.grad = torch.zeros_like(p)
    opts[1].step()
    kept = copy.deepcopy(models[0].state_dict())
    found = lockstep(models, loss_funcs, opts, batches)
    assert (found.step, found.kind, found.difference) == (0, "optimizer state", math.inf) and "it is missing in the first model, torch.float64 of shape" in str(found)
    assert_close(models[0].state_dict(), kept)                                          # no step was made


@pytest.mark.parametrize("order, which", [(1, "first"), (-1, "second")])
def test_what_only_one_model_has(order, which):
    models, loss_funcs, opts, batches = twins()
    models[1].spare = torch.nn.Linear(1, 1).double()
    found = lockstep(models[::order], loss_funcs, opts[::order], batches)
    assert (found.step, found.name, found.other) == (0, "spare.weight", "spare.weight") and f"missing in the {which}" in str(found)


def test_a_gradient_that_only_one_model_has():
    models, loss_funcs, opts, batches = twins(Turned())
    models[1].first.bias.requires_grad_(False)
    found = lockstep(models, loss_funcs, opts, batches)
    assert (found.step, found.kind, found.name) == (1, "gradient", "first.bias") and "in the first model, missing in the second" in str(found)


def test_gradients_come_from_the_last_layer_back():
    "In the order in which layers are called, not in which they are defined."
    models, loss_funcs, opts, batches = twins(Turned())
    for p in models[1].parameters(): p.register_hook(lambda grad: grad + 1)
    assert lockstep(models, loss_funcs, opts, batches).name == "second.weight"


def test_ctrl_c_takes_the_hooks_off():
    def pressed(*args): raise KeyboardInterrupt
    models, loss_funcs, opts, batches = twins()
    last = list(models[1].modules())[-1]
    last.forward = pressed
    with pytest.raises(KeyboardInterrupt): lockstep(models, loss_funcs, opts, batches)
    assert vars(last)["forward"] is pressed and not any(m._forward_hooks for model in models for m in model.modules())


def test_modules_that_return_more_than_a_tensor():
    models, loss_funcs, opts, batches = twins(Rows())
    assert lockstep(models, loss_funcs, opts, batches) is None
    models[1].gru.forward = at_step(1, lambda output: (output[0], output[1] + 1), models[1].gru.forward)
    found = lockstep(models, loss_funcs, opts, batches)
    assert (found.kind, found.name) == ("activation", "gru #2") and found.difference == pytest.approx(1)


def test_a_shared_module_is_watched_at_each_call():
    class Twice(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.flat, self.one, self.end = torch.nn.Flatten(), torch.nn.Linear(36, 36), torch.nn.Linear(36, 5)
        def forward(self, x): return self.end(self.one(self.one(self.flat(x))))
    models, loss_funcs, opts, batches = twins(Twice())
    models[1].one.forward = at_step(4, lambda output: output + 1, models[1].one.forward)
    found = lockstep(models, loss_funcs, opts, batches)
    assert (found.step, found.kind, found.name) == (2, "activation", "one #2")


def test_another_dtype_or_shape_is_a_parting():
    models, loss_funcs, opts, batches = twins()
    found = lockstep([models[0], copy.deepcopy(models[1]).float()], loss_funcs, opts, batches)
    assert found.step == 0 and found.difference == math.inf and "torch.float64" in str(found) and "torch.float32" in str(found)
    wide = copy.deepcopy(models[0])
    last = [*wide.modules()][-1]
    last.weight = torch.nn.Parameter(torch.zeros(6, last.weight.shape[1]).double())
    assert "of shape (6," in str(lockstep([models[0], wide], loss_funcs, opts, batches))


def test_no_batches():
    models, loss_funcs, opts, _ = twins()
    with pytest.raises(ValueError, match="batches gave no batches"): lockstep(models, loss_funcs, opts, iter(()))


def test_tensors_in():
    a, b, c = torch.arange(3.)
    found = tensors_in([a, {"b": b, "name": "no tensor"}, (c, None), 3])
    assert len(found) == 3 and all(x is y for x, y in zip(found, (a, b, c)))


@pytest.mark.parametrize("lib", LIBS)
def test_hooked(lib):
    model, x, seen = make_model("mlp", lib).eval(), torch.rand(4, 36), []
    before = model(x)
    with hooked(model, lambda name, module, output: seen.append((name, module, tuple(output.shape)))): assert_close(model(x), before)
    assert seen == [(name, module, (4, n)) for (name, module), n in zip([*model.named_modules()][1:] + [("", model)], (36, 12, 12, 12, 5, 5))]
    with hooked(model, lambda name, module, output: -output if name == "4" else None): assert_close(model(x), -before)
    with pytest.raises(KeyboardInterrupt), hooked(model, lambda *args: 1): raise KeyboardInterrupt
    assert_close(model(x), before)


@pytest.mark.parametrize("lib", LIBS)
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_undone(lib, name):
    "All that can be changed is changed, from within, with Ctrl-C at the end, and is as before."
    nn, optim, _ = LIBS[lib]
    model, other = make_model("cnn", lib).eval(), fdl.nn.Parameter(torch.ones(2))
    opt = getattr(optim, OPTIMIZERS[name][0])([*model.parameters(), other], **OPTIMIZERS[name][1])
    norm, params = model[1], [*model.parameters(), other]
    for p in params[::2]: p.grad = torch.ones_like(p)
    opt.step()
    def everything():
        groups = [{k: v for k, v in group.items() if k != "params"} for group in opt.param_groups]
        modes = [m.training for m in model.modules()]
        return copy.deepcopy([model.state_dict(), [opt.state.get(p) for p in params], groups, [p.grad for p in params], modes, other.detach(),
                              torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist(), sorted(vars(opt)), sorted(vars(model))])
    start, state, grad, running = everything(), opt.state, params[0].grad, norm.running_mean
    with pytest.raises(KeyboardInterrupt), undone(model, opt):
        model.train()(torch.rand(4, 1, 6, 6))
        model.new, opt.new, opt.param_groups[0]["lr"], norm.running_mean = 1, 1, 7., torch.ones(4)
        assert torch.equal(params[0].grad, torch.ones_like(params[0])) and len(opt.state) == len(params[::2])
        for p in params: p.grad = torch.ones_like(p) if p.grad is None else p.grad.add_(1)
        opt.step()
        torch.rand(1), random.random(), np.random.rand()
        raise KeyboardInterrupt
    assert str(start) == str(everything()) and opt.state is state and params[0].grad is grad and norm.running_mean is running


def test_a_hundred_roundings_are_no_parting():
    for by, agree in ((50, True), (200, False)):
        models = [torch.nn.Linear(1, 1).double() for _ in range(2)]
        for model, bias in zip(models, (0., by*2**-52)): model.load_state_dict({"weight": torch.ones(1, 1), "bias": torch.tensor([bias], dtype=torch.float64)})
        batch = (torch.ones(1, 1).double(), torch.ones(1, 1).double())
        found = lockstep(models, [F.mse_loss]*2, [torch.optim.SGD(model.parameters(), 0.) for model in models], [batch])
        assert (found is None) is agree, found


def test_no_gradient_in_both():
    models, loss_funcs, opts, batches = twins(Turned())
    for model in models: model.first.bias.requires_grad_(False)
    assert lockstep(models, loss_funcs, opts, batches) is None


def test_undone_takes_back_a_change_of_dtype():
    model = fdl.nn.Sequential(fdl.nn.Linear(3, 2), torch.nn.BatchNorm1d(2))
    opt = fdl.optim.SGD(model.parameters(), lr=0.1)
    before = {name: (value, value.clone()) for name, value in model.state_dict(keep_vars=True).items()}
    with undone(model, opt): model.double()(torch.randn(4, 3, dtype=torch.float64)).sum().backward()
    for name, value in model.state_dict(keep_vars=True).items():
        assert value is before[name][0] and value.grad is None
        assert torch.equal(value, before[name][1]) and value.dtype == before[name][1].dtype


@pytest.mark.parametrize("lib", [fdl.nn, torch.nn])
def test_what_is_replaced_or_added_inside_is_undone(lib):
    "A parameter, a submodule, a hook, a group of the optimizer."
    model = lib.Sequential(lib.Linear(3, 4), lib.ReLU(), lib.Linear(4, 2))
    opt = torch.optim.SGD(model[0].parameters(), lr=0.1)
    weight, last, names = model[0].weight, model[2], [name for name, _ in model.named_parameters()]
    with undone(model, opt):
        model[0].weight = torch.nn.Parameter(torch.zeros(4, 3))
        model[2] = lib.Linear(4, 5)
        opt.add_param_group({"params": list(model[2].parameters())})
        model[1].register_forward_hook(lambda *args: None)
    assert model[0].weight is weight and model[2] is last and [name for name, _ in model.named_parameters()] == names
    assert len(opt.param_groups) == 1 and not model[1]._forward_hooks
