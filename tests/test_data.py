"`fdl.data` beside `torch.utils.data`: the same batches; and workers that stop cleanly whatever happens to them."
import gc
import multiprocessing
import os
import random
import signal
import subprocess
import sys
import textwrap
import time
from collections import namedtuple
from contextlib import suppress
from pathlib import Path

import nbformat
import numpy as np
import pytest
import torch
import torch.utils.data as T
from nbclient import NotebookClient
from torch.nn.utils.rnn import pad_sequence
from torch.testing import assert_close
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import fdl.data as D

METHODS = multiprocessing.get_all_start_methods()
needs_fork = pytest.mark.skipif("fork" not in METHODS, reason="the system cannot fork")
x, y = torch.randn(103, 5, generator=torch.Generator().manual_seed(0)), torch.arange(103)


def seeded(seed: int = 0) -> torch.Generator: return torch.Generator().manual_seed(seed)


def assert_same(ours, theirs):
    "Equal in values, types, dtypes and structure."
    assert type(ours) is type(theirs), (type(ours), type(theirs))
    if isinstance(ours, torch.Tensor): assert_close(ours, theirs, rtol=0, atol=0, equal_nan=True)
    elif isinstance(ours, dict):
        assert list(ours) == list(theirs)
        for key in ours: assert_same(ours[key], theirs[key])
    elif isinstance(ours, (list, tuple)):
        assert len(ours) == len(theirs)
        for a, b in zip(ours, theirs): assert_same(a, b)
    else: assert ours == theirs


def shared_memory() -> set[str]: return set(os.listdir("/dev/shm")) if os.path.isdir("/dev/shm") else set()


@pytest.fixture(autouse=True)
def nothing_left():
    "After each test there is no worker process, no file in shared memory and no more open files than before."
    def files(): return len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0
    memory, before = shared_memory(), files()
    yield
    if multiprocessing.active_children() or files() > before: gc.collect()
    assert not multiprocessing.active_children()
    assert shared_memory() <= memory
    assert files() <= before + 4  # the helpers of forkserver and spawn stay: they are Python's


class Squares(D.Dataset):
    "Item i is i squared; what `trouble` does for item 5 is up to the test."
    def __init__(self, n=12, trouble=None): self.n, self.trouble = n, trouble
    def __len__(self): return self.n
    def __getitem__(self, i):
        if i == 5 and self.trouble: self.trouble()
        return i**2


class Noise(D.Dataset):
    def __len__(self): return 41
    def __getitem__(self, i): return i, random.random(), np.random.rand(), torch.rand(3)


# Reading: the same batches as torch's loader.

@pytest.mark.parametrize("batch_size", [1, 10, 103, 200])
@pytest.mark.parametrize("own_generator", [True, False])
@pytest.mark.parametrize("options", [{}, dict(shuffle=True), dict(shuffle=True, drop_last=True), dict(drop_last=True)], ids=str)
@pytest.mark.parametrize("wrap", [lambda m, d: d, lambda m, d: m.Subset(d, list(range(100, 3, -2)))], ids=["whole", "subset"])
def test_same_batches(batch_size, own_generator, options, wrap):
    epochs = []
    for module in (D, T):
        torch.manual_seed(5)
        generator = seeded(3) if own_generator else None
        loader = module.DataLoader(wrap(module, module.TensorDataset(x, y)), batch_size, generator=generator, **options)
        epochs.append([[batch for batch in loader] for _ in range(3)] + [len(loader), torch.rand(1), torch.rand(1, generator=generator)])
    assert_same(*epochs)


@pytest.mark.parametrize("persistent_workers", [True, False])
def test_same_batches_with_workers(persistent_workers):
    epochs = []
    for module in (D, T):
        torch.manual_seed(5)
        loader = module.DataLoader(Noise(), 4, shuffle=True, num_workers=2, persistent_workers=persistent_workers)
        epochs.append([list(loader), list(loader)])
    assert_same(*epochs)
    whole = [list(D.DataLoader(D.TensorDataset(x, y), 10, shuffle=True, generator=seeded(1), num_workers=n)) for n in (0, 2, 3)]
    assert_same(whole[0], whole[1])
    assert_same(whole[0], whole[2])
    assert_same(whole[0], list(T.DataLoader(T.TensorDataset(x, y), 10, shuffle=True, generator=seeded(1))))


