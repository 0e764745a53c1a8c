"""Every option of ours against torch's optimizers and schedules, and the corners that would bore a reader of lesson 08."""

import copy
import io
import math
import pickle

import pytest
import torch
from torch.testing import assert_close
from torch.testing._internal.common_optimizers import optim_db

from fdl import nn, optim

NAMES = ["SGD", "RMSprop", "Adam", "AdamW"]
NOT_OURS = {"amsgrad"}  # an exercise of the lesson

INFOS = {info.optim_cls.__name__: info for info in optim_db if info.optim_cls.__name__ in NAMES}
CASES = [pytest.param(name, x.kwargs, id=f"{name}-{x.desc}") for name, info in INFOS.items()
         for x in info.optim_inputs_func(device="cpu") if not NOT_OURS & x.kwargs.keys()]
MORE = [pytest.param(name, kwargs, id=f"{name}-{kwargs}") for name, kwargs in [
    ("SGD", dict(momentum=0.7, dampening=0.9, weight_decay=0.3, maximize=True)),
    ("SGD", dict(lr=0.1, momentum=0.5, nesterov=True, maximize=True)),
    ("RMSprop", dict(alpha=0.7, eps=0.1, momentum=0.9)),
    ("RMSprop", dict(alpha=0.5, eps=0.01, centered=True)),
    ("Adam", dict(betas=(0.5, 0.6), eps=0.1, weight_decay=0.3, lr=0.1)),
    ("Adam", dict(betas=(0.0, 0.0))),
    ("AdamW", dict(betas=(0.5, 0.6), eps=0.1, weight_decay=0.3, lr=0.1)),
    ("AdamW", dict(weight_decay=0)),
]]
ALL = CASES + MORE
SHAPES = [(5, 3), (5,), (2, 1, 4), ()]


def leaves(dtype=torch.float64):
    torch.manual_seed(1)
    return [torch.randn(shape, dtype=dtype, requires_grad=True) for shape in SHAPES]


def give_grads(step, *lists):
    "The same gradients to every list: those of a moving bowl, seen through noise; the second tensor has none at times."
    g = torch.Generator().manual_seed(step)
    for i, twins in enumerate(zip(*lists)):
        noise = torch.randn(twins[0].shape, generator=g, dtype=torch.float64)
        for p in twins: p.grad = None if i == 1 and step % 3 == 1 else (p.detach().double() - 1 + noise).to(p.dtype)


def run(ours, theirs, a, b, steps=100, first=0, **tolerance):
    for step in range(first, first + steps):
        give_grads(step, a, b)
        grads = [None if p.grad is None else p.grad.clone() for p in a]
        ours.step()
        theirs.step()
        for p, grad in zip(a, grads): assert p.grad is grad is None or torch.equal(p.grad, grad), "a step must not change gradients"
        for p, q in zip(a, b): assert_close(p, q, **tolerance or dict(rtol=1e-11, atol=1e-13))
        ours.zero_grad()
        theirs.zero_grad()


def pair(name, kwargs, groups=False, dtype=torch.float64, **theirs):
    "Our optimizer and torch's, with the same settings, on equal tensors."
    a, b = leaves(dtype), leaves(dtype)
    split = lambda ps: [{"params": ps[:2]}, {"params": iter(ps[2:3]), "lr": 0.02, "weight_decay": 0.01}, {"params": ps[3]}] if groups else ps
    return getattr(optim, name)(split(a), **kwargs), getattr(torch.optim, name)(split(b), **kwargs, **theirs), a, b


def test_every_optimizer_of_ours_is_compared():
    assert INFOS.keys() == set(NAMES)
    assert len(CASES) == sum(len(info.optim_inputs_func(device="cpu")) for info in INFOS.values()) - 2


@pytest.mark.parametrize("groups", [False, True], ids=["one group", "three groups"])
@pytest.mark.parametrize("name, kwargs", ALL)
def test_equals_torch(name, kwargs, groups):
    run(*pair(name, kwargs, groups))


