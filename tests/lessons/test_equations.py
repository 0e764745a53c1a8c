"""Equations that run: every displayed formula has a label, and a check names the label.

A label is `\\tag{NN.k}`: the lesson, and a number that counts from 1. Only a step of a derivation goes without: a formula
that is followed, in its cell, by a labelled one. A check names a label in a comment, `# (NN.k)`, in a cell that asserts:
by `assert`, `assert_close`, a gradient checker (which raises), or a function of the lesson that does one of these.
"""
import ast
import io
import re
import tokenize

import pytest

from course import LESSONS, directive, notebook, parse, read
from run_notebooks import ours

LABEL = r"\((\d\d\.\d+)\)"


def formulas(source: str) -> list[tuple[str | None, str]]:
    "The displayed formulas of a markdown cell: (label, the formula without it)."
    shown = [re.sub(r"\s+", " ", tex).strip() for tex in re.findall(r"\$\$(.+?)\$\$", source, re.S)]
    return [(found and found[1], re.sub(r"\\tag\{.*?\}", "", tex).strip()) for tex in shown for found in [re.search(r"\\tag\{(.*?)\}", tex)]]


def labels(cells) -> list[str]:
    "The labels of a notebook, in order."
    return [label for cell in cells if cell.cell_type == "markdown" for label, _ in formulas(cell.source) if label]


def unlabelled(cells) -> list[str]:
    "The displayed formulas without a label, but for steps to a labelled one that follows in the same cell."
    lost = []
    for cell in cells:
        if cell.cell_type != "markdown": continue
        found = formulas(cell.source)
        last = max((i for i, (label, _) in enumerate(found) if label), default=-1)
        lost += [tex for label, tex in found[last + 1:]]
    return lost


def comments(source: str) -> str:
    "The comments of a code cell."
    tokens = tokenize.generate_tokens(io.StringIO(re.sub(r"^[%!].*$", "pass", source, flags=re.M)).readline)
    return "\n".join(token.string for token in tokens if token.type == tokenize.COMMENT)


def asserts(node: ast.AST, checkers: set[str]) -> bool:
    "Whether a statement, or the body of a function, asserts something."
    calls = {ast.unparse(n.func) for n in ast.walk(node) if isinstance(n, ast.Call)}
    return any(isinstance(n, ast.Assert) for n in ast.walk(node)) or any(c.startswith("assert_") or c.split(".")[-1] in checkers for c in calls)


def checked(cells) -> set[str]:
    "The labels that a check names."
    named, checkers = set(), {"check_gradients", "gradcheck"}
    for cell in cells:
        if cell.cell_type != "code" or directive(cell.source, "export") is not None: continue
        body = parse(cell.source).body
        for node in body:
            if isinstance(node, ast.FunctionDef) and asserts(node, checkers): checkers.add(node.name)
        if any(asserts(node, checkers) for node in body if not isinstance(node, (ast.FunctionDef, ast.ClassDef))):
            named |= set(re.findall(LABEL, comments(cell.source)))
    return named


def mentioned(cells) -> set[str]:
    "The labels that anything in the notebook mentions."
    return {label for cell in cells for label in re.findall(LABEL, cell.source)}


@pytest.mark.parametrize("path", LESSONS, ids=lambda p: p.stem)
def test_every_formula_has_a_label(path):
    cells, number = ours(read(path).cells), path.stem[:2]
    assert not unlabelled(cells), f"{path.name}: displayed formulas without \\tag{{{number}.k}}: " + ";  ".join(unlabelled(cells))
    assert labels(cells) == [f"{number}.{k}" for k in range(1, len(labels(cells)) + 1)], f"{path.name}: labels out of order"


@pytest.mark.parametrize("path", LESSONS, ids=lambda p: p.stem)
def test_every_formula_is_checked(path):
    cells = ours(read(path).cells)
    named = checked(cells)
    missing = [label for label in labels(cells) if label not in named]
    assert not missing, f"{path.name}: no check names, in a comment, " + ", ".join(f"({label})" for label in missing)


def test_every_label_mentioned_exists():
    known = set()
    for path in LESSONS:
        cells = ours(read(path).cells)
        known |= set(labels(cells))
        assert mentioned(cells) <= known, f"{path.name} mentions formulas that neither it nor an earlier lesson has: {sorted(mentioned(cells) - known)}"


def test_labels_in_a_planted_notebook():
    cells = notebook("md:$$a = b$$ so $$b = c \\tag{99.1}$$ and $c = d$", "md:$$d\n\\leftarrow e$$", "md:$$e = f \\tag{99.2}$$ $$f = g$$").cells
    assert labels(cells) == ["99.1", "99.2"]
    assert unlabelled(cells) == ["d \\leftarrow e", "f = g"]


@pytest.mark.parametrize("source, found", [
    ("assert a == b  # (99.1)", True),
    ("# (99.1), for each row\nfor r in rows: assert_close(r, 1)", True),
    ("error = check_gradients(f, x)  # (99.1)", True),
    ("def same(a): assert a == 1\ndef all_same(x): return [same(a) for a in x]\nall_same(y)  # (99.1)", True),
    ("c = a + b  # (99.1)", False),                                     # no check
    ("assert a == b, '(99.1)'", False),                                 # no comment
    ("def f(a):\n    assert a == 1  # (99.1)", False),                   # never called
    ("with expect_fail(ValueError): f(a)  # (99.1)", False),            # a refusal
    ("#| export\ndef f(a): assert a  # (99.1)\nf(1)", False),           # a check, not what it checks
])
def test_checks_in_a_planted_notebook(source, found):
    assert checked(notebook("md:$$a = b \\tag{99.1}$$", source).cells) == ({"99.1"} if found else set())