@pytest.mark.parametrize("options", [dict(replacement=True), dict(replacement=True, num_samples=70), dict(num_samples=250), dict(num_samples=30)], ids=str)
def test_random_sampler(options):
    assert list(D.RandomSampler(y, generator=seeded(), **options)) == list(T.RandomSampler(y, generator=seeded(), **options))
    epochs = []
    for module in (D, T):
        generator = seeded()
        loader = module.DataLoader(module.TensorDataset(x, y), 10, sampler=module.RandomSampler(y, generator=generator, **options), generator=generator)
        epochs.append([next(iter(loader)), list(loader), list(loader)])
    assert_same(*epochs)


def test_epoch_broken_off():
    for shuffle in (True, False):
        seen = []
        for module in (D, T):
            loader = module.DataLoader(module.TensorDataset(x, y), 10, shuffle=shuffle, generator=seeded())
            seen.append([next(iter(loader)), next(iter(loader)), list(loader)])
        assert_same(*seen)


def test_samplers_and_batch_samplers_of_any_kind():
    data = D.TensorDataset(x, y)
    for options in (dict(sampler=[3, 1, 4]), dict(sampler=T.SubsetRandomSampler([5, 6, 7], seeded())), dict(batch_sampler=[[1, 2], [3]]),
                    dict(batch_sampler=T.BatchSampler(range(9), 4, True))):
        theirs = options | (dict(sampler=T.SubsetRandomSampler([5, 6, 7], seeded())) if "Subset" in str(options) else {})
        assert_same(list(D.DataLoader(data, **options)), list(T.DataLoader(data, **theirs)))
        assert len(D.DataLoader(data, **options)) == len(T.DataLoader(data, **theirs))
    for module in (D, T): assert_same(next(iter(module.DataLoader(module.TensorDataset(x, x), None, collate_fn=module.default_collate))), torch.stack([x[0], x[0]]))
    assert_same(list(D.DataLoader(["a", (1, 2)], None)), ["a", (1, 2)])  # no batches: the items as they are
    for drop_last in (True, False):
        for n in (9, 8): assert list(D.BatchSampler(range(n), 4, drop_last)) == list(T.BatchSampler(range(n), 4, drop_last))


class Eager:
    "Draws when an epoch starts, not when its first batch is read."
    def __init__(self, *shape): self.shape = shape
    def __iter__(self): return iter(torch.randperm(12).view(self.shape).tolist())


@pytest.mark.parametrize("options", [dict(batch_sampler=Eager(4, 3)), dict(batch_sampler=Eager(4, 3), collate_fn=len), dict(batch_size=None, sampler=Eager(12))], ids=["whole", "items", "no batches"])
def test_an_eager_sampler_draws_before_the_seed_for_workers(options):
    "That seed is drawn with no workers, too. (With workers torch starts such a sampler twice, and forgets the first draw.)"
    epochs = []
    for module in (D, T):
        torch.manual_seed(0)
        dataset = y if "batch_size" in options else module.TensorDataset(x, y)
        epochs.append([*module.DataLoader(dataset, **options), *module.DataLoader(dataset, **options), torch.rand(1)])
    assert_same(*epochs)


@pytest.mark.parametrize("lengths", [[50, 53], [.3, .3, .4], [.5, .5], [.1]*10, [103, 0]], ids=str)
def test_random_split(lengths):
    ours, theirs = (module.random_split(y, lengths, seeded(2)) for module in (D, T))
    assert [s.indices for s in ours] == [s.indices for s in theirs]
    assert [s.indices for s in D.random_split(y, [1.0])] and len(D.random_split(y, [1.0])[0]) == 103


