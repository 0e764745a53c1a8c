"The package beside its notebooks: in step, clean, documented, its imports pointing backwards, its wheel whole."
import ast
import importlib
import inspect
import os
import shutil
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import nbformat
import pytest

from course import LESSONS, MODULES, NOTEBOOKS, ROOT, code, default_module, directive, exports, fdl_imports, notebook, read
from run_notebooks import ours


@pytest.fixture(scope="module")
def rebuilt(tmp_path_factory) -> Path:
    "A copy of the project in which everything made from notebooks has been made again."
    copy = tmp_path_factory.mktemp("project")
    for name in ("nbs", "fdl"): shutil.copytree(ROOT/name, copy/name, ignore=shutil.ignore_patterns(".*", "__pycache__"))
    shutil.copy(ROOT/"pyproject.toml", copy)
    for module in MODULES: (copy/"fdl"/module.name).unlink()
    for command in ("nbdev-export", "nbdev-clean"):
        done = subprocess.run([Path(sys.executable).parent/command], cwd=copy, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
    return copy


def test_export_in_sync(rebuilt):
    assert {p.name for p in (rebuilt/"fdl").glob("*.py")} == {p.name for p in (ROOT/"fdl").glob("*.py")}
    for path in sorted((ROOT/"fdl").glob("*.py")):
        assert path.read_text(encoding="utf-8") == (rebuilt/"fdl"/path.name).read_text(encoding="utf-8"), f"fdl/{path.name} is not what the notebooks say: run `make export`"


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


def test_imports_point_backwards():
    "A lesson, exported cells and others, imports from `fdl` only names that an earlier lesson exports; `*` never."
    known = {("fdl.workers", "iterate")}  # the one exception: a loader that is asked for workers imports them then
    for path in LESSONS:
        for source in code(path):
            for module, name in fdl_imports(source):
                assert name != "*", f"{path.name}: from {module} import *"
                assert (module, name) in known, f"{path.name} imports {name or 'the module'} from {module}, which no earlier lesson exports"
        for module, names in exports(path).items():
            known |= {(f"fdl.{module}", name) for name in names} | {(f"fdl.{module}", ""), ("fdl", module)}


def test_one_start_for_each_module():
    starts = [module for path in LESSONS if (module := default_module(path))]
    assert len(starts) == len(set(starts)), "two lessons with the same default_exp: the second replaces the first"
    assert {p.stem for p in MODULES} == set(starts)
    for path in LESSONS:
        for source in code(path): assert (directive(source, "export") or starts[0]) in starts, f"{path.name} exports to a module that no lesson starts"


PUBLIC = [(module.stem, name) for module in MODULES for name in getattr(importlib.import_module(f"fdl.{module.stem}"), "__all__")]


def callables(obj) -> list:
    "What a user may call in a public object: itself, or its public methods and `__init__`."
    if not inspect.isclass(obj): return [obj]
    return [f for n, f in vars(obj).items() if inspect.isfunction(f) and (n in ("__init__", "__call__") or not n.startswith("_"))]


@pytest.mark.parametrize("module, name", PUBLIC, ids=lambda x: x)
def test_documented(module, name):
    obj = getattr(importlib.import_module(f"fdl.{module}"), name)
    doc = inspect.getdoc(obj) if obj.__doc__ else None
    assert doc, f"fdl.{module}.{name} has no docstring"
    hints = ""
    for f in callables(obj):
        signature = inspect.signature(f)
        where = f"fdl.{module}.{f.__qualname__}"
        bare = [p for i, p in enumerate(signature.parameters.values()) if p.annotation is p.empty and not (i == 0 and p.name in ("self", "cls"))]
        assert not bare, f"{where}: no type hint for {', '.join(p.name for p in bare)}"
        if f.__name__ != "__init__":
            assert signature.return_annotation is not signature.empty, f"{where}: no type hint for what it returns"
            assert f.__doc__, f"{where} has no docstring"
        hints += str(signature)
    if "Tensor" in hints: assert "Shapes:" in doc, f"fdl.{module}.{name} handles tensors, and its docstring has no 'Shapes:'"


@pytest.mark.parametrize("path", MODULES, ids=lambda p: p.stem)
def test_no_loose_ends(path):
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.Raise) and "NotImplemented" in ast.dump(node): assert "NotImplementedError" in ast.dump(node), f"fdl/{path.name}:{node.lineno}"


def test_plotting_library_loads_only_when_plotting():
    modules = [f"fdl.{p.stem}" for p in MODULES if p.stem != "plots"]
    shown = subprocess.run([sys.executable, "-c", f"import sys, {', '.join(modules)}; print('matplotlib' in sys.modules)"], capture_output=True, text=True, check=True)
    assert shown.stdout.strip() == "False"


def test_wheel_in_an_empty_environment(tmp_path):
    "Built, looked into, installed with only what it declares, and used."
    source = tmp_path/"source"
    source.mkdir()
    for name in ("settings.ini", "setup.py", "pyproject.toml", "README.md", "LICENSE"): shutil.copy(ROOT/name, source)
    shutil.copytree(ROOT/"fdl", source/"fdl", ignore=shutil.ignore_patterns("__pycache__"))
    subprocess.run([sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", tmp_path/"dist", source], check=True, capture_output=True)
    wheel, = (tmp_path/"dist").glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        metadata = archive.read(next(n for n in names if n.endswith("METADATA"))).decode()
    assert {n for n in names if n.startswith("fdl/")} == {f"fdl/{p.name}" for p in (ROOT/"fdl").glob("*.py")}
    assert not [n for n in names if "mnist.pkl" in n], "the wheel must not carry the data"
    assert "Requires-Python: >=3.10" in metadata and "License-Expression: Apache-2.0" in metadata

    venv.create(tmp_path/"empty", with_pip=True)
    python = tmp_path/"empty"/("Scripts/python.exe" if os.name == "nt" else "bin/python")
    constraints = os.environ.get("FDL_CONSTRAINTS", str(ROOT/"constraints.txt"))
    subprocess.run([python, "-m", "pip", "install", "-q", *(["-c", constraints] if constraints else []), wheel], check=True)
    program = "\n".join(f"from fdl.{m} import {n}" for m, n in PUBLIC) + "\nimport fdl; print(fdl.__file__, fdl.__version__)"
    shown = subprocess.run([python, "-I", "-c", program], cwd=tmp_path, capture_output=True, text=True)
    assert shown.returncode == 0 and str(tmp_path) in shown.stdout, shown.stderr
