"""Breaks the exported definitions of lessons on purpose, and counts how many of the breaks are noticed: by the lesson, or by the tests of its modules.

    python tests/tools/audit.py [nbs/02_matmul.ipynb ...] [--name linear]      (`make audit`: all lessons)

A mutant runs in a fork of a process that has run the lesson up to the broken cell, and runs on from there to the first
failure. Cells marked `#| slow`, and those that need one of them, are left out. What the lesson lets pass is put into the
package, and the tests that execute the broken lines are run, the quickest first, to the first failure. All of it
happens in copies of the project, without a network. Linux only, because it forks.
"""
import ast
import argparse
import contextlib
import io
import json
import os
import random
import re
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import coverage
import matplotlib.pyplot as plt
import pytest
import torch
from IPython.core.interactiveshell import InteractiveShell
from traitlets.config import Config

sys.path.append(str(Path(__file__).parents[1]))
from course import LESSONS, ROOT, code, default_module, directive, read
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


def copy_project(folder: Path, *names: str) -> Path:
    "A copy of some of the project's folders, away from the network and from the user's own files; this process works there from now on."
    project, seal = folder/"project", ROOT/"tests"/"no_network"
    for name in names: shutil.copytree(ROOT/name, project/name, ignore=shutil.ignore_patterns("__pycache__", ".*"))
    for name in ("home", "tmp"): (project/name).mkdir()
    home = str(project/"home")
    os.environ |= {"HOME": home, "XDG_CACHE_HOME": home, "TMPDIR": str(project/"tmp"), "PYTHONPATH": f"{project}{os.pathsep}{seal}",
                   "TQDM_DISABLE": "1", "CUDA_VISIBLE_DEVICES": "", "PYTHONDONTWRITEBYTECODE": "1"}
    tempfile.tempdir = None  # to be found again
    sys.path.insert(0, str(project))
    exec((seal/"sitecustomize.py").read_text(), {})
    os.chdir(project/names[0])
    return project


class Lesson:
    "The code cells of a lesson, run in this process and in forks of it, in a copy of the project in `folder`."
    def __init__(self, path: Path, folder: Path, seconds: list[float | None] | None = None):
        self.cells, self.project, self.backup, self.seconds = code(path), copy_project(folder, "nbs", "fdl", "exercises", "data"), folder/"backup", seconds
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


class Watch:
    "A pytest plugin: how long each test took, the first that failed, and, if there is a `coverage`, which test executes which lines, and which forks."
    def __init__(self, cover: coverage.Coverage | None = None):
        self.cover, self.seconds, self.failed, self.forks, self.now = cover, Counter(), "", set(), ""
        self.failures = set()
        os.register_at_fork(before=lambda: self.forks.add(self.now))

    def pytest_runtest_setup(self, item):
        self.now = item.nodeid
        if self.cover: self.cover.switch_context(item.nodeid)

    def pytest_runtest_logreport(self, report):
        self.seconds[report.nodeid] += report.duration
        if report.failed: self.failures.add(report.nodeid)
        if report.failed and not self.failed: self.failed = report.nodeid

    def pytest_collectreport(self, report):
        if report.failed and not self.failed: self.failed = report.nodeid