def test_random_split_errors():
    with pytest.raises(ValueError, match="103 items"): D.random_split(y, [50, 50])
    with pytest.raises(ValueError): D.random_split(y, [1.5, -0.5])
    with pytest.warns(UserWarning, match="empty") as caught: D.random_split(range(2), [0.9, 0.05, 0.05])
    assert caught[0].filename == __file__  # it points at the caller


def test_a_batch_is_read_in_one_go():
    calls = []

    class Counting(D.TensorDataset):
        def get_batch(self, indices):
            calls.append(indices)
            return super().get_batch(indices)

    data = Counting(x, y)
    for dataset in (data, D.Subset(data, range(20)), D.Subset(D.Subset(data, range(20)), [1, 5, 7])):
        calls.clear()
        batches = list(D.DataLoader(dataset, 10, shuffle=True))
        assert len(calls) == len(batches) and all(isinstance(c, torch.Tensor) for c in calls)
    calls.clear()
    assert_same(list(D.DataLoader(data, 10, collate_fn=lambda items: len(items))), [10]*10 + [3])
    assert not calls


class Crossings(TorchDispatchMode):
    "Counts the operations that touch numbers on two devices: for most of them the host waits."
    count = 0
    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        tensors = [t for t in tree_leaves((args, kwargs, result)) if isinstance(t, torch.Tensor) and t.numel()]
        self.count += len({t.device for t in tensors}) > 1
        return result


@pytest.mark.parametrize("batch_size", [1, 10, 103])
@pytest.mark.parametrize("shuffle", [True, False])
@pytest.mark.parametrize("rows", [None, list(range(100)), torch.arange(100)], ids=["whole", "list", "tensor"])
def test_the_order_goes_to_the_device_once_an_epoch(rows, shuffle, batch_size):
    "Rehearsed on the meta device, which every machine has."
    data = D.TensorDataset(x.to("meta"), y.to("meta"))
    if rows is not None: data = D.Subset(D.Subset(data, range(103)), rows)
    loader = D.DataLoader(data, batch_size, shuffle=shuffle)
    list(loader)  # a subset takes its rows there once and for all
    with Crossings() as crossings: batches = list(loader)
    assert crossings.count == 1
    assert all(t.is_meta for batch in batches for t in batch)
    assert [len(yb) for _, yb in batches] == [len(rows) for rows in torch.arange(len(data)).split(batch_size)]


@pytest.mark.skipif(not torch.accelerator.is_available(), reason="needs an accelerator")
def test_the_same_batches_on_an_accelerator():
    device = torch.accelerator.current_accelerator()
    for wrap in (lambda data: data, lambda data: D.Subset(data, range(100, 3, -2))):
        host, there = (list(D.DataLoader(wrap(D.TensorDataset(x.to(d), y.to(d))), 10, shuffle=True, generator=seeded())) for d in ("cpu", device))
        assert_same(host, [[t.cpu() for t in batch] for batch in there])


def test_a_change_in_a_subclass_is_not_passed_by():
    class Negative(D.TensorDataset):
        def __getitem__(self, i): return tuple(-t for t in super().__getitem__(i))

    class Tail(D.Subset):
        def __getitem__(self, i): return -1

    class Backwards(D.SequentialSampler):
        def __iter__(self): return reversed(range(len(self.data_source)))

    class Pairs(D.BatchSampler):
        def __iter__(self): yield [0, 1]

    data = D.TensorDataset(y)
    assert_same(next(iter(D.DataLoader(Negative(y), 3))), [torch.tensor([0, -1, -2])])
    assert_same(next(iter(D.DataLoader(D.Subset(Negative(y), [3, 4]), 3))), [torch.tensor([-3, -4])])
    assert_same(next(iter(D.DataLoader(Tail(data, [3, 4]), 3))), torch.tensor([-1, -1]))
    assert_same(next(iter(D.DataLoader(data, 2, sampler=Backwards(data)))), [torch.tensor([102, 101])])
    assert_same(list(D.DataLoader(data, batch_sampler=Pairs(range(5), 2, False))), [[torch.tensor([0, 1])]])
    assert D.Subset([1, 2, 3], [0]).get_batch is None
    named = []

    class Register:
        def __init_subclass__(cls, name): named.append(name)

    class One(D.Dataset, Register, name="one"): pass
    class Two(D.SequentialSampler, Register, name="two"): pass
    assert named == ["one", "two"]  # the guard passes on what other base classes want to know
    with pytest.raises(NotImplementedError, match="__getitem__"): D.Dataset()[0]


