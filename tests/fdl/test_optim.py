"Our optimizers against torch's: every kept option, every shape of group, states that travel, and what is refused."
import copy
import inspect
import io
import pickle

import pytest
import torch
from hypothesis import given, settings, strategies as st
from torch.testing import assert_close
from torch.optim.optimizer import register_optimizer_step_post_hook, register_optimizer_step_pre_hook
from torch.testing._internal.common_optimizers import optim_db

from fdl import nn, optim
from helpers import assert_hands_on

NAMES = ["SGD", "RMSprop", "Adam", "AdamW"]
LEFT_OUT = {"amsgrad", "centered", "dampening", "maximize"}
INFOS = {info.optim_cls.__name__: info for info in optim_db if info.optim_cls.__name__ in NAMES}
SAMPLES = [pytest.param(name, x.kwargs, id=f"{name}-{x.desc}") for name, info in INFOS.items()
           for x in info.optim_inputs_func(device="cpu") if not LEFT_OUT & x.kwargs.keys()]
SHAPES = [(5, 3), (5,), (2, 1, 4), ()]
rates, shares = st.sampled_from([0.0, 1e-3, 0.1]), st.sampled_from([0.0, 0.5, 0.9])
OPTIONS = {
    "SGD": st.fixed_dictionaries(dict(lr=rates, momentum=shares, weight_decay=rates)),
    "RMSprop": st.fixed_dictionaries(dict(lr=rates, alpha=shares, eps=st.sampled_from([1e-8, 0.1]), weight_decay=rates, momentum=shares)),
    "Adam": st.fixed_dictionaries(dict(lr=rates, betas=st.tuples(shares, shares), eps=st.sampled_from([1e-8, 0.1]), weight_decay=rates)),
}
OPTIONS["AdamW"] = OPTIONS["Adam"]
CASES = st.sampled_from(NAMES).flatmap(lambda name: st.tuples(st.just(name), OPTIONS[name]))


def leaves(dtype=torch.float64):
    torch.manual_seed(1)
    return [torch.randn(shape, dtype=dtype, requires_grad=True) for shape in SHAPES]


def give_grads(step, *lists):
    "The same gradients to every list: those of a moving bowl, seen through noise; the second tensor has none at times."
    g = torch.Generator().manual_seed(step)
    for i, twins in enumerate(zip(*lists)):
        noise = torch.randn(twins[0].shape, generator=g, dtype=torch.float64)
        for p in twins: p.grad = None if i == 1 and step % 3 == 1 else (p.detach().double() - 1 + noise).to(p.dtype)


def run(ours, theirs, a, b, steps=25, first=0, **tolerance):
    for step in range(first, first + steps):
        give_grads(step, a, b)
        grads = [None if p.grad is None else p.grad.clone() for p in a]
        ours.step()
        theirs.step()
        for p, grad in zip(a, grads): assert p.grad is grad is None or torch.equal(p.grad, grad), "a step must not change gradients"
        for p, q in zip(a, b): assert_close(p, q, **tolerance or dict(rtol=1e-10, atol=1e-12))
        ours.zero_grad()
        theirs.zero_grad()


def pair(name, kwargs, groups=False, dtype=torch.float64):
    "Our optimizer and torch's, with the same settings, on equal tensors."
    a, b = leaves(dtype), leaves(dtype)
    split = lambda ps: [{"params": ps[:2]}, {"params": iter(ps[2:3]), "lr": 0.02, "weight_decay": 0.01}, {"params": ps[3]}] if groups else ps
    return getattr(optim, name)(split(a), **kwargs), getattr(torch.optim, name)(split(b), **kwargs), a, b


def test_names():
    assert_hands_on(optim, torch.optim, "Adadelta")
    with pytest.raises(AttributeError, match="_functional"): optim._functional
    assert optim.lr_scheduler.StepLR.__module__ == "fdl.optim.lr_scheduler" and set(INFOS) == set(NAMES)


