"""Which names a lesson defines again, and whether a check compares the new version with the old.

The cells are read in order, statement by statement, and nothing is run. Every name carries the versions that its value
was made with: after `probs = softmax(x)` that is the version of `softmax` of that line. A function reads the names in its
body when it is called, so it carries their newest versions. A bare call may change what it is given, and what that was
built from: after `model.backward()` the parameters carry the version of the model's class.

A new version is proved by a comparison in the same section (up to the next `##`), one side of which involves the new
version, and the other side
- the old version itself: called under another name, or by a value that was made with it; or
- a value that the old version was compared with; or
- torch's function of the same name, if the old version was compared with that.
A comparison is an `==` and the like in an `assert`, or a call such as `torch.equal(a, b)` there, or `assert_close(a, b)`.
It may show that the versions differ: a version that is broken on purpose is compared too.

`class A(A)`, `@patch` and `A.method = f` add to a class. They define again only a method that the class has already.
"""
import ast
import re
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

from course import parse, titles

Version = tuple[str, int]


class Refactor(NamedTuple):
    "A name defined again: where, and whether a check compares the two versions."
    name: str
    version: int
    cell: int
    line: str
    proved: bool


def reads(node: ast.AST | None) -> set[str]:
    "The names that an expression or a function reads from outside itself, and `.name` for each attribute."
    if node is None: return set()
    nodes = list(ast.walk(node))
    own = {a.arg for n in nodes if isinstance(n, ast.arguments) for a in [*n.posonlyargs, *n.args, *n.kwonlyargs, n.vararg, n.kwarg] if a}
    if isinstance(node, (ast.FunctionDef, ast.ClassDef)): own |= {n.id for n in nodes if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)}
    return {n.id for n in nodes if isinstance(n, ast.Name)} - own | {f".{n.attr}" for n in nodes if isinstance(n, ast.Attribute)}


def ingredients(node: ast.AST | None) -> set[str]:
    "The names that a value is built from: those that are read, but not called."
    return reads(node) - {ast.unparse(n.func) for n in ast.walk(node) if isinstance(n, ast.Call)} if node else set()


def root(node: ast.AST) -> str | None:
    "The name that an expression of attributes and subscripts starts with."
    while isinstance(node, (ast.Attribute, ast.Subscript, ast.Starred)): node = node.value
    return node.id if isinstance(node, ast.Name) else None


def patched(node: ast.FunctionDef) -> str | None:
    "The class to which `@patch` adds this function."
    decorated = any(re.match(r"patch(_to)?\b", ast.unparse(d)) for d in node.decorator_list)
    first = node.args.args[0].annotation if node.args.args else None
    return ast.unparse(first) if decorated and first else None


def comparisons(node: ast.AST) -> Iterator[list[ast.AST]]:
    "The sides of every comparison that a statement asserts."
    for inner in ast.walk(node):
        if isinstance(inner, ast.Call) and re.match(r"assert_\w+$", ast.unparse(inner.func)): yield inner.args
        if not isinstance(inner, ast.Assert): continue
        for part in ast.walk(inner.test):
            if isinstance(part, ast.Compare): yield [part.left, *part.comparators]
            elif isinstance(part, ast.Call) and re.search(r"equal|close$", ast.unparse(part.func)): yield [getattr(part.func, "value", part.func), *part.args]


