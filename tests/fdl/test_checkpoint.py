"fdl.checkpoint: a run that is stopped anywhere, in any way, ends like one that was not; files that are no checkpoints change nothing."
import copy
import multiprocessing
import os
import pickle
import random
import signal
import threading
import time
from collections import OrderedDict
from functools import partial
from zipfile import ZipFile

import numpy as np
import pytest
import torch
import torch.distributed as dist
from torch.testing import assert_close

import fdl.checkpoint
from fdl import nn, optim
from fdl.checkpoint import Checkpoint, load, random_states, save, set_random_states
from fdl.data import DataLoader, Dataset, TensorDataset
from fdl.distributed import Replica, Sharded, launch
from fdl.distributed import step as shared_step
from fdl.functional import cross_entropy
from fdl.training import epochs, fit, loss_batch


@pytest.fixture(autouse=True)
def one(one_thread): pass


class Noisy(Dataset):
    "Rows that are different each time: Python, NumPy and torch each draw some noise."
    def __init__(self, n=40):
        generator = torch.Generator().manual_seed(0)
        self.x, self.y = torch.randn(n, 6, generator=generator), torch.randint(3, (n,), generator=generator)

    def __len__(self): return len(self.y)
    def __getitem__(self, i): return self.x[i] + random.gauss(0, 0.1) + float(np.random.randn())/10 + 0.1*torch.randn(6), self.y[i]


class Run:
    "A small training run with everything that a checkpoint has to remember: 5 batches an epoch."
    def __init__(self, workers=0, generator=True, torchs=False, sizes=(6, 8, 3), kind="Adam", batch_size=8):
        torch.manual_seed(0), random.seed(0), np.random.seed(0)
        lib, opts, loader = (torch.nn, torch.optim, torch.utils.data.DataLoader) if torchs else (nn, optim, DataLoader)
        a, b, c = sizes
        self.model = lib.Sequential(lib.Linear(a, b), torch.nn.BatchNorm1d(b), lib.ReLU(), lib.Dropout(0.2), lib.Linear(b, c))
        self.opt = getattr(opts, kind)(self.model.parameters(), lr=0.01)
        self.scheduler = opts.lr_scheduler.OneCycleLR(self.opt, 0.05, total_steps=20, cycle_momentum=False)
        generator = torch.Generator().manual_seed(3) if generator else None
        self.train_dl = loader(Noisy(), batch_size, shuffle=True, num_workers=workers, generator=generator)
        self.valid_dl = loader(Noisy(16), 16, generator=torch.Generator())

    def go(self, n_epochs, checkpoint=None, **options):
        if checkpoint: options["epochs"] = checkpoint
        self.history = fit(n_epochs, self.model, cross_entropy, self.opt, self.train_dl, self.valid_dl, scheduler=self.scheduler, progress=False, **options)
        return self

    def result(self):
        "All that must be equal; `seconds` need not be."
        generators = [g for g in (self.train_dl.generator, self.valid_dl.generator) if g]
        return without_seconds(getattr(self, "history", [])), self.model.state_dict(), self.opt.state_dict(), self.scheduler.state_dict(), random_states(*generators)


class Stop(Exception): pass


def stopping(at, how=None):
    "A step that is `loss_batch` until it has been called `at` times."
    calls = []
    def step(*batch):
        calls.append(0)
        if len(calls) == at + 1:
            if how is None: raise Stop
            how()
        return loss_batch(*batch)
    return step


def without_seconds(history): return [{name: value for name, value in row.items() if name != "seconds"} for row in history]


def equal(a, b):
    "To the last bit, through lists and dicts."
    if isinstance(a, dict):
        assert a.keys() == b.keys()
        for key in a: equal(a[key], b[key])
    elif isinstance(a, (list, tuple)):
        assert len(a) == len(b)
        for pair in zip(a, b): equal(*pair)
    elif isinstance(a, torch.Tensor): assert torch.equal(a, b)
    else: assert a == b


# stopped by an error

@pytest.mark.parametrize("options", [{}, {"workers": 2}, {"generator": False}, {"torchs": True}, {"torchs": True, "workers": 2}], ids=["plain", "workers", "global", "torch", "torch workers"])
def test_a_run_that_was_stopped_ends_like_one_that_was_not(tmp_path, options):
    expected = Run(**options).go(4).result()
    equal(Run(**options).go(4, Checkpoint(tmp_path/"whole.pt")).result(), expected)
    for at in (0, 1, 2, 5, 6, 13, 19) if not options.get("workers") else (7, 19):
        checkpoint = Checkpoint(tmp_path/f"{at}.pt", every=2)
        with pytest.raises(Stop): Run(**options).go(4, checkpoint, step=stopping(at))
        equal(Run(**options).go(4, checkpoint).result(), expected)