@pytest.mark.parametrize("groups", [False, True], ids=["one group", "three groups"])
@pytest.mark.parametrize("name, kwargs", SAMPLES)
def test_torchs_own_samples(name, kwargs, groups): run(*pair(name, kwargs, groups))


@settings(max_examples=40)
@given(CASES, st.booleans())
def test_equals_torch(case, groups): run(*pair(*case, groups), steps=12)


@settings(max_examples=20)
@given(CASES)
def test_state_travels_both_ways(case):
    name, kwargs = case
    ours, theirs, a, b = pair(name, kwargs, groups=True)
    run(ours, theirs, a, b, 5)
    mine, its = ours.state_dict(), theirs.state_dict()
    assert {i: set(state) for i, state in mine["state"].items()} == {i: set(state) for i, state in its["state"].items()}
    assert all(state.get("step") == its["state"][i].get("step") for i, state in mine["state"].items())
    for m, t in zip(mine["param_groups"], its["param_groups"]): assert all(t[k] == m[k] for k in m)
    for opt, state in ((ours, its), (theirs, mine)):                            # swapped, through a file
        file = io.BytesIO()
        torch.save(state, file)
        file.seek(0)
        opt.load_state_dict(torch.load(file, weights_only=True))
    run(ours, theirs, a, b, 5, first=5)
    fresh = pair(name, {}, groups=True)                                         # and into fresh ones with other settings
    with torch.no_grad():
        for p, q, old in zip(*fresh[2:], a): p.copy_(old), q.copy_(old)
    fresh[0].load_state_dict(copy.deepcopy(theirs.state_dict()))
    fresh[1].load_state_dict(copy.deepcopy(ours.state_dict()))
    run(*fresh, 5, first=10)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("name, kwargs", [("SGD", dict(lr=0.1, momentum=0.9, nesterov=True, weight_decay=0.1)), ("RMSprop", dict(momentum=0.5)),
                                          ("Adam", dict(weight_decay=0.1, eps=1e-3)), ("AdamW", dict(eps=1e-3))])
def test_other_dtypes(name, kwargs, dtype):
    ours, theirs, a, b = pair(name, kwargs, dtype=dtype)
    eps = torch.finfo(dtype).eps
    run(ours, theirs, a, b, 20, rtol=50*eps, atol=20*eps)
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


@pytest.mark.parametrize("name", NAMES)
def test_complex_and_sparse_gradients(name):
    "Right where the rule only adds gradients, refused where it divides by their size."
    z, e = torch.tensor([1+2j, 3-1j], requires_grad=True), torch.ones(4, 2, requires_grad=True)
    twins = [p.detach().clone().requires_grad_() for p in (z, e)]
    for ps, lib in (((z, e), optim), (twins, torch.optim)):
        opts = [getattr(lib, name)([p], lr=0.1) for p in ps]
        for _ in range(3):
            for opt in opts: opt.zero_grad()
            (ps[0]*ps[0].conj()).real.sum().backward()
            torch.nn.functional.embedding(torch.tensor([1, 1, 3]), ps[1], sparse=True).pow(2).sum().backward()
            for opt in opts:
                if lib is torch.optim and name != "SGD": continue
                if name == "SGD": opt.step()
                else:
                    with pytest.raises(ValueError, match="must be real and dense"): opt.step()
    if name == "SGD": assert_close([z, e], twins)


@pytest.mark.parametrize("info", INFOS.values(), ids=lambda info: info.optim_cls.__name__)
def test_bad_settings_raise_what_torch_raises(info):
    checked = 0
    for case in info.optim_error_inputs_func(device="cpu", dtype=torch.float64):
        if "names" in case.error_regex or "Tensor" in case.error_regex or {"foreach", "fused", "capturable"} & case.optimizer_error_input.kwargs.keys(): continue
        x, checked = case.optimizer_error_input, checked + 1
        params = [torch.ones(1, requires_grad=True)] if x.params is None else x.params
        twice = issubclass(case.error_type, Warning)                            # torch warns, and updates twice
        with pytest.raises(ValueError if twice else case.error_type, match="appear twice" if twice else case.error_regex):
            getattr(optim, info.optim_cls.__name__)(params, **x.kwargs)
    assert checked >= 3


