"""`lockstep` finds exactly the fault that was planted, 100 times, and nothing in 100 clean runs; `diagnose` names the first cause of the
runs in faults.py and unseen.py, accuses no healthy one, and leaves no trace."""
import copy
import math
import multiprocessing
import random
from concurrent.futures import ProcessPoolExecutor
from functools import partial

import numpy as np
import pytest
import torch
import torch.nn.functional as F

import faults
import fdl.nn
import fdl.optim
import unseen
from fdl.core import set_seed
from fdl.lockstep import diagnose, lockstep

LIBS = {"fdl": (fdl.nn, fdl.optim, fdl.nn.CrossEntropyLoss()), "torch": (torch.nn, torch.optim, F.cross_entropy)}
OPTIMIZERS = {"momentum": ("SGD", dict(lr=0.1, momentum=0.9)), "nesterov": ("SGD", dict(lr=0.05, momentum=0.9, nesterov=True, weight_decay=1e-3)), "Adam": ("Adam", dict(lr=0.01)),
              "AdamW": ("AdamW", dict(lr=0.01)), "RMSprop": ("RMSprop", dict(lr=0.005, momentum=0.5, centered=True))}
STEPS = 4
ACCELERATOR = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None

NEEDS = 0
needs_an_accelerator = pytest.mark.skipif(ACCELERATOR is None or ACCELERATOR.type == "mps", reason="needs one that has float64")
pytestmark = pytest.mark.usefixtures("one_thread")  # networks this small are slower on two


class Written(torch.nn.Module):
    "The MLP as a class, its ReLU and its dropout called as functions, its layers defined in another order than used."
    def __init__(self):
        super().__init__()
        self.first, self.second = torch.nn.Linear(36, 12), torch.nn.Linear(12, 5)
    def forward(self, x): return self.second(F.dropout(self.first(x.flatten(1)).relu(), 0.3, self.training))


def make_model(kind: str, lib: str):
    nn = LIBS[lib][0]
    if kind == "mlp": return nn.Sequential(nn.Flatten(), nn.Linear(36, 12), nn.ReLU(), nn.Dropout(0.3), nn.Linear(12, 5))
    if kind == "cnn": return nn.Sequential(nn.Conv2d(1, 4, 3, 2, 1, bias=False), nn.BatchNorm2d(4), nn.ReLU(), nn.Sequential(nn.Conv2d(4, 6, 3, 1, 1), nn.ReLU()), nn.MaxPool2d(3), nn.Flatten(), nn.Linear(6, 5))
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
    expected = dict(step=step, kind=rng.choice(kinds), other="")
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


@pytest.mark.parametrize("seed", range(100))
def test_a_clean_run_reports_nothing(seed):
    rng = random.Random(1000 + seed)
    models, loss_funcs, opts, batches = make_runs(rng)
    before = [[(dict(vars(m)).keys(), m.training) for m in model.modules()] for model in models]
    assert lockstep(models, loss_funcs, opts, batches) is None
    assert before == [[(dict(vars(m)).keys(), m.training) for m in model.modules()] for model in models]


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
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda *args: torch.device("xpu"))
    monkeypatch.setattr(torch.accelerator, "device_count", lambda: 2)
    monkeypatch.setattr(torch.xpu, "get_rng_state", lambda device: drawn[device])
    def put(state, device): drawn[device] = state
    monkeypatch.setattr(torch.xpu, "set_rng_state", put)
    return drawn


def test_all_generators_are_rewound(counters):
    "Those of Python, NumPy and torch, on the CPU and on every device."
    def noise(x):
        counters[1] += 1
        return x*(1 + counters[1]/10 + random.random() + np.random.rand() + torch.rand(1))

    def states(): return [counters.copy(), random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()]

    models = [faults.build("mlp", tail=[fdl.nn.Lambda(noise)])["model"] for _ in range(2)]
    opts = [torch.optim.SGD(model.parameters(), lr=0.01) for model in models]
    batches = list(zip(*(t.split(8) for t in faults.digits())))[:STEPS]
    assert lockstep(models, [F.cross_entropy]*2, opts, batches) is None
    assert counters == [5, 7 + STEPS]
    before = states()
    diagnose(models[0], F.cross_entropy, opts[0], batches)
    assert before == states()


def twins(**options):
    models, loss_funcs, opts, batches = make_runs(random.Random(0), **options)
    models = [models[0], copy.deepcopy(models[0])]
    return models, [F.cross_entropy]*2, [torch.optim.Adam(model.parameters()) for model in models], batches


def test_starting_points_that_differ():
    models, loss_funcs, opts, batches = twins()
    for p in opts[1].param_groups[0]["params"]: p.grad = torch.zeros_like(p)
    opts[1].step()
    found = lockstep(models, loss_funcs, opts, batches)
    assert (found.step, found.kind, found.difference) == (0, "optimizer state", math.inf) and "only the second model has it" in str(found)


def test_ctrl_c_leaves_the_models_as_they_were():
    def pressed(*args): raise KeyboardInterrupt
    models, loss_funcs, opts, batches = twins()
    before = [set(vars(m)) for model in models for m in model.modules()]
    with pytest.raises(KeyboardInterrupt): lockstep(models, [F.cross_entropy, pressed], opts, batches)
    assert before == [set(vars(m)) for model in models for m in model.modules()]
    models, loss_funcs, opts, batches = twins()
    last = list(models[1].modules())[-1]
    last.forward = pressed
    with pytest.raises(KeyboardInterrupt): lockstep(models, loss_funcs, opts, batches)
    assert vars(last)["forward"] is pressed
    del last.forward
    assert before == [set(vars(m)) for model in models for m in model.modules()]