@pytest.mark.parametrize("every", [0, 1, 2])
def test_a_run_that_is_stopped_again_and_again_ends_like_one_that_was_not(tmp_path, every):
    stops, checkpoint = 0, Checkpoint(tmp_path/"run.pt", every)
    while True:
        run = Run()
        try: run.go(4, checkpoint, step=stopping({0: 6, 1: 1, 2: 3}[every]))
        except Stop: stops += 1
        else: break
    equal(run.result(), Run().go(4).result())
    assert stops == {0: 3, 1: 19, 2: 7}[every]


def test_a_run_that_ended_can_go_on_and_one_that_was_longer_is_refused(tmp_path):
    def new():
        run = Run()
        run.scheduler = None
        return run
    expected = new().go(3).history
    checkpoint = Checkpoint(tmp_path/"run.pt")
    new().go(2, checkpoint)
    equal(without_seconds(new().go(3, checkpoint).history), without_seconds(expected))
    equal(without_seconds(new().go(3, checkpoint).history), without_seconds(expected))          # nothing left to do
    with pytest.raises(ValueError, match=r"run.pt is of another run: over 2 epochs"): new().go(2, checkpoint)


def test_what_is_saved_is_back_before_the_first_row_is_repeated(tmp_path):
    checkpoint, first = Checkpoint(tmp_path/"run.pt"), Run()
    first.go(2, checkpoint)
    run = Run()
    for row in checkpoint(4, run.model, cross_entropy, run.opt, run.train_dl, run.valid_dl, scheduler=run.scheduler): break
    assert row["epoch"] == 1
    equal([run.model.state_dict(), run.opt.state_dict(), run.scheduler.state_dict()], [first.model.state_dict(), first.opt.state_dict(), first.scheduler.state_dict()])


class Counted:
    "A part of one's own: counts its updates, and draws from a generator of its own."
    def __init__(self): self.n = 0
    def __call__(self, *batch):
        self.n += 1
        return loss_batch(*batch)
    def state_dict(self): return {"n": self.n}
    def load_state_dict(self, state): self.n = state["n"]


def test_parts_of_your_own_go_on_too(tmp_path):
    step = Counted()
    checkpoint = Checkpoint(tmp_path/"run.pt", every=1, parts={"step": step})
    def failing(*batch):
        if step.n == 7: raise Stop
        return step(*batch)
    with pytest.raises(Stop): Run().go(2, checkpoint, step=failing)
    again = Counted()
    Run().go(2, Checkpoint(tmp_path/"run.pt", parts={"step": again}), step=again)
    assert again.n == 10
    with pytest.raises(ValueError, match="another run"): Run().go(2, Checkpoint(tmp_path/"run.pt"))


@pytest.mark.parametrize("pack", [lambda g: g, lambda g: [g], lambda g: ("noise", {"generator": g}), lambda g: OrderedDict(a=[g])])
def test_generators_are_found_wherever_a_loader_holds_them(tmp_path, pack):
    class Wrapped:
        def __init__(self, dl): self.dl = dl
        def __len__(self): return len(self.dl)
        def __iter__(self): return iter(self.dl)
    class Held(Noisy):
        def __init__(self):
            super().__init__()
            generator = torch.Generator().manual_seed(1)
            self.held, self.noise = pack(generator), lambda: torch.randn(6, generator=generator)   # the closure is no attribute
        def __getitem__(self, i): return self.x[i] + self.noise(), self.y[i]
    def go(stop=None, **options):
        torch.manual_seed(0)
        model = nn.Linear(6, 3)
        dl = Wrapped(DataLoader(Held(), batch_sampler=torch.utils.data.BatchSampler(torch.utils.data.RandomSampler(range(40), generator=torch.Generator()), 8, False)))
        return without_seconds(fit(2, model, cross_entropy, optim.SGD(model.parameters(), lr=0.1), dl, progress=False, **options)), model.state_dict()
    checkpoint = Checkpoint(tmp_path/"run.pt", every=3)
    with pytest.raises(Stop): go(epochs=checkpoint, step=stopping(9))
    equal(go(epochs=checkpoint), go())


