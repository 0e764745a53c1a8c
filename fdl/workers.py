"""Processes that read batches for a `DataLoader`: in order, and none left behind."""
import io
import multiprocessing
import os
import pickle
import random
import signal
import sys
import traceback
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import cycle, islice
from multiprocessing.connection import Connection, wait
from threading import Thread
from types import FunctionType
from typing import Any

import numpy as np
import torch
from torch import Tensor

__all__ = ["iterate"]


def _tensor(data: Any, dtype: torch.dtype, shape: torch.Size) -> Tensor:
    if not len(data): return torch.empty(shape, dtype=dtype)
    return torch.frombuffer(data, dtype=dtype).view(shape)

class _Pickler(pickle.Pickler):
    "Pickles a CPU tensor as its bytes: nothing is shared, so nothing is left behind."
    def reducer_override(self, obj: Any) -> Any:
        if (type(obj) is not Tensor or obj.requires_grad or obj.device.type != "cpu"
                or obj.layout != torch.strided): return NotImplemented
        data = obj.resolve_conj().resolve_neg().contiguous().as_strided((obj.numel(),), (1,))
        return _tensor, (pickle.PickleBuffer(data.view(torch.uint8).numpy()), obj.dtype, obj.shape)

_NO_MODULE = """{0.__qualname__} is defined in a notebook, or is a lambda or local to a function, \
so a worker that starts afresh (spawn, forkserver) cannot import it. Put it at the top level of a \
module, a .py file, and import it from there; or pass multiprocessing_context="fork" where the \
system has it."""

class _ModulePickler(_Pickler):
    "Refuses what a process that starts afresh could not import."
    def reducer_override(self, obj: Any) -> Any:
        if isinstance(obj, (type, FunctionType)):
            here = obj.__module__ == "__main__" and not hasattr(sys.modules["__main__"], "__file__")
            if here or "<" in obj.__qualname__: raise pickle.PicklingError(_NO_MODULE.format(obj))
        return super().reducer_override(obj)

def _dumps(obj: Any, pickler: type = _Pickler) -> memoryview:
    buffer = io.BytesIO()
    pickler(buffer, protocol=5).dump(obj)
    return buffer.getbuffer()

def _exit_with_parent() -> None:
    wait([multiprocessing.parent_process().sentinel])
    os._exit(1)

def _work(connection: Connection, worker: int, seed: int, setup: tuple | None) -> None:
    "A worker's life: set up, then a batch for each message with indices, until an empty message."
    signal.signal(signal.SIGINT, signal.SIG_IGN)            # Ctrl-C is for the main process
    signal.signal(signal.SIGTERM, signal.SIG_DFL)           # not the main process's handler
    Thread(target=_exit_with_parent, daemon=True).start()
    torch.set_num_threads(1)
    random.seed(seed + worker)
    torch.manual_seed(seed + worker)
    words = np.random.SeedSequence([worker, seed & 0xFFFFFFFF, seed >> 32, 0]).generate_state(4)
    np.random.seed(words)                                   # torch's seeds, all three
    try:
        read, worker_init_fn = setup or pickle.loads(connection.recv_bytes())
        if worker_init_fn: worker_init_fn(worker)
        for message in iter(connection.recv_bytes, b""):
            connection.send_bytes(_dumps((None, read(pickle.loads(message)))))
    except Exception as error:
        text = f"{type(error).__name__} in DataLoader worker {worker}\n\n{traceback.format_exc()}"
        with suppress(OSError): connection.send_bytes(_dumps((text, None)))

class _Workers:
    "The processes of a loader, with a pipe to each; each reads one batch while others are used."
    patience = 2.0          # seconds in which a worker may end by itself

    def __init__(self, loader: Any, read: Callable, seed: int) -> None:
        self.pid, self.processes, self.connections, self.pending = os.getpid(), [], [], deque()
        context, setup, packed = loader.multiprocessing_context, (read, loader.worker_init_fn), None
        if not hasattr(context, "Process"): context = multiprocessing.get_context(context)
        if context.get_start_method() != "fork": setup, packed = None, _dumps(setup, _ModulePickler)
        for worker in range(loader.num_workers):
            ours, theirs = context.Pipe()
            process = context.Process(target=_work, args=(theirs, worker, seed, setup), daemon=True)
            process.start()
            theirs.close()
            self.processes.append(process)
            self.connections.append(ours)
        for worker in range(loader.num_workers) if packed else (): self.post(worker, packed)

    def post(self, worker: int, message: Any) -> None:
        with suppress(OSError): self.connections[worker].send_bytes(message)    # it may be dead

    def send(self, tasks: Iterator) -> None:
        for worker, indices in tasks:
            self.pending.append(worker)
            self.post(worker, _dumps(indices))

    def results(self, tasks: Iterator, keep: bool) -> Iterator:
        "The batches in order; the processes end with them, unless a full epoch is to `keep` them."
        complete = False
        try:
            while self.pending:
                batch = self.receive(self.pending[0])
                self.pending.popleft()
                self.send(islice(tasks, 1))
                yield batch
            complete = True
        finally:
            if not (complete and keep): self.close()

    def receive(self, worker: int) -> Any:
        "The next batch of this worker; its error is raised here, with its traceback."
        try: error, batch = pickle.loads(self.connections[worker].recv_bytes())
        except (EOFError, OSError):
            self.processes[worker].join(1)
            code = self.processes[worker].exitcode or 0
            how = f"killed by {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
            raise RuntimeError(
                f"DataLoader worker {worker} died: {how}. The system kills processes when memory "
                "runs out; other reasons stand in what it printed. A script that starts workers by "
                "spawn or forkserver needs `if __name__ == '__main__':`.") from None
        if error: raise RuntimeError(error)
        return batch

    def close(self) -> None:
        "Ends the busy, lets the idle leave, and returns when all are gone."
        for worker, process in enumerate(self.processes):
            if worker in self.pending: process.kill()
            else: self.post(worker, b"")
        for process, connection in zip(self.processes, self.connections):
            process.join(self.patience)
            process.kill()
            process.join()
            connection.close()
        self.processes.clear()

    def __del__(self, getpid: Callable = os.getpid, exiting: Callable = sys.is_finalizing) -> None:
        if not exiting() and getpid() == self.pid: self.close()

def iterate(loader: Any, read: Callable, batches: Iterator, seed: int) -> Iterator:
    """What `read` makes of each of `batches`, in order: batch i by worker i modulo their number.

    `loader` says `num_workers`, `worker_init_fn`, `multiprocessing_context`, `persistent_workers`,
    and keeps its persistent ones in `workers`. Worker k starts every generator from `seed + k`.
    Raises `RuntimeError` for an error in a worker, with its traceback, or for one that dies.
    """
    workers = loader.workers
    if workers is None or workers.pending or not workers.processes:
        workers = _Workers(loader, read, seed)
    if loader.persistent_workers: loader.workers = workers
    tasks = zip(cycle(range(loader.num_workers)), batches)
    workers.send(islice(tasks, loader.num_workers))
    return workers.results(tasks, loader.persistent_workers)