@pytest.mark.parametrize("bad", [-1, -1e-9, float("nan")])
@pytest.mark.parametrize("name, setting", [(name, setting) for name in NAMES for setting in ("lr", "eps", "momentum", "alpha", "weight_decay")
                                           if setting in getattr(optim, name)([torch.ones(1)]).defaults])
def test_settings_out_of_range(name, setting, bad):
    make, p = getattr(optim, name), torch.ones(1, requires_grad=True)
    with pytest.raises(ValueError, match=f"{setting} value: {bad}"): make([p], **{setting: bad})
    with pytest.raises(ValueError, match=f"{setting} value: {bad}"): make([p]).add_param_group({"params": torch.ones(1), setting: bad})


def test_settings_that_do_not_go_together():
    p = torch.ones(1, requires_grad=True)
    with pytest.raises(ValueError, match="index 1: 1.0"): optim.Adam([p], betas=(0.5, 1.0))
    with pytest.raises(ValueError, match="requires a momentum"): optim.SGD([p], nesterov=True)


def test_what_is_not_built_is_refused():
    p = torch.ones(1, requires_grad=True)
    for make in (lambda: optim.Adam([p], amsgrad=True), lambda: optim.AdamW([p], amsgrad=True), lambda: optim.SGD([{"params": p, "maximize": True}]), lambda: optim.SGD([{"params": p, "dampening": 0.5}]),
                 lambda: optim.RMSprop([p]).load_state_dict(torch.optim.RMSprop([p], centered=True).state_dict()),
                 lambda: optim.SGD([p]).load_state_dict(torch.optim.SGD([p], maximize=True).state_dict())):
        with pytest.raises(ValueError, match="is not built here: torch.optim has it"): make()
    for name in ("dampening", "maximize", "foreach"):
        with pytest.raises(TypeError, match=name): optim.SGD([p], **{name: True})


def test_wrong_parameters():
    p = torch.ones(2, requires_grad=True)
    for params, error, text in ((p, TypeError, "got torch.*Tensor"), ([{"params": {p}}], TypeError, "ordering of tensors in sets"), ([], ValueError, "empty"), (["p"], TypeError, "is str"),
                                ([2*p], ValueError, "non-leaf Tensor"), ([p, p], ValueError, "twice"), ([{"params": p}, {"params": [p]}], ValueError, "more than one")):
        with pytest.raises(error, match=text): optim.SGD(params)
    with pytest.raises(NotImplementedError, match="update"):
        p.grad = p.detach()
        optim.Optimizer([p], dict(lr=0.1)).step()


MAKERS = {"SGD": dict(momentum=0.9), "RMSprop": dict(momentum=0.9), "Adam": {}, "AdamW": {}}


@pytest.mark.parametrize("lib", [optim, torch.optim], ids=["fdl", "torch"])
@pytest.mark.parametrize("source", [*MAKERS, "NAdam", "RAdam", "Adagrad", "Adamax"])
def test_the_state_of_another_rule_is_refused_and_nothing_changes(source, lib):
    other, a = getattr(lib, source)(leaves(), **MAKERS.get(source, {})), leaves()
    give_grads(0, other.param_groups[0]["params"])
    other.step()
    for name, kwargs in MAKERS.items():
        if name == source: continue
        opt = getattr(optim, name)(a, **kwargs)
        before = copy.deepcopy(opt.state_dict())
        with pytest.raises(ValueError, match=f"not that of {name}"): opt.load_state_dict(other.state_dict())
        assert opt.state_dict() == before