def test_random_states_are_those_of_all_sources():
    generator = torch.Generator().manual_seed(5)
    def draw(): return random.random(), random.gauss(0, 1), np.random.rand(), np.random.randn(), torch.rand(3), torch.rand(3, generator=generator)
    draw()                                                                  # a second gaussian waits in each
    states = random_states(generator)
    first = draw()
    set_random_states(states, generator)
    equal(draw(), first)
    with pytest.raises(ValueError): set_random_states(states)


# Ctrl-C

@pytest.mark.parametrize("at", [0, 4, 7])
def test_ctrl_c_saves_at_the_end_of_the_batch(tmp_path, capsys, at):
    before = signal.getsignal(signal.SIGINT)
    checkpoint, stopped = Checkpoint(tmp_path/"run.pt"), Run()
    stopped.go(4, checkpoint, step=stopping(at, lambda: os.kill(os.getpid(), signal.SIGINT)))
    assert len(stopped.history) == at//5 and "Ctrl-C" in capsys.readouterr().out and signal.getsignal(signal.SIGINT) is before
    equal(load(tmp_path/"run.pt")["parts"]["model"], stopped.model.state_dict())
    run, steps = Run(), Counted()
    equal(run.go(4, checkpoint, step=steps).result(), Run().go(4).result())
    assert steps.n == 19 - at


def test_ctrl_c_in_validation_saves_the_epoch_and_a_second_one_does_not_wait(tmp_path):
    class Interrupting(nn.Module):
        def __init__(self, inner, times): self.inner, self.times = inner, times
        def forward(self, x):
            if not self.training:
                for _ in range(self.times): os.kill(os.getpid(), signal.SIGINT)
            return self.inner(x)
    def go(times, checkpoint):
        run = Run()
        run.model = Interrupting(run.model, times)
        return run.go(2, checkpoint)
    checkpoint = Checkpoint(tmp_path/"run.pt")
    assert len(go(1, checkpoint).history) == 1
    assert len(load(tmp_path/"run.pt")["history"]) == 1
    assert go(2, Checkpoint(tmp_path/"other.pt")).history == []
    assert load(tmp_path/"other.pt")["history"] == []
    expected = go(0, Checkpoint(tmp_path/"third.pt"))
    equal(go(0, checkpoint).result(), expected.result())


def test_a_thread_that_is_not_the_main_one_saves_too(tmp_path):
    run = Run()
    thread = threading.Thread(target=lambda: run.go(1, Checkpoint(tmp_path/"run.pt")))
    thread.start(), thread.join()
    assert len(load(tmp_path/"run.pt")["history"]) == 1


# killed

def forked(func, *args):
    "The process that runs `func`."
    process = multiprocessing.get_context("fork").Process(target=func, args=args)
    process.start()
    return process


def whole_run(tmp_path, every=1):
    run = Run().go(4, Checkpoint(tmp_path/"run.pt", every))
    torch.save(run.result(), tmp_path/"result.new")
    os.replace(tmp_path/"result.new", tmp_path/"result.pt")


