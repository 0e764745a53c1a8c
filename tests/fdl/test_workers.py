"Worker processes of a `DataLoader`: the same batches as torch's, errors that say where, and nothing left behind whatever happens."
import gc
import multiprocessing.connection
import os
import pickle
import random
import signal
import subprocess
import sys
import textwrap
import time
from collections import namedtuple
from contextlib import contextmanager, suppress
from pathlib import Path

import nbformat
import numpy as np
import pytest
import torch
import torch.utils.data as T
from nbclient import NotebookClient

import fdl.data as D
from helpers import assert_alike, seeded

METHODS = multiprocessing.get_all_start_methods()
HERE = os.environ | {"PYTHONPATH": str(Path(D.__file__).parent.parent)}  # other programs import the package that is tested, whatever is installed
needs_fork = pytest.mark.skipif("fork" not in METHODS, reason="the system cannot fork")
x, y = torch.randn(103, 5, generator=seeded()), torch.arange(103)
Point = namedtuple("Point", "x y")


def alive(pids) -> list[int]:
    def running(pid):
        try: return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
        except OSError: return False
    return [pid for pid in pids if running(pid)]


def shared_memory() -> set[str]:
    "torch's files in shared memory that this process has, or one that is gone; not those of other programs that run."
    names = {name: int(name.split("_")[1]) for name in os.listdir("/dev/shm") if name.startswith("torch_")} if os.path.isdir("/dev/shm") else {}
    return {name for name, pid in names.items() if pid == os.getpid() or not alive([pid])}


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


LONG = 90  # seconds that something may take on a busy machine; what hangs, hangs much longer


@contextmanager
def within_reason():
    "Fails if the body takes long."
    start = time.monotonic()
    yield
    assert time.monotonic() - start < LONG


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


# The same batches.

@pytest.mark.parametrize("persistent_workers", [True, False])
def test_same_batches_as_torchs(persistent_workers):
    epochs = []
    for module in (D, T):
        torch.manual_seed(5)
        loader = module.DataLoader(Noise(), 4, shuffle=True, num_workers=2, persistent_workers=persistent_workers)
        epochs.append([list(loader), list(loader), torch.rand(1)])
    assert_alike(*epochs)


def test_as_without_workers():
    whole = [list(D.DataLoader(D.TensorDataset(x, y), 10, shuffle=True, generator=seeded(1), num_workers=n)) for n in (0, 2, 3)]
    assert_alike(whole[0], whole[1])
    assert_alike(whole[0], whole[2])
    assert_alike([b[1] for b in D.DataLoader(D.Subset(D.TensorDataset(x, y), range(9)), 4, num_workers=1)], [y[:4], y[4:8], y[8:9]])


def test_order_seeds_and_worker_init_fn():
    "Batch i is worker i modulo their number's, however late it is; each has its seed and one thread."
    class Late(Squares):
        def __getitem__(self, i):
            time.sleep(0.02*(i % 3))
            return i, torch.initial_seed(), int(os.environ["FDL_TEST"]), torch.get_num_threads()
    torch.manual_seed(0)
    seed = int(torch.empty((), dtype=torch.int64).random_())
    torch.manual_seed(0)
    rows = list(D.DataLoader(Late(), 1, num_workers=3, worker_init_fn=lambda k: os.environ.update(FDL_TEST=str(k))))
    assert [[int(v) for v in row] for row in rows] == [[i, seed + i % 3, i % 3, 1] for i in range(12)]
    def bad(worker_id): raise OSError(f"no disk for worker {worker_id}")
    with pytest.raises(RuntimeError, match="(?s)OSError in DataLoader worker 0.*no disk for worker 0") as caught: list(D.DataLoader(Squares(), 1, num_workers=2, worker_init_fn=bad))
    assert "Traceback" in str(caught.value)


def test_reads_ahead_one_batch_a_worker():
    asked = []
    class Sampler:
        def __iter__(self):
            for i in range(12):
                asked.append(i)
                yield i
    batches = iter(D.DataLoader(Squares(), 1, sampler=Sampler(), num_workers=2))
    assert len(asked) == 2
    next(batches)
    assert len(asked) == 3 and len(list(batches)) == 11