class Suite:
    "The tests of the modules that a lesson adds to, run in forks of this process on broken copies of the package in `folder`."
    def __init__(self, path: Path, folder: Path, watched: dict | None = None):
        self.project, self.watched = copy_project(folder, "tests", "fdl", "nbs", "data", "scripts"), watched
        for file in ROOT.glob("[!.]*.*"):
            if file.is_file(): shutil.copy(file, self.project)  # fdl.egg-info is a folder
        cells = [c for c in read(path).cells if c.cell_type == "code" and directive(c.source, "export") is not None]
        self.places = {n: (directive(source, "export") or default_module(path)) for n, source in enumerate(code(path)) if directive(source, "export") is not None}
        self.ids = dict(zip(self.places, (c.id for c in cells)))
        self.files = [str(file) for module in sorted(set(self.places.values())) if (file := self.test_file(module)).exists()]

    def test_file(self, module: str) -> Path: return self.project/"tests"/"fdl"/f"test_{module.removesuffix('.__init__').replace('.', '_')}.py"

    def module(self, mutant: Mutant) -> Path: return self.project/"fdl"/f"{self.places[mutant.cell].replace('.', '/')}.py"

    def pytest(self, watch: Watch, *args: str) -> None:
        with open(os.devnull, "w") as nowhere: os.dup2(nowhere.fileno(), 1), os.dup2(nowhere.fileno(), 2)
        os.chdir(self.project)
        pytest.main(["-q", "-p", "no:cacheprovider", "--hypothesis-profile=audit", *args], plugins=[watch])

    def watch(self) -> dict:
        "The seconds that each test takes, and for each file of the package the tests that execute its lines."
        cover = coverage.Coverage(data_file=None, include=[f"{self.project}/fdl/*"])
        watch = Watch(cover)
        if not self.files: return {"seconds": {}, "lines": {}, "forks": []}
        cover.start()
        self.pytest(watch, *self.files)
        cover.stop()
        if watch.failed and not watch.failures: raise RuntimeError(f"{watch.failed} cannot be read")
        for test in watch.failures: print(f"left out, because it fails here on unbroken code: {test}", file=sys.stderr)
        data = cover.get_data()
        return {"seconds": watch.seconds, "forks": sorted(watch.forks - {""} - watch.failures),
                "lines": {Path(file).relative_to(self.project).as_posix(): {line: [t for t in tests if t not in watch.failures] for line, tests in data.contexts_by_lineno(file).items()}
                          for file in data.measured_files()}}

    def tests(self, mutant: Mutant) -> list[str]:
        "The tests that execute what is broken, the quickest first; then those that may do so in another process."
        file, (start, end) = self.module(mutant), self.lines(mutant)
        lines = self.watched["lines"].get(file.relative_to(self.project).as_posix(), {})
        found = {test for line in range(start, end + 1) for test in lines.get(str(line), []) if test}
        return [*sorted(found, key=self.watched["seconds"].get), *(test for test in self.watched["forks"] if test not in found)]

    def chunk(self, mutant: Mutant) -> tuple[str, int, int]:
        "The text of the mutant's module, and where in it the broken cell begins and ends."
        text = self.module(mutant).read_text(encoding="utf-8")
        start = text.index("\n", re.search(rf"^# %% \S+ #{self.ids[mutant.cell]}$", text, re.M).start()) + 1
        end = text.find("\n# %% ", start)
        return text, start, end if end > 0 else len(text)

    def lines(self, mutant: Mutant) -> tuple[int, int]:
        "The first and the last line of the smallest function or class in the module that holds what is broken."
        text, start, end = self.chunk(mutant)
        body, other = ast.parse(text[start:end]).body, ast.parse(mutant.source).body
        while True:
            pairs = [(a, b) for a, b in zip(body, other) if ast.dump(a) != ast.dump(b) and not isinstance(a, ast.ImportFrom)]  # nbdev makes them relative
            place = pairs[0][0] if pairs else body[0]
            if not isinstance(place, ast.ClassDef) or not pairs or not isinstance(pairs[0][1], ast.ClassDef): break
            inner = [(a, b) for a, b in zip(place.body, pairs[0][1].body) if ast.dump(a) != ast.dump(b)]
            if len(place.body) != len(pairs[0][1].body) or not inner or not isinstance(inner[0][0], (ast.FunctionDef, ast.ClassDef)): break
            body, other = place.body, pairs[0][1].body
        before = text[:start].count("\n")
        return before + place.lineno, before + place.end_lineno

    def killer(self, mutant: Mutant, note: Path) -> str:
        "The first test that notices the mutant; empty if none does."
        if not self.files or not (tests := self.tests(mutant)): return ""
        text, start, end = self.chunk(mutant)
        def run():
            os.setpgid(0, 0)
            signal.alarm(int(30 + 5*sum(self.watched["seconds"][test] for test in tests)))
            watch = Watch()
            try: self.pytest(watch, "-x", *tests)
            finally: note.write_text(watch.failed)
            return True
        note.write_text(f"{tests[0]} or a later one, by running far too long")
        self.module(mutant).write_text(text[:start] + mutant.source + text[end:], encoding="utf-8")
        pid = fork(run)
        try: finished(pid)
        finally:
            with contextlib.suppress(ProcessLookupError, PermissionError): os.killpg(pid, signal.SIGKILL)
            self.module(mutant).write_text(text, encoding="utf-8")
        return note.read_text()

    def killers(self, wanted: list[Mutant]) -> list[str]: return [self.killer(mutant, self.project.parent/"note") for mutant in wanted]


