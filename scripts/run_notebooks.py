"""Runs notebooks, each in a fresh Jupyter kernel, and stores what their cells show.

    python scripts/run_notebooks.py [--into FOLDER] [--first PROGRAM] [--rounding NAME] NOTEBOOK...       `make run`

FOLDER gets the notebook and its cost; PROGRAM is run in the kernel before the first cell; NAME is one of
`ROUNDINGS`. Without FOLDER the notebook itself is renewed.

A stored output that the run agrees with stays as it is, so that a diff shows what changed. To have a cell's output
made anew all the same (a timing, say), clear it first.
"""
import argparse
import base64
import hashlib
import json
import os
import re
import struct
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError
from traitlets.config import Config

# Two threads, which do not spin while they wait: so the CPU seconds are the lesson's own, whatever else the machine does.
ENVIRONMENT = {"FDL_DEVICE": "cpu", "FDL_STATIC": "1", "OMP_NUM_THREADS": "2", "OMP_WAIT_POLICY": "PASSIVE", "TQDM_DISABLE": "1", "PYDEVD_DISABLE_FILE_VALIDATION": "1",
               "MPLBACKEND": "module://matplotlib_inline.backend_inline"}

# A sum of floats hangs on its order, and so on the processor's instructions. These variables choose them. In the first
# set every x86 processor gives the same digits (an Intel with AMX and an AMD EPYC do): the outputs are stored in it.
# The others round as another machine would. Whoever has set one of the variables gets what was set, in every run.
ROUNDINGS = {
    "stored": {"ATEN_CPU_CAPABILITY": "avx2", "MKL_CBWR": "COMPATIBLE", "ONEDNN_MAX_CPU_ISA": "AVX2"},
    "avx2": {"ATEN_CPU_CAPABILITY": "avx2", "MKL_CBWR": "AVX2"},
    "slow": {"ATEN_CPU_CAPABILITY": "default", "MKL_CBWR": "COMPATIBLE", "ONEDNN_MAX_CPU_ISA": "SSE41"},
    "own": {}}
OWN = {"19_training_fast"}  # computes in bfloat16, which takes minutes without the processor's own instructions


def rounding(name: str, path: Path | None = None) -> dict[str, str]:
    "The variables of the set `name` for the notebook at `path`; none, if the caller has set one of them."
    if any(variable in os.environ for variable in ROUNDINGS["stored"]): return {}
    return ROUNDINGS["own" if path and path.stem in OWN else name]

COST = """import json, os, sys
try: import resource
except ImportError: memory = None  # Windows
else: memory = sum(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))*(1 if sys.platform == "darwin" else 1024)
print(json.dumps({"seconds": sum(os.times()[:4]), "memory": memory}))"""


class Failure(Exception):
    "A cell failed; the message says which, and how."


def ours(cells: list[nbformat.NotebookNode]) -> list[nbformat.NotebookNode]:
    "Those of a lesson's cells above its exercises; what stands below is the learner's."
    heading = (i for i, c in enumerate(cells) if c.cell_type == "markdown" and re.search("^## Exercises", c.source, re.M))
    return cells[:next(heading, len(cells))]


def execute(path: Path, first: str = "", how: str = "stored") -> tuple[nbformat.NotebookNode, dict]:
    """The notebook as it is after all its cells have run, and what that cost: CPU `seconds`, and bytes of `memory` (the kernel's peak and its largest child's).

    A cell below the exercises may fail. `first` is a program that the kernel runs before the first cell, `how` one of `ROUNDINGS`.
    """
    nb = nbformat.read(path, as_version=4)
    for cell in nb.cells:
        if cell.cell_type == "code": cell.outputs = []
    n, last = len(nb.cells), len(ours(nb.cells))
    nb.cells += [nbformat.v4.new_code_cell(first), nbformat.v4.new_code_cell(COST)]
    with tempfile.TemporaryDirectory(prefix="fdl") as sockets:
        # Where there are Unix sockets, a kernel is reached over them: that needs no network, not even loopback.
        over = {} if sys.platform == "win32" else {"transport": "ipc", "connection_file": f"{sockets}/k.json"}
        client = NotebookClient(nb, timeout=600, kernel_name="python3", coalesce_streams=True, resources={"metadata": {"path": str(path.parent)}}, config=Config(KernelManager=over))
        with client.setup_kernel(env=os.environ | ENVIRONMENT | rounding(how, path)):
            for i in (n, *range(n), n + 1):
                cell = nb.cells[i]
                if cell.cell_type != "code": continue
                try: client.execute_cell(cell, i)
                except CellExecutionError as error:
                    if last <= i < n: continue
                    trace = re.sub(r"\x1b\[[0-9;]*m", "", error.traceback)
                    raise Failure(f"{path.name}, cell {i} (id {cell.id}): {error.ename}: {error.evalue}\n{trace[-2500:]}") from None
    cost = json.loads(nb.cells[-1].outputs[0].text)
    del nb.cells[n:]
    for cell in nb.cells: cell.metadata.pop("execution", None)
    return nb, cost


# Two outputs agree.

NUMBER = re.compile(r"(?<![\w.])[-+]?(?:\d+\.?\d*|\.\d+)(?:e[-+]?\d+)?")


MACHINE = "torch 2.13.0, 780c0716bf2b"  # the `machine` that stored the outputs