@pytest.mark.parametrize("name, kwargs", ALL)
def test_state_travels_both_ways(name, kwargs):
    ours, theirs, a, b = pair(name, kwargs, groups=True)
    run(ours, theirs, a, b, 7)
    mine, its = ours.state_dict(), theirs.state_dict()
    assert mine["state"].keys() == its["state"].keys() and all(mine["state"][i].keys() == its["state"][i].keys() for i in its["state"])
    assert_close([mine["state"][i][k] for i in mine["state"] for k in mine["state"][i] if k != "step"],
                 [its["state"][i][k] for i in mine["state"] for k in mine["state"][i] if k != "step"])
    for i in its["state"]: assert mine["state"][i].get("step") == its["state"][i].get("step")
    for m, t in zip(mine["param_groups"], its["param_groups"]): assert all(t[k] == m[k] for k in m)

    for opt, state in ((ours, its), (theirs, mine)):                            # swapped, through a file
        file = io.BytesIO()
        torch.save(state, file)
        file.seek(0)
        opt.load_state_dict(torch.load(file, weights_only=True))
    run(ours, theirs, a, b, 10, first=7)

    new_ours, new_theirs, a2, b2 = pair(name, {}, groups=True)                  # and into fresh ones with other settings
    with torch.no_grad():
        for p, q, old in zip(a2, b2, a): p.copy_(old), q.copy_(old)
    new_ours.load_state_dict(copy.deepcopy(theirs.state_dict()))
    new_theirs.load_state_dict(copy.deepcopy(ours.state_dict()))
    run(new_ours, new_theirs, a2, b2, 10, first=17)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("name, kwargs", [("SGD", dict(lr=0.1, momentum=0.9, nesterov=True, weight_decay=0.1)), ("RMSprop", dict(centered=True, momentum=0.5)),
                                          ("Adam", dict(weight_decay=0.1, eps=1e-3)), ("AdamW", dict(eps=1e-3))])
def test_other_dtypes(name, kwargs, dtype):
    ours, theirs, a, b = pair(name, kwargs, dtype=dtype)
    eps = torch.finfo(dtype).eps
    run(ours, theirs, a, b, 30, rtol=50*eps, atol=20*eps)
    assert all(p.dtype == dtype for p in a)
    assert all(v.dtype == dtype for state in ours.state.values() for k, v in state.items() if k != "step")


@pytest.mark.parametrize("name", NAMES)
def test_a_gradient_that_overflows_when_squared_does_what_it_does_in_torch(name):
    ours, theirs = (torch.ones(3, requires_grad=True) for _ in range(2))
    opts = getattr(optim, name)([ours], lr=0.1), getattr(torch.optim, name)([theirs], lr=0.1)
    for grad in (torch.tensor([1., 1e25, -1e25]), torch.ones(3), torch.ones(3)):
        ours.grad, theirs.grad = grad, grad.clone()
        for opt in opts: opt.step()
        assert_close(ours, theirs)
    assert ours.isfinite().all()


@pytest.mark.parametrize("info", INFOS.values(), ids=lambda info: info.optim_cls.__name__)
def test_bad_settings_raise_what_torch_raises(info):
    checked = 0
    for case in info.optim_error_inputs_func(device="cpu", dtype=torch.float64):
        if "names" in case.error_regex or "Tensor" in case.error_regex.replace("iterable of Tensors", ""): continue  # no named parameters, no tensors as settings
        x, checked = case.optimizer_error_input, checked + 1
        params = [torch.ones(1, requires_grad=True)] if x.params is None else x.params
        expected = pytest.warns if issubclass(case.error_type, Warning) else pytest.raises
        with expected(case.error_type, match=case.error_regex): getattr(optim, info.optim_cls.__name__)(params, **x.kwargs)
    assert checked >= 4


@pytest.mark.parametrize("bad", [-1, -1e-9, float("nan")])
@pytest.mark.parametrize("name, setting", [("SGD", "lr"), ("SGD", "momentum"), ("SGD", "weight_decay"), ("RMSprop", "lr"), ("RMSprop", "eps"), ("RMSprop", "momentum"),
                                           ("RMSprop", "alpha"), ("RMSprop", "weight_decay"), ("Adam", "lr"), ("Adam", "eps"), ("AdamW", "weight_decay")])
def test_settings_out_of_range(name, setting, bad):
    p = torch.ones(1, requires_grad=True)
    with pytest.raises(ValueError, match=f"{setting} value: {bad}"): getattr(optim, name)([p], **{setting: bad})
    with pytest.raises(ValueError, match=f"{setting} value: {bad}"): getattr(optim, name)([p]).add_param_group({"params": torch.ones(1), setting: bad})


@pytest.mark.parametrize("name", NAMES)
def test_runs_on_meta_without_reading_a_value(name):
    p = torch.empty(3, device="meta", requires_grad=True)
    opt = getattr(optim, name)([p], weight_decay=0.1)
    for _ in range(2):
        p.grad = torch.empty(3, device="meta")
        opt.step()
        opt.zero_grad()
    assert p.grad is None


