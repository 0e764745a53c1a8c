"fdl.training where the lesson would bore: all mixes, exact means, what a batch weighs, metrics, modes, bars, interrupts, odd loaders, devices."
import json
import math
import pickle
import re
import signal
import warnings
from fractions import Fraction
from functools import partial
from itertools import product

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings, strategies as st
from torch.testing import assert_close

from fdl import backprop, nn, optim
from fdl.data import DataLoader, TensorDataset, pad_collate
from fdl.functional import cross_entropy
from fdl.training import History, epochs, evaluate, fit, get_dls, loss_batch

BRICKS = {"nn": (nn, torch.nn), "loss": (cross_entropy, torch.nn.functional.cross_entropy),
          "optim": (optim, torch.optim), "loader": (DataLoader, torch.utils.data.DataLoader)}


@pytest.fixture(autouse=True)
def seed(one_thread): torch.manual_seed(0)


def data(n=200, inputs=6, classes=3, dtype=torch.float64, seed=0):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(n, inputs, generator=generator, dtype=dtype)
    return TensorDataset(x, (x @ torch.randn(inputs, classes, generator=generator, dtype=dtype)).argmax(1))


def network(nn=nn, dtype=torch.float64, seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3)).to(dtype=dtype)


def run(n_epochs=2, dl=None, valid=None, loss_func=cross_entropy, model=None, lr=0.1, **options):
    model, dl = network() if model is None else model, DataLoader(data(), 32) if dl is None else dl
    return fit(n_epochs, model, loss_func, optim.SGD(model.parameters(), lr=lr), dl, valid, **({"progress": False} | options))


def test_sixteen_mixes_fifty_steps():
    "Every mix of fdl's and torch's bricks takes the same fifty steps, shuffled, and reports the same."
    results = []
    for lib, loss_func, opt_lib, loader in product(*BRICKS.values()):
        losses = []
        def noted(preds, target):
            loss = loss_func(preds, target)
            if loss.requires_grad: losses.append(loss.detach())
            return loss
        model = network(lib)
        opt = opt_lib.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-3)
        history = fit(10, model, noted, opt, loader(data(150), 32, shuffle=True, generator=torch.Generator().manual_seed(1)), loader(data(50, seed=1), 32), progress=False)
        results.append((torch.stack(losses), torch.tensor([list(row.values())[:-1] for row in history], dtype=torch.float64)))
    assert len(results) == 16 and len(results[0][0]) == 50
    for result in results: assert_close(result, results[0], rtol=0, atol=1e-12)


def mean_of(values, rows, **options):
    "What `evaluate` makes of batches with these losses and so many rows."
    batches = [(torch.tensor(v, dtype=torch.float64), torch.zeros(n)) for v, n in zip(values, rows)]
    return evaluate(lambda x: x, lambda x, y: x, batches, **options)["loss"]


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.floats(-1e6, 1e6), st.integers(1, 1000)), min_size=1, max_size=50))
def test_mean_is_exact(pairs):
    values, rows = zip(*pairs)
    exact = sum(Fraction(v)*n for v, n in pairs) / sum(rows)
    scale = float(sum(abs(Fraction(v))*n for v, n in pairs) / sum(rows))
    assert abs(mean_of(values, rows) - exact) <= 1e-14*scale


@pytest.mark.parametrize("batch_size", [1, 7, 64, 99, 100, 1000])
def test_evaluate_is_that_of_the_whole_set(batch_size):
    model, ds = network(), data(100)
    x, y = ds.tensors
    found = evaluate(model, cross_entropy, DataLoader(ds, batch_size))
    assert found["loss"] == pytest.approx(cross_entropy(model(x), y).item(), rel=1e-14)
    assert found["accuracy"] == pytest.approx((model(x).argmax(1) == y).double().mean().item(), rel=1e-6)


def test_many_batches_do_not_lose_digits():
    "20,000 batches of one loss: a float32 sum would drift, and the last batch counts by its rows."
    exact = float((Fraction(0.1)*64*20_000 + 100)/(64*20_000 + 1))
    assert mean_of([0.1]*20_000 + [100.0], [64]*20_000 + [1]) == pytest.approx(exact, rel=1e-14)


