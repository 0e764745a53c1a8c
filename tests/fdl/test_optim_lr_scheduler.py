"Schedules against torch's, step by step; how they compose; what they leave as it was."
import copy
import math
import pickle
import random

import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st
from torch.testing import assert_close

from fdl import nn, optim
from fdl.data import DataLoader, TensorDataset
from fdl.functional import cross_entropy, mse_loss
from fdl.optim import lr_scheduler
from fdl.optim.lr_scheduler import StepLR, lr_find
from fdl.training import fit, loss_batch
from helpers import assert_hands_on, seeded

theirs = torch.optim.lr_scheduler
gammas, counts = st.sampled_from([0.1, 0.5, 0.97, 2.0]), st.integers(1, 40)
SCHEDULES = st.one_of(
    st.tuples(st.just("StepLR"), st.fixed_dictionaries(dict(step_size=counts, gamma=gammas))),
    st.tuples(st.just("MultiStepLR"), st.fixed_dictionaries(dict(milestones=st.lists(counts, max_size=4), gamma=gammas))),
    st.tuples(st.just("ExponentialLR"), st.fixed_dictionaries(dict(gamma=gammas))),
    st.tuples(st.just("LambdaLR"), st.fixed_dictionaries(dict(lr_lambda=st.sampled_from([lambda t: t/5, lambda t: max(0, 1 - t/10), lambda t: 1/(1 + t)])))),
    st.tuples(st.just("CosineAnnealingLR"), st.fixed_dictionaries(dict(T_max=counts, eta_min=st.sampled_from([0.0, 0.1])))),
    st.tuples(st.just("OneCycleLR"), st.fixed_dictionaries(dict(max_lr=gammas, total_steps=st.integers(30, 40), pct_start=st.sampled_from([0.0, 0.25, 0.3, 0.9]),
                                                                 cycle_momentum=st.booleans(), div_factor=st.sampled_from([3.0, 25.0])))))
ONE_EACH = [("StepLR", dict(step_size=4)), ("MultiStepLR", dict(milestones=[3, 12])), ("ExponentialLR", dict(gamma=0.9)),
            ("LambdaLR", dict(lr_lambda=lambda t: 1/(1 + t))), ("CosineAnnealingLR", dict(T_max=30)), ("OneCycleLR", dict(max_lr=3.0, total_steps=30))]


def optimizers(adam=False):
    "Ours and torch's, with two groups of different rates."
    for lib in (optim, torch.optim):
        groups = [{"params": [torch.ones(1, requires_grad=True)]}, {"params": [torch.ones(1, requires_grad=True)], "lr": 0.5}]
        yield lib.Adam(groups, lr=2.0) if adam else lib.SGD(groups, lr=2.0, momentum=0.7)


def now(opt): return [(g["lr"], g["betas"] if "betas" in g else g["momentum"]) for g in opt.param_groups]


def rates(opt): return [g["lr"] for g in opt.param_groups]


def test_names():
    assert_hands_on(lr_scheduler, theirs, "LinearLR")
    assert optim.lr_scheduler.StepLR is StepLR


@settings(max_examples=120)
@given(SCHEDULES, st.booleans())
def test_equals_torch(case, adam):
    name, kwargs = case
    pair = list(optimizers(adam))
    schedules = [getattr(lib, name)(opt, **kwargs) for lib, opt in zip((lr_scheduler, theirs), pair)]
    for step in range(30):
        assert_close(now(pair[0]), now(pair[1]), rtol=1e-9, atol=1e-12)
        assert_close(schedules[0].get_last_lr(), rates(pair[0]), rtol=1e-12, atol=0)
        for opt in pair: opt.step()
        for schedule in schedules: schedule.step()
        if step == 11:                                                          # each takes over the other's state
            saved = [copy.deepcopy(schedule.state_dict()) for schedule in schedules]
            schedules[0].load_state_dict(saved[1])
            if name != "LambdaLR": schedules[1].load_state_dict(saved[0])       # torch's wants a place for its functions


