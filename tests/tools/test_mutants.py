"The tool that breaks lessons on purpose, on small sources and a planted lesson; and how well the lessons do on a sample."
import ast
import importlib
import re
import subprocess
import sys
from types import GenericAlias, UnionType

import nbformat
import pytest

from course import LESSONS, MODULES, ROOT, code, directive, dotted
from mutants import GOAL, broken, complaints, equivalents, public_names

AUDIT = ROOT/"tests"/"tools"/"audit.py"
forks = pytest.mark.skipif(sys.platform != "linux", reason="the audit forks a process with torch in it, which was tried on Linux only")


def breaks(source: str) -> dict[str, set[str]]:
    "For each kind the broken sources of `source`, which Python writes on as few lines as it likes."
    found = {}
    for _, kind, text, _ in broken(source): found.setdefault(kind, set()).add(text)
    return found


@pytest.mark.parametrize("body, kind, expected", [
    ("return -x", "sign", {"return x"}),
    ("return not x", "sign", {"return x"}),
    ("return x < 2", "comparison", {"return x <= 2", "return x >= 2"}),
    ("return x is None", "comparison", {"return x is not None"}),
    ("return x.sum(dim=-1)", "dimension", {"return x.sum(dim=-2)", "return x.sum(dim=-0)"}),
    ("return x.T", "dimension", {"return x"}),
    ("return x.amax(1)", "another function", {"return x.amin(1)"}),
    ("return x[3]", "off by one", {"return x[4]", "return x[2]"}),
    ("return x[:n]", "off by one", {"return x[:n + 1]"}),
    ("return range(n)", "off by one", {"return range(n - 1)"}),
    ("return 0.9", "constant", {"return 0.45"}),
    ("return x * y", "operator", {"return x / y"}),
    ("return x + y", "dropped term", {"return x", "return y"}),
    ("return x - y", "swapped arguments", {"return y - x"}),
    ("return f(x, y, z)", "swapped arguments", {"return f(y, x, z)", "return f(x, z, y)"}),
    ("return x, y", "swapped values", {"return (y, x)"}),
    ("return f(x, keepdim=True)", "dropped keepdim=", {"return f(x)"}),
    ("return x.detach() + 1", "dropped .detach()", {"return x + 1"}),
    ("with no_grad(): f(x)", "dropped with", {"f(x)"}),
    ("return a and b", "and, or", {"return a or b"}),
    ("return a and b", "dropped condition", {"return a", "return b"}),
    ("return [a for a in x if a]", "dropped condition", {"return [a for a in x]"}),
    ("return a if x else b", "branch", {"return a", "return b"}),
    ("return f(x)", "early return", {"return None"}),
    ("return f(x)", "dropped call", {"return x"}),
    ("return x.f()", "dropped call", {"return x"}),
    ("return torch.f(x)", "dropped call", {"return x"}),
    ("f(x)", "dropped statement", {"pass"}),
    ("x += 1", "dropped term", {"x = 1"}),
    ("if x: raise ValueError(x)", "dropped if", {"pass"}),
    ("if x: f(x)", "branch", {"f(x)"}),
    ("for a in x: f(a)", "early break", {"for a in x:\n        f(a)\n        break"}),
])
def test_operators(body, kind, expected):
    assert breaks(f"def g(x):\n    {body}")[kind] == {f"def g(x):\n    {e}" for e in expected}


@pytest.mark.parametrize("default, others", [("None", {"1"}), ("'mean'", {"'sum'"}), ("'linear'", {"'another'"}), ("True", {"False"}), ("-1", {"-2", "-0"}), ("(0.9, 2)", None)])
def test_wrong_defaults(default, others):
    for head, tail in (("", ""), ("*, ", "")):
        found = breaks(f"def g({head}x={default}{tail}): f(x)")
        if others is None: assert len(set.union(*(found[kind] for kind in ("constant", "off by one")))) == 3
        else: assert found["wrong default"] == {f"def g({head}x={other}):\n    f(x)" for other in others}


def test_decorators_and_methods():
    found = breaks("class A(B):\n    @torch.no_grad()\n    @patch\n    def f(self): return x\n    def g(self): return y")
    assert found["dropped decorator"] == {"class A(B):\n\n    @patch\n    def f(self):\n        return x\n\n    def g(self):\n        return y"}
    assert len(found["dropped method"]) == 2 and not any("def f" in text and "def g" in text for text in found["dropped method"])


def test_what_is_left_alone():
    source = 'def f(x: int = y) -> int:\n    "Has 3 words."\n    if x > y: raise ValueError(f"{x + 1} is {-x}, not " + "2" * 3)\n    warnings.warn("a" + "b", stacklevel=3)\n    return f"{x + 1}"'
    found = list(broken(source))
    assert {kind for _, kind, *_ in found} == {"comparison", "dropped if", "dropped statement", "early return"}
    assert "swapped arguments" not in breaks("def f(x, y): return max(x, y)")
    assert all("Has 3 words." in text for *_, text, _ in found)
    whole = [text for *_, text, _ in found if "raise" in text]
    assert whole and all("raise ValueError(f'{x + 1} is {-x}, not ' + '2' * 3)" in text for text in whole if "warn" in text)