class Parts(torch.nn.Module):
    "A model with a frozen part in evaluation mode, and a layer that knows its mode."
    def __init__(self):
        super().__init__()
        self.frozen = torch.nn.BatchNorm1d(6, dtype=torch.float64).eval()
        self.body = torch.nn.Sequential(torch.nn.Linear(6, 3, dtype=torch.float64), torch.nn.Dropout(0.5))
    def forward(self, x): return self.body(self.frozen(x))


@pytest.mark.parametrize("error", [None, ValueError, KeyboardInterrupt])
def test_modes_come_back(error):
    model, modes = Parts(), lambda: [m.training for m in model.modules()]
    before, seen = modes(), []
    def loss_func(preds, target):
        seen.append((modes(), preds.requires_grad))
        if error and len(seen) == 2: raise error
        return cross_entropy(preds, target)
    if error:
        with pytest.raises(error): evaluate(model, loss_func, DataLoader(data(), 64))
    else: evaluate(model, loss_func, DataLoader(data(), 64))
    assert before == modes() == [True, False, True, True, True]
    assert all(s == ([False]*5, False) for s in seen)


def test_fit_trains_in_train_mode_and_restores():
    model, seen = Parts().eval(), []
    opt = torch.optim.SGD(model.parameters(), lr=0.1)
    def loss_func(preds, target):
        seen.append(model.body.training)
        return cross_entropy(preds, target)
    fit(2, model, loss_func, opt, DataLoader(data(), 100), DataLoader(data(), 200), progress=False)
    assert seen == [True, True, False]*2 and not any(m.training for m in model.modules())


def test_grad_mode_comes_back():
    with pytest.raises(ZeroDivisionError): evaluate(network(), lambda p, t: 1/0, DataLoader(data(), 64))
    assert torch.is_grad_enabled()


def test_validation_changes_no_training_step():
    class Noisy(nn.Module):
        def forward(self, x): return x + 0.1*torch.randn_like(x) if self.training else x
    def losses(with_validation, **options):
        model = network()
        model = nn.Sequential(Noisy(), *model)
        train_dl, valid_dl = get_dls(data(), data(50, seed=1), 32, **options)
        return [row["train_loss"] for row in run(3, train_dl, valid_dl if with_validation else None, model=model)]
    assert losses(True) == losses(False)
    assert losses(True, generator=torch.Generator().manual_seed(5)) == losses(False, generator=torch.Generator().manual_seed(5)) != losses(False)


def test_get_dls():
    train_dl, valid_dl = get_dls(data(70), data(70), 16)
    assert [len(y) for _, y in train_dl] == [16]*4 + [6] and [len(y) for _, y in valid_dl] == [32, 32, 6]
    assert torch.equal(torch.cat([x for x, _ in valid_dl]), data(70).tensors[0])
    assert not torch.equal(torch.cat([x for x, _ in train_dl]), torch.cat([x for x, _ in train_dl]))
    assert train_dl.num_workers == valid_dl.num_workers == 0
    train_dl, valid_dl = get_dls(data(70), data(70), 16, 2, pad_collate, torch.Generator())
    for dl in (train_dl, valid_dl): assert dl.num_workers == 2 and dl.collate_fn is pad_collate
    assert train_dl.generator is not valid_dl.generator


def test_loss_batch_updates_only_with_an_optimizer():
    model, (x, y) = network(), data().tensors
    before = [p.detach().clone() for p in model.parameters()]
    loss, n = loss_batch(model, cross_entropy, x, y)
    assert n == 200 and loss.shape == () and loss.grad_fn is None and all(map(torch.equal, before, model.parameters()))
    opt = optim.SGD(model.parameters(), lr=0.1)
    for p in model.parameters(): p.grad = torch.full_like(p, 1e6)      # stale: must not count
    loss_batch(model, cross_entropy, x, y, opt)
    twin = network()
    cross_entropy(twin(x), y).backward()
    for p, q in zip(model.parameters(), twin.parameters()): assert_close(p, q - 0.1*q.grad)