@pytest.mark.parametrize("name, kwargs", ONE_EACH, ids=lambda x: str(x)[:12])
def test_a_run_resumed_goes_on_as_if_never_stopped(name, kwargs):
    opt, _ = optimizers()
    schedule, expected = getattr(lr_scheduler, name)(opt, **kwargs), []
    for step in range(25):
        if step == 10: saved = copy.deepcopy(opt.state_dict()), pickle.loads(pickle.dumps(schedule.state_dict()))
        expected.append(now(opt))
        opt.step(), schedule.step()
    for alone in (False, True):                                                 # with the schedule's state, or with last_epoch alone
        opt, _ = optimizers()
        schedule = None if alone else getattr(lr_scheduler, name)(opt, **kwargs)
        opt.load_state_dict(saved[0])
        if alone: schedule = getattr(lr_scheduler, name)(opt, **kwargs, last_epoch=saved[1]["last_epoch"] - 1)
        else: schedule.load_state_dict(saved[1])
        for step in range(10, 25):
            assert_close(now(opt), expected[step], rtol=1e-12, atol=1e-15)
            assert schedule.get_last_lr() == rates(opt)
            opt.step(), schedule.step()
    opt, _ = optimizers()                                                       # made on an optimizer that has gone on: the state brings the rates
    opt.load_state_dict(saved[0])
    schedule = getattr(lr_scheduler, name)(opt, **kwargs)
    schedule.load_state_dict(saved[1])
    for step in range(10, 25):
        assert_close([lr for lr, _ in now(opt)], [lr for lr, _ in expected[step]], rtol=1e-12, atol=1e-15)
        assert schedule.get_last_lr() == rates(opt)
        opt.step(), schedule.step()
    with pytest.raises(KeyError, match="initial_lr"): getattr(lr_scheduler, name)(next(optimizers()), **kwargs, last_epoch=3)


@settings(max_examples=40)
@given(SCHEDULES, st.integers(1, 12), st.sampled_from([0.5, 3.0]))
def test_a_rate_changed_by_hand_stays_changed(case, when, by):
    name, kwargs = case
    pair = [next(optimizers()) for _ in range(2)]
    schedules = [getattr(lr_scheduler, name)(opt, **kwargs) for opt in pair]
    low = kwargs.get("eta_min", 0)
    for step in range(20):
        if step == when:
            for group in pair[0].param_groups: group["lr"] = low + (group["lr"] - low)*by
        share = by if step >= when else 1
        left = min(schedules[1].factor(t) for t in range(step + 1))
        if left < 1e-12: return                                                 # the rate has been 0: what was changed is forgotten
        assert_close([lr - low for lr in rates(pair[0])], [share*(lr - low) for lr in rates(pair[1])], rtol=1e-6, atol=1e-12)
        for schedule in schedules: schedule.step()


def test_schedules_multiply():
    opt = optim.SGD([torch.ones(1)], lr=1.0)
    two = lr_scheduler.StepLR(opt, 2, 0.5), lr_scheduler.StepLR(opt, 3, 0.1)
    for _ in range(6):
        for schedule in two: schedule.step()
    assert_close(rates(opt), [0.5**3*0.1**2])
    opt = optim.SGD([torch.ones(1)], lr=1.0)
    both = lr_scheduler.LambdaLR(opt, lambda t: min(1, (t + 1)/4)), lr_scheduler.CosineAnnealingLR(opt, 20)
    for t in range(15):
        assert_close(rates(opt), [min(1, (t + 1)/4)*(1 + math.cos(math.pi*t/20))/2])
        for schedule in both: schedule.step()


@pytest.mark.parametrize("name, kwargs", ONE_EACH, ids=lambda x: str(x)[:12])
def test_a_group_added_later_follows(name, kwargs):
    opt = optim.SGD([torch.ones(1)], lr=0.8)
    schedule = getattr(lr_scheduler, name)(opt, **kwargs)
    for _ in range(2): schedule.step()
    opt.add_param_group({"params": torch.ones(1), "lr": 0.5*rates(opt)[0]})
    for _ in range(12):
        schedule.step()
        assert_close(rates(opt)[1], 0.5*rates(opt)[0])
        assert len(schedule.get_last_lr()) == 2 and opt.param_groups[0]["momentum"] == opt.param_groups[1]["momentum"]
    opt = optim.SGD([torch.ones(1)], lr=0.1)
    schedule = StepLR(opt, 3, 0.5)
    opt.add_param_group({"params": torch.ones(1), "lr": 0.15})
    for _ in range(3): schedule.step()
    assert_close(rates(opt), [0.05, 0.075])