def test_each_break_is_another_and_compiles():
    for cell in code(LESSONS[0]) + code(LESSONS[2]):
        if directive(cell, "export") is None: continue
        texts = [text for *_, text, _ in broken(cell)]
        assert len({*texts, ast.unparse(ast.parse(cell))}) == len(texts) + 1
        for text in texts: compile(text, "mutant", "exec")


def test_names():
    found = {name for name, *_ in broken("@patch\ndef f(self: Tensor): return -self\nTensor.T = -1\ntable = {1: 2}\ndef g(x): return -x\nfor a in b: f(a)\n-x")}
    assert found == {"Tensor.f", "Tensor.T", "g", "a"}


PLANTED = ["#| default_exp planted", "#| export\ndef double(x: int = 1) -> int: return x + x\ndef next_one(x: int) -> int: return x + 1",
           "assert double(3) == 6\nassert double() == 2", "assert next_one(1) or True", "#| slow\ny = 1/0", "y", "open('left_behind', 'w').close()"]


@pytest.fixture
def planted(tmp_path):
    "A lesson in which `double` is checked, and `next_one` is not."
    path = tmp_path/"77_planted.ipynb"
    nbformat.write(nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in PLANTED]), path)
    return path


def audit(*args) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, AUDIT, *map(str, args)], capture_output=True, text=True, timeout=600)


@forks
def test_a_planted_lesson(planted):
    before = sorted(ROOT.rglob("*")), sorted(planted.parent.iterdir())
    done = audit(planted, "--jobs", 2)
    assert re.search(r"^double +5 by the lesson +0 by tests alone +0 equivalent +0 survived  100.0%$", done.stdout, re.M), done.stdout + done.stderr
    survivors = re.findall(r"^### 77_planted next_one\n(.*)\n```diff\n-.*return x \+ 1\n\+    return (.*)\n```$", done.stdout, re.M)
    assert dict.fromkeys(survivors) == dict.fromkeys([("operator", "x - 1"), ("dropped term", "x"), ("dropped term", "1"), ("off by one", "x + 2"), ("off by one", "x + 0"), ("early return", "None")])
    assert done.returncode == 1 and "77_planted: 45.5% killed; 95% are wanted" in done.stdout
    assert "77_planted: the lesson itself notices no break of next_one" in done.stdout and "no break of double" not in done.stdout
    assert (sorted(ROOT.rglob("*")), sorted(planted.parent.iterdir())) == before, "the audit wrote into the project"


def test_equivalents_are_read(tmp_path, monkeypatch):
    path = tmp_path/"list.md"
    path.write_text("# Title\n\n### 00_a f\nOne reason,\nof two lines.\n```diff\n-  x == ('a')\n+  x == 'a'\n```\n```diff\n-y\n+z\n```\n\n### 01_b f\n```diff\n-y\n```\n")
    monkeypatch.setattr("mutants.EQUIVALENT", path)
    assert equivalents("00_a") == {("f", "-x==a+x==a"): "One reason,\nof two lines.", ("f", "-y+z"): "One reason,\nof two lines."}
    assert equivalents("01_b") == {("f", "-y"): ""} and equivalents("02_c") == {}


def test_complaints(planted, tmp_path, monkeypatch):
    monkeypatch.setattr("mutants.EQUIVALENT", tmp_path/"list.md")
    (tmp_path/"list.md").write_text("### 77_planted double\nBecause.\n```diff\n-    return x + x\n+    return x * x\n```\n### 77_planted next_one\n\n```diff\n-    return x + 1\n+    return x\n```\n")
    monkeypatch.setattr("mutants.LEAST", 6)
    stale, unreasoned, few = complaints(planted)
    assert "a mutant of double that does not exist" in stale and "no reason for a mutant of next_one" in unreasoned and "double has 5 mutants; 6 are wanted" in few


def test_public_names():
    exported = [(name, getattr(module, name)) for path in MODULES for module in [importlib.import_module(dotted(path))] for name in module.__all__]
    found = [name for path in LESSONS for name in public_names(path)]
    assert sorted(found) == sorted(name for name, thing in exported if callable(thing) and not isinstance(thing, (GenericAlias, UnionType)))


@pytest.mark.parametrize("path", LESSONS, ids=lambda p: p.stem)
def test_mutants_of_a_lesson(path):
    assert complaints(path) == []


@pytest.mark.weekly
@forks
def test_a_sample_of_each_lesson_is_killed():
    "The same few mutants of each lesson each time; `make audit` runs all."
    lessons = [path for path in LESSONS if public_names(path)]
    halves = [subprocess.Popen([sys.executable, AUDIT, "--sample", "12", "--jobs", "1", *map(str, lessons[i::2])], stdout=subprocess.PIPE, text=True) for i in range(2)]
    shown = "".join(half.communicate()[0] for half in halves)
    rows = dict(re.findall(r"^(\d\d_\w+) +(\d+ by the lesson .* survived).* s$", shown, re.M))
    noticed, proved, survived = (sum(int(re.search(rf"(\d+) {outcome}", row)[1]) for row in rows.values()) for outcome in ("by the lesson", "by tests alone", "survived"))
    killed = noticed + proved
    assert killed + survived == 12*len(lessons) and killed/(killed + survived) >= GOAL, shown
