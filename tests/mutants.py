"""Breaks each exported definition of a lesson on purpose, and counts how many of the breaks the lesson notices.

    python tests/mutants.py [nbs/02_matmul.ipynb ...] [--name linear]      (`make audit`: all lessons)

A mutant runs in a fork of a process that has run the lesson up to the broken cell, and runs on from there to the first
failure. Cells marked `#| slow`, and those that need one of them, are left out. All of it happens in a copy of the
project, without a network. Mutants that no check could notice stand, with the reason, in equivalent_mutants.md.
POSIX only, because it forks.
"""
import argparse
import ast
import contextlib
import copy
import difflib
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
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import matplotlib.pyplot as plt
import torch
from IPython.core.interactiveshell import InteractiveShell

from course import LESSONS, ROOT, code, directive

GOAL, LEAST = .95, 3  # the share of mutants that a lesson must kill, and how many mutants an exported name must have
EQUIVALENT = ROOT/"tests"/"equivalent_mutants.md"

OPERATORS = {ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult, ast.Pow: ast.Mult,
             ast.FloorDiv: ast.Mult, ast.Mod: ast.FloorDiv, ast.MatMult: ast.Mult}
COMPARISONS = {ast.Lt: (ast.LtE, ast.GtE), ast.LtE: (ast.Lt, ast.Gt), ast.Gt: (ast.GtE, ast.LtE), ast.GtE: (ast.Gt, ast.Lt),
               ast.Eq: (ast.NotEq,), ast.NotEq: (ast.Eq,), ast.Is: (ast.IsNot,), ast.IsNot: (ast.Is,), ast.In: (ast.NotIn,), ast.NotIn: (ast.In,)}
PAIRS = [("mean", "sum"), ("amax", "amin"), ("argmax", "argmin"), ("max", "min"), ("any", "all"), ("sqrt", "square"), ("floor", "ceil"),
         ("zeros", "ones"), ("zeros_like", "ones_like"), ("new_zeros", "new_ones"), ("uniform_", "normal_"), ("fan_in", "fan_out")]
OTHER_NAME = dict(PAIRS) | {b: a for a, b in PAIRS}
DROPPABLE = {"detach", "clone", "contiguous", "squeeze", "unsqueeze", "mean", "sum", "sqrt", "abs", "flatten", "transpose", "permute", "T", "mT"}
GUARDS = {"no_grad", "inference_mode", "once_differentiable"}
MODULES = {"torch", "np", "math", "os", "random", "F", "plt"}


def changed(node: ast.AST, **fields) -> ast.AST:
    "A copy of `node` with some fields replaced."
    new = copy.deepcopy(node)
    for name, value in fields.items(): setattr(new, name, value)
    return new


def last_name(node: ast.AST) -> str:
    "`no_grad` for `@no_grad`, `@no_grad()` and `@torch.no_grad()`; '' for what has no name."
    if isinstance(node, ast.Call): node = node.func
    return getattr(node, "attr", getattr(node, "id", ""))


def swaps(nodes: list[ast.AST]) -> Iterator[list[ast.AST]]:
    "The list with two neighbours swapped, in each way."
    for i in range(len(nodes) - 1):
        if not any(isinstance(node, ast.Starred) for node in nodes[i:i + 2]): yield [*nodes[:i], nodes[i + 1], nodes[i], *nodes[i + 2:]]


def other_values(node: ast.AST) -> list[ast.AST]:
    "What could stand instead of a constant: numbers, but for True and False."
    value = getattr(node, "value", None)
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub): return [changed(node, operand=new) for new in other_values(node.operand)]
    if not isinstance(node, ast.Constant) or not isinstance(value, (bool, int, float)): return []
    if isinstance(value, bool): return [ast.Constant(not value)]
    if isinstance(value, float): return [ast.Constant(value/2 or 1.)]
    return [ast.Constant(value + 1)] + [ast.Constant(value - 1)]*(value > 0)


def other_defaults(node: ast.AST) -> list[ast.AST]:
    "What could stand instead of a parameter's default."
    if isinstance(node, ast.Constant) and node.value is None: return [ast.Constant(0)]
    if isinstance(node, ast.Constant) and isinstance(node.value, str): return [ast.Constant(OTHER_NAME.get(node.value, "another"))]
    return other_values(node)


