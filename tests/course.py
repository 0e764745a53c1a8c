"What the tests know about the course: where things are, and what stands in the notebooks."
import ast
import re
import sys
from pathlib import Path

import nbformat

ROOT = Path(__file__).resolve().parent.parent
sys.path.append(str(ROOT/"scripts"))
from run_notebooks import ours

LESSONS = sorted((ROOT/"nbs").glob("[0-9][0-9]_*.ipynb"))
NOTEBOOKS = [*LESSONS, ROOT/"nbs"/"index.ipynb"]
MODULES = sorted(p for p in (ROOT/"fdl").rglob("*.py") if not p.stem.startswith("_") or p.parent.name != "fdl")


def dotted(path: Path) -> str:
    "The name by which a module is imported: `fdl.optim` for fdl/optim/__init__.py."
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def read(path: Path) -> nbformat.NotebookNode:
    "The notebook at `path`."
    return nbformat.read(path, as_version=4)


def directive(source: str, name: str) -> str | None:
    "What follows `#| name` in a cell: '' if nothing does, None if there is no such directive."
    found = re.search(rf"^#\|\s*{name}\b[ \t]*(\S*)", source, re.M)
    return found and found[1]


def code(path: Path) -> list[str]:
    "The sources of a notebook's code cells; what stands below the exercises is the learner's."
    return [cell.source for cell in ours(read(path).cells) if cell.cell_type == "code"]


def parse(source: str) -> ast.Module:
    "The syntax tree of a code cell, its magics left out."
    return ast.parse(re.sub(r"^[%!].*$", "pass", source, flags=re.M))


def code_lines(source: str, silent: tuple[type, ...] = ()) -> int:
    "The lines of code that say something: no blank ones, comments or docstrings, and no statements of the kinds in `silent`."
    tree, quiet = parse(source), set()
    for node in ast.walk(tree):
        text = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
        if text or isinstance(node, silent): quiet |= set(range(node.lineno, node.end_lineno + 1))
    return sum(bool(line.strip()) and not line.strip().startswith("#") and i not in quiet for i, line in enumerate(source.split("\n"), 1))


def default_module(path: Path) -> str | None:
    "The module whose file a lesson starts."
    return next(filter(None, (directive(source, "default_exp") for source in code(path))), None)


def exports(path: Path) -> dict[str, set[str]]:
    "For each module that a lesson adds to, as `fdl` names it, the public names that it defines there."
    names = {}
    for source in code(path):
        module = directive(source, "export")
        if module is None: continue
        module = (module or default_module(path)).removesuffix(".__init__")
        defined = {node.name for node in ast.parse(source).body if isinstance(node, (ast.FunctionDef, ast.ClassDef))}
        names.setdefault(module, set()).update(n for n in defined if not n.startswith("_"))
    return names


def fdl_imports(source: str) -> list[tuple[str, str]]:
    "The (module, name) pairs that a cell imports from `fdl`."
    nodes = list(ast.walk(parse(source)))
    found = [(node.module, alias.name) for node in nodes if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "fdl" for alias in node.names]
    return found + [(alias.name, "") for node in nodes if isinstance(node, ast.Import) for alias in node.names if alias.name.startswith("fdl.")]


def declared(path: Path) -> tuple[int, int]:
    "The CPU seconds and the megabytes of memory that a lesson declares."
    found = re.search(r"running takes at most (\d+) CPU seconds and (\d+) MB of memory", "\n".join(c.source for c in read(path).cells[:3]))
    assert found, f"{path.name}: no sentence 'running takes at most N CPU seconds and N MB of memory' at its start"
    return int(found[1]), int(found[2])


def titles(source: str) -> list[tuple[int, str]]:
    "The headings of a markdown cell as (level, text); what stands in fences is no heading."
    return [(len(marks), text) for marks, text in re.findall(r"^(#+) +(.*?) *$", re.sub(r"^```.*?^```", "", source, flags=re.M | re.S), re.M)]


def notebook(*sources: str) -> nbformat.NotebookNode:
    "A small notebook for a test: sources that start with `md:` are markdown cells."
    v4 = nbformat.v4
    return v4.new_notebook(cells=[v4.new_markdown_cell(s[3:]) if s.startswith("md:") else v4.new_code_cell(s) for s in sources])


def sections(cells) -> list[tuple[str, list[tuple[str, str]]]]:
    "A notebook cut at its `##` headings: (title, pieces), a piece being (\"markdown\" or \"code\", text). What comes first has the title ''."
    found = [("", [])]
    for cell in cells:
        parts = re.split(r"^(?=## )", cell.source, flags=re.M) if cell.cell_type == "markdown" else [cell.source]
        for text in parts:
            if cell.cell_type == "markdown" and text.startswith("## "):
                title, _, text = text.partition("\n")
                found.append((title[3:].strip(), []))
            if text.strip(): found[-1][1].append((cell.cell_type, text.strip()))
    return found
