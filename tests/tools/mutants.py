"""The mutants of a lesson: each exported definition, broken on purpose in one small way. audit.py runs them.

Mutants that no check could notice stand, with the reason, in equivalent_mutants.md.
"""
import ast
import copy
import difflib
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from course import ROOT, code, directive

GOAL = .95  # the share of its mutants that a lesson must notice
LEAST = 3  # mutants that an exported name must have
EQUIVALENT = ROOT/"tests"/"tools"/"equivalent_mutants.md"

OPERATORS = {ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult, ast.Pow: ast.Mult,
             ast.FloorDiv: ast.Mult, ast.Mod: ast.FloorDiv, ast.MatMult: ast.Mult}
COMPARISONS = {ast.Lt: (ast.LtE, ast.GtE), ast.LtE: (ast.Lt, ast.Gt), ast.Gt: (ast.GtE, ast.LtE), ast.GtE: (ast.Gt, ast.Lt),
               ast.Eq: (ast.NotEq,), ast.NotEq: (ast.Eq,), ast.Is: (ast.IsNot,), ast.IsNot: (ast.Is,), ast.In: (ast.NotIn,), ast.NotIn: (ast.In,)}
PAIRS = [("mean", "sum"), ("amax", "amin"), ("argmax", "argmin"), ("max", "min"), ("any", "all"), ("sqrt", "square"), ("floor", "ceil"),
         ("zeros", "ones"), ("zeros_like", "ones_like"), ("new_zeros", "new_ones"), ("uniform_", "normal_"), ("fan_in", "fan_out")]
OTHER_NAME = dict(PAIRS) | {b: a for a, b in PAIRS}
DROPPABLE = {"detach", "clone", "contiguous", "squeeze", "unsqueeze", "mean", "sum", "sqrt", "abs", "flatten", "transpose", "permute", "T", "mT"}
SYMMETRIC = {"max", "min", "maximum", "minimum", "swap_tensors"}
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
    if isinstance(node, ast.Constant) and node.value is None: return [ast.Constant(1)]
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
        name = last_name(node)
        for args in swaps(node.args) if name not in SYMMETRIC else (): yield "swapped arguments", changed(node, args=args)
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
    elif isinstance(node, (ast.For, ast.While)) and not isinstance(node.body[-1], (ast.Return, ast.Raise, ast.Break)): yield "early break", [changed(node, body=[*node.body, ast.Break()])]
    elif not isinstance(node, (ast.FunctionDef, ast.For, ast.While, ast.Try, ast.Import, ast.ImportFrom)): yield "dropped statement", [ast.Pass()]
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


def difference(old: str, new: str) -> str:
    "The lines that differ; if lines were only added, with their neighbours."
    for context in (0, 1):
        lines = [line for line in difflib.unified_diff(old.splitlines(), new.splitlines(), n=context, lineterm="") if not line.startswith(("---", "+++", "@@"))]
        if any(line.startswith("-") for line in lines): break
    return "\n".join(lines)


def broken(source: str) -> Iterator[tuple[str, str, str, str]]:
    "Each break of what a cell defines: (name, kind, source of the broken cell, lines that differ)."
    tops = ast.parse(source).body
    texts = [ast.unparse(top) for top in tops]
    for i, top in enumerate(tops):
        fact = not any(isinstance(node, (ast.Call, ast.BinOp, ast.Attribute)) for node in ast.walk(top))  # a table of constants defines nothing
        if not isinstance(top, (ast.FunctionDef, ast.ClassDef)) and (fact or not isinstance(top, (ast.Assign, ast.AugAssign, ast.For))): continue
        tree, seen = ast.Module([top], []), {texts[i]}
        for place, key, node in list(places(tree)):
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
                    yield title(top), kind, "\n".join([*texts[:i], text, *texts[i + 1:]]), difference(texts[i], text)


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
    return [Mutant(name, kind, n, source, lines) for n, cell in enumerate(code(path)) if directive(cell, "export") is not None
            for name, kind, source, lines in broken(cell)]


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


def complaints(path: Path) -> list[str]:
    "What can be said against a lesson's mutants before one of them runs."
    known, found = equivalents(path.stem), mutants(path)
    many = Counter(m.name.split(".")[0] for m in found)
    return ([f"{path.stem}: {EQUIVALENT.name} lists a mutant of {name} that does not exist: {difference}" for name, difference in known.keys() - {m.key for m in found}]
            + [f"{path.stem}: {EQUIVALENT.name} gives no reason for a mutant of {key[0]}" for key, reason in known.items() if not reason]
            + [f"{path.stem}: {name} has {many[name]} mutants; {LEAST} are wanted" for name in public_names(path) if many[name] < LEAST])