def broken_expressions(node: ast.AST) -> Iterator[tuple[str, ast.AST]]:
    "What can go wrong in one expression: (kind, what stands there instead)."
    one = ast.Constant(1)
    if isinstance(node, (ast.BinOp, ast.AugAssign)) and type(node.op) in OPERATORS:
        yield "operator", changed(node, op=OPERATORS[type(node.op)]())
    if isinstance(node, ast.BinOp):
        if isinstance(node.op, (ast.Add, ast.Sub)): yield "dropped term", node.left
        if isinstance(node.op, ast.Add): yield "dropped term", node.right
        if isinstance(node.op, (ast.Sub, ast.Div, ast.MatMult)): yield "swapped arguments", changed(node, left=node.right, right=node.left)
    elif isinstance(node, ast.Compare):
        for other in COMPARISONS[type(node.ops[0])]: yield "comparison", changed(node, ops=[other(), *node.ops[1:]])
    elif isinstance(node, ast.BoolOp):
        yield "and, or", changed(node, op=ast.Or() if isinstance(node.op, ast.And) else ast.And())
        for i in range(len(node.values)): yield "dropped condition", changed(node, values=node.values[:i] + node.values[i + 1:])
    elif isinstance(node, ast.UnaryOp) and not isinstance(node.operand, ast.Constant): yield "sign", node.operand
    elif isinstance(node, ast.IfExp): yield from (("branch", node.body), ("branch", node.orelse))
    elif isinstance(node, ast.Constant): yield from (("off by one" if type(node.value) is int else "constant", new) for new in other_values(node))
    elif isinstance(node, ast.comprehension) and node.ifs: yield "dropped condition", changed(node, ifs=[])
    elif isinstance(node, ast.arguments):
        for field in ("defaults", "kw_defaults"):
            values = getattr(node, field)
            for i, value in enumerate(values):
                for new in other_defaults(value): yield "wrong default", changed(node, **{field: values[:i] + [new] + values[i + 1:]})
    elif isinstance(node, ast.keyword) and node.arg in ("dim", "axis"):
        for new in other_values(node.value): yield "dimension", changed(node, value=new)
    elif isinstance(node, ast.Slice):
        for bound in ("lower", "upper"):
            value = getattr(node, bound)
            if value and not other_values(value): yield "off by one", changed(node, **{bound: ast.BinOp(value, ast.Add(), one)})
    elif isinstance(node, ast.Attribute) and node.attr in DROPPABLE and len(node.attr) <= 2: yield "dimension", node.value
    elif isinstance(node, ast.Call):
        for args in swaps(node.args): yield "swapped arguments", changed(node, args=args)
        name = last_name(node)
        if name in OTHER_NAME: yield "another function", changed(node, func=changed(node.func, **{"id" if isinstance(node.func, ast.Name) else "attr": OTHER_NAME[name]}))
        if name in DROPPABLE and isinstance(node.func, ast.Attribute): yield f"dropped .{name}()", node.func.value
        if name == "range" and not other_values(node.args[-1]): yield "off by one", changed(node, args=[*node.args[:-1], ast.BinOp(node.args[-1], ast.Sub(), one)])
        for i, keyword in enumerate(node.keywords):
            if keyword.arg and not (isinstance(keyword.value, ast.Constant) and isinstance(keyword.value.value, str)):
                yield f"dropped {keyword.arg}=", changed(node, keywords=node.keywords[:i] + node.keywords[i + 1:])


def broken_statement(node: ast.AST) -> Iterator[tuple[str, list[ast.stmt]]]:
    "What can go wrong with one statement: (kind, the statements instead)."
    value = getattr(node, "value", None)
    if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
        for i, decorator in enumerate(node.decorator_list):
            if last_name(decorator) in GUARDS: yield "dropped decorator", [changed(node, decorator_list=node.decorator_list[:i] + node.decorator_list[i + 1:])]
    if isinstance(node, ast.ClassDef):
        for i, part in enumerate(node.body):
            if isinstance(part, ast.FunctionDef): yield "dropped method", [changed(node, body=node.body[:i] + [ast.Pass()] + node.body[i + 1:])]
    elif isinstance(node, ast.Expr) and isinstance(value, ast.Constant): return  # a docstring
    elif isinstance(node, ast.Return) and value is not None:
        yield "early return", [ast.Return(ast.Constant(None))]
        if isinstance(value, ast.Call) and isinstance(value.func, ast.Attribute) and last_name(value.func.value) not in MODULES: yield "dropped call", [ast.Return(value.func.value)]
        if isinstance(value, ast.Call) and value.args and not isinstance(value.args[0], ast.Starred): yield "dropped call", [ast.Return(value.args[0])]
    elif isinstance(node, ast.If):
        yield ("branch", node.orelse) if node.orelse else ("dropped if", [ast.Pass()])
        if not isinstance(node.body[0], ast.Raise): yield "branch", node.body
    elif isinstance(node, ast.With): yield "dropped with", node.body
    elif isinstance(node, (ast.For, ast.While)): yield "early break", [changed(node, body=[*node.body, ast.Break()])]
    elif not isinstance(node, (ast.FunctionDef, ast.Pass, ast.Try, ast.Import, ast.ImportFrom)): yield "dropped statement", [ast.Pass()]
    if isinstance(node, ast.AugAssign): yield "dropped term", [ast.Assign([node.target], value, lineno=0)]
    if isinstance(node, (ast.Assign, ast.Return)) and isinstance(value, ast.Tuple):
        for elts in swaps(value.elts): yield "swapped values", [changed(node, value=changed(value, elts=elts))]