def test_nothing_is_read_back_in_a_training_step():
    "On `meta` there are no numbers: all steps run, and the report at the end of the epoch is the first to fail."
    for lib, opt_lib in product((nn, torch.nn), (optim, torch.optim)):
        for make in (lambda p: opt_lib.SGD(p, lr=0.1, momentum=0.9), lambda p: opt_lib.AdamW(p, lr=0.1)):
            passed = []
            def counted():
                for batch in DataLoader(data(), 32, shuffle=True):
                    yield batch
                    passed.append(len(batch[1]))
            model = network(lib).to("meta")
            with pytest.raises(RuntimeError, match="meta"): fit(1, model, cross_entropy, make(model.parameters()), counted(), progress=False)
            assert passed == [32]*6 + [8]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_step_does_not_synchronise_on_cuda():
    "However many steps an epoch of `fit` has, the host waits as often: for the order, and for the losses at the end."
    model = network(dtype=torch.float32).to("cuda")
    opt = optim.SGD(model.parameters(), lr=0.1)
    ds = TensorDataset(*(t.cuda() for t in data(dtype=torch.float32).tensors))
    def waits(batch_size):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            torch.cuda.set_sync_debug_mode("warn")
            try: fit(1, model, cross_entropy, opt, *get_dls(ds, ds, batch_size), progress=False)
            finally: torch.cuda.set_sync_debug_mode("default")
        return sum("called a synchronizing CUDA operation" in str(w.message) for w in caught)
    waits(100)
    assert waits(10) == waits(100) > 0
    host = fit(2, model, cross_entropy, opt, DataLoader(data(dtype=torch.float32), 32), DataLoader(data(dtype=torch.float32), 64), progress=False)
    assert next(model.parameters()).is_cuda and host[-1]["valid_accuracy"] > 0.3


@pytest.mark.parametrize("k, place", [(1, "epoch 1, batch 1 of 7"), (2, "epoch 1, batch 2 of 7"), (8, "epoch 2, batch 1 of 7"), (14, "epoch 2, batch 7 of 7")])
def test_nan_names_the_batch(k, place):
    calls = []
    def loss_func(preds, target):
        calls.append(0)
        return cross_entropy(preds, target) * (math.nan if len(calls) == k else 1)
    with pytest.raises(FloatingPointError, match=f"^{place}: the loss is nan or infinite"): run(2, loss_func=loss_func)


def test_a_broken_update_is_seen_by_the_validation():
    calls = []
    def loss_func(preds, target):
        calls.append(0)
        return cross_entropy(preds, target) * (math.nan if len(calls) > 7 else 1)
    with pytest.raises(FloatingPointError, match="epoch 1, validation: the loss is nan"): run(1, valid=DataLoader(data(), 64), loss_func=loss_func)


def test_a_learning_rate_that_explodes_is_stopped():
    x, _ = data().tensors
    dl = DataLoader(TensorDataset(x, 1e3*x[:, :3]), 200)
    with pytest.raises(FloatingPointError, match="try a tenth"): run(500, dl, DataLoader(TensorDataset(x, x[:, :3]), 100), nn.MSELoss(), lr=1e3)


def test_a_broken_input_is_named():
    x, y = data().tensors
    x = x.clone()
    x[70] = math.inf
    with pytest.raises(FloatingPointError, match="epoch 1, batch 3 of 7"): run(1, DataLoader(TensorDataset(x, y), 32))


def test_a_real_interrupt_returns_the_history(capsys, request):
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in the background of a shell begins with it ignored
    request.addfinalizer(lambda: signal.signal(signal.SIGINT, before))
    model, calls = network(), []
    def loss_func(preds, target):
        calls.append(0)
        if len(calls) == 17: signal.raise_signal(signal.SIGINT)
        return cross_entropy(preds, target)
    history = run(5, loss_func=loss_func, model=model)
    assert [row["epoch"] for row in history] == [1, 2]
    assert capsys.readouterr().out == "Ctrl-C: the history has 2 of 5 epochs\n"
    assert all(m.training for m in model.modules()) and torch.is_grad_enabled()
    assert run(1, model=model)[0]["train_loss"] < history[-1]["train_loss"]