def test_modules_that_return_more_than_a_tensor():
    models = [faults.Rows(), None]
    models[1] = copy.deepcopy(models[0])
    batches = [(torch.rand(4, 784), torch.tensor([1, 2, 3, 4]))]*3
    opts = [torch.optim.Adam(model.parameters()) for model in models]
    assert lockstep(models, [F.cross_entropy]*2, opts, batches) is None
    models[1].gru.forward = at_step(1, lambda output: (output[0], output[1] + 1), models[1].gru.forward)
    found = lockstep(models, [F.cross_entropy]*2, opts, batches)
    assert (found.kind, found.name) == ("activation", "gru #2") and found.difference == pytest.approx(1)


def test_another_dtype_is_a_parting():
    models, loss_funcs, opts, batches = twins()
    found = lockstep([models[0], models[1].float()], loss_funcs, opts, batches)
    assert found.step == 0 and "its dtype is torch.float64 in the first model, torch.float32 in the second" in str(found)


def everything(run: dict) -> list:
    "All that `diagnose` must leave as it was."
    model, opt = run["model"], run["opt"]
    params = [*model.parameters(), *(p for group in opt.param_groups for p in group["params"])]
    generator = getattr(run["dl"], "generator", None)
    return copy.deepcopy([{name: t.clone() for name, t in model.state_dict().items()}, [opt.state.get(p) for p in params], [{k: v for k, v in group.items() if k != "params"} for group in opt.param_groups],
                          [None if p.grad is None else p.grad.clone() for p in params], [m.training for m in model.modules()], [p.requires_grad for p in params], torch.get_rng_state(), random.getstate(),
                          np.random.get_state()[1].tolist(), sorted(vars(opt)), [sorted(vars(m)) for m in model.modules()], None if generator is None else generator.get_state()])


CORPORA = {"tuned": (faults.PLANTED, faults.HEALTHY), "held out": (faults.HELD_OUT, faults.HEALTHY_HELD_OUT), "unseen": (unseen.UNSEEN, unseen.UNSEEN_HEALTHY), "second": (unseen.SECOND, unseen.SECOND_HEALTHY)}


def causes(corpus: str, planted: str | None, i: int) -> list[str]:
    "What `diagnose` finds in run `i` of those with a planted fault, or of the healthy ones."
    torch.set_num_threads(1)
    faulty, healthy = CORPORA[corpus]
    return [finding.cause for finding in diagnose(**(faulty[planted] if planted else healthy)[i]())]


@pytest.fixture(scope="module")
def processes():
    "Two processes, which share the runs."
    with ProcessPoolExecutor(2, multiprocessing.get_context("spawn")) as pool: yield pool


@pytest.mark.parametrize("corpus", CORPORA)
def test_the_first_cause_is_named(corpus, processes, capsys):
    faulty, healthy = CORPORA[corpus]
    runs = [(cause, i) for cause in faulty for i in range(len(faulty[cause]))] + [(None, i) for i in range(len(healthy))]
    found = dict(zip(runs, processes.map(partial(causes, corpus), *zip(*runs)), strict=True))
    missed = [f"{cause}, run {i}: {answer}" for (cause, i), answer in found.items() if cause and answer[:1] != [cause]]
    accused = [f"healthy run {i}: {answer}" for (cause, i), answer in found.items() if cause is None and answer]
    with capsys.disabled(): print(f"\n  {corpus}: {len(runs) - len(healthy) - len(missed)} of {len(runs) - len(healthy)} named first, {len(accused)} of {len(healthy)} accused", *missed, sep="\n    ")
    assert set(faulty) == set(faults.PLANTED) and not accused, accused
    assert len(missed) <= 0.1*(len(runs) - len(healthy)), missed


@pytest.mark.parametrize("make", [faults.PLANTED[cause][i] for cause in faults.PLANTED for i in (0, 4)] + faults.HEALTHY[:7] + faults.HEALTHY_HELD_OUT[:5])
def test_nothing_is_left_behind(make):
    run = make()
    for p in run["model"].parameters():
        if p.requires_grad: p.grad = torch.ones_like(p)
    before, objects = everything(run), [run["opt"].state, run["opt"].param_groups, *(p.grad for p in run["model"].parameters())]
    diagnose(**run)
    for old, new in zip(before, everything(run), strict=True): torch.testing.assert_close(old, new, rtol=0, atol=0, equal_nan=True) if isinstance(old, (dict, torch.Tensor)) else same(old, new)
    assert all(x is y for x, y in zip(objects, [run["opt"].state, run["opt"].param_groups, *(p.grad for p in run["model"].parameters())]))


def same(old, new) -> None:
    "Compares nested lists, dicts and tuples of tensors and numbers."
    if isinstance(old, (list, tuple)):
        for a, b in zip(old, new, strict=True): same(a, b)
    elif isinstance(old, dict):
        assert old.keys() == new.keys()
        for key in old: same(old[key], new[key])
    elif isinstance(old, torch.Tensor): torch.testing.assert_close(old, new, rtol=0, atol=0)
    else: assert old == new