@pytest.mark.parametrize("name", NAMES)
def test_trains_modules_of_both_libraries(name):
    torch.manual_seed(0)
    x, y = torch.randn(32, 4), torch.randn(32, 1)
    for lib in (nn, torch.nn):
        model = lib.Sequential(lib.Linear(4, 8), lib.ReLU(), lib.Linear(8, 1))
        opt, losses = getattr(optim, name)(model.parameters(), lr=0.01), []
        for _ in range(50):
            loss = (model(x) - y).square().mean()
            losses.append(loss.item())
            opt.zero_grad()
            loss.backward()
            opt.step()
        assert losses[-1] < losses[0]
        assert optim.missing_parameters(opt, model) == []


@pytest.mark.parametrize("name", NAMES)
def test_copies_and_pickles_go_on_alike(name):
    ours, _, a, _ = pair(name, {})
    give_grads(0, a)
    ours.step()
    twin, b = copy.deepcopy((ours, a))
    other, c = pickle.loads(pickle.dumps((ours, a)))
    for step in range(1, 5):
        give_grads(step, a, b, c)
        for opt in (ours, twin, other): opt.step()
    for p, q, r in zip(a, b, c): assert torch.equal(p, q) and torch.equal(p, r)


def test_the_learning_rate_may_change_at_any_time():
    ours, theirs, a, b = pair("Adam", {}, groups=True)
    for i in range(5):
        for opt in (ours, theirs): opt.param_groups[i % 3]["lr"] = 0.1*(i + 1)
        run(ours, theirs, a, b, 3, first=3*i)


def test_a_parameter_that_joins_late_has_its_own_step_count():
    ours, theirs, a, b = pair("Adam", {}, groups=True)
    run(ours, theirs, a, b, 5)
    new = [torch.ones(3, dtype=torch.float64, requires_grad=True) for _ in range(2)]
    for opt, p in zip((ours, theirs), new): opt.add_param_group({"params": [p], "lr": 0.1})
    run(ours, theirs, a + new[:1], b + new[1:], 5, first=5)
    assert {state["step"] for state in ours.state.values()} == {5, 6, 10} or {state["step"] for state in ours.state.values()} == {5, 7, 10}


def test_zero_grad_in_place_drops_the_graph():
    p = torch.ones(2, requires_grad=True)
    (p**3).sum().backward(create_graph=True)
    held = p.grad
    optim.SGD([p]).zero_grad(set_to_none=False)
    assert p.grad.grad_fn is None and p.grad.data_ptr() == held.data_ptr() and p.grad.count_nonzero() == 0


def test_add_param_group_leaves_the_callers_dictionary_alone():
    group = {"params": (p for p in [torch.ones(1)])}
    opt = optim.SGD([group], lr=0.1)
    assert group.keys() == {"params"} and opt.param_groups[0]["lr"] == 0.1 and len(opt.param_groups[0]["params"]) == 1


def test_missing_parameters_of_mixed_libraries():
    for lib in (nn, torch.nn):
        model = lib.Linear(2, 3)
        for library in (optim, torch.optim):
            assert optim.missing_parameters(library.SGD([model.bias]), model) == ["weight"]


# Schedules

def optimizers(adam=False, **kwargs):
    "Ours and torch's, with two groups of different rates."
    for lib in (optim, torch.optim):
        groups = [{"params": [torch.ones(1, requires_grad=True)]}, {"params": [torch.ones(1, requires_grad=True)], "lr": 0.5}]
        yield lib.Adam(groups, lr=2.0) if adam else lib.SGD(groups, lr=2.0, momentum=0.7)


def settings(opt): return [(g["lr"], g["betas"] if "betas" in g else g["momentum"]) for g in opt.param_groups]


SCHEDULES = [("StepLR", dict(step_size=4)), ("StepLR", dict(step_size=1, gamma=0.9)), ("StepLR", dict(step_size=7, gamma=2.0)),
             ("CosineAnnealingLR", dict(T_max=10)), ("CosineAnnealingLR", dict(T_max=29, eta_min=0.1)), ("CosineAnnealingLR", dict(T_max=50)),
             *[("OneCycleLR", dict(max_lr=3.0, total_steps=n, pct_start=pct, anneal_strategy=how, cycle_momentum=cycle))
               for n in (30, 40) for pct in (0.0, 0.25, 0.3, 0.9) for how in ("cos", "linear") for cycle in (True, False)],
             ("OneCycleLR", dict(max_lr=[1.0, 2.0], epochs=6, steps_per_epoch=5, div_factor=3.0, final_div_factor=7.0)),
             ("OneCycleLR", dict(max_lr=1.0, total_steps=30, base_momentum=[0.1, 0.2], max_momentum=[0.8, 0.9]))]