def test_states_that_do_not_fit():
    def state(*shapes):
        opt = optim.Adam([torch.ones(shape, requires_grad=True) for shape in shapes])
        for p in opt.param_groups[0]["params"]: p.grad = torch.ones_like(p)
        opt.step()
        return opt.state_dict()
    opt = optim.Adam([torch.ones(2, requires_grad=True), torch.ones(3, requires_grad=True)])
    with pytest.raises(ValueError, match=r"sizes \[1\], wanted sizes \[2\]"): opt.load_state_dict(state((2,)))
    with pytest.raises(ValueError, match=r"exp_avg is \(3,\), not \(2,\)"): opt.load_state_dict(state((3,), (2,)))
    bad = state((2,), (3,))
    bad["param_groups"][0]["lr"] = -1
    with pytest.raises(ValueError, match="lr value: -1"): opt.load_state_dict(bad)
    assert not opt.state and opt.param_groups[0]["lr"] == 1e-3
    good = state((2,), (3,))
    opt.load_state_dict(good)
    assert len(opt.state) == 2
    for p in opt.state: p.grad = torch.ones_like(p)
    before = copy.deepcopy(good)
    opt.step()                                                                  # on a copy: what was loaded stays as it was
    assert_close(good["state"], before["state"])


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
def test_copies_and_pickles_go_on_alike(name):
    "Also under a schedule of torch's, which wraps `step`."
    ours, _, a, _ = pair(name, {})
    torch.optim.lr_scheduler.LinearLR(ours)
    give_grads(0, a)
    ours.step()
    twin, b = copy.deepcopy((ours, a))
    other, c = pickle.loads(pickle.dumps((ours, a)))
    for step in range(1, 5):
        give_grads(step, a, b, c)
        for opt in (ours, twin, other): opt.step()
    for p, q, r in zip(a, b, c): assert torch.equal(p, q) and torch.equal(p, r)


def test_the_learning_rate_may_change_and_parameters_may_join():
    ours, theirs, a, b = pair("Adam", {}, groups=True)
    for i in range(3):
        for opt in (ours, theirs): opt.param_groups[i]["lr"] = 0.1*(i + 1)
        run(ours, theirs, a, b, 3, first=3*i)
    new = [torch.ones(3, dtype=torch.float64, requires_grad=True) for _ in range(2)]
    group = {"params": iter([new[0]]), "lr": 0.1}
    ours.add_param_group(group)
    theirs.add_param_group({"params": [new[1]], "lr": 0.1})
    run(ours, theirs, a + new[:1], b + new[1:], 5, first=9)
    assert group.keys() == {"params", "lr"}                                     # the caller's dictionary is left alone


def test_closure_and_zero_grad():
    p = torch.ones(2, requires_grad=True)
    opt = optim.SGD([p], lr=0.25)
    def closure():
        opt.zero_grad()
        loss = p.square().sum()
        loss.backward()
        return loss
    assert opt.step(closure).item() == 2 and p.tolist() == [0.5, 0.5]
    opt.zero_grad()
    (p**3).sum().backward(create_graph=True)
    held = p.grad
    opt.zero_grad(set_to_none=False)
    assert p.grad.grad_fn is None and p.grad.data_ptr() == held.data_ptr() and p.grad.count_nonzero() == 0
    q, r = torch.ones(2, requires_grad=True), torch.ones(2, requires_grad=True)
    r.grad = torch.ones(2)
    opt = optim.SGD([{"params": [q]}, {"params": [r]}])
    opt.zero_grad(set_to_none=False)
    assert q.grad is None and r.grad.tolist() == [0, 0]


@pytest.mark.parametrize("name", NAMES)
def test_is_taken_for_torchs_own(name):
    "By its schedules, its scaler of gradients and its averaging."
    for lib in (nn, torch.nn):
        model = lib.Linear(3, 2)
        opt = getattr(optim, name)(model.parameters(), lr=1.0)
        assert isinstance(opt, torch.optim.Optimizer)
        schedules = torch.optim.lr_scheduler
        schedule = schedules.SequentialLR(opt, [schedules.LinearLR(opt, 0.1, total_iters=2), schedules.ExponentialLR(opt, 0.5)], [2])
        seen = []
        for _ in range(5):
            seen.append(opt.param_groups[0]["lr"])
            model(torch.ones(1, 3)).sum().backward()
            torch.amp.GradScaler("cpu", enabled=False).step(opt)
            opt.zero_grad()
            schedule.step()
        assert_close(seen, [0.1, 0.55, 1.0, 0.5, 0.25])
        assert optim.missing_parameters(opt, model) == []
        assert optim.missing_parameters(getattr(optim, name)([model.bias]), model) == ["weight"]
        model.weight.requires_grad_(False)
        assert optim.missing_parameters(getattr(optim, name)([model.bias]), model) == []
        plateau = optim.lr_scheduler.ReduceLROnPlateau(opt, patience=0)
        plateau.step(1.0), plateau.step(1.0)
        assert opt.param_groups[0]["lr"] < 0.02