def test_persistent_workers():
    class Who(Squares):
        def __getitem__(self, i): return os.getpid()
    loader = D.DataLoader(Who(), 3, num_workers=2, persistent_workers=True)
    first, second = (torch.cat(list(loader)).tolist() for _ in range(2))
    assert first == second and len(set(first)) == 2
    a, b = iter(loader), iter(loader)  # two at once
    assert len(list(a)) == len(list(b)) == 4
    assert len(list(loader)) == 4
    next(iter(loader))  # broken off
    assert len(list(loader)) == 4
    del loader, a, b
    assert not multiprocessing.active_children()
    loader = D.DataLoader(Who(), 3, num_workers=2)
    assert set(torch.cat(list(loader)).tolist()).isdisjoint(torch.cat(list(loader)).tolist())


@pytest.mark.parametrize("n", [4, 1])
def test_an_epoch_whose_generator_is_dropped_late_leaves_the_next_one_its_workers(n):
    loader = D.DataLoader(range(n), 1, num_workers=2, persistent_workers=True)
    batches = iter(loader)
    for _ in range(n): next(batches)
    pids = {process.pid for process in multiprocessing.active_children()}
    batches = iter(loader)                      # the old generator, which waits at its last batch, goes only now
    assert [batch.item() for batch in batches] == list(range(n)) and {process.pid for process in multiprocessing.active_children()} == pids
    del batches, loader


class Unreadable:
    def __reduce__(self): return fail_to_open, ()


def fail_to_open(): raise OSError("no such disk")


def test_an_answer_that_cannot_be_unpickled_is_no_dead_worker():
    with within_reason(), pytest.raises(OSError, match="no such disk"): list(D.DataLoader([0, 1], 1, num_workers=1, collate_fn=lambda items: Unreadable()))


def test_big_batches_and_big_index_lists():
    data = D.TensorDataset(torch.arange(90_000, dtype=torch.float64))
    for options in (dict(batch_size=30_000), dict(batch_size=30_000, shuffle=True, collate_fn=lambda items: torch.cat([i[0][None] for i in items]))):
        assert sum(len(b[0]) if isinstance(b, list) else len(b) for b in D.DataLoader(data, num_workers=2, **options)) == 90_000


def test_what_travels():
    items = [torch.ones(0, 3), torch.ones(2, 3, dtype=torch.bfloat16).T, torch.tensor(True), torch.tensor(1+2j), torch.ones(4)[::2], torch.arange(3, dtype=torch.uint8),
             torch.tensor([1+2j, 3j]).conj(), torch.tensor([1+2j]).conj().imag, torch.arange(4.)[1::4], torch.ones(2).to_sparse(), torch.ones(1, requires_grad=True).detach(), "text", None, {"a": [1, 2]},
             Point(1, torch.ones(1)), torch.nn.Parameter(torch.ones(2))]
    for (got,), item in zip(D.DataLoader(items, num_workers=1, collate_fn=list), items): assert_alike(got, item)
    got = next(iter(D.DataLoader(items[1:2], num_workers=1)))
    got += 1  # its memory is its own, and may be written
    with pytest.raises(RuntimeError, match="lambda"): list(D.DataLoader([0], 1, num_workers=1, collate_fn=lambda items: lambda: 0))


# Trouble.

def fail(): raise KeyError("item five")
def leave(): os._exit(3)
def kill(): os.kill(os.getpid(), signal.SIGKILL)
def hang(): time.sleep(3*LONG)


class Odd(Exception):
    def __init__(self, a, b): super().__init__("odd")


def fail_oddly(): raise Odd(1, 2)


@pytest.mark.parametrize("persistent_workers, num_workers", [(True, 2), (False, 1)])
@pytest.mark.parametrize("trouble, text", [(fail, "KeyError in DataLoader worker"), (fail_oddly, "Odd in DataLoader worker"), (leave, "exit code 3")] + [(kill, "exit code -9")]*(os.name != "nt"))
def test_errors_of_workers(trouble, text, num_workers, persistent_workers):
    with within_reason():
        loader = D.DataLoader(Squares(40, trouble), 2, num_workers=num_workers, persistent_workers=persistent_workers)
        got = []
        with pytest.raises(RuntimeError, match=text) as caught: got.extend(loader)
        assert [b.tolist() for b in got] == [[0, 1], [4, 9]]
        if trouble in (fail, fail_oddly): assert "Traceback" in str(caught.value) and "in __getitem__" in str(caught.value) and "\\n" not in str(caught.value)
        assert not multiprocessing.active_children()
        with pytest.raises(RuntimeError): list(loader)  # starts afresh


