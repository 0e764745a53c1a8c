"""Breaks each exported definition of a lesson on purpose, and counts how many of the breaks the lesson notices.

    python tests/mutants.py nbs/02_matmul.ipynb [--name linear]      one lesson (`make audit`: all of them)

A mutant runs in a fork of a process that has run the lesson up to the broken cell, and runs on from there to the first
failure. Cells marked `#| slow`, and those that need one of them, are left out. POSIX only, because it forks.
"""
import argparse
import ast
import contextlib
import copy
import difflib
import io
import json
import os
import re
import signal
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from course import code

OPERATORS = {ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult, ast.Pow: ast.Mult,
             ast.FloorDiv: ast.Mult, ast.Mod: ast.FloorDiv, ast.MatMult: ast.Mult}
COMPARISONS = {ast.Lt: (ast.LtE, ast.GtE), ast.LtE: (ast.Lt, ast.Gt), ast.Gt: (ast.GtE, ast.LtE), ast.GtE: (ast.Gt, ast.Lt),
               ast.Eq: (ast.NotEq,), ast.NotEq: (ast.Eq,), ast.Is: (ast.IsNot,), ast.IsNot: (ast.Is,), ast.In: (ast.NotIn,), ast.NotIn: (ast.In,)}
DROPPABLE = {"detach", "clone", "contiguous", "squeeze", "unsqueeze", "mean", "sum", "sqrt", "abs", "flatten"}


def changed(node: ast.AST, **fields) -> ast.AST:
    "A copy of `node` with some fields replaced."
    new = copy.deepcopy(node)
    for name, value in fields.items(): setattr(new, name, value)
    return new


def broken_expressions(node: ast.AST) -> Iterator[tuple[str, ast.AST]]:
    "What can go wrong in one expression: (kind, what stands there instead)."
    if isinstance(node, (ast.BinOp, ast.AugAssign)) and type(node.op) in OPERATORS:
        yield "operator", changed(node, op=OPERATORS[type(node.op)]())
        if isinstance(node, ast.BinOp) and isinstance(node.op, (ast.Add, ast.Sub)): yield "dropped term", node.left
    elif isinstance(node, ast.Compare):
        for other in COMPARISONS[type(node.ops[0])]: yield "comparison", changed(node, ops=[other(), *node.ops[1:]])
    elif isinstance(node, ast.BoolOp): yield "and, or", changed(node, op=ast.Or() if isinstance(node.op, ast.And) else ast.And())
    elif isinstance(node, ast.UnaryOp) and not isinstance(node.operand, ast.Constant): yield "sign", node.operand
    elif isinstance(node, ast.IfExp): yield from (("branch", node.body), ("branch", node.orelse))
    elif isinstance(node, ast.Constant) and isinstance(node.value, bool): yield "constant", ast.Constant(not node.value)
    elif isinstance(node, ast.Constant) and isinstance(node.value, int): yield "constant", ast.Constant(node.value + 1)
    elif isinstance(node, ast.Constant) and isinstance(node.value, float): yield "constant", ast.Constant(node.value*2 or 1.)
    elif isinstance(node, ast.Call):
        if len(node.args) > 1 and not any(isinstance(a, ast.Starred) for a in node.args[:2]):
            yield "swapped arguments", changed(node, args=[node.args[1], node.args[0], *node.args[2:]])
        if isinstance(node.func, ast.Attribute) and node.func.attr in DROPPABLE: yield f"dropped .{node.func.attr}()", node.func.value
        for i, keyword in enumerate(node.keywords):
            if keyword.arg and not (isinstance(keyword.value, ast.Constant) and isinstance(keyword.value.value, str)):
                yield f"dropped {keyword.arg}=", changed(node, keywords=node.keywords[:i] + node.keywords[i + 1:])


def broken_statement(node: ast.AST) -> Iterator[tuple[str, list[ast.stmt]]]:
    "What can go wrong with one statement: (kind, the statements instead)."
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant): return  # a docstring
    if isinstance(node, (ast.Assign, ast.AugAssign, ast.Raise, ast.Expr)): yield "dropped statement", [ast.Pass()]
    elif isinstance(node, ast.If) and not node.orelse: yield "dropped if", [ast.Pass()]
    elif isinstance(node, ast.With): yield "dropped with", node.body
    elif isinstance(node, ast.Return) and node.value is not None: yield "early return", [ast.Return(ast.Constant(None))]


def places(node: ast.AST) -> Iterator[tuple[list | ast.AST, int | str, ast.AST]]:
    "Every node below this one with where it hangs; not in annotations, decorators, and the texts of errors."
    for field, value in ast.iter_fields(node):
        if field in ("annotation", "returns", "decorator_list", "bases") or isinstance(node, (ast.JoinedStr, ast.Raise)): continue
        for place, key, child in [(value, i, v) for i, v in enumerate(value)] if isinstance(value, list) else [(node, field, value)]:
            if isinstance(child, ast.AST):
                yield place, key, child
                yield from places(child)