def test_works_in_torchs_sequence_on_torchs_optimizer_and_with_rules_of_torchs_kind():
    for opt in optimizers():
        first, reference = rates(opt), torch.optim.SGD([torch.ones(1)], lr=2.0)
        sequence = lr_scheduler.SequentialLR(opt, [lr_scheduler.LinearLR(opt, 0.1, total_iters=3), lr_scheduler.CosineAnnealingLR(opt, 5), StepLR(opt, 2)], [3, 8])
        twin = theirs.SequentialLR(reference, [theirs.LinearLR(reference, 0.1, total_iters=3), theirs.CosineAnnealingLR(reference, 5), theirs.StepLR(reference, 2)], [3, 8])
        for _ in range(14):
            assert_close(rates(opt), [lr/2*rates(reference)[0] for lr in first])
            for o, s in ((opt, sequence), (reference, twin)): o.step(), s.step()
    opt, reference = (torch.optim.SGD([torch.ones(1)], lr=1.0) for _ in range(2))
    sequence = lr_scheduler.SequentialLR(opt, [lr_scheduler.LambdaLR(opt, lambda t: 1/(2 + t)), StepLR(opt, 2)], [3])                # ours the first
    twin = theirs.SequentialLR(reference, [theirs.LambdaLR(reference, lambda t: 1/(2 + t)), theirs.StepLR(reference, 2)], [3])
    for _ in range(6):
        assert_close(rates(opt), rates(reference))
        for o, s in ((opt, sequence), (reference, twin)): o.step(), s.step()
    opt, reference = (torch.optim.SGD([torch.ones(1)], lr=1.0) for _ in range(2))
    again, too = lr_scheduler.ExponentialLR(opt, 0.5), theirs.ExponentialLR(reference, 0.5)                                         # the same one twice
    sequence, twin = lr_scheduler.SequentialLR(opt, [again, StepLR(opt, 2), again], [3, 6]), theirs.SequentialLR(reference, [too, theirs.StepLR(reference, 2), too], [3, 6])
    for _ in range(9):
        assert_close(rates(opt), rates(reference))
        for o, s in ((opt, sequence), (reference, twin)): o.step(), s.step()
    class Noam(lr_scheduler.LRScheduler):                                       # as torch's programs write it
        def get_lr(self): return [base*min((self.last_epoch + 1)**-0.5, (self.last_epoch + 1)/100) for base in self.base_lrs]
    opt = optim.SGD([torch.ones(1)], lr=1.0)
    schedule = Noam(opt)
    schedule.step()
    assert rates(opt) == [0.02] and isinstance(schedule, theirs.LRScheduler)
    with pytest.raises(NotImplementedError, match="factor"): lr_scheduler.LRScheduler(opt)
    with pytest.raises(TypeError, match="not callable"): lr_scheduler.LambdaLR(opt, [abs])


def test_works_in_torchs_chain():
    opt, reference = optimizers()
    ours = lr_scheduler.ChainedScheduler([lr_scheduler.ExponentialLR(opt, 0.9), StepLR(opt, 3)])
    twin = theirs.ChainedScheduler([theirs.ExponentialLR(reference, 0.9), theirs.StepLR(reference, 3)])
    for _ in range(8):
        assert_close(rates(opt), rates(reference))
        for o, s in ((opt, ours), (reference, twin)): o.step(), s.step()


def test_the_state_of_another_schedule_is_refused():
    for lib in (lr_scheduler, theirs):
        for name, kwargs in ONE_EACH:
            state = getattr(lib, name)(list(optimizers())[lib is theirs], **kwargs).state_dict()
            for other, options in ONE_EACH:
                schedule = getattr(lr_scheduler, other)(next(optimizers()), **options)
                if other == name: schedule.load_state_dict(state)
                else:
                    before = schedule.state_dict()
                    with pytest.raises(ValueError, match=f"not that of {other}"): schedule.load_state_dict(state)
                    assert schedule.state_dict() == before


@pytest.mark.parametrize("kwargs", [dict(), dict(epochs=3), dict(steps_per_epoch=3), dict(total_steps=0), dict(total_steps=-1), dict(total_steps=3.5),
                                    dict(epochs=0, steps_per_epoch=3), dict(epochs=3, steps_per_epoch=1.5), dict(total_steps=10, pct_start=1.5), dict(total_steps=10, pct_start=-0.5)], ids=str)
def test_one_cycle_refuses_what_torch_refuses(kwargs):
    for lib, opt in zip((lr_scheduler, theirs), optimizers()):
        with pytest.raises(ValueError): lib.OneCycleLR(opt, 1.0, **kwargs)