def places(node: ast.AST) -> Iterator[tuple[list | ast.AST, int | str, ast.AST]]:
    "Every node below this one with where it hangs; not in annotations, decorators, and the texts of errors and warnings."
    if isinstance(node, (ast.JoinedStr, ast.Raise)) or isinstance(node, ast.Expr) and last_name(node.value) == "warn": return
    for field, value in ast.iter_fields(node):
        if field in ("annotation", "returns", "decorator_list", "bases"): continue
        for place, key, child in [(value, i, v) for i, v in enumerate(value)] if isinstance(value, list) else [(node, field, value)]:
            if isinstance(child, ast.AST):
                yield place, key, child
                yield from places(child)


def title(top: ast.stmt) -> str:
    "The name of what a statement at the top of a cell defines; of a method that `@patch` adds, with its class."
    if not isinstance(top, (ast.FunctionDef, ast.ClassDef)): return ast.unparse(getattr(top, "targets", [getattr(top, "target", top)])[0])
    patched = [d for d in top.decorator_list if last_name(d) == "patch"]
    return f"{ast.unparse(top.args.args[0].annotation)}.{top.name}" if patched else top.name


def broken(source: str) -> Iterator[tuple[str, str, str]]:
    "Each break of what a cell defines: (name, kind, source of the broken cell)."
    tree = ast.parse(source)
    seen = {ast.unparse(tree)}
    for top_key, top in enumerate(tree.body):
        if not isinstance(top, (ast.FunctionDef, ast.ClassDef, ast.Assign, ast.AugAssign, ast.For)): continue
        for place, key, node in [(tree.body, top_key, top), *places(top)]:
            is_statement = isinstance(place, list) and isinstance(node, ast.stmt)
            options = [(kind, [new]) for kind, new in broken_expressions(node)] + (list(broken_statement(node)) if is_statement else [])
            for kind, new in options:
                if isinstance(place, list): place[key:key + 1] = new
                else: setattr(place, key, new[0])
                text = ast.unparse(ast.fix_missing_locations(tree))
                if isinstance(place, list): place[key:key + len(new)] = [node]
                else: setattr(place, key, node)
                if text not in seen:
                    seen.add(text)
                    yield title(top), kind, text


class Mutant(NamedTuple):
    "One break: which definition, how, the number of the code cell and its broken source, and the lines that differ."
    name: str
    kind: str
    cell: int
    source: str
    difference: str

    @property
    def key(self) -> tuple[str, str]:
        "What it is known by; quotes, brackets and spaces are Python's choice, and not the same in each version."
        return self.name, re.sub(r"[\s()'\"]", "", self.difference)


def mutants(path: Path) -> list[Mutant]:
    "All the mutants of a lesson."
    found = []
    for n, cell in enumerate(code(path)):
        for name, kind, source in broken(cell) if directive(cell, "export") is not None else ():
            lines = difflib.unified_diff(ast.unparse(ast.parse(cell)).splitlines(), source.splitlines(), n=0, lineterm="")
            found.append(Mutant(name, kind, n, source, "\n".join(line for line in lines if not line.startswith(("---", "+++", "@@")))))
    return found


def public_names(path: Path) -> list[str]:
    "The public functions and classes that a lesson exports."
    tops = [top for cell in code(path) if directive(cell, "export") is not None for top in ast.parse(cell).body if isinstance(top, (ast.FunctionDef, ast.ClassDef))]
    return [title(top) for top in tops if not title(top).startswith("_") and "." not in title(top)]


def equivalents(lesson: str) -> dict[tuple[str, str], str]:
    "The mutants of a lesson that no check could notice: their keys, and the reason."
    text = EQUIVALENT.read_text(encoding="utf-8")
    entries = re.findall(rf"^### {lesson} (\S+)\n(.*?)(?=^###? |\Z)", text, re.M | re.S)
    return {Mutant(name, "", 0, "", difference.strip("\n")).key: entry.split("```")[0].strip()
            for name, entry in entries for difference in re.findall(r"^```diff\n(.*?)^```$", entry, re.M | re.S)}


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
        self.shell = InteractiveShell.instance()
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
            alive = not cell.startswith("#| slow") and self.run(cell)
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
            if not self.run(cell): raise RuntimeError(f"code cell {n} fails unbroken:\n{cell}")
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


def complaints(path: Path) -> list[str]:
    "What can be said against a lesson's mutants before one of them runs."
    known, found = equivalents(path.stem), mutants(path)
    many = Counter(m.name.split(".")[0] for m in found)
    return ([f"{path.stem}: {EQUIVALENT.name} lists a mutant of {name} that does not exist: {difference}" for name, difference in known.keys() - {m.key for m in found}]
            + [f"{path.stem}: {EQUIVALENT.name} gives no reason for a mutant of {key[0]}" for key, reason in known.items() if not reason]
            + [f"{path.stem}: {name} has {many[name]} mutants; {LEAST} are wanted" for name in public_names(path) if many[name] < LEAST])


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
    parser.add_argument("notebooks", type=Path, nargs="*", default=LESSONS)
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
