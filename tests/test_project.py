"The project as a whole: the clone that was never installed, the thread from lesson to lesson, errors that are shown, the tests' own names."
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
KERNEL = "import sys; sys.path.append({!r}); from ipykernel.kernelapp import launch_new_instance; launch_new_instance()"


def version() -> str:
    "The version that settings.ini states."
    settings = ConfigParser()
    settings.read(ROOT/"settings.ini", encoding="utf-8")
    return settings["DEFAULT"]["version"]


# A clone that was never installed. Python's -S leaves the installed packages out.

def test_the_package_imports_from_a_clone(tmp_path):
    program = "import fdl; print(fdl.__version__)"
    done = subprocess.run([sys.executable, "-S", "-c", program], cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True)
    assert done.stdout.strip() == version(), done.stderr


def test_a_lesson_imports_the_package_beside_it(tmp_path):
    "In a kernel whose environment has everything but `fdl`; and the version is that of the clone."
    for path in SITE.iterdir():
        if "fdl" not in path.name: (tmp_path/path.name).symlink_to(path)
    first = next(i for i, source in enumerate(code(LESSONS[2])) if fdl_imports(source))
    nb = notebook(*code(LESSONS[2])[:first + 1], "import fdl\nprint(fdl.__file__, fdl.__version__)", "from importlib.metadata import version\nversion('fdl')")
    kernels = KernelManager()
    kernels._kernel_spec = KernelSpec(argv=[sys.executable, "-S", "-c", KERNEL.format(str(tmp_path)), "-f", "{connection_file}"], language="python")
    env = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    NotebookClient(nb, km=kernels, timeout=120, allow_errors=True, resources={"metadata": {"path": str(ROOT/"nbs")}}).execute(env=env)
    errors = [output.ename for cell in nb.cells for output in cell.outputs if output.output_type == "error"]
    assert nb.cells[-2].outputs[0].text.split() == [str(ROOT/"fdl"/"__init__.py"), version()]
    assert errors == ["PackageNotFoundError"]  # of the last cell: it really is not installed


# From lesson to lesson.

def next_line(path: Path) -> str:
    "The last line of a lesson's part 'Where to read more'."
    return next(cell.source for cell in read(path).cells if re.search("^## Where to read more", cell.source, re.M)).rstrip().split("\n")[-1]


@pytest.mark.parametrize("path, after", list(pairwise(LESSONS)), ids=lambda p: p.stem)
def test_a_lesson_names_the_next(path, after):
    line, title = next_line(path), read(after).cells[0].source.split("\n")[0].removeprefix("# ")
    found = re.match(r"Next: \[(\d\d [^\]]+)\]\(([^)]+)\)[ ,:]", line)
    assert found, f"{path.name} ends with {line!r}, and not with 'Next: [{title}]({after.name}), what it builds'"
    assert title.startswith(found[1]) and found[2] == after.name


def test_the_last_lesson_is_the_last():
    assert not next_line(LESSONS[-1]).startswith("Next")


# One progress bar.

def bars(source: str) -> set[str]:
    "The modules of tqdm that a program imports from."
    nodes = list(ast.walk(parse(source)))
    names = {node.module or "" for node in nodes if isinstance(node, ast.ImportFrom)} | {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    return {name for name in names if name.split(".")[0] == "tqdm"}


def test_one_import_of_tqdm():
    "`tqdm.auto` draws in a notebook as in a terminal; `tqdm` leaves an empty stripe behind in JupyterLab."
    sources = {path.name: path.read_text(encoding="utf-8") for folder in ("fdl", "scripts") for path in (ROOT/folder).glob("*.py")}
    sources |= {path.name: "\n".join(map(lambda s: ast.unparse(parse(s)), code(path))) for path in NOTEBOOKS}
    assert {name: found for name, source in sources.items() if (found := bars(source) - {"tqdm.auto"})} == {}


# Errors that are shown.

def catches(nodes: list[ast.stmt]) -> Iterator[ast.stmt]:
    "The statements of a cell, those of its definitions left out, in which an error is expected."
    for node in nodes:
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)): continue
        if isinstance(node, ast.Try) or isinstance(node, ast.With) and "expect_fail(" in ast.unparse(node.items[0]): yield node
        yield from catches(getattr(node, "body", []))


def hidden(cell) -> bool:
    "Whether a cell makes errors come, and neither shows nor asserts anything."
    tree = parse(cell.source)
    checks = any(isinstance(node, ast.Assert) or isinstance(node, ast.Call) and "assert" in ast.unparse(node.func) for node in ast.walk(tree))
    shows = any(isinstance(node, ast.Try) and "print(" in ast.unparse(node) for node in catches(tree.body))
    return any(catches(tree.body)) and not cell.outputs and (shows or not checks)


@pytest.mark.parametrize("path", LESSONS, ids=lambda p: p.stem)
def test_errors_are_shown(path):
    cells = [cell for cell in ours(read(path).cells) if cell.cell_type == "code" and directive(cell.source, "export") is None]
    wrong = [f"the cell {cell.id} makes an error come and shows nothing: {cell.source[:80]!r}" for cell in cells if hidden(cell)]
    assert not wrong, f"{path.name}: " + "\n".join(wrong)


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


# The tests.

def test_each_process_collects_the_same_tests():
    "pytest-xdist, for one, needs that: no test's name hangs on the time or on the order of a set."
    def collected(seed: str) -> list[str]:
        done = subprocess.run([sys.executable, "-m", "pytest", "--collect-only", "-q", "-o", "addopts=", "-p", "no:cacheprovider"], cwd=ROOT,
                              env=os.environ | {"PYTHONHASHSEED": seed}, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout[-3000:]
        return [line for line in done.stdout.split("\n") if "::" in line]

    first, second = collected("1"), collected("2")
    assert len(first) > 1000
    assert [pair for pair in zip(first, second) if pair[0] != pair[1]] == [] and len(first) == len(second)