@pytest.mark.parametrize("persistent_workers", [True, False])
def test_killed_from_outside(persistent_workers):
    with within_reason():
        loader = D.DataLoader(Squares(1000, hang), 2, num_workers=2, persistent_workers=persistent_workers)
        batches = iter(loader)
        next(batches)
        for child in multiprocessing.active_children(): child.kill()
        with pytest.raises(RuntimeError, match="died"): list(batches)
        assert not multiprocessing.active_children()


def test_what_a_worker_sent_before_it_died_is_not_lost():
    batches = iter(D.DataLoader(range(9), 1, num_workers=1))
    got = [next(batches).item()]
    pipes = [c for c in gc.get_objects() if type(c) is multiprocessing.connection.Connection and not c.closed]
    assert multiprocessing.connection.wait(pipes, LONG)  # it has read one more ahead
    for child in multiprocessing.active_children():
        child.kill()
        child.join()
    with pytest.raises(RuntimeError, match="died"): got.extend(batch.item() for batch in batches)
    assert got == [0, 1]


@needs_fork
@pytest.mark.parametrize("n, ends", [(5, 0), (1000, -signal.SIGKILL)], ids=["idle", "busy"])
def test_how_workers_end(n, ends):
    "The idle leave by themselves, the busy are killed; a handler of the main process keeps none alive."
    before = signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        loader = D.DataLoader(Squares(n, hang), 1, num_workers=1, persistent_workers=True, multiprocessing_context="fork")
        batches = iter(loader)
        assert [next(batches).item() for _ in range(5)] == [0, 1, 4, 9, 16]
        if n == 5: assert next(batches, None) is None
        processes = multiprocessing.active_children()
        with within_reason():
            del loader, batches
            gc.collect()
        assert [process.exitcode for process in processes] == [ends]
    finally: signal.signal(signal.SIGTERM, before)


@needs_fork
def test_a_forked_copy_of_a_loader_leaves_its_workers_alone():
    loaders = [D.DataLoader(range(4), 1, num_workers=1, persistent_workers=True, multiprocessing_context="fork")]
    first = list(loaders[0]), [p.pid for p in multiprocessing.active_children()]
    child = multiprocessing.get_context("fork").Process(target=loaders.clear)
    child.start()
    child.join()
    assert child.exitcode == 0
    assert (list(loaders[0]), [p.pid for p in multiprocessing.active_children()]) == first


class Who(Squares):
    def __getitem__(self, i): return os.getpid()


@needs_fork
def test_a_forked_copy_of_a_loader_starts_workers_of_its_own():
    loader = D.DataLoader(Who(), 3, num_workers=1, persistent_workers=True, multiprocessing_context="fork")
    first = torch.cat(list(loader)).tolist()
    child = multiprocessing.get_context("fork").Process(target=lambda: os._exit(torch.cat(list(loader)).tolist() == first))
    child.start()
    child.join(LONG)
    assert child.exitcode == 0 and torch.cat(list(loader)).tolist() == first


@needs_fork
def test_a_worker_can_be_terminated_also_where_the_main_process_ignores_that():
    before = signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        batches = iter(D.DataLoader(Squares(1000, hang), 1, num_workers=1, multiprocessing_context=multiprocessing.get_context("fork")))  # a context, too, not only its name
        assert [next(batches).item() for _ in range(5)] == [0, 1, 4, 9, 16]
        process, = multiprocessing.active_children()
        process.terminate()
        process.join(LONG)
        assert process.exitcode == -signal.SIGTERM
        with pytest.raises(RuntimeError, match="exit code -15"): next(batches)
    finally: signal.signal(signal.SIGTERM, before)


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