# Hooks.

def watched(lib, name, seen):
    "An optimizer whose hooks write down what they see."
    torch.manual_seed(1)
    p = torch.randn(3, dtype=torch.float64, requires_grad=True)
    opt = getattr(lib, name)([p], lr=0.1)
    average = p.detach().clone()
    def before(opt, args, kwargs):
        assert args[0] is opt and torch.is_grad_enabled()
        seen.append(("before", len(args), kwargs, p.grad.norm().item(), p.tolist()))
        torch.nn.utils.clip_grad_norm_([p], 1.0)
    def after(opt, args, kwargs):
        assert args[0] is opt and torch.is_grad_enabled()
        average.lerp_(p.detach(), 0.5)
        seen.append(("after", len(args), kwargs, p.tolist(), average.tolist()))
    return p, opt, opt.register_step_pre_hook(before), opt.register_step_post_hook(after)


@pytest.mark.parametrize("name", NAMES)
def test_hooks_see_what_torchs_see(name):
    "Clipping before, an averaged copy after; with a closure, without, and once they are removed."
    logs = []
    for lib in (optim, torch.optim):
        seen = []
        p, opt, before, after = watched(lib, name, seen)
        def closure():
            p.grad = 5*p.detach()
            return p.sum().detach()
        closure()
        seen.append(opt.step())
        seen.append(opt.step(closure).item())
        before.remove()
        closure()
        opt.step()
        after.remove()
        opt.step()
        seen.append(p.tolist())
        logs.append(seen)
    assert [x[0] if isinstance(x, tuple) else None for x in logs[0]] == ["before", "after", None, "before", "after", None, "after", None]
    for ours, theirs in zip(*logs):
        assert type(ours) is type(theirs)
        if isinstance(ours, tuple):
            assert ours[:3] == theirs[:3]
            ours, theirs = ours[3:], theirs[3:]
        if ours is not None: assert_close(ours, theirs)


@pytest.mark.parametrize("name", NAMES)
def test_a_hook_may_change_the_arguments_and_hooks_run_in_order(name):
    results = []
    for lib in (optim, torch.optim):
        p = torch.ones(2, dtype=torch.float64, requires_grad=True)
        opt, order = getattr(lib, name)([p], lr=0.1), []
        def closure(): order.append("closure"); p.grad = torch.ones_like(p); return 7
        opt.register_step_pre_hook(lambda opt, args, kwargs: order.append("first"))
        opt.register_step_pre_hook(lambda opt, args, kwargs: ((opt,), {"closure": closure}))
        opt.register_step_pre_hook(lambda opt, args, kwargs: order.append((len(args), list(kwargs))))
        opt.register_step_post_hook(lambda opt, args, kwargs: order.append((len(args), list(kwargs))))
        opt.register_step_post_hook(lambda opt, args, kwargs: order.append("last"))
        results.append((opt.step(), order, p.tolist()))
    assert results[0][:2] == results[1][:2] == (7, ["first", (1, ["closure"]), "closure", (1, ["closure"]), "last"])
    assert_close(results[0][2], results[1][2])
    def failing(opt, args, kwargs): raise ValueError("not now")
    opt = getattr(optim, name)([p])
    opt.register_step_pre_hook(failing)
    before = p.tolist()
    with pytest.raises(ValueError, match="not now"): opt.step()
    assert p.tolist() == before


