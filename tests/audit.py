"""Breaks the exported definitions of lessons on purpose, and counts how many of the breaks the lessons notice.

    python tests/audit.py [nbs/02_matmul.ipynb ...] [--name linear]      (`make audit`: all lessons)

A mutant runs in a fork of a process that has run the lesson up to the broken cell, and runs on from there to the first
failure. Cells marked `#| slow`, and those that need one of them, are left out. All of it happens in copies of the
project, without a network. Linux only, because it forks.
"""
import argparse
import contextlib
import io
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import matplotlib.pyplot as plt
import torch
from IPython.core.interactiveshell import InteractiveShell
from traitlets.config import Config

from course import LESSONS, ROOT, code, directive
from mutants import EQUIVALENT, GOAL, Mutant, complaints, equivalents, mutants, public_names


def fork(function: Callable[[], bool]) -> int:
    "Starts `function` in a copy of this process, which exits with 0 if it returns True; returns the id of the copy."
    if pid := os.fork(): return pid
    success = False
    try: success = function()
    except BaseException: traceback.print_exc()
    finally: os._exit(not success)


def finished(pid: int) -> bool:
    "Waits for a copy, and says whether it exited with 0."
    return os.waitpid(pid, 0)[1] == 0


def in_forks(functions: list[Callable[[], object]], folder: Path) -> list:
    "What the functions return, each run in a copy of this process; it comes back as JSON, in a file."
    files = [folder/f"{i}.json" for i in range(len(functions))]
    pids = [fork(lambda: bool(file.write_text(json.dumps(function())))) for file, function in zip(files, functions)]
    if not all([finished(pid) for pid in pids]): raise RuntimeError("the lesson could not be run: see above")
    return [json.loads(file.read_text()) for file in files]


class Lesson:
    "The code cells of a lesson, run in this process and in forks of it, in a copy of the project in `folder`."
    def __init__(self, path: Path, folder: Path, seconds: list[float | None] | None = None):
        self.cells, self.project, self.backup, self.seconds = code(path), folder/"project", folder/"backup", seconds
        for name in ("fdl", "nbs", "data"): shutil.copytree(ROOT/name, self.project/name, ignore=shutil.ignore_patterns("__pycache__", ".*"))
        for name in ("home", "tmp"): (self.project/name).mkdir()
        home, seal = str(self.project/"home"), ROOT/"tests"/"no_network"
        os.environ |= {"HOME": home, "XDG_CACHE_HOME": home, "TMPDIR": str(self.project/"tmp"), "PYTHONPATH": f"{self.project}{os.pathsep}{seal}",
                       "TQDM_DISABLE": "1", "CUDA_VISIBLE_DEVICES": "", "PYTHONDONTWRITEBYTECODE": "1"}
        tempfile.tempdir = None  # to be found again
        sys.path.insert(0, str(self.project))
        exec((seal/"sitecustomize.py").read_text(), {})
        os.chdir(self.project/"nbs")
        self.shell = InteractiveShell.instance(config=Config({"HistoryManager": {"enabled": False}}))
        self.shell.showtraceback = lambda *args, **kwargs: None

    def run(self, source: str) -> bool:
        "Whether a cell runs without an error; what it prints and draws is thrown away."
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()): success = self.shell.run_cell(source).success
        plt.close("all")
        return success

    def times(self) -> list[float | None]:
        "The seconds that each cell takes; None for a cell that is slow, or needs one that is."
        seconds = []
        for cell in self.cells:
            start = time.perf_counter()
            alive = directive(cell, "slow") is None and self.run(cell)
            if not alive and directive(cell, "slow") is None and None not in seconds: raise RuntimeError(f"this code cell fails unbroken:\n{cell}")
            seconds.append(time.perf_counter() - start if alive else None)
        return seconds

    def rest(self, mutant: Mutant) -> bool:
        "Whether the cells from the broken one on run without an error; one that takes far too long kills this process."
        os.setpgid(0, 0)
        with open(os.devnull, "w") as nowhere: os.dup2(nowhere.fileno(), 1), os.dup2(nowhere.fileno(), 2)
        for n, seconds in enumerate(self.seconds):
            if n < mutant.cell or seconds is None: continue
            signal.alarm(int(10 + 5*seconds))
            if not self.run(mutant.source if n == mutant.cell else self.cells[n]): return False
        return True

    def survives(self, mutant: Mutant) -> bool:
        "Whether the lesson does not notice the mutant, whose cell is the next to run. Files that it changed are put back."
        pid = fork(lambda: self.rest(mutant))
        try: return finished(pid)
        finally:
            with contextlib.suppress(ProcessLookupError, PermissionError): os.killpg(pid, signal.SIGKILL)  # and the processes that it started
            if self.files() != self.files(self.backup):
                shutil.rmtree(self.project)
                shutil.copytree(self.backup, self.project)
                os.chdir(self.project/"nbs")

    def files(self, folder: Path | None = None) -> dict[str, tuple[int, int]]:
        "Size and time of each file in the copy of the project."
        folder = folder or self.project
        return {str(p.relative_to(folder)): (p.lstat().st_size, p.lstat().st_mtime_ns)*p.is_file() for p in folder.rglob("*")}

    def outcomes(self, wanted: list[Mutant]) -> list[bool]:
        "Runs the lesson and, where its turn comes, each of the mutants: which survive?"
        survived = []
        for n, cell in enumerate(self.cells):
            if len(survived) == len(wanted): break
            if self.seconds[n] is None: continue
            for mutant in wanted:
                if mutant.cell != n: continue
                if not self.backup.exists() or self.files() != self.files(self.backup):
                    shutil.rmtree(self.backup, ignore_errors=True)
                    shutil.copytree(self.project, self.backup)
                survived.append(self.survives(mutant))
            if not self.run(cell): raise RuntimeError(f"this code cell fails unbroken:\n{cell}")
        return survived