def test_an_error_in_the_loop_or_the_sampler_ends_the_workers():
    def indices():
        yield from range(6)
        raise LookupError("sampler")
    with pytest.raises(ZeroDivisionError):
        for _ in D.DataLoader(Squares(), 1, num_workers=2): 1/0
    assert not multiprocessing.active_children()
    with pytest.raises(LookupError): list(D.DataLoader(Squares(), 1, sampler=indices(), num_workers=2))
    assert not multiprocessing.active_children()
    with pytest.raises(ValueError, match="thread"): iter(D.DataLoader(y, num_workers=1, multiprocessing_context="thread"))


# Processes that start afresh.

def test_spawn():
    for n in (1, 2): assert [b.tolist() for b in D.DataLoader(range(5), 2, num_workers=n, multiprocessing_context="spawn")] == [[0, 1], [2, 3], [4]]


def test_what_a_fresh_process_cannot_import(monkeypatch):
    class Local(Squares): pass
    Mine = type("Mine", (Squares,), {"__module__": "__main__"})
    start = lambda data, **options: iter(D.DataLoader(data, num_workers=1, multiprocessing_context="spawn", **options))
    for options in (dict(data=Local()), dict(data=Squares(), collate_fn=lambda items: 0), dict(data=Squares(), worker_init_fn=lambda worker: None)):
        with pytest.raises(pickle.PicklingError, match="(Local|<lambda>) is defined in a notebook, or is a lambda"): start(**options)
    with pytest.raises(pickle.PicklingError, match="Can't pickle"): start(Mine())  # in a script: Python's own words
    monkeypatch.delattr(sys.modules["__main__"], "__file__", raising=False)
    with pytest.raises(pickle.PicklingError, match="Mine is defined in a notebook"): start(Mine())


# Other programs.

def program(tmp_path: Path, text: str, name="program.py") -> list[str]:
    (tmp_path/name).write_text(textwrap.dedent(text))
    return [sys.executable, str(tmp_path/name)]


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
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True, env=HERE)
    try:
        pids = [int(pid) for pid in process.stdout.readline().split()]
        assert len(pids) == 2
        for _ in range(2): process.stdout.readline()
        with within_reason():
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
    """), capture_output=True, text=True, timeout=LONG, env=HERE)
    assert (done.returncode, done.stdout, done.stderr) == (0, "2\n", "")


def test_every_start_method_in_a_script(tmp_path):
    "A guarded script and its own classes."
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
                except RuntimeError as error: print(got, "Odd in DataLoader worker 0" in str(error), "Traceback" in str(error))
    """)
    done = subprocess.run(command, capture_output=True, text=True, timeout=2*LONG, env=HERE)
    assert done.stdout == "[0, 1, 4, 9, 16] True True\n"*len(METHODS), done.stderr


def test_every_start_method_in_a_notebook(tmp_path):
    "A class of a module works; one of the notebook works with fork, and is refused with the reason without."
    (tmp_path/"squares.py").write_text("class Squares(list):\n    def __getitem__(self, i): return super().__getitem__(i)**2\n")
    cells = [f"import sys; sys.path.insert(0, '.')\nfrom fdl.data import DataLoader\nfrom squares import Squares\nclass Mine(Squares): pass\n"
             f"batches = {{m: iter(DataLoader(Squares(range(5)), 2, num_workers=1, multiprocessing_context=m)) for m in {METHODS}}}"]
    for method in METHODS:
        cells += [f"assert [b.tolist() for b in batches['{method}']] == [[0, 1], [4, 9], [16]]",
                  f"try: print([b.tolist() for b in DataLoader(Mine(range(5)), 2, num_workers=1, multiprocessing_context='{method}')])\nexcept Exception as error: print(error)"]
    nb = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source) for source in cells])
    NotebookClient(nb, timeout=2*LONG, kernel_name="python3", resources={"metadata": {"path": str(tmp_path)}}).execute(env=HERE)
    for method, cell in zip(METHODS, nb.cells[2::2]):
        shown = cell.outputs[0].text
        if method == "fork": assert shown == "[[0, 1], [4, 9], [16]]\n"
        else: assert shown.startswith("Mine is defined in a notebook") and ".py file" in shown and "fork" in shown