def test_our_datasets_in_torchs_loader_and_theirs_in_ours():
    for data in (D.TensorDataset(x, y), T.TensorDataset(x, y)):
        for subset in (D.Subset(data, [5, 3, 2]), T.Subset(data, [5, 3, 2])):
            assert_same(list(T.DataLoader(subset, 2)), list(D.DataLoader(subset, 2)))


# Collation.

Point = namedtuple("Point", "x y")


@pytest.mark.parametrize("batch", [
    [torch.rand(2, 3), torch.rand(2, 3)], [torch.tensor(1), torch.tensor(2)], [1, 2], [1., 2.], [True, False], ["a", "b"], [b"a", b"b"],
    [np.float32(1), np.float32(2)], [np.float64(1), np.float64(2)], [np.int8(1), np.int8(2)], [np.bool_(1), np.bool_(0)], [np.ones((2, 2), "f4")]*2, [np.array(1)]*2,
    [dict(a=1, b=[1., "s"]), dict(a=2, b=[2., "t"])], [(1, torch.ones(2)), (2, torch.zeros(2))], [[1, (2, 3)], [4, (5, 6)]], [Point(1, 2.), Point(3, 4.)], [((1,), {"k": (1, 2)})]*3,
], ids=lambda b: str(type(b[0]).__name__))
def test_default_collate(batch): assert_same(D.default_collate(batch), T.default_collate(batch))


def test_default_collate_errors():
    with pytest.raises(RuntimeError, match=r"item 1 has shape \(3,\), item 0 has \(2,\)"): D.default_collate([torch.ones(2), torch.ones(3)])
    with pytest.raises(RuntimeError, match=r"\[1, 2\]"): D.default_collate([[1], [1, 2]])
    for wrong in (object(), None, {1}, np.array("text"), np.array([None])):
        with pytest.raises(TypeError): D.default_collate([wrong])
        with pytest.raises(TypeError): T.default_collate([wrong])


def test_pad_collate():
    sequences = [torch.rand(n, 2) for n in (3, 1, 0, 4)]
    for value in (0, -1.5):
        padded, lengths = D.pad_collate(sequences, value)
        assert_same(padded, pad_sequence(sequences, batch_first=True, padding_value=value))
        assert_same(lengths, torch.tensor([3, 1, 0, 4]))
    (padded, lengths), labels, names = D.pad_collate([(torch.tensor([1, 2]), 0, "a"), (torch.tensor([3]), 1, "b")])
    assert_same([padded, lengths, labels], [torch.tensor([[1, 2], [3, 0]]), torch.tensor([2, 1]), torch.tensor([0, 1])])
    assert names == ("a", "b")
    with pytest.raises(RuntimeError, match="item 1"): D.pad_collate([torch.ones(2, 2), torch.ones(2, 1)])


# Arguments.

@pytest.mark.parametrize("options", [
    dict(num_workers=-1), dict(timeout=-1), dict(prefetch_factor=2), dict(num_workers=1, prefetch_factor=-1), dict(persistent_workers=True), dict(multiprocessing_context="fork"),
    dict(sampler=[0], shuffle=True), dict(batch_sampler=[[0]], batch_size=2), dict(batch_sampler=[[0]], shuffle=True), dict(batch_sampler=[[0]], sampler=[0]),
    dict(batch_sampler=[[0]], drop_last=True), dict(batch_size=None, drop_last=True), dict(batch_size=0), dict(batch_size=1.5), dict(batch_size=True), dict(drop_last=1), dict(num_workers=1, multiprocessing_context="thread"),
], ids=str)
def test_argument_errors_are_torchs(options):
    with pytest.raises(ValueError): T.DataLoader(y, **options)
    with pytest.raises(ValueError, match=next(reversed(options)).split("_")[0]): D.DataLoader(y, **options)