def test_other_errors_come_through():
    with pytest.raises(RuntimeError, match="grad can be implicitly created only for scalar"): run(loss_func=lambda p, t: cross_entropy(p, t, reduction="none"))
    with pytest.raises(ValueError, match="dl gave no batches"): run(valid=[])
    with pytest.raises(ValueError, match="train_dl gave no batches"): run(dl=iter([]))


@pytest.mark.parametrize("progress, disable, shown", [(True, None, True), (True, "1", False), (False, None, False)])
def test_bar_and_table(progress, disable, shown, monkeypatch, capsys):
    monkeypatch.delenv("TQDM_DISABLE", raising=False)
    if disable: monkeypatch.setenv("TQDM_DISABLE", disable)
    model, options = network(), {} if progress else {"progress": False}
    history = fit(3, model, cross_entropy, optim.SGD(model.parameters(), lr=0.1), DataLoader(data(), 32), DataLoader(data(50), 32), **options)
    out, err = capsys.readouterr()
    assert out == (repr(history) + "\n" if progress else "")
    assert ("epoch 3 of 3" in err and "/21" in err) == shown
    if shown: assert err.rsplit("\r", 2)[-2].strip() == "" or err.rsplit("\r", 1)[-1].strip() == "", "the bar is wiped at the end"
    else: assert err == ""


def test_table_lines_are_aligned():
    history = run(12, valid=DataLoader(data(50), 32))
    lines = repr(history).splitlines()
    assert len(lines) == 13 and len({len(line) for line in lines}) == 1
    assert lines[0].split() == ["epoch", "train_loss", "valid_loss", "valid_accuracy", "seconds"] and lines[-1].split()[0] == "12"
    assert re.fullmatch(r" +12 +\d\.\d{4} +\d\.\d{4} +\d\.\d{4} +\d\.\d", lines[-1]) and all(0 < row["seconds"] < 60 for row in history)


def test_table():
    rows = [{"epoch": 9, "train_loss": 0.5, "top": 1.0, "seconds": 9.96}, {"epoch": 10, "train_loss": 12.25, "top": 0.1234567, "seconds": 0.0}]
    assert repr(History(rows)) == """\
  epoch  train_loss      top  seconds
      9      0.5000   1.0000     10.0
     10     12.2500   0.1235      0.0"""
    assert repr(History()) == "no epochs"


def test_history_is_a_plain_list_of_dicts():
    history = run(2, valid=DataLoader(data(50), 32))
    assert isinstance(history, list) and isinstance(history, History)
    assert json.loads(json.dumps(history)) == history == pickle.loads(pickle.dumps(history))
    assert all(type(v) is float for row in history for k, v in row.items() if k != "epoch") and [row["epoch"] for row in history] == [1, 2]
    assert run(0) == []


def test_a_loader_may_be_any_iterable():
    class Stream(torch.utils.data.IterableDataset):
        def __iter__(self): return iter(zip(*data().tensors))
    expected = [row["train_loss"] for row in run()]
    for dl in (list(DataLoader(data(), 32)), torch.utils.data.DataLoader(Stream(), 32)):
        assert [row["train_loss"] for row in run(dl=dl, progress=True)] == expected


def test_inputs_that_are_tuples_count_by_their_targets():
    "Batches of `pad_collate` have a pair as input: (padded, lengths)."
    sequences = [(torch.ones(length, dtype=torch.float64), length % 3) for length in range(1, 8)]
    class Sums(nn.Module):
        def __init__(self):
            super().__init__()
            self.last = nn.Linear(1, 3).to(torch.float64)
        def forward(self, input): return self.last(input[0].sum(1, keepdim=True)/input[1][:, None])
    model = Sums()
    whole, parts = (evaluate(model, cross_entropy, DataLoader(sequences, n, collate_fn=pad_collate)) for n in (7, 4))
    assert_close(whole, parts)


