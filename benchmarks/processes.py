"The rows that need fresh processes: import time, memory, one run in several, and the lessons themselves."
import json
import os
import subprocess
import sys
from pathlib import Path
from time import perf_counter

import torch
import torch.distributed as dist
from torch import nn

from benchmarks.measure import Row, at_least, in_turn, summary
from fdl.data import DataLoader, TensorDataset
from fdl.datasets import load_mnist
from fdl.distributed import Replica, Sharded, launch, step
from fdl.training import fit

ROOT = Path(__file__).resolve().parent.parent
MODULES = sorted(f"fdl.{path.stem}" for path in (ROOT/"fdl").glob("[a-z]*.py") if path.stem != "plots")


def child(*args: str) -> dict:
    "Runs Python in a fresh process, in the project's folder; returns what its last line says in JSON."
    done = subprocess.run([sys.executable, *args], cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True)
    if done.returncode: raise RuntimeError(done.stderr[-2000:])
    return json.loads(done.stdout.splitlines()[-1])


IMPORTS = """
import json, sys, time
start = time.perf_counter()
import torch
middle = time.perf_counter()
import {modules}
end = time.perf_counter()
print(json.dumps({{"torch": middle - start, "fdl": end - middle, "matplotlib": "matplotlib" in sys.modules}}))
"""


def importing(rounds: int) -> list[Row]:
    "What every module of fdl but `plots` takes to import once torch is there."
    program = IMPORTS.format(modules=", ".join(MODULES))
    found = [child("-c", program) for _ in range(2*rounds + 1)][1:]
    seconds = {name: sorted(f[name] for f in found)[len(found)//2] for name in ("torch", "fdl")}
    if any(f["matplotlib"] for f in found): raise RuntimeError("importing fdl has loaded matplotlib")
    return [summary("import fdl over import torch", "at most", 50, [1000*f["fdl"] for f in found], unit="ms", seconds=seconds, note="matplotlib not loaded")]


MEMORY = """
import json, torch
from benchmarks import peers, rows
torch.set_num_threads(1)
def megabytes(name): return int(next(line for line in open("/proc/self/status") if line.startswith(name)).split()[1])/1024
x, y = rows.mnist()
run = peers.{side}(x, y)
before = megabytes("VmRSS")
open("/proc/self/clear_refs", "w").write("5")      # the peak starts anew from here
run()
print(json.dumps({{"extra": megabytes("VmHWM") - before, "data": (x.nbytes + y.nbytes)/2**20}}))
"""


def memory(rounds: int) -> list[Row]:
    "The peak of a process that trains one epoch, less what it held when data and model were there; three times, whatever `rounds` says."
    name = "memory of one epoch of fit, over the data, over the bare loop's"
    if not Path("/proc/self/clear_refs").exists(): return [Row(name, "at most", 1.3, note="measured on Linux only")]
    found = [{side: child("-c", MEMORY.format(side=side)) for side in ("ours", "bare")} for _ in range(3)]
    extra = {side: sorted(f[side]["extra"] for f in found)[len(found)//2] for side in ("ours", "bare")}
    note = f"MB: {extra['ours']:.1f} over {extra['bare']:.1f}, beside {found[0]['ours']['data']:.0f} of data"
    return [summary(name, "at most", 1.3, [f["ours"]["extra"]/f["bare"]["extra"] for f in found], note=note)]


def lessons(rounds: int) -> list[Row]:
    "Every lesson in a fresh kernel, one after another, as `make run` runs them; once, whatever `rounds` says."
    sys.path.insert(0, str(ROOT/"scripts"))
    from run_notebooks import execute

    seconds = {}
    for path in sorted((ROOT/"nbs").glob("[0-9][0-9]_*.ipynb")):
        start = perf_counter()
        execute(path)
        seconds[path.stem] = perf_counter() - start
    return [summary("the whole course executed", "at most", 300, [sum(seconds.values())], unit="s", seconds=seconds, note="each on two threads")]


def _epoch(rows: int) -> float:
    "Seconds of a pass over MNIST in batches of so many rows, shared out among the processes of this group."
    x, y = load_mnist(device=torch.device("cpu"))[0]
    torch.manual_seed(0)
    model = Replica(nn.Sequential(nn.Linear(784, 50), nn.ReLU(), nn.Linear(50, 10)))
    opt, dl = torch.optim.SGD(model.parameters(), lr=0.1), Sharded(DataLoader(TensorDataset(x, y), rows, shuffle=True))
    start = perf_counter()
    fit(1, model, nn.functional.cross_entropy, opt, dl, step=step, progress=False)
    return perf_counter() - start


def _averaging(length: int) -> float:
    "Seconds of one averaging of a vector of float32."
    flat = torch.zeros(length)
    dist.all_reduce(flat)
    start = perf_counter()
    for _ in range(100): dist.all_reduce(flat)
    return (perf_counter() - start)/100


def distributed(rounds: int) -> list[Row]:
    "The same epoch in one process and in two, one thread each, and what one averaging takes."
    found = []
    for rows in (64, 1024):
        seconds = in_turn({f"{n} processes": lambda n=n: lambda: launch(_epoch, n, rows) for n in (1, 2)}, rounds, own_clock=True)
        found.append(at_least(None, f"an epoch in batches of {rows}: two processes beside one", seconds, "2 processes", "1 processes"))
    for length, name in ((39_760, "784-50-10"), (1_000_000, "a million")):
        times = [1e6*launch(_averaging, 2, length) for _ in range(rounds)]
        found.append(summary(f"one averaging between two processes, {name} numbers", "at most", None, times, unit="µs"))
    return found
