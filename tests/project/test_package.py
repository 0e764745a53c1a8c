"The package beside its notebooks: in step, clean, documented, its imports pointing backwards, its wheel whole."
import ast
import importlib
import inspect
import os
import re
import shutil
import subprocess
import sys
import types
import venv
import zipfile
from pathlib import Path

import nbformat
import pytest

from course import LESSONS, MODULES, NOTEBOOKS, ROOT, code, code_lines, default_module, directive, dotted, exports, fdl_imports, notebook, read
from run_notebooks import ours


@pytest.fixture(scope="module")
def rebuilt(tmp_path_factory) -> Path:
    "A copy of the project in which everything made from notebooks has been made again."
    copy = tmp_path_factory.mktemp("project")
    for name in ("nbs", "fdl"): shutil.copytree(ROOT/name, copy/name, ignore=shutil.ignore_patterns(".*", "__pycache__"))
    shutil.copy(ROOT/"pyproject.toml", copy)
    for module in MODULES: (copy/module.relative_to(ROOT)).unlink()
    for command in ("nbdev-export", "nbdev-clean"):
        done = subprocess.run([Path(sys.executable).parent/command], cwd=copy, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
    return copy


def test_export_in_sync(rebuilt):
    here, there = ({p.relative_to(root).as_posix(): p.read_text(encoding="utf-8") for p in (root/"fdl").rglob("*.py")} for root in (ROOT, rebuilt))
    assert here.keys() == there.keys()
    for name in here: assert here[name] == there[name], f"{name} is not what the notebooks say: run `make export`"


def of_the_course(path: Path) -> nbformat.NotebookNode:
    "The notebook at `path` without the learner's part."
    nb = read(path)
    nb.cells = ours(nb.cells)
    return nb


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_clean(rebuilt, path):
    cleaned = of_the_course(rebuilt/"nbs"/path.name)
    assert of_the_course(path) == cleaned, f"{path.name} is not clean: run `make export`"


def test_below_the_exercises_anything_goes(tmp_path):
    own = notebook("from fdl.nowhere import *", "1/")
    own.cells[0].execution_count = 1
    nb = notebook("x = 1", "md:## Exercises")
    nb.cells += own.cells
    nbformat.write(nb, tmp_path/"nb.ipynb")
    assert code(tmp_path/"nb.ipynb") == ["x = 1"]
    assert len(of_the_course(tmp_path/"nb.ipynb").cells) == 1


LATER = {("09_dataloaders", "fdl.workers")}  # the loader asks lesson 20 for its processes, when it is told to use some


def test_imports_point_backwards():
    """A lesson, exported cells and others, imports from `fdl` only names that an earlier lesson exports; `*` never.

    A lesson that adds to a module may use the private names of that module too.
    """
    known = set()
    for path in LESSONS:
        added = {f"fdl.{module}" for module in exports(path)} - {f"fdl.{default_module(path)}"}
        for source in code(path):
            if directive(source, "ahead") is not None: continue      # shows where the course leads
            for module, name in fdl_imports(source):
                if name.startswith("_") and module in added: continue
                assert name != "*", f"{path.name}: from {module} import *"
                assert (module, name) in known or (path.stem, module) in LATER, f"{path.name} imports {name or 'the module'} from {module}, which no earlier lesson exports"
        for module, names in exports(path).items():
            known |= {(f"fdl.{module}", name) for name in names} | {(f"fdl.{module}", ""), ("fdl", module)}


def test_one_start_for_each_module():
    starts = [module for path in LESSONS if (module := default_module(path))]
    assert len(starts) == len(set(starts)), "two lessons with the same default_exp: the second replaces the first"
    assert {p.relative_to(ROOT/"fdl").with_suffix("").as_posix().replace("/", ".") for p in MODULES} == set(starts)
    for path in LESSONS:
        for source in code(path): assert (directive(source, "export") or starts[0]) in starts, f"{path.name} exports to a module that no lesson starts"


PUBLIC = [(dotted(path), name) for path in MODULES for name in importlib.import_module(dotted(path)).__all__]


def callables(obj) -> list:
    "What a user may call in a public object: itself, or its public methods and `__init__`."
    if not inspect.isclass(obj): return [obj]
    return [f for n, f in vars(obj).items() if inspect.isfunction(f) and (n in ("__init__", "__call__") or not n.startswith("_"))]


@pytest.mark.parametrize("module, name", PUBLIC, ids=lambda x: x)
def test_documented(module, name):
    obj = getattr(importlib.import_module(module), name)
    if not callable(obj) or isinstance(obj, (types.GenericAlias, types.UnionType)): return  # a table, or the name of a type
    doc = inspect.getdoc(obj) if obj.__doc__ else None
    assert doc, f"{module}.{name} has no docstring"
    hints = ""
    for f in callables(obj):
        signature = inspect.signature(f)
        where = f"{module}.{f.__qualname__}"
        bare = [p for i, p in enumerate(signature.parameters.values()) if p.annotation is p.empty and not (i == 0 and p.name in ("self", "cls"))]
        assert not bare, f"{where}: no type hint for {', '.join(p.name for p in bare)}"
        if f.__name__ != "__init__":
            assert signature.return_annotation is not signature.empty, f"{where}: no type hint for what it returns"
            assert inspect.getdoc(getattr(obj, f.__name__, f)), f"{where} has no docstring"  # of its own, or of what it overrides
        hints += str(signature)
    if "Tensor" in hints: assert re.search(r"[Ss]hapes?\b", doc), f"{module}.{name} handles tensors, and its docstring names no shape"


LINES, PRIVATE, RAISES, WIDTH = 2224, 89, 106, 100  # on the way to 1,500, 50 and 60: these only fall


def test_the_package_stays_small():
    "What is long to read is long to learn: lines, private names and errors of the whole package."
    lines = private = raises = 0
    for path in MODULES:
        source = path.read_text(encoding="utf-8")
        tree = ast.parse(source)
        lines += code_lines(source)
        private += sum(node.name.startswith("_") and not node.name.startswith("__") for node in ast.walk(tree) if isinstance(node, (ast.FunctionDef, ast.ClassDef)))
        raises += sum(isinstance(node, ast.Raise) for node in ast.walk(tree))
        wide = [line for line in source.split("\n")[1:] if len(line) > WIDTH and not line.startswith("__all__")]
        assert not wide, f"{path.relative_to(ROOT)}: {len(wide[0])} characters in '{wide[0][:60]}...'"
    assert lines <= LINES and private <= PRIVATE and raises <= RAISES, f"{lines} lines, {private} private names, {raises} raises"


@pytest.mark.parametrize("path", MODULES, ids=dotted)
def test_no_module_uses_the_private_names_of_another(path):
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and (node.level or (node.module or "").startswith("fdl")):
            assert not [alias.name for alias in node.names if alias.name.startswith("_")], f"{path.name}:{node.lineno}"


@pytest.mark.parametrize("path", MODULES, ids=dotted)
def test_no_loose_ends(path):
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.Raise) and "NotImplemented" in ast.dump(node): assert "NotImplementedError" in ast.dump(node), f"{path.relative_to(ROOT)}:{node.lineno}"