def mutants(source: str) -> Iterator[tuple[str, str, str]]:
    "Each break of the definitions in a cell: (name, kind, source of the broken cell)."
    tree = ast.parse(source)
    seen = {ast.unparse(tree)}
    for top in tree.body:
        if not isinstance(top, (ast.FunctionDef, ast.ClassDef)): continue
        for place, key, node in list(places(top)):
            is_statement = isinstance(place, list) and isinstance(node, ast.stmt) and not isinstance(node, (ast.FunctionDef, ast.ClassDef))
            options = [(kind, [new]) for kind, new in broken_expressions(node)] + (list(broken_statement(node)) if is_statement else [])
            for kind, new in options:
                if isinstance(place, list): place[key:key + 1] = new
                else: setattr(place, key, new[0])
                text = ast.unparse(ast.fix_missing_locations(tree))
                if isinstance(place, list): place[key:key + len(new)] = [node]
                else: setattr(place, key, node)
                if text not in seen:
                    seen.add(text)
                    yield top.name, kind, text


class Lesson:
    "A lesson's cells, run in this process and in forks of it."
    def __init__(self, path: Path):
        import matplotlib
        import torch
        from IPython.core.interactiveshell import InteractiveShell
        matplotlib.use("Agg")
        torch.set_num_threads(1)  # a fork does not inherit threads
        os.environ["TQDM_DISABLE"] = "1"
        self.cells = code(path)
        os.chdir(path.parent)
        self.shell = InteractiveShell.instance()
        self.shell.showtraceback = lambda *args, **kwargs: None
        slow = {i for i, cell in enumerate(self.cells) if cell.startswith("#| slow")}
        self.skipped = slow | set(json.loads(self.in_fork(lambda: json.dumps([i for i in range(len(self.cells)) if i not in slow and not self.run(self.cells[i])]))))

    def run(self, source: str) -> bool:
        "Whether a cell runs without an error; what it prints and draws is thrown away."
        import matplotlib.pyplot as plt
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            result = self.shell.run_cell(source)
        plt.close("all")
        return result.success

    def in_fork(self, function) -> str:
        "What `function` returns in a copy of this process."
        read, write = os.pipe()
        if os.fork() == 0:
            os.write(write, function().encode())
            os._exit(0)
        os.close(write)
        os.wait()
        with os.fdopen(read) as pipe: return pipe.read()

    def start(self, n: int, source: str, seconds: int) -> int:
        "Starts a copy of this process that runs the lesson on from cell `n`, broken to `source`; it exits with 0 if nothing fails."
        if pid := os.fork(): return pid
        signal.alarm(seconds)
        alive = all(self.run(source if i == n else self.cells[i]) for i in range(n, len(self.cells)) if i not in self.skipped)
        os._exit(not alive)


def audit(path: Path, only: str | None, jobs: int, seconds: int) -> tuple[Counter, list[tuple[str, str, str]]]:
    "How many mutants of each name were killed and survived, and those that survived: (name, kind, difference)."
    lesson, counts, survivors, running = Lesson(path.resolve()), Counter(), [], {}

    def reap():
        pid, status = os.wait()
        name, kind, original, text = running.pop(pid)
        counts[name, status != 0] += 1
        if status == 0:
            lines = difflib.unified_diff(ast.unparse(ast.parse(original)).splitlines(), text.splitlines(), n=0, lineterm="")
            survivors.append((name, kind, "\n".join(f"    {line}" for line in lines if not line.startswith(("---", "+++", "@@")))))

    for n, cell in enumerate(lesson.cells):
        if n in lesson.skipped: continue
        for name, kind, text in mutants(cell) if re.search(r"^#\|\s*export", cell, re.M) else ():
            if only not in (None, name): continue
            while len(running) >= jobs: reap()
            running[lesson.start(n, text, seconds)] = name, kind, cell, text
        while running: reap()
        if not lesson.run(cell): sys.exit(f"{path.name}: code cell {n} fails unbroken:\n{cell}")
    return counts, survivors


def main() -> None:
    "Prints the count for each name, each mutant that survived, and the lesson's share of killed ones."
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("notebook", type=Path)
    parser.add_argument("--name", help="only this definition")
    parser.add_argument("--jobs", type=int, default=os.cpu_count())
    parser.add_argument("--seconds", type=int, default=60, help="a mutant that runs longer counts as killed")
    args = parser.parse_args()
    counts, survivors = audit(args.notebook, args.name, args.jobs, args.seconds)
    for name in dict.fromkeys(name for name, _ in counts): print(f"{name:24} {counts[name, True]:4} killed {counts[name, False]:4} survived")
    for name, kind, difference in survivors: print(f"  {name}: {kind}\n{difference}")
    killed = sum(n for (_, dead), n in counts.items() if dead)
    print(f"{args.notebook.stem}: {killed} of {counts.total()} killed ({killed/max(1, counts.total()):.1%})")


if __name__ == "__main__": main()