def test_a_model_may_be_any_function(monkeypatch):
    "It has no mode and no device; its batches stay where they are."
    monkeypatch.setenv("FDL_DEVICE", "meta")
    weight = torch.zeros(6, 3, dtype=torch.float64, requires_grad=True)
    history = fit(2, lambda xb: xb @ weight, cross_entropy, torch.optim.SGD([weight], lr=0.1), DataLoader(data(), 32), DataLoader(data(), 64), progress=False)
    assert history[1]["valid_loss"] < history[0]["valid_loss"] < math.log(3)


def test_targets_that_are_no_classes_need_no_metrics():
    x, _ = data().tensors
    history = run(2, DataLoader(TensorDataset(x, x[:, :3]), 32), DataLoader(TensorDataset(x, x[:, :3]), 32), nn.MSELoss())
    assert list(history[0]) == ["epoch", "train_loss", "valid_loss", "seconds"]


def test_schedulers_step_once_a_batch():
    for lib in (optim, torch.optim):
        model = network()
        opt = lib.SGD(model.parameters(), lr=1.0)
        scheduler = lib.lr_scheduler.StepLR(opt, 2*7)
        fit(5, model, cross_entropy, opt, DataLoader(data(), 32), scheduler=scheduler, progress=False)
        assert scheduler.last_epoch == 35 and opt.param_groups[0]["lr"] == pytest.approx(0.01)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_other_dtypes(dtype):
    history = run(1, DataLoader(data(dtype=dtype), 32), DataLoader(data(dtype=dtype), 64), model=network(dtype=dtype))
    assert 0 < history[0]["valid_loss"] < 3 and 0 <= history[0]["valid_accuracy"] <= 1


def test_a_plain_function_is_evaluated_too():
    weight = torch.randn(6, 3, dtype=torch.float64)
    x, y = data().tensors
    assert evaluate(lambda xb: xb @ weight, cross_entropy, DataLoader(data(), 64))["loss"] == pytest.approx(cross_entropy(x @ weight, y).item(), rel=1e-13)


# What a batch weighs.

class Scores(torch.nn.Module):
    "A fixed table of scores: the model's answer to a row is a row of it."
    def __init__(self, n, *shape):
        super().__init__()
        self.table = torch.nn.Parameter(torch.randn(n, *shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64))
    def forward(self, rows): return self.table[rows]


@pytest.mark.parametrize("pack", [lambda t: [t], lambda t: (t, t), lambda t: {"a": t}, lambda t: {"a": [t]}], ids=["list", "tuple", "dict", "nested"])
def test_targets_in_a_list_or_a_dict(pack):
    "Ten rows in batches of 4 count as 4, 4 and 2."
    def loss_func(preds, target):
        while not isinstance(target, torch.Tensor): target = target["a"] if isinstance(target, dict) else target[0]
        return F.cross_entropy(preds, target)
    model, target = Scores(10, 3), torch.arange(10) % 3
    exact = F.cross_entropy(model.table, target).item()
    batches = [(rows, pack(target[rows])) for rows in torch.arange(10).split(4)]
    assert evaluate(model, loss_func, batches) == {"loss": pytest.approx(exact, rel=1e-13)}
    history = fit(1, model, loss_func, torch.optim.SGD(model.parameters(), lr=0.0), batches, progress=False)
    assert history[0]["train_loss"] == pytest.approx(exact, rel=1e-13)


LOSSES = {"the function": (F.cross_entropy, -100), "ours": (cross_entropy, -100), "a partial": (partial(F.cross_entropy, ignore_index=0), 0), "a module": (torch.nn.CrossEntropyLoss(ignore_index=2), 2),
          "ours, a module": (nn.CrossEntropyLoss(), -100), "weights": (torch.nn.CrossEntropyLoss(torch.tensor([1., 5., 2.]).double(), ignore_index=1), 1),
          "our weights": (nn.CrossEntropyLoss(torch.tensor([1., 5., 2.]).double()), -100), "weights in a partial": (partial(F.cross_entropy, weight=torch.tensor([1., 5., 2.]).double()), -100)}