def test_other_argument_errors():
    for module in (D, T):
        with pytest.raises(TypeError): module.RandomSampler(y, replacement=1)
        with pytest.raises(ValueError): module.RandomSampler(y, num_samples=0)
        with pytest.raises(ValueError): module.DataLoader([], shuffle=True)
        with pytest.raises(AssertionError): module.TensorDataset(x, y[:3])
    with pytest.raises(ValueError, match="prefetch_factor"): D.DataLoader(y, num_workers=1, prefetch_factor=0)
    with pytest.raises(ValueError, match="timeout"): D.DataLoader(y, timeout=3)
    with pytest.raises(TypeError): D.DataLoader(y, 1, False, None, None, 0, None, True)  # torch's eighth is pin_memory, not drop_last


# Workers.

LONG = 90  # seconds, for a machine under load; what hangs, hangs much longer


class within_reason:
    "Fails if the body takes long."
    def __enter__(self): self.start = time.monotonic()
    def __exit__(self, *args): assert time.monotonic() - self.start < LONG


def fail(): raise KeyError("item five")
def leave(): os._exit(3)
def kill(): os.kill(os.getpid(), signal.SIGKILL)
def hang(): time.sleep(3*LONG)


class NeedsTwo(Exception):
    def __init__(self, a, b): super().__init__(a, b)


def fail_oddly(): raise NeedsTwo(1, 2)


@pytest.mark.parametrize("persistent_workers", [True, False])
@pytest.mark.parametrize("num_workers", [1, 2])
@pytest.mark.parametrize("trouble, kind, text", [(fail, KeyError, "item five"), (fail_oddly, RuntimeError, "NeedsTwo"), (leave, RuntimeError, "code 3")]
                         + [(kill, RuntimeError, "SIGKILL")] * (os.name != "nt"))
def test_errors_of_workers(trouble, kind, text, num_workers, persistent_workers):
    with within_reason():
        loader = D.DataLoader(Squares(40, trouble), 2, num_workers=num_workers, persistent_workers=persistent_workers)
        got = []
        with pytest.raises(kind, match=text) as caught: got.extend(loader)
        assert [b.tolist() for b in got] == [[0, 1], [4, 9]][:len(got)]
        if trouble in (fail, fail_oddly):
            assert len(got) == 2
            assert "Traceback" in str(caught.value) and "in __getitem__" in str(caught.value) and "\\n" not in str(caught.value)
        assert not multiprocessing.active_children()
        with pytest.raises(kind): list(loader)  # starts afresh


@pytest.mark.parametrize("num_workers", [1, 2])
def test_hang_past_timeout(num_workers):
    with within_reason():
        with pytest.raises(RuntimeError, match="timeout=0.3"): list(D.DataLoader(Squares(6, hang), 2, num_workers=num_workers, timeout=0.3))
        assert not multiprocessing.active_children()


@pytest.mark.parametrize("persistent_workers", [True, False])
def test_killed_from_outside(persistent_workers):
    with within_reason():
        loader = D.DataLoader(Squares(1000, hang), 2, num_workers=2, persistent_workers=persistent_workers)
        batches = iter(loader)
        next(batches)
        for child in multiprocessing.active_children(): child.kill()
        with pytest.raises(RuntimeError, match="died"): list(batches)
        assert not multiprocessing.active_children()


@needs_fork
def test_a_handler_of_the_main_process_does_not_keep_workers_alive(monkeypatch):
    monkeypatch.setattr(D._Processes, "patience", LONG)
    before = signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        with within_reason():
            batches = iter(D.DataLoader(Squares(1000, hang), 1, num_workers=2, multiprocessing_context="fork"))
            assert [next(batches).item() for _ in range(5)] == [0, 1, 4, 9, 16]
            workers = multiprocessing.active_children()
            del batches
            assert [worker.exitcode for worker in workers] == [-signal.SIGTERM]*2
    finally: signal.signal(signal.SIGTERM, before)