@pytest.mark.parametrize("name", NAMES)
def test_hooks_stay_out_of_states_and_copies(name):
    seen = []
    p, opt, *_ = watched(optim, name, seen)
    p.grad = torch.ones(3, dtype=p.dtype)
    opt.step()
    plain = getattr(optim, name)([p], lr=0.1)
    plain.load_state_dict(opt.state_dict())                                     # the hooked one's into one without, and back
    opt.load_state_dict(plain.state_dict())
    assert opt.state_dict().keys() == {"state", "param_groups"} and set(opt.state_dict()["param_groups"][0]) == set(plain.defaults) | {"params"}
    for twin in (copy.deepcopy(opt), pickle.loads(pickle.dumps(opt))):          # torch's too lose their hooks here
        seen.clear()
        twin.param_groups[0]["params"][0].grad = torch.ones(3, dtype=p.dtype)
        twin.step()
        twin.load_state_dict(twin.state_dict())
        assert seen == []
        twin.register_step_pre_hook(lambda opt, args, kwargs: seen.append(1))
        twin.step()
        assert seen == [1]
    opt.step()
    assert [x[0] for x in seen[1:]] == ["before", "after"]


@pytest.mark.parametrize("name", NAMES)
def test_hooks_under_a_scaler_of_gradients(name):
    "A hook sees unscaled gradients; where one is infinite, neither step nor hooks run."
    logs = []
    for lib in (optim, torch.optim):
        seen = []
        p, opt, *_ = watched(lib, name, seen)
        scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
        for planted in (1.0, float("inf"), 2.0):
            opt.zero_grad()
            scaler.scale((planted*p).sum()).backward()
            scaler.step(opt)
            scaler.update()
            seen.append(("step", scaler.get_scale(), {}, p.tolist()))
        logs.append(seen)
    assert [x[0] for x in logs[0]] == ["before", "after", "step", "step", "before", "after", "step"]
    assert_close(logs[0][0][3], 3**0.5)
    assert logs[0][3][1] == 512
    assert logs[0][2][3] == logs[0][3][3]                                       # skipped: nothing has moved
    for ours, theirs in zip(*logs):
        assert ours[:3] == theirs[:3]
        assert_close(ours[3:], theirs[3:])


@pytest.mark.parametrize("name", NAMES)
def test_hooks_for_all_optimizers_see_ours_once(name):
    "Also where a rule is made after the one that it inherits from."
    p, seen = torch.ones(1, requires_grad=True), []
    handles = [register(lambda opt, args, kwargs: seen.append(type(opt))) for register in (register_optimizer_step_pre_hook, register_optimizer_step_post_hook)]
    class Heir(getattr(optim, name)): pass
    for kind in (getattr(optim, name), Heir):
        seen.clear()
        kind([p]).step()
        assert seen == [kind, kind]
    for handle in handles: handle.remove()


def test_a_group_that_is_refused_leaves_no_trace():
    p, q = (torch.zeros(2, requires_grad=True) for _ in "ab")
    opt = optim.SGD([p], lr=0.1)
    for params, text in (([q, q], "appear twice"), ([p], "more than one")):
        with pytest.raises(ValueError, match=text): opt.add_param_group({"params": params})
    assert len(opt.param_groups) == 1 and opt.param_groups[0]["params"] == [p]
    opt.add_param_group({"params": q})
    assert [len(group["params"]) for group in opt.param_groups] == [1, 1]


def test_a_state_without_momentum_as_torch_1_wrote_it():
    p = torch.ones(2, requires_grad=True)
    opt = optim.SGD([p], lr=0.1, momentum=0.9)
    state = opt.state_dict()
    state["state"] = {0: {"momentum_buffer": None}}
    opt.load_state_dict(state)
    p.grad = torch.ones(2)
    opt.step()
    assert_close(p.detach(), torch.full((2,), 0.9))


@pytest.mark.parametrize("name", ["SGD", "RMSprop", "Adam", "AdamW"])
def test_names_order_and_defaults_are_torchs(name):
    ours, theirs = ([(p.name, p.default) for p in inspect.signature(getattr(lib, name)).parameters.values()] for lib in (optim, torch.optim))
    assert ours == [(argument, default) for argument, default in theirs if argument in dict(ours)]