def killed_while_saving(tmp_path, where, nth):
    "A run whose `nth` save ends by SIGKILL at this place."
    saves = []
    def die(*_): os.kill(os.getpid(), signal.SIGKILL)
    def counted(state, file, real=fdl.checkpoint.save):
        saves.append(0)
        if len(saves) == nth:
            if where == "before": die()
            if where == "writing":
                def half(state, opened, real=torch.save):
                    real(state, opened), opened.truncate(opened.tell()//2), opened.flush(), die()
                torch.save = half
            if where == "written": os.fsync = die
            if where in ("first rename", "second rename"):
                renames, real_replace = [], os.replace
                def replace(*names):
                    renames.append(0)
                    if len(renames) == (1 if where == "first rename" else 2): die()
                    real_replace(*names)
                os.replace = replace
        real(state, file)
        if len(saves) == nth: die()
    fdl.checkpoint.save = counted
    whole_run(tmp_path)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the system cannot fork")
@pytest.mark.parametrize("where", ["before", "writing", "written", "first rename", "second rename", "after"])
def test_killed_while_saving_and_resumed_it_ends_like_one_that_was_not(tmp_path, where):
    expected = Run().go(4).result()
    for nth in (1, 2, 8):
        folder = tmp_path/str(nth)
        folder.mkdir()
        process = forked(killed_while_saving, folder, where, nth)
        process.join()
        assert process.exitcode == -signal.SIGKILL
        whole_run(folder)
        equal(torch.load(folder/"result.pt", weights_only=False), expected)


def killed_at_random(tmp_path, kills, seed):
    "Kills a run this often, each time after a random part of what it still needs, and lets it end."
    rng, done, runs = random.Random(seed), 0, 0
    began = time.perf_counter()
    (tmp_path/"timing").mkdir()
    forked(whole_run, tmp_path/"timing").join()
    needs = time.perf_counter() - began
    while done < kills:
        folder, runs = tmp_path/str(runs), runs + 1
        folder.mkdir()
        while not (folder/"result.pt").exists():
            process = forked(whole_run, folder)
            process.join(rng.uniform(0.1, 0.6)*needs if done < kills else None)
            if process.exitcode is None:
                process.kill()
                done += 1
            process.join()
        yield torch.load(folder/"result.pt", weights_only=False)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the system cannot fork")
@pytest.mark.parametrize("kills", [12, pytest.param(60, marks=pytest.mark.weekly)])
def test_killed_at_any_moment_and_resumed_it_ends_like_one_that_was_not(tmp_path, kills):
    expected = Run().go(4).result()
    for found in killed_at_random(tmp_path, kills, seed=kills): equal(found, expected)


# files

@pytest.fixture
def saved(tmp_path):
    Run().go(1, Checkpoint(tmp_path/"run.pt"))
    return tmp_path/"run.pt"


def refused(file, match, **options):
    "Resuming raises, names the file, and leaves all as it was."
    run = Run(**options)
    before = copy.deepcopy(run.result())
    with pytest.raises(ValueError, match=match) as caught: run.go(2, Checkpoint(file))
    assert str(file) in str(caught.value)
    equal(run.result(), before)


def test_damaged_files_are_refused_and_change_nothing(saved):
    data = saved.read_bytes()
    for length in (0, 1, 100, len(data)//2, len(data) - 1):
        saved.write_bytes(data[:length])
        refused(saved, "damaged, or no checkpoint")
    rng, with_sums = random.Random(0), 0
    for place in rng.sample(range(len(data)), 25):
        saved.write_bytes(data[:place] + bytes([data[place] ^ 0xff]) + data[place + 1:])
        try: load(saved)
        except ValueError as error: with_sums += "damaged" in str(error)
        else:                                                               # in padding: nothing is lost
            saved_again = load(saved)
            saved.write_bytes(data)
            equal(saved_again, load(saved))
    assert with_sums > 10


class Evil:
    def __init__(self, file): self.file = file
    def __reduce__(self): return os.mkdir, (str(self.file),)


def test_foreign_files_are_refused_and_nothing_in_them_is_run(saved, tmp_path):
    for thing in (torch.zeros(3), {"model": {}}, [1, 2], {"run": {}, "history": []}):
        torch.save(thing, saved)
        refused(saved, "another run")
    saved.write_text("text, that is no checkpoint")
    refused(saved, "no checkpoint")
    with ZipFile(saved, "w") as records: records.writestr("a.txt", "text")
    refused(saved, "no checkpoint")
    for write in (lambda evil: torch.save(evil, saved), lambda evil: saved.write_bytes(pickle.dumps(evil))):
        write(Evil(tmp_path/"ran"))
        refused(saved, "no checkpoint")
        assert not (tmp_path/"ran").exists()


def test_files_of_another_run_are_refused_and_change_nothing(saved):
    refused(saved, "'optimizer': 'Adam'.*'optimizer': 'SGD'", kind="SGD")
    refused(saved, "another run", sizes=(6, 9, 3))
    refused(saved, "'batches': 5.*'batches': 4", batch_size=10)
    refused(saved, "'generators': 2.*'generators': 1", generator=False)


def test_what_cannot_be_read_again_is_noticed_at_the_start(tmp_path):
    class Odd(Counted):
        def state_dict(self): return {"n": Evil(tmp_path/"ran")}
    steps = Counted()
    with pytest.raises(ValueError, match="no checkpoint"): Run().go(1, Checkpoint(tmp_path/"run.pt", parts={"odd": Odd()}), step=steps)
    assert steps.n == 0


def test_save_keeps_the_file_before(tmp_path):
    file = tmp_path/"folder"/"a.pt"
    assert load(file) is None
    save([1, torch.ones(2)], file)
    save([2], str(file))
    assert load(file) == [2] and sorted(path.name for path in file.parent.iterdir()) == ["a.pt", "a.pt.previous"]
    file.unlink()                                                           # as between the two renames
    assert load(file)[0] == 1


# many processes

def shared_run(file, every=0, n_epochs=3, dropout=0.0, stop=None):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Dropout(dropout), nn.Linear(8, 3)).double()
    world = dist.get_world_size() if dist.is_initialized() else 1
    if dist.is_initialized():
        model = Replica(model)
        torch.manual_seed(dist.get_rank())
    opt = optim.Adam(model.parameters(), lr=0.01)
    data = TensorDataset(torch.randn(43, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64), torch.arange(43) % 3)
    dl = DataLoader(data, 8, shuffle=True, generator=torch.Generator().manual_seed(1))
    step = shared_step if world > 1 else loss_batch
    if stop is not None:
        inner, calls = step, []
        def step(*batch):
            calls.append(0)
            if len(calls) == stop and world > 1 and dist.get_rank() == 1: os.kill(os.getpid(), signal.SIGKILL)
            return inner(*batch)
    rows = Checkpoint(file, every, {"model": getattr(model, "module", model)}) if file else epochs
    history = fit(n_epochs, model, cross_entropy, opt, Sharded(dl) if world > 1 else dl, step=step, epochs=rows, progress=False)
    return without_seconds(history), [p.detach() for p in model.parameters()]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the system cannot fork")
def test_a_shared_run_whose_rank_was_killed_goes_on_in_any_number_of_processes(tmp_path, monkeypatch):
    monkeypatch.setenv("FDL_DEVICE", "cpu")
    run = partial(launch, shared_run, start_method="fork")
    alone, file = shared_run(None), tmp_path/"run.pt"
    with pytest.raises(RuntimeError, match="SIGKILL"): run(2, file, 2, 3, 0.0, 10)
    before = file.read_bytes()
    for n in (2, 3, 1):
        file.write_bytes(before)
        found = run(n, file, 2) if n > 1 else shared_run(file, 2)
        assert_close(found, alone, rtol=1e-12, atol=1e-12)
    with pytest.raises(RuntimeError, match="SIGKILL"): run(2, tmp_path/"drop.pt", 2, 3, 0.5, 10)
    equal(run(2, tmp_path/"drop.pt", 2, 3, 0.5), run(2, None, 0, 3, 0.5))          # each rank has its masks again


def test_random_numbers_of_every_device(monkeypatch):
    "Of two that are not there; then the second is missing."
    states = ["first", "second"]
    class Device:
        get_rng_state = staticmethod(lambda i: states[i])
        set_rng_state = staticmethod(lambda state, i: states.__setitem__(i, state))
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda: "cuda")
    monkeypatch.setattr(torch.accelerator, "device_count", lambda: 2)
    monkeypatch.setattr(torch, "get_device_module", {"cuda": Device}.__getitem__)
    before = random_states()
    for devices, expected in ((2, ["first", "second"]), (1, ["first", "later"])):
        monkeypatch.setattr(torch.accelerator, "device_count", lambda: devices)
        states[:] = ["later", "later"]
        set_random_states(before)
        assert states == expected


def test_folders_are_made_and_without_every_only_whole_epochs_are_saved(tmp_path):
    file = tmp_path/"a"/"b"/"run.pt"
    with pytest.raises(Stop): Run().go(2, Checkpoint(file), step=stopping(3))
    assert load(file)["losses"] == []


class Picky:
    def __init__(self, n): self.n = n
    def state_dict(self): return {"n": self.n}
    def load_state_dict(self, state):
        if state != self.state_dict(): raise ValueError(f"{state} is not mine")


def test_a_part_that_refuses_leaves_the_others_as_they_were(tmp_path):
    file, other = tmp_path/"run.pt", Run()
    def states(): return copy.deepcopy([part.state_dict() for part in (other.model, other.opt, other.scheduler)])
    Run().go(1, Checkpoint(file, parts={"picky": Picky(1)}))
    before = states()
    with pytest.raises(ValueError, match="of another run: {'n': 1} is not mine"): other.go(2, Checkpoint(file, parts={"picky": Picky(2)}))
    equal(states(), before)