def run(path: Path, wanted: list[Mutant], jobs: int) -> list[bool]:
    "For each of the mutants of a lesson, whether it survives; `jobs` processes share them."
    torch.set_num_threads(1)  # a fork does not inherit threads
    plt.switch_backend("Agg")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        seconds, = in_forks([lambda: Lesson(path, folder/"times").times()], folder)
        shares = [lambda i=i: Lesson(path, folder/str(i), seconds).outcomes(wanted[i::jobs]) for i in range(jobs)]
        survived = [False]*len(wanted)
        for i, part in enumerate(in_forks(shares, folder)): survived[i::jobs] = part
        return survived


def sampled(path: Path, n: int) -> list[Mutant]:
    "`n` mutants of a lesson, the same ones each time, in order; no known equivalents."
    known = equivalents(path.stem)
    return sorted(random.Random(0).sample([m for m in mutants(path) if m.key not in known], n), key=lambda m: m.cell)


def audit(path: Path, wanted: list[Mutant], jobs: int) -> tuple[dict[str, Counter], list[str], list[str]]:
    "For each name how many of the mutants had which outcome; the survivors, as they would stand in the list of equivalents; and what in it is wrong."
    counts, survivors, faults, known = {}, [], [], equivalents(path.stem)
    for mutant, survived in zip(wanted, run(path, wanted, jobs)):
        counts.setdefault(mutant.name, Counter())["killed" if not survived else "equivalent" if mutant.key in known else "survived"] += 1
        if survived and mutant.key not in known: survivors.append(f"### {path.stem} {mutant.name}\n{mutant.kind}\n```diff\n{mutant.difference}\n```")
        if not survived and mutant.key in known: faults.append(f"{path.stem}: {EQUIVALENT.name} lists a mutant of {mutant.name} that is killed:\n{mutant.difference}")
    return counts, survivors, faults


def share(counts: Counter) -> float:
    "The share of killed mutants among those that a check could notice."
    return counts["killed"]/max(1, counts["killed"] + counts["survived"])


def line(title: str, counts: Counter) -> str:
    "A row of the table."
    return f"{title:24}{counts['killed']:6} killed{counts['equivalent']:5} equivalent{counts['survived']:5} survived{share(counts):8.1%}"


def main() -> int:
    "Prints the counts for each name, each mutant that survived, a table of the lessons and what is wrong; returns 1 if anything is."
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("notebooks", type=Path, nargs="*", default=[path for path in LESSONS if public_names(path)])
    parser.add_argument("--name", help="only this definition")
    parser.add_argument("--sample", type=int, help="only so many of a lesson's mutants, the same ones each time, none of them a known equivalent")
    parser.add_argument("--jobs", type=int, default=os.cpu_count())
    args = parser.parse_args()
    table, faults = [], []
    for path in args.notebooks:
        start, wanted = time.perf_counter(), [m for m in mutants(path) if args.name in (None, m.name)]
        if args.sample: wanted = sampled(path, args.sample)
        faults += complaints(path)
        try: counts, survivors, wrong = audit(path, wanted, args.jobs)
        except RuntimeError as error: counts, survivors, wrong = {}, [], [str(error)]
        total = sum(counts.values(), Counter())
        if not wrong and share(total) < GOAL: wrong.append(f"{path.stem}: {share(total):.1%} killed; {GOAL:.0%} are wanted")
        table.append(line(path.stem, total) + f"{time.perf_counter() - start:7.0f} s")
        faults += wrong
        print(*[line(name, counts[name]) for name in counts], *survivors, table[-1], sep="\n", flush=True)
    if len(table) > 1: print("", *table, sep="\n")
    print(*faults, sep="\n")
    return bool(faults)


if __name__ == "__main__": sys.exit(main())