@pytest.mark.parametrize("loss_func, ignored", LOSSES.values(), ids=LOSSES)
@pytest.mark.parametrize("shape", [(), (4,)], ids=["classes", "sequences"])
def test_ignored_targets_and_class_weights(loss_func, ignored, shape):
    "The mean over batches is that of the whole set, also where a batch is all ignored."
    model, target = Scores(10, 3, *shape), torch.randint(3, (10, *shape))
    target[torch.rand(target.shape) < 0.3] = ignored
    target[4:6] = ignored
    target[0] = (ignored + 1) % 3 if ignored >= 0 else 1
    exact = loss_func(model.table, target).item()
    batches = [(rows, target[rows]) for rows in torch.arange(10).split([4, 2, 3, 1])]
    assert evaluate(model, loss_func, batches, metrics=[])["loss"] == pytest.approx(exact, rel=1e-12)
    history = fit(1, model, loss_func, torch.optim.SGD(model.parameters(), lr=0.0), batches, progress=False)
    assert history[0]["train_loss"] == pytest.approx(exact, rel=1e-12)
    with pytest.raises(ValueError, match="none whose targets count"): evaluate(model, loss_func, batches[1:2], metrics=[])


def test_numbers_are_no_classes():
    "A target of -100 degrees counts like any other; a loss may have a weight that is no class weight."
    model, target = Scores(6), torch.tensor([-100., -100., -100.5, 3., 2., 1.]).double()
    batches = [(rows, target[rows]) for rows in torch.arange(6).split(4)]
    assert evaluate(model, F.mse_loss, batches)["loss"] == pytest.approx(F.mse_loss(model.table, target).item())
    class Bilinear(torch.nn.Linear):
        def forward(self, preds, target): return F.cross_entropy(super().forward(preds), target)
    model, target, loss_func = Scores(5, 3), torch.arange(5) % 3, Bilinear(3, 3).double()
    batches = [(rows, target[rows]) for rows in torch.arange(5).split(3)]
    assert evaluate(model, loss_func, batches)["loss"] == pytest.approx(loss_func(model.table, target).item())


def test_an_ignored_batch_is_not_the_one_that_is_named():
    model, target = Scores(9, 3), torch.tensor([1, 2, 1, -100, -100, -100, 2, 1, 0])
    model.table.data[7] = math.nan
    batches = [(rows, target[rows]) for rows in torch.arange(9).split(3)]
    with pytest.raises(FloatingPointError, match="epoch 1, batch 3 of 3"): fit(1, model, F.cross_entropy, torch.optim.SGD(model.parameters(), lr=0.0), batches, progress=False)


def test_narrow_targets_weigh_what_wide_ones_do():
    model, target = Scores(6, 200), torch.tensor([156, 0, 1, 156, 199, 3])          # 156 is -100 in eight bits
    wide = [(rows, target[rows]) for rows in torch.arange(6).split(2)]
    narrow = [(rows, t.to(torch.uint8)) for rows, t in wide]
    assert evaluate(model, lambda p, t: F.cross_entropy(p, t.long()), narrow, []) == evaluate(model, F.cross_entropy, wide, [])


# Metrics.

def error(preds, target): return 1 - (preds.argmax(1) == target).double().mean()


class Rate:
    def __call__(self, preds, target): return error(preds, target)


def test_metrics_of_every_kind():
    "Functions, partials, modules and objects have a name; tensors, floats and numpy's numbers are results."
    model, dl = network(), DataLoader(data(100), 32)
    wanted = evaluate(model, cross_entropy, dl, [error])["error"]
    found = evaluate(model, cross_entropy, dl, {"float": lambda p, t: error(p, t).item(), "numpy": lambda p, t: np.float64(error(p, t)), "array": lambda p, t: np.array(error(p, t)), "tensor": error})
    for name in ("float", "numpy", "array", "tensor"): assert found[name] == pytest.approx(wanted, rel=1e-13)
    found = evaluate(model, cross_entropy, dl, [partial(error), Rate(), torch.nn.CrossEntropyLoss()])
    assert list(found) == ["loss", "error", "Rate", "CrossEntropyLoss"] and found["CrossEntropyLoss"] == pytest.approx(found["loss"]) and found["Rate"] == pytest.approx(wanted)
    assert evaluate(model, cross_entropy, dl, (f for f in [error])) == pytest.approx({"loss": found["loss"], "error": wanted})
    assert list(run(1, dl, dl, metrics=[Rate()])[0]) == ["epoch", "train_loss", "valid_loss", "valid_Rate", "seconds"]