def run(path: Path, wanted: list[Mutant], jobs: int) -> list[str | None]:
    "For each of the mutants of a lesson who notices it: \"\" for the lesson, else the name of a test; None if it survives. `jobs` processes share them."
    torch.set_num_threads(1)  # a fork does not inherit threads
    plt.switch_backend("Agg")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        def shared(title, function, wanted):
            found = [None]*len(wanted)
            for i, part in enumerate(in_forks([lambda i=i: function(folder/f"{title}{i}", wanted[i::jobs]) for i in range(jobs)], folder)): found[i::jobs] = part
            return found
        seconds, watched = in_forks([lambda: Lesson(path, folder/"times").times(), lambda: Suite(path, folder/"watch").watch()], folder)
        survived = shared("lesson", lambda folder, part: Lesson(path, folder, seconds).outcomes(part), wanted)
        rest = [m for m, alive in zip(wanted, survived) if alive]
        killers = iter(shared("suite", lambda folder, part: Suite(path, folder, watched).killers(part), rest))
        return [(next(killers) or None) if alive else "" for alive in survived]


def sampled(path: Path, n: int) -> list[Mutant]:
    "`n` mutants of a lesson, the same ones each time, in order; no known equivalents."
    known = equivalents(path.stem)
    return sorted(random.Random(0).sample([m for m in mutants(path) if m.key not in known], n), key=lambda m: m.cell)


def audit(path: Path, wanted: list[Mutant], jobs: int) -> tuple[dict[str, Counter], list[str], list[str]]:
    "For each name how many of the mutants had which outcome; what to show of those that the lesson lets pass; and what is wrong."
    counts, shown, faults, known = {}, [], [], equivalents(path.stem)
    for mutant, by in zip(wanted, run(path, wanted, jobs)):
        outcome = "lesson" if by == "" else "tests" if by else "equivalent" if mutant.key in known else "survived"
        counts.setdefault(mutant.name, Counter())[outcome] += 1
        if outcome == "survived": shown.append(f"### {path.stem} {mutant.name}\n{mutant.kind}\n```diff\n{mutant.difference}\n```")
        if outcome == "tests": shown.append(f"{mutant.name}: {mutant.kind}, noticed by {by} alone\n    " + mutant.difference.replace("\n", "\n    "))
        if by is not None and mutant.key in known: faults.append(f"{path.stem}: {EQUIVALENT.name} lists a mutant of {mutant.name} that is killed:\n{mutant.difference}")
    return counts, shown, faults


def share(counts: Counter) -> float:
    "The share of killed mutants among those that a check could notice."
    killed = counts["lesson"] + counts["tests"]
    return killed/max(1, killed + counts["survived"])


def line(title: str, counts: Counter) -> str:
    "A row of the table."
    return f"{title:24}{counts['lesson']:6} by the lesson{counts['tests']:5} by tests alone{counts['equivalent']:5} equivalent{counts['survived']:5} survived{share(counts):8.1%}"


def unseen(path: Path, counts: dict[str, Counter]) -> list[str]:
    "The exported names of which the lesson itself notices no break."
    own = Counter()
    for name, found in counts.items(): own[name.split(".")[0]] += found["lesson"]
    return [f"{path.stem}: the lesson itself notices no break of {name}" for name in public_names(path) if not own[name]]


def main() -> int:
    "Prints what the lesson lets pass, the counts for each name, a table of the lessons and what is wrong; returns 1 if anything is."
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("notebooks", type=Path, nargs="*", default=[path for path in LESSONS if public_names(path)])
    parser.add_argument("--name", help="only this definition")
    parser.add_argument("--sample", type=int, help="only so many of a lesson's mutants, the same ones each time, none of them a known equivalent")
    parser.add_argument("--jobs", type=int, default=os.cpu_count())
    args = parser.parse_args()
    table, faults = [], []
    for path in map(Path.resolve, args.notebooks):
        start, wanted = time.perf_counter(), [m for m in mutants(path) if args.name in (None, m.name)]
        if args.sample: wanted = sampled(path, args.sample)
        faults += complaints(path)
        try: counts, shown, wrong = audit(path, wanted, args.jobs)
        except RuntimeError as error: counts, shown, wrong = {}, [], [str(error)]
        total = sum(counts.values(), Counter())
        if counts and not args.sample and not args.name: wrong += unseen(path, counts)
        if counts and share(total) < GOAL: wrong.append(f"{path.stem}: {share(total):.1%} killed; {GOAL:.0%} are wanted")
        table.append(line(path.stem, total) + f"{time.perf_counter() - start:7.0f} s")
        faults += wrong
        print(*shown, *[line(name, counts[name]) for name in counts], table[-1], sep="\n", flush=True)
    if len(table) > 1: print("", *table, sep="\n")
    print(*faults, sep="\n")
    return bool(faults)


if __name__ == "__main__": sys.exit(main())