def deaf(worker_id): signal.signal(signal.SIGTERM, signal.SIG_IGN)


@needs_fork
@pytest.mark.parametrize("n, worker_init_fn, ends", [(5, None, 0), (1000, None, -signal.SIGTERM), (1000, deaf, -signal.SIGKILL)], ids=["idle", "busy", "deaf"])
def test_how_workers_end(n, worker_init_fn, ends):
    "The idle leave by themselves, the busy are terminated, and who does not hear that is killed when the patience is over."
    loader = D.DataLoader(Squares(n, hang), 1, num_workers=1, worker_init_fn=worker_init_fn, persistent_workers=True, multiprocessing_context="fork")
    batches = iter(loader)
    assert [next(batches).item() for _ in range(5)] == [0, 1, 4, 9, 16]
    if n == 5: assert next(batches, None) is None
    workers = loader._workers
    processes = list(workers.processes)
    workers.patience = 0.1 if worker_init_fn else LONG
    workers.close()
    assert [process.exitcode for process in processes] == [ends]
    assert not workers.idle() and not workers.processes


@needs_fork
def test_a_forked_copy_of_a_loader_leaves_its_workers_alone():
    loaders = [D.DataLoader(range(4), 1, num_workers=1, persistent_workers=True, multiprocessing_context="fork")]
    first = list(loaders[0]), [p.pid for p in loaders[0]._workers.processes]
    child = multiprocessing.get_context("fork").Process(target=loaders.clear)
    child.start()
    child.join()
    assert child.exitcode == 0
    time.sleep(0.1)
    assert (list(loaders[0]), [p.pid for p in loaders[0]._workers.processes]) == first


def test_what_a_worker_sent_before_it_died_is_not_lost():
    batches = iter(D.DataLoader(range(9), 1, num_workers=1))
    got = [next(batches).item()]
    time.sleep(0.5)  # it has read two more ahead
    for child in multiprocessing.active_children():
        child.kill()
        child.join()
    with pytest.raises(RuntimeError, match="died"): got.extend(batch.item() for batch in batches)
    assert got == [0, 1, 2]


def test_dropped_half_way():
    with within_reason():
        for persistent_workers in (True, False):
            loader = D.DataLoader(Squares(1000, hang), 1, num_workers=2, persistent_workers=persistent_workers)
            for k in (0, 1, 3):
                batches = iter(loader)
                for _ in range(k): next(batches)
                assert len(multiprocessing.active_children()) >= 2
                del batches
            del loader
            assert not multiprocessing.active_children()


def test_persistent_workers():
    class Who(Squares):
        def __getitem__(self, i): return os.getpid()

    loader = D.DataLoader(Who(), 3, num_workers=2, persistent_workers=True)
    first, second = (torch.cat(list(loader)).tolist() for _ in range(2))
    assert first == second and len(set(first)) == 2
    a, b = iter(loader), iter(loader)  # two at once
    assert len(list(a)) == len(list(b)) == 4
    assert len(list(loader)) == 4
    del loader, a, b
    assert not multiprocessing.active_children()
    loader = D.DataLoader(Who(), 3, num_workers=2)
    assert set(torch.cat(list(loader)).tolist()).isdisjoint(torch.cat(list(loader)).tolist())


def test_prefetch_factor():
    "Never more batches on their way than promised, and as many as promised."
    asked = []

    class Sampler:
        def __iter__(self):
            for i in range(12):
                asked.append(i)
                yield i

    for factor in (1, 3):
        asked.clear()
        batches = iter(D.DataLoader(Squares(), 1, sampler=Sampler(), num_workers=2, prefetch_factor=factor))
        assert len(asked) == 2 * factor
        next(batches)
        assert len(asked) == 2 * factor + 1
        assert len(list(batches)) == 11