@pytest.mark.parametrize("adam", [False, True], ids=["SGD", "Adam"])
@pytest.mark.parametrize("name, kwargs", SCHEDULES, ids=str)
def test_schedule_equals_torch(name, kwargs, adam):
    ours, theirs = optimizers(adam)
    mine, its = (getattr(lib.lr_scheduler, name)(opt, **kwargs) for lib, opt in ((optim, ours), (torch.optim, theirs)))
    for step in range(30):
        torch.testing.assert_close(settings(ours), settings(theirs), rtol=1e-9, atol=1e-12)
        torch.testing.assert_close(mine.get_last_lr(), [g["lr"] for g in ours.param_groups], rtol=1e-12, atol=0)
        for opt in (ours, theirs): opt.step()
        mine.step(), its.step()
        if step == 11:                                                                  # each takes over the other's state
            saved = copy.deepcopy((mine.state_dict(), its.state_dict()))
            mine.load_state_dict(saved[1]), its.load_state_dict(saved[0])


@pytest.mark.parametrize("name, kwargs", [("StepLR", dict(step_size=4)), ("CosineAnnealingLR", dict(T_max=30)), ("OneCycleLR", dict(max_lr=3.0, total_steps=30))])
def test_a_run_resumed_from_files_goes_on_as_if_never_stopped(name, kwargs):
    opt, _ = optimizers()
    schedule, expected = getattr(optim, name)(opt, **kwargs), []
    for step in range(25):
        if step == 10: saved = copy.deepcopy((opt.state_dict(), schedule.state_dict()))
        expected.append(settings(opt))
        opt.step(), schedule.step()
    opt, _ = optimizers()
    schedule = getattr(optim, name)(opt, **kwargs)
    opt.load_state_dict(saved[0]), schedule.load_state_dict(saved[1])
    for step in range(10, 25):
        assert settings(opt) == expected[step]
        opt.step(), schedule.step()

    opt, _ = optimizers()                                                               # or with last_epoch alone
    opt.load_state_dict(saved[0])
    assert settings(opt) == expected[10]
    schedule = getattr(optim, name)(opt, **kwargs, last_epoch=saved[1]["last_epoch"] - 1)
    for step in range(10, 25):
        torch.testing.assert_close(settings(opt), expected[step])
        opt.step(), schedule.step()


def test_schedule_works_on_torchs_optimizer():
    _, opt = optimizers()
    schedule = optim.StepLR(opt, 2, gamma=0.5)
    for _ in range(4): schedule.step()
    assert schedule.get_last_lr() == [0.5, 0.125] == [g["lr"] for g in opt.param_groups]


@pytest.mark.parametrize("kwargs", [dict(), dict(epochs=3), dict(steps_per_epoch=3), dict(total_steps=0), dict(total_steps=-1), dict(total_steps=3.5), dict(epochs=0, steps_per_epoch=3),
                                    dict(epochs=3, steps_per_epoch=1.5), dict(total_steps=10, pct_start=1.5), dict(total_steps=10, pct_start=-0.5),
                                    dict(total_steps=10, anneal_strategy="exp"), dict(total_steps=10, base_momentum=[0.1]), dict(total_steps=10, max_lr=[1.0])], ids=str)
def test_one_cycle_refuses_what_torch_refuses(kwargs):
    ours, theirs = optimizers()
    messages = []
    for lib, opt in ((optim, ours), (torch.optim, theirs)):
        with pytest.raises(ValueError) as caught: lib.lr_scheduler.OneCycleLR(opt, **{"max_lr": 1.0} | kwargs)
        messages.append(str(caught.value))
    if not any(isinstance(v, list) for v in kwargs.values()): assert messages[0] == messages[1]


def test_one_cycle_past_its_end():
    for opt, lib in zip(optimizers(), (optim, torch.optim)):
        schedule = lib.lr_scheduler.OneCycleLR(opt, 1.0, total_steps=3)
        for _ in range(3): opt.step(), schedule.step()
        with pytest.raises(ValueError, match="Tried to step 4 times. The specified number of total steps is 3"): schedule.step()


@pytest.mark.parametrize("total, pct", [(10, 0.1), (10, 1.0), (1, 1.0), (1, 0.0), (2, 0.5)])
def test_one_cycle_where_torch_divides_by_zero(total, pct):
    opt, _ = optimizers()
    schedule = optim.OneCycleLR(opt, 1.0, total_steps=total, pct_start=pct)
    for _ in range(total):
        assert all(math.isfinite(lr) and 0 <= lr <= 1 for lr in schedule.get_last_lr())
        schedule.step()