def loss(preds, target): return error(preds, target)


@pytest.mark.parametrize("metrics", [[error, error], [error, partial(error)], [lambda p, t: 0., lambda p, t: 1.], [loss], {"loss": error}], ids=["twice", "partial", "lambdas", "loss", "dict"])
def test_metrics_that_would_hide_one_another(metrics):
    with pytest.raises(ValueError, match="a name of its own"): evaluate(network(), cross_entropy, DataLoader(data(), 64), metrics)


def test_metrics_that_are_no_means():
    for wrong in (lambda p, t: p, lambda p, t: np.ones(2)):
        with pytest.raises(ValueError, match=r"wrong must be a mean, but has shape \("): evaluate(network(), cross_entropy, DataLoader(data(), 64), {"wrong": wrong})


# Batches and modes.

@pytest.mark.parametrize("batch", [{"x": torch.ones(2, 6), "y": torch.ones(2)}, torch.ones(2, 6), [torch.ones(2, 6)], (torch.ones(2, 6), torch.ones(2), torch.ones(2))], ids=["dict", "tensor", "one", "three"])
def test_a_batch_that_is_no_pair(batch):
    for use in (lambda dl: run(1, dl), lambda dl: evaluate(network(), cross_entropy, dl)):
        with pytest.raises(TypeError, match=rf"a batch must be a pair \(inputs, targets\), not \d fields in a {type(batch).__name__}"): use([batch])


@pytest.mark.parametrize("lib", [nn, torch.nn], ids=["fdl", "torch"])
def test_a_part_in_evaluation_mode_on_purpose_stays_there(lib):
    def make(): return lib.Sequential(lib.Conv2d(1, 2, 3), lib.BatchNorm2d(2), lib.Flatten(), lib.Linear(32, 2))
    dl = DataLoader(TensorDataset(torch.randn(20, 1, 6, 6), torch.arange(20) % 2), 10)
    for frozen, whole in ((True, False), (False, False), (False, True)):
        model = make()
        if frozen: model[1].eval()
        if whole: model.eval()                                                      # what `model.eval()` has done, `fit` undoes for its time
        modes = [m.training for m in model.modules()]
        fit(1, model, F.cross_entropy, torch.optim.SGD(model.parameters(), lr=0.1), dl, dl, progress=False)
        assert (model[1].running_mean.count_nonzero() == 0) == frozen and [m.training for m in model.modules()] == modes


# The joints of `fit`.

def parts(model=None, **options):
    "Model, loss, optimizer and two loaders, for `epochs` and `fit`."
    model = network() if model is None else model
    return model, cross_entropy, optim.SGD(model.parameters(), lr=0.1), DataLoader(data(), 32), DataLoader(data(50, seed=1), 32)


def without_seconds(rows): return [{name: x for name, x in row.items() if name != "seconds"} for row in rows]


def test_epochs_gives_the_rows_of_fit_one_at_a_time():
    expected, given = without_seconds(fit(3, *parts(), progress=False)), parts()
    before = [p.detach().clone() for p in given[0].parameters()]
    rows = epochs(3, *given)
    assert all(map(torch.equal, before, given[0].parameters())), "nothing runs before the first row is asked for"
    assert without_seconds([next(rows)]) == expected[:1]
    middle = [p.detach().clone() for p in given[0].parameters()]
    assert not torch.equal(middle[0], before[0]) and all(map(torch.equal, middle, given[0].parameters()))
    assert without_seconds(rows) == expected[1:] and next(rows, None) is None


def test_epochs_starts_where_it_is_told():
    given = parts()
    rows = without_seconds([*epochs(1, *given), *epochs(3, *given, start=1)])
    assert rows == without_seconds(fit(3, *parts(), progress=False)) and list(epochs(3, *given, start=3)) == []