def test_one_cycle_past_its_end():
    for opt, lib in zip(optimizers(), (lr_scheduler, theirs)):
        schedule = lib.OneCycleLR(opt, 1.0, total_steps=3)
        for _ in range(3): opt.step(), schedule.step()
        with pytest.raises(ValueError, match="Tried to step 4 times. The specified number of total steps is 3"): schedule.step()


@pytest.mark.parametrize("total, pct", [(10, 0.1), (10, 1.0), (1, 1.0), (1, 0.0), (2, 0.5)])
def test_one_cycle_where_torch_divides_by_zero(total, pct):
    opt = next(optimizers())
    schedule = lr_scheduler.OneCycleLR(opt, 1.0, total_steps=total, pct_start=pct)
    for _ in range(total):
        assert all(math.isfinite(lr) and 0 <= lr <= 1 for lr in schedule.get_last_lr())
        schedule.step()
    if pct == 1: assert max(rates(opt)) < 1e-3                                  # past the peak all is over


def test_one_cycle_gives_no_momentum_to_rules_without():
    opt = torch.optim.Adagrad([torch.ones(1)])
    lr_scheduler.OneCycleLR(opt, 1.0, total_steps=3).step()
    assert "momentum" not in opt.param_groups[0]


# The search for a rate.

def situation(lib=nn, lib_optim=optim):
    torch.manual_seed(0)
    model = lib.Sequential(lib.Linear(6, 8), lib.ReLU(), lib.Dropout(0.1), lib.Linear(8, 3))
    opt = lib_optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    x = torch.randn(64, 6)
    return model, opt, DataLoader(TensorDataset(x, x[:, :3].argmax(1)), 16, shuffle=True, generator=seeded(3))


@pytest.mark.parametrize("lib", [(nn, optim), (torch.nn, torch.optim)], ids=["fdl", "torch"])
def test_lr_find_leaves_everything_as_it_was(lib):
    model, opt, dl = situation(*lib)
    for xb, yb in dl:
        cross_entropy(model(xb), yb).backward()
        opt.step()
    model.eval()
    def everything():
        return copy.deepcopy([model.state_dict(), [p.grad for p in model.parameters()], opt.state_dict()["state"][0]["momentum_buffer"], opt.param_groups[0]["lr"],
                              torch.get_rng_state(), dl.generator.get_state(), torch.tensor(np.random.get_state()[1].astype(int))]) + [random.getstate(), [m.training for m in model.modules()]]
    before, held = everything(), list(model.parameters())
    def draws(preds, targets): return cross_entropy(preds, targets) + 0*random.random()*np.random.rand()*torch.rand(())
    found, losses, suggested = lr_find(model, draws, opt, dl)
    after = everything()
    assert_close(before[:-2], after[:-2], rtol=0, atol=0)
    assert before[-2:] == after[-2:] and all(a is b for a, b in zip(held, model.parameters()))
    assert found[0] == 1e-6 and len(found) == len(losses) <= 100 and found == sorted(found) and suggested == found[losses.index(min(losses))]/3


class Noisy(torch.utils.data.Dataset):
    "Items with noise from each of the generators that a dataset may use."
    def __init__(self): self.x, self.generator = torch.randn(64, 6, generator=seeded(1)), seeded(2)
    def __len__(self): return 64
    def __getitem__(self, i):
        noise = random.random() + np.random.rand() + torch.rand(()) + torch.rand((), generator=self.generator)
        return self.x[i] + 0.1*noise.float(), self.x[i, :3].argmax()


LOADERS = {"ours": lambda: DataLoader(Noisy(), 16, shuffle=True), "a generator": lambda: DataLoader(Noisy(), 16, shuffle=True, generator=seeded(3)),
           "torch's": lambda: torch.utils.data.DataLoader(Noisy(), 16, shuffle=True, generator=seeded(3)),
           "a sampler": lambda: torch.utils.data.DataLoader(Noisy(), 16, sampler=torch.utils.data.WeightedRandomSampler(torch.ones(64), 64, generator=seeded(3))),
           "workers": lambda: DataLoader(Noisy(), 16, shuffle=True, num_workers=2), "workers that stay": lambda: DataLoader(Noisy(), 16, shuffle=True, num_workers=2, persistent_workers=True),
           "torch's that stay": lambda: torch.utils.data.DataLoader(Noisy(), 16, shuffle=True, num_workers=2, persistent_workers=True)}