PROBE = """import hashlib, matplotlib, torch
x = torch.rand(1000, 784, generator=torch.Generator().manual_seed(0))
images, kernels = x.view(-1, 1, 28, 28), x[:8, :25].reshape(8, 1, 5, 5)
results = [x.T @ x, x.exp().sum(0), x.log_softmax(1), torch.conv2d(images, kernels).sum((0, 2, 3))]
parts = [matplotlib.__version__.encode(), *(r.numpy().tobytes() for r in results)]
version = torch.__version__.partition("+")[0]
print(f"torch {version}, {hashlib.sha256(b''.join(parts)).hexdigest()[:12]}")"""


@cache
def machine(how: str = "stored") -> str:
    """torch's version, and a short hash of this machine's float32 arithmetic and of what draws the pictures.

    Where it is the same, a lesson prints the same digits and draws the same pictures, to the last bit.
    """
    env = os.environ | ENVIRONMENT | rounding(how)
    done = subprocess.run([sys.executable, "-c", PROBE], env=env, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def shown(cell: nbformat.NotebookNode) -> Iterator[str]:
    "What a reader sees below a cell, line by line; of a picture, its width and height, and a short hash."
    for output in cell.outputs:
        if output.output_type == "error": yield f"error: {output.ename}: {output.evalue}"
        data = {"text/plain": output.get("text", "")} if output.output_type == "stream" else output.get("data", {})
        for kind, content in sorted(data.items()):
            if kind == "image/png":
                png = base64.b64decode(content)
                yield "picture, {} by {} pixels, ".format(*struct.unpack(">2I", png[16:24])) + hashlib.sha256(png).hexdigest()[:8]
            elif kind == "text/plain": yield from re.sub(r"0x[0-9a-f]{6,}", "0x…", content.rstrip("\n")).split("\n")
            else: yield kind


def near(a: str, b: str, exact: bool) -> bool:
    """Whether two printed numbers agree: integers exactly, others to one unit of the last digit of the longer one.

    If not `exact`, because the arithmetic of another machine rounds otherwise: to 5%, others also to three units or 1e-5.
    """
    size, gap = max(abs(float(a)), abs(float(b))), abs(float(a) - float(b))
    if not re.search("[.e]", a + b): return gap <= (0 if exact else 0.05*size)
    parts = [n.partition("e") for n in (a, b)]
    unit = min(10.**(int(exponent or 0) - len(digits.partition(".")[2])) for digits, _, exponent in parts)
    return gap <= 1.001*unit or not exact and gap <= max(0.05*size, 3.001*unit, 1e-5)


def agree(old: str, new: str, timed: bool, exact: bool) -> bool:
    "Whether two lines show the same: the same words, and numbers that are `near` (any numbers, if `timed`); the width of a column may change."
    if old.startswith("picture,") and new.startswith("picture,"):
        if exact and not timed: return old == new
        return all(abs(int(a) - int(b)) <= 4 + 0.05*int(a) for a, b in zip(old.split()[1:4:2], new.split()[1:4:2]))  # the edges are cut to what is drawn
    words = [[" ".join(piece.split()) for piece in NUMBER.split(line)] for line in (old, new)]
    return words[0] == words[1] and (timed or all(near(a, b, exact) for a, b in zip(NUMBER.findall(old), NUMBER.findall(new))))


def difference(stored: nbformat.NotebookNode, fresh: nbformat.NotebookNode, exact: bool = True) -> str:
    """The first line in which the stored output of a cell is not what a run gave; empty if there is none.

    Of cells that say `#| timed` only the words count, and if not `exact` also of those that say `#| slow` or
    `#| rounding`: what rounds otherwise trains its own way.
    """
    old, new = list(shown(stored)), list(shown(fresh))
    timed = re.search(r"^#\| *timed" if exact else r"^#\| *(timed|slow|rounding)", stored.source, re.M) is not None
    for i in range(max(len(old), len(new))):
        a, b = (lines[i] if i < len(lines) else "(nothing)" for lines in (old, new))
        if a.startswith("error:") or not agree(a, b, timed, exact): return f"line {i + 1}\n  stored  {a}\n  now     {b}"
    return ""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("notebooks", nargs="+", type=Path)
    parser.add_argument("--into", type=Path)
    parser.add_argument("--first", type=Path)
    parser.add_argument("--rounding", choices=ROUNDINGS, default="stored")
    args = parser.parse_args()
    as_stored = not args.into and args.rounding == "stored" and machine() == MACHINE
    for path in args.notebooks:
        stored, exact = nbformat.read(path, as_version=4), as_stored and path.stem not in OWN
        first = args.first.read_text() if args.first else ""
        try: fresh, cost = execute(path, first, args.rounding)
        except Failure as failure: sys.exit(str(failure))
        if args.into: (args.into/"cost.json").write_text(json.dumps(cost))
        else:
            for old, new in zip(stored.cells, fresh.cells):
                if old.cell_type == "code" and not difference(old, new, exact): new.outputs = old.outputs
        nbformat.write(fresh, (args.into or path.parent)/path.name)
        print(f"{path.name}: {cost['seconds']:.0f} CPU seconds, {(cost['memory'] or 0)/1e6:.0f} MB", flush=True)


if __name__ == "__main__": main()