def test_plotting_library_loads_only_when_plotting():
    modules = [dotted(p) for p in MODULES if p.stem != "plots"]
    shown = subprocess.run([sys.executable, "-c", f"import sys, {', '.join(modules)}; print('matplotlib' in sys.modules)"], capture_output=True, text=True, check=True)
    assert shown.stdout.strip() == "False"


def test_wheel_in_an_empty_environment(tmp_path):
    "Built, looked into, installed with only what it declares, and used."
    source = tmp_path/"source"
    source.mkdir()
    for name in ("settings.ini", "setup.py", "pyproject.toml", "README.md", "LICENSE"): shutil.copy(ROOT/name, source)
    shutil.copytree(ROOT/"fdl", source/"fdl", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(ROOT/"exercises", source/"exercises", ignore=shutil.ignore_patterns("__pycache__"))
    subprocess.run([sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", tmp_path/"dist", source], check=True, capture_output=True)
    wheel, = (tmp_path/"dist").glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        metadata = archive.read(next(n for n in names if n.endswith("METADATA"))).decode()
    assert {n for n in names if n.startswith("fdl/")} == {p.relative_to(ROOT).as_posix() for p in (ROOT/"fdl").rglob("*.py")}
    assert all(n.startswith(("fdl/", "fdl-")) for n in names), "the wheel holds fdl and nothing else, no exercises"
    assert not [n for n in names if "mnist.pkl" in n], "the wheel must not carry the data"
    assert "Requires-Python: >=3.10" in metadata and "License-Expression: Apache-2.0" in metadata

    venv.create(tmp_path/"empty", with_pip=True)
    python = tmp_path/"empty"/("Scripts/python.exe" if os.name == "nt" else "bin/python")
    constraints = os.environ.get("FDL_CONSTRAINTS", str(ROOT/"constraints.txt"))
    subprocess.run([python, "-m", "pip", "install", "-q", *(["-c", constraints] if constraints else []), wheel], check=True)
    program = "\n".join(f"from {m} import {n}" for m, n in PUBLIC) + "\nimport fdl; print(fdl.__file__, fdl.__version__)"
    shown = subprocess.run([python, "-I", "-c", program], cwd=tmp_path, capture_output=True, text=True)
    assert shown.returncode == 0 and str(tmp_path) in shown.stdout, shown.stderr