def test_worker_init_fn_and_order():
    class Late(Squares):
        def __getitem__(self, i):
            time.sleep(0.02 * (i % 3))
            return i, torch.initial_seed(), int(os.environ["FDL_TEST"]), torch.get_num_threads()

    torch.manual_seed(0)
    seed = int(torch.empty((), dtype=torch.int64).random_())
    torch.manual_seed(0)
    rows = list(D.DataLoader(Late(), 1, num_workers=3, worker_init_fn=lambda k: os.environ.update(FDL_TEST=str(k))))
    assert [[int(v) for v in row] for row in rows] == [[i, seed + i % 3, i % 3, 1] for i in range(12)]
    def bad(worker_id): raise OSError(f"no disk for worker {worker_id}")
    with pytest.raises(OSError, match="no disk for worker 0"): list(D.DataLoader(Squares(), 1, num_workers=2, worker_init_fn=bad))


def test_big_batches_and_big_index_lists():
    data = D.TensorDataset(torch.arange(90_000, dtype=torch.float64))
    with within_reason():
        for options in (dict(batch_size=30_000), dict(batch_size=30_000, shuffle=True, collate_fn=lambda items: torch.cat([i[0][None] for i in items]))):
            assert sum(len(b[0]) if isinstance(b, list) else len(b) for b in D.DataLoader(data, num_workers=2, **options)) == 90_000


def test_what_travels():
    items = [torch.ones(0, 3), torch.ones(2, 3, dtype=torch.bfloat16).T, torch.tensor(True), torch.tensor(1+2j), torch.ones(4)[::2], torch.arange(3, dtype=torch.uint8),
             torch.ones(1, requires_grad=True).detach(), np.ones(2), "text", None, {"a": [1, 2]}, Point(1, torch.ones(1)), torch.nn.Parameter(torch.ones(2))]
    for got, item in zip(D.DataLoader(items, None, num_workers=1), items): assert_same(got, item) if not isinstance(item, np.ndarray) else np.testing.assert_array_equal(got, item)
    got = next(iter(D.DataLoader(items[1:2], None, num_workers=1)))
    got += 1  # its memory is its own, and may be written
    with pytest.raises(AttributeError, match="lambda"): list(D.DataLoader([0], 1, num_workers=1, collate_fn=lambda items: lambda: 0))


def test_an_error_in_the_loop_or_the_sampler_ends_the_workers():
    def indices():
        yield from range(6)
        raise LookupError("sampler")

    with pytest.raises(ZeroDivisionError):
        for _ in D.DataLoader(Squares(), 1, num_workers=2): 1/0
    assert not multiprocessing.active_children()
    with pytest.raises(LookupError): list(D.DataLoader(Squares(), 1, sampler=indices(), num_workers=2))
    assert not multiprocessing.active_children()


def program(tmp_path: Path, text: str, name="program.py") -> list[str]:
    (tmp_path/name).write_text(textwrap.dedent(text))
    return [sys.executable, str(tmp_path/name)]


def alive(pids) -> list[int]:
    def running(pid):
        try: return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
        except OSError: return False
    return [pid for pid in pids if running(pid)]


@needs_fork
@pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="looks into /proc")
@pytest.mark.parametrize("end, persistent", [(signal.SIGINT, False), (signal.SIGINT, True), (signal.SIGKILL, True), (signal.SIGTERM, False)], ids=str)
def test_end_of_the_main_process(tmp_path, end, persistent):
    "Ctrl-C goes to the whole group, as a terminal sends it; SIGKILL and SIGTERM to the main process alone. No worker outlives it."
    command = program(tmp_path, f"""
        import multiprocessing, signal, time
        from fdl.data import DataLoader, Dataset
        signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in the background of a shell begins with it ignored
        class Slow(Dataset):
            def __len__(self): return 1000
            def __getitem__(self, i):
                if i > 2: time.sleep({3*LONG})
                return i
        for batch in DataLoader(Slow(), 1, num_workers=2, persistent_workers={persistent}, multiprocessing_context="fork"):
            print(*[p.pid for p in multiprocessing.active_children()], flush=True)
    """)
    before = shared_memory()
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True)
    try:
        pids = [int(pid) for pid in process.stdout.readline().split()]
        assert len(pids) == 2
        for _ in range(2): process.stdout.readline()
        (os.killpg if end == signal.SIGINT else os.kill)(process.pid, end)
        process.wait(LONG)
        until = time.monotonic() + LONG
        while alive(pids) and time.monotonic() < until: time.sleep(0.02)
        assert not alive(pids)
        error = process.stderr.read()
        if end == signal.SIGINT: assert error.count("KeyboardInterrupt") == 1 and "Process" not in error, error
        assert shared_memory() <= before
    finally:
        with suppress(ProcessLookupError): os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


