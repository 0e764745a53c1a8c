"The project as a whole: a clone never installed, from lesson to lesson, errors that are shown."
import ast
import os
import re
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from configparser import ConfigParser
from itertools import pairwise
from pathlib import Path

import pytest
from jupyter_client.kernelspec import KernelSpec
from jupyter_client.manager import KernelManager
from nbclient import NotebookClient

from course import LESSONS, NOTEBOOKS, ROOT, code, directive, fdl_imports, notebook, parse, read
from run_notebooks import ours

SITE = Path(sysconfig.get_path("purelib"))
KERNEL = "import sys; sys.path.append({!r}); import ipykernel.kernelapp as app; app.launch_new_instance()"


def version() -> str:
    "The version that settings.ini states."
    settings = ConfigParser()
    settings.read(ROOT/"settings.ini", encoding="utf-8")
    return settings["DEFAULT"]["version"]


# A clone that was never installed. Python's -S leaves out everything that is.

def test_the_package_imports_from_a_clone(tmp_path):
    command = [sys.executable, "-S", "-c", "import fdl; print(fdl.__version__)"]
    env = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True)
    assert done.stdout.strip() == version(), done.stderr


def test_a_lesson_imports_the_package_beside_it(tmp_path):
    "In a kernel that works in `nbs`, and whose environment has everything but `fdl`."
    for path in SITE.iterdir():
        if "fdl" not in path.name: (tmp_path/path.name).symlink_to(path)
    cells = code(LESSONS[2])
    first = next(i for i, source in enumerate(cells) if fdl_imports(source))
    nb = notebook(*cells[:first + 1], "import fdl\nprint(fdl.__file__, fdl.__version__)",
                  "from importlib.metadata import version\nversion('fdl')")
    kernels = KernelManager()
    argv = [sys.executable, "-S", "-c", KERNEL.format(str(tmp_path)), "-f", "{connection_file}"]
    kernels._kernel_spec = KernelSpec(argv=argv, language="python")
    folder = {"metadata": {"path": str(ROOT/"nbs")}}
    env = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    NotebookClient(nb, km=kernels, timeout=120, allow_errors=True, resources=folder).execute(env=env)
    outputs = [output for cell in nb.cells for output in cell.outputs]
    errors = [output.ename for output in outputs if output.output_type == "error"]
    assert f"{ROOT/'fdl'/'__init__.py'} {version()}\n" in [output.get("text") for output in outputs]
    assert errors == ["PackageNotFoundError"]  # of the last cell: it really is not installed


# From lesson to lesson.

def last_line(path: Path) -> str:
    "The last line of a lesson's part 'Where to read more'."
    sources = [cell.source for cell in read(path).cells]
    last = next(source for source in sources if re.search("^## Where to read more", source, re.M))
    return last.rstrip().split("\n")[-1]


@pytest.mark.parametrize("path, after", list(pairwise(LESSONS)), ids=lambda p: p.stem)
def test_a_lesson_names_the_next(path, after):
    title = read(after).cells[0].source.split("\n")[0].removeprefix("# ")
    found = re.match(r"Next: \[(\d\d [^\]]+)\]\(([^)]+)\)[ ,:]", last_line(path))
    assert found, f"{path.name} must end with 'Next: [{title}]({after.name}), what it builds'"
    assert title.startswith(found[1]) and found[2] == after.name


def test_the_last_lesson_is_the_last(): assert not last_line(LESSONS[-1]).startswith("Next")


# One progress bar.

def modules(source: str) -> set[str]:
    "The modules that a program imports or imports from."
    nodes = list(ast.walk(parse(source)))
    plain = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    return plain | {node.module or "" for node in nodes if isinstance(node, ast.ImportFrom)}


def test_one_import_of_tqdm():
    "`tqdm.auto` draws in a notebook as in a terminal; `tqdm` leaves an empty stripe behind in JupyterLab."
    programs = [path for folder in ("fdl", "scripts") for path in (ROOT/folder).glob("*.py")]
    sources = [(path.name, path.read_text(encoding="utf-8")) for path in programs]
    sources += [(path.name, source) for path in NOTEBOOKS for source in code(path)]
    imports = {(name, module) for name, source in sources for module in modules(source)}
    bars = {(name, module) for name, module in imports if module.split(".")[0] == "tqdm"}
    assert {module for _, module in bars} == {"tqdm.auto"}, sorted(bars)


# Errors that are shown.

def catches(nodes: list[ast.stmt]) -> Iterator[ast.stmt]:
    "The statements of a cell in which an error is expected; those inside of definitions left out."
    for node in nodes:
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)): continue
        if isinstance(node, ast.Try): yield node
        if isinstance(node, ast.With) and "expect_fail(" in ast.unparse(node.items[0]): yield node
        yield from catches(getattr(node, "body", []))


def hidden(cell) -> bool:
    "Whether a cell makes errors come and shows nothing, though it prints them, or asserts nothing either."
    tree = parse(cell.source)
    caught = list(catches(tree.body))
    called = {ast.unparse(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)}
    asserts = "assert_close" in called or any(isinstance(node, ast.Assert) for node in ast.walk(tree))
    prints = any(isinstance(node, ast.Try) and "print(" in ast.unparse(node) for node in caught)
    return bool(caught) and not cell.outputs and (prints or not asserts)


@pytest.mark.parametrize("path", LESSONS, ids=lambda p: p.stem)
def test_errors_are_shown(path):
    cells = [cell for cell in ours(read(path).cells) if cell.cell_type == "code"]
    wrong = [cell for cell in cells if directive(cell.source, "export") is None and hidden(cell)]
    said = [f"{path.name}, cell {cell.id}, shows no error:\n{cell.source}" for cell in wrong]
    assert not wrong, "\n".join(said)


@pytest.mark.parametrize("source, bad", [
    ("with expect_fail(ValueError): f()", True),
    ("for x in y:\n    with expect_fail(ValueError, 'x'): f(x)", True),
    ("try: f()\nexcept ValueError as error: print(error)\nassert x", True),
    ("with expect_fail(ValueError): f()\nassert_close(x, y)", False),
    ("def f():\n    try: g()\n    except ValueError as error: print(error)", False),
    ("f()", False)])
def test_what_hides_an_error(source, bad):
    cell, = notebook(source).cells
    assert hidden(cell) is bad
    cell.outputs = [{"output_type": "stream", "name": "stdout", "text": "ValueError: not so"}]
    assert hidden(cell) is False


# The tests themselves.

def test_each_process_collects_the_same_tests():
    "pytest-xdist needs that: no test's name hangs on the time or on the order of a set."
    def collected(seed: str) -> list[str]:
        command = [sys.executable, "-m", "pytest", "--collect-only", "-qo", "addopts="]
        env = os.environ | {"PYTHONHASHSEED": seed}
        done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout[-3000:]
        return [line for line in done.stdout.split("\n") if "::" in line]

    first, second = collected("1"), collected("2")
    assert len(first) == len(second) > 1000
    assert [pair for pair in zip(first, second) if pair[0] != pair[1]] == []