class Reader:
    "Reads the cells of a notebook; collects in `found` the names that are defined again."
    def __init__(self, cells):
        self.made = defaultdict(set)        # name -> the versions its value was made with
        self.late = defaultdict(set)        # function or class -> the names that its body reads when it runs
        self.parts = defaultdict(set)       # name -> the names its value was built from
        self.versions, self.classes = {}, set()
        self.agreed, self.judges = defaultdict(set), defaultdict(set)   # name -> versions compared with it; version -> torch's functions
        self.open, self.found = {}, []      # redefinitions that still wait for their comparison
        for i, cell in enumerate(cells):
            if cell.cell_type == "code":
                *body, last = parse(cell.source).body or [ast.Pass()]
                for node in body: self.statement(node, i)
                self.statement(last, i, display=True)
            elif any(level == 2 for level, _ in titles(cell.source)): self.close()
        self.close()

    def close(self, name=None):
        "Ends the wait for a comparison: of one name, or at the end of a section of all."
        for n in [name] if name else list(self.open):
            if n in self.open: self.found.append(self.open.pop(n))

    def define(self, name, node, i):
        "A new version of a function, class or method."
        self.versions[name] = version = self.versions.get(name, 0) + 1
        self.close(name)
        if version > 1: self.open[name] = Refactor(name, version, i, ast.unparse(node).split("\n")[0], False)

    def bind(self, target, value, made=None, parts=None):
        "`target = value`, in a statement, a loop or a comprehension."
        if isinstance(target, (ast.Tuple, ast.List)):
            values = value.elts if isinstance(value, (ast.Tuple, ast.List)) and len(value.elts) == len(target.elts) else [value]*len(target.elts)
            for t, v in zip(target.elts, values): self.bind(t, v, made, parts)
            return
        made, parts = self.origins(value) if made is None else made, ingredients(value) if parts is None else parts
        if isinstance(target, ast.Starred): target = target.value
        if isinstance(target, ast.Name):
            self.forget(target.id)
            self.made[target.id], self.parts[target.id] = set(made), set(parts)
            if isinstance(value, ast.Lambda): self.late[target.id] = reads(value)
        elif name := root(target): self.made[name] |= made; self.parts[name] |= parts

    def loop(self, target, iterated):
        "`for target in iterated`; of a `zip`, each target takes its own."
        call = isinstance(iterated, ast.Call) and isinstance(iterated.func, ast.Name) and iterated.func.id
        if call == "zip" and isinstance(target, ast.Tuple) and len(target.elts) == len(iterated.args):
            for t, a in zip(target.elts, iterated.args): self.bind(t, None, self.origins(a), ingredients(a))
        elif call == "enumerate" and isinstance(target, ast.Tuple): self.loop(target.elts[1], iterated.args[0])
        else: self.bind(target, None, self.origins(iterated), ingredients(iterated))

    def forget(self, name):
        "The name gets a new value."
        for table in (self.made, self.late, self.parts, self.agreed): table.pop(name, None)
        self.classes.discard(name)

    def origins(self, node) -> set[Version]:
        "The versions that the value of an expression is made with."
        names = reads(node)
        found = set().union(*(self.made.get(n, ()) for n in names), *(self.newest(n) for n in names))
        if node is not None and any(isinstance(n, (ast.BinOp, ast.UnaryOp, ast.Call)) for n in ast.walk(node)):
            found |= set().union(*(self.newest(c) for c in {name for name, _ in found} & self.classes))
        return found

    def newest(self, name) -> set[Version]:
        "The versions that a function, or the methods of a class, find when they run."
        found, seen, todo = set(), {name}, set(self.late.get(name, ()))
        while todo:
            n = todo.pop()
            found |= self.made.get(n, set())
            if n not in seen: todo |= self.late.get(n, set())
            seen.add(n)
        return found

    @contextmanager
    def comprehensions(self, node):
        "The targets of the comprehensions in `node` have values while it is read."
        generators = [g for g in ast.walk(node) if isinstance(g, ast.comprehension)]
        names = {n.id for g in generators for n in ast.walk(g.target) if isinstance(n, ast.Name)}
        before = [(table, name, table[name]) for table in (self.made, self.late, self.parts, self.agreed) for name in names if name in table]
        for g in generators: self.loop(g.target, g.iter)
        yield
        for name in names: self.forget(name)
        for table, name, value in before: table[name] = value

    def changes(self, call):
        "A bare call: its arguments, and what they were built from, now carry what the call was made with."
        made, todo, seen = self.origins(call), ingredients(call), set()
        while todo:
            name = todo.pop()
            if name in seen or name in self.versions or name not in self.parts: continue
            seen.add(name)
            self.made[name] |= made
            todo |= self.parts[name]

    def judge(self, node, i):
        "Notes what is compared with what."
        for sides in comparisons(node):
            made = [self.origins(side) for side in sides]
            for a, side in enumerate(sides):
                for b, other in enumerate(sides):
                    if a == b: continue
                    torchs = {ast.unparse(n.func) for n in ast.walk(other) if isinstance(n, ast.Call) and isinstance(n.func, ast.Attribute)}
                    for name, redefined in list(self.open.items()):
                        new, old = (name, redefined.version), (name, redefined.version - 1)
                        witness = any(old in self.agreed.get(n, ()) for n in reads(other))
                        oracle = {t for t in torchs if t.split(".")[-1] == name} & self.judges[old]
                        if new in made[a] and (old in made[b] or witness or oracle): self.open[name] = redefined._replace(proved=True)
                    for version in made[a]:
                        self.judges[version] |= torchs
                        if (name := root(other)) and name not in reads(side) and name not in self.versions: self.agreed[name].add(version)

    def statement(self, node, i, display=False):
        "One statement of cell `i`; `display` if it is the cell's last, whose value is shown."
        if isinstance(node, ast.FunctionDef) and (owner := patched(node)): self.method(owner, node.name, node, i)
        elif isinstance(node, ast.FunctionDef): self.function(node.name, node, i)
        elif isinstance(node, ast.ClassDef): self.klass(node, i)
        elif hasattr(node, "body"): self.block(node, i)
        else:
            with self.comprehensions(node): self.simple(node, i, display)

    def block(self, node, i):
        "A loop, a `with`, an `if` or a `try`, read once from top to bottom."
        if isinstance(node, ast.For): self.loop(node.target, node.iter)
        if isinstance(node, ast.With):
            if "expect_fail" in ast.unparse(node.items[0]): return
            for item in node.items:
                if item.optional_vars: self.bind(item.optional_vars, item.context_expr)
        for part in [node, *getattr(node, "handlers", ())]:
            for inner in [*part.body, *getattr(part, "orelse", ()), *getattr(part, "finalbody", ())]: self.statement(inner, i)

    def simple(self, node, i, display):
        "A statement without a body."
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            for alias in node.names: self.load((alias.asname or alias.name).split(".")[0])
        elif isinstance(node, (ast.Assign, ast.AnnAssign)):
            for target in getattr(node, "targets", None) or [node.target]: self.assign(target, node.value, i)
        elif isinstance(node, ast.AugAssign) and (name := root(node.target)): self.made[name] |= self.origins(node.value)
        elif isinstance(node, ast.Expr) and not display:
            for call in getattr(node.value, "elts", [node.value]):
                if isinstance(call, ast.Call) and not re.match(r"assert_|print$", ast.unparse(call.func)): self.changes(call)
        self.judge(node, i)
        for inner in ast.walk(node):
            if isinstance(inner, ast.NamedExpr): self.bind(inner.target, inner.value)

    def load(self, name):
        "An import: the first version, or the one that is there."
        self.forget(name)
        self.made[name] = {(name, self.versions.setdefault(name, 1))}

    def assign(self, target, value, i):
        "`target = value`; a lambda makes a version, and `Class.method = f` a method."
        if isinstance(target, ast.Attribute) and root(target) in self.classes: self.method(root(target), target.attr, value, i)
        elif isinstance(target, ast.Name) and isinstance(value, ast.Lambda): self.function(target.id, value, i)
        else: self.bind(target, value)

    def function(self, name, node, i):
        "A `def`, or a name for a lambda."
        self.define(name, node, i)
        self.forget(name)
        self.made[name], self.late[name] = {(name, self.versions[name])}, reads(node) - {name}

    def method(self, owner, name, node, i):
        "A method added to a class: a new version of it, if the class has it already."
        full, called = f"{owner}.{name}", f".{name}"
        self.define(full, node, i)
        self.made[called] = {v for v in self.made[called] if v[0] != full} | {(full, self.versions[full])}
        self.late[owner] |= reads(node) - {owner}

    def klass(self, node, i):
        "A `class`; one that inherits from its own name adds to it."
        bases = set().union(*map(reads, node.bases))
        made = {v for base in bases for v in self.made.get(base, ())}
        if node.name not in bases:
            for name in [n for n in self.versions if n.startswith(f"{node.name}.")]: self.close(name); del self.versions[name]
            self.define(node.name, node, i)
            self.forget(node.name)
        self.made[node.name] |= made | {(node.name, self.versions[node.name])}
        self.late[node.name] |= reads(node) - {node.name}
        self.classes.add(node.name)
        for inner in node.body:
            if isinstance(inner, ast.FunctionDef) and not re.search(r"\.(setter|deleter)$", " ".join(map(ast.unparse, inner.decorator_list))): self.method(node.name, inner.name, inner, i)


def refactors(cells) -> list[Refactor]:
    "Every name that the notebook's cells define again."
    return Reader(cells).found