@needs_fork
def test_end_of_python_with_loaders_alive(tmp_path):
    "Names taken away, as when a notebook is reset, or Python at its end: workers are ended, and nothing is printed."
    done = subprocess.run(program(tmp_path, """
        import multiprocessing
        import fdl.data as D
        def start():
            kept = D.DataLoader(range(9), 1, num_workers=1, persistent_workers=True, multiprocessing_context="fork")
            return kept, list(kept), iter(kept), iter(kept)
        loaders = start()
        names = {name: vars(D).pop(name) for name in list(vars(D)) if not name.startswith("__")}
        del loaders
        assert not multiprocessing.active_children()
        vars(D).update(names)
        loaders = start()
        circle = [loaders]
        circle.append(circle)
        print(len(multiprocessing.active_children()))
    """), capture_output=True, text=True, timeout=30)
    assert (done.returncode, done.stdout, done.stderr) == (0, "2\n", "")


def test_every_start_method_in_a_script(tmp_path):
    "A guarded script and its own classes; an error class of the script comes back as itself."
    command = program(tmp_path, """
        import multiprocessing
        from fdl.data import DataLoader, Dataset
        class Odd(Exception): pass
        class Squares(Dataset):
            def __len__(self): return 6
            def __getitem__(self, i):
                if i == 5: raise Odd("five")
                return i**2
        if __name__ == "__main__":
            methods = multiprocessing.get_all_start_methods()
            for batches in [iter(DataLoader(Squares(), 1, num_workers=1, multiprocessing_context=method)) for method in methods]:
                got = []
                try:
                    for batch in batches: got.append(batch.item())
                except Odd as error: print(got, "Traceback" in str(error))
    """)
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.stdout == "[0, 1, 4, 9, 16] True\n" * len(METHODS), done.stderr


def test_every_start_method_in_a_notebook(tmp_path):
    "A class of a module works; one of the notebook works with fork, and is refused with the reason without."
    (tmp_path/"squares.py").write_text("class Squares(list):\n    def __getitem__(self, i): return super().__getitem__(i)**2\n")
    cells = [f"import sys; sys.path.insert(0, '.')\nfrom fdl.data import DataLoader\nfrom squares import Squares\nclass Mine(Squares): pass\n"
             f"batches = {{m: iter(DataLoader(Squares(range(5)), 2, num_workers=1, multiprocessing_context=m)) for m in {METHODS}}}"]
    for method in METHODS:
        cells += [f"assert [b.tolist() for b in batches['{method}']] == [[0, 1], [4, 9], [16]]",
                  f"try: print([b.tolist() for b in DataLoader(Mine(range(5)), 2, num_workers=1, multiprocessing_context='{method}')])\nexcept Exception as error: print(error)"]
    nb = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source) for source in cells])
    NotebookClient(nb, timeout=60, kernel_name="python3", resources={"metadata": {"path": str(tmp_path)}}).execute()
    for method, cell in zip(METHODS, nb.cells[2::2]):
        shown = cell.outputs[0].text
        if method == "fork": assert shown == "[[0, 1], [4, 9], [16]]\n"
        else: assert shown.startswith("Mine is defined in a notebook") and ".py file" in shown and "fork" in shown