@pytest.mark.parametrize("end", ["break", "close", "error"])
def test_modes_come_back_when_the_epochs_end_early(end):
    model = network().eval()
    rows = epochs(5, *parts(model))
    next(rows)
    assert all(m.training for m in model.modules()), "between two rows the model is in training mode"
    if end == "break":
        for row in rows: break
        del rows
    elif end == "close": rows.close()
    else:
        with pytest.raises(ZeroDivisionError): rows.throw(ZeroDivisionError)
    assert not any(m.training for m in model.modules())


def test_a_step_of_your_own():
    "It gets what `loss_batch` gets, for each batch, and the row is the mean of what it returns."
    given, calls = parts(), []
    before = [p.detach().clone() for p in given[0].parameters()]
    def step(*args):
        calls.append(args)
        return torch.tensor(len(calls), dtype=torch.float64), torch.tensor(len(args[3]))
    history = fit(2, *given, step=step, progress=False)
    assert [row["train_loss"] for row in history] == [pytest.approx(sum(i*n for i, n in zip(range(k, k + 7), [32]*6 + [8]))/200) for k in (1, 8)]
    for (model, loss_func, xb, yb, opt), n in zip(calls, ([32]*6 + [8])*2):
        assert model is given[0] and loss_func is cross_entropy and opt is given[2] and len(xb) == len(yb) == n
    assert len(calls) == 14 and all(map(torch.equal, before, given[0].parameters()))


def test_the_bar_moves_with_each_step(monkeypatch):
    monkeypatch.delenv("TQDM_DISABLE", raising=False)
    bars = []
    class Bar:
        def __init__(self, total, desc, **options): self.total, self.said, self.n, _ = total, [desc], 0, bars.append(self)
        def __enter__(self): return self
        def __exit__(self, *error): pass
        def update(self, n=1): self.n += n
        def write(self, text): self.said.append(self.n)
        def set_description(self, text): self.said.append(text)
    monkeypatch.setattr("fdl.training.tqdm", Bar)
    fit(3, *parts())
    assert bars[0].total == bars[0].n == 21 and bars[0].said == ["epoch 1 of 3", 7, "epoch 2 of 3", 14, "epoch 3 of 3", 21, "epoch 3 of 3"]


def test_an_optimizer_of_another_model_is_refused():
    "Lesson 08's first trap. Some parameters, none that learn, or none that can be asked for: that may be meant."
    model, other = network(), network(seed=1)
    for lib in (optim, torch.optim):
        with pytest.raises(ValueError, match="none of the model's parameters"): fit(1, model, cross_entropy, lib.SGD(other.parameters(), lr=0.1), DataLoader(data(), 32), progress=False)
        fit(1, model, cross_entropy, lib.SGD([*model[2].parameters(), *other.parameters()], lr=0.1), DataLoader(data(), 32), progress=False)
    assert_close(dict(other.state_dict()), dict(network(seed=1).state_dict()), rtol=0, atol=0)


def test_gradients_written_by_hand():
    "Model, loss and optimizer need be no more than callables with `backward`, `zero_grad` and `step`: those of lesson 03 do what autograd does."
    twin, targets = network(), lambda target: F.one_hot(target, 3).double()
    params = [p for layer in (twin[0], twin[2]) for p in (layer.weight.detach().T.clone(), layer.bias.detach().clone())]
    model, mse = backprop.Sequential(backprop.Linear(*params[:2]), backprop.ReLU(), backprop.Linear(*params[2:])), backprop.MSE()
    def loss_func(preds, target):
        loss = mse(preds, targets(target))
        def backward():
            mse.out.g = 1.
            mse.backward()
            model.backward()
        loss.backward = backward
        return loss
    class ByHand:
        def zero_grad(self):
            for p in params: p.g = None
        def step(self):
            for p in params: p -= 0.1*p.g
    dl = DataLoader(data(), 32)
    history = fit(3, model, loss_func, ByHand(), dl, dl, progress=False)
    expected = run(3, dl, dl, lambda preds, target: F.mse_loss(preds, targets(target)), twin)
    for row, wanted in zip(without_seconds(history), without_seconds(expected), strict=True): assert row == pytest.approx(wanted, rel=1e-12)
    assert history[2]["train_loss"] < history[0]["train_loss"]