@pytest.mark.parametrize("schedule", [lr_scheduler.OneCycleLR, theirs.OneCycleLR], ids=["fdl", "torch"])
@pytest.mark.parametrize("make", LOADERS.values(), ids=LOADERS)
def test_training_after_lr_find_is_what_it_would_have_been(make, schedule):
    "Bit for bit, in the middle of a run: dropout, momentum, a schedule attached, noise in the dataset, workers."
    def weights(search):
        random.seed(0), np.random.seed(0)
        model, opt, _ = situation()
        dl, steps = make(), schedule(opt, 0.2, total_steps=8)
        history = fit(1, model, cross_entropy, opt, dl, scheduler=steps, progress=False)
        if search: lr_find(model, cross_entropy, opt, dl, 1e-3, 1.0, 6)
        history += fit(1, model, cross_entropy, opt, dl, scheduler=steps, progress=False)
        return [p.detach() for p in model.parameters()], [row["train_loss"] for row in history], rates(opt), torch.rand(3), random.random(), np.random.rand()
    assert_close(weights(True), weights(False), rtol=0, atol=0)


def test_a_dataset_may_have_a_generator_that_is_not_torchs():
    model, opt, _ = situation()
    items = TensorDataset(torch.ones(64, 6), torch.zeros(64, dtype=torch.int64))
    items.generator = np.random.default_rng(0)
    assert len(lr_find(model, cross_entropy, opt, DataLoader(items, 16), steps=3)[0]) == 3


def test_lr_find_trains_in_training_mode():
    model, opt, dl = situation()
    model.eval()
    torch.manual_seed(1)
    found = lr_find(model, cross_entropy, opt, dl, steps=5)
    torch.manual_seed(1)
    assert found == lr_find(model.train(), cross_entropy, opt, dl, steps=5)                 # with its dropout


def test_lr_find_leaves_a_part_that_is_set_to_evaluation():
    model, opt, dl = situation()
    model[2].eval()
    found = lr_find(model, cross_entropy, opt, dl, steps=5)
    model[2].train().p = 0.0                                                    # no dropout either way
    assert found == lr_find(model, cross_entropy, opt, dl, steps=5)


def test_lr_find_trains_every_group_at_the_rates_that_it_returns():
    x = torch.randn(8, 3, generator=seeded(), dtype=torch.float64)
    def linear():
        torch.manual_seed(0)
        model = nn.Linear(3, 3).double()
        return model, optim.SGD([{"params": [model.weight]}, {"params": [model.bias], "lr": 0.7}], lr=0.3)
    model, opt = linear()
    found, losses, _ = lr_find(model, mse_loss, opt, [(x, x)], 0.01, 0.16, 5)
    assert_close(found, [0.01, 0.02, 0.04, 0.08, 0.16])
    for lr, loss in zip(found, losses):
        for group in opt.param_groups: group["lr"] = lr
        assert_close(loss_batch(model, mse_loss, x, x, opt)[0].item(), loss)


@pytest.mark.parametrize("told, tried", [((1.0, 4.0, 4.5, 1.0), 3), ((2.0, 1.0, 4.0, 3.0, 4.1, 1.0), 5), ((1.0, math.nan, 1.0), 2), ((1.0,)*120, 100)], ids=lambda x: str(x)[:16])
def test_lr_find_ends_at_four_times_the_lowest_loss(told, tried):
    "With a loss that says what it is told to."
    model, opt, _ = situation()
    told_ = iter(told)
    found, losses, _ = lr_find(model, lambda preds, targets: 0*preds.sum() + next(told_), opt, [(torch.ones(4, 6), torch.zeros(4, dtype=torch.int64))])
    assert_close(losses, list(told[:tried]), equal_nan=True)
    assert_close(found, [1e-6*1e7**(i/99) for i in range(tried)])


def test_lr_find_finds_where_training_breaks():
    model, opt, dl = situation()
    found, losses, suggested = lr_find(model, cross_entropy, opt, dl, start_lr=1e-3, end_lr=1e6, steps=40)
    assert len(found) < 40 and not losses[-1] <= 4*min(losses) and min(losses) < losses[0]
    assert suggested == found[losses.index(min(losses))]/3
    assert_close(lr_find(model, cross_entropy, opt, dl, 1e-4, 1e-2, 3)[0], [1e-4, 1e-3, 1e-2])
    for wrong in ([], [(math.nan*torch.ones(4, 6), torch.zeros(4, dtype=torch.int64))]):
        with pytest.raises(ValueError, match="dl gave no batches, or the very first loss is nan"): lr_find(model, cross_entropy, opt, wrong)
