"""Builds the web book in _build/docs from the notebooks, their stored outputs and docs/: `make docs`.

    python scripts/book.py [--external]       --external: follow the links that lead out, instead

Nothing is executed and nothing is fetched. Sphinx reads what `write_sources` lays in _build/sources: the
lessons without their directives, a page for each module of `fdl` from its docstrings, the pages of docs/.
`FDL_REPOSITORY`, or GitHub's own variable, names the repository (owner/name) for the links that need one.
"""
import ast
import inspect
import os
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from importlib.resources import files
from pathlib import Path
from typing import NamedTuple
from urllib.parse import unquote, urlsplit

import nbformat

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
from exercises.engine import EXERCISES, source, stub_name  # noqa: E402
import exercises  # noqa: E402, F401  (reads all of them)

BUILD = ROOT/"_build"
LESSONS = sorted((ROOT/"nbs").glob("[0-9][0-9]_*.ipynb"))
REPOSITORY = os.environ.get("FDL_REPOSITORY") or os.environ.get("GITHUB_REPOSITORY", "")
ADDRESS = f"https://github.com/{REPOSITORY}"
# Where a file of the repository stands in the book.
PAGES = {"docs/glossary.md": "glossary.md", "docs/teachers.md": "teachers.md",
         "CONTRIBUTING.md": "contributing.md", "benchmarks/README.md": "benchmarks/index.md",
         "benchmarks/results/results.md": "benchmarks/results.md",
         **{f"nbs/{path.name}": f"lessons/{path.name}" for path in LESSONS}}
# What mirrors what: our module, torch's, and the page of torch's manual.
GENERATED = "generated/{}.html"
MIRRORS = {"fdl.functional": ("torch.nn.functional", GENERATED), "fdl.nn": ("torch.nn", GENERATED),
           "fdl.optim": ("torch.optim", GENERATED), "fdl.init": ("torch.nn.init", "nn.init.html#{}"),
           "fdl.optim.lr_scheduler": ("torch.optim.lr_scheduler", GENERATED),
           "fdl.data": ("torch.utils.data", "data.html#{}"), "fdl.autograd": ("torch", GENERATED)}
MANUAL = "https://docs.pytorch.org/docs/stable/"
COLAB = "https://colab.research.google.com/github/{}/blob/colab/{}"


class Name(NamedTuple):
    "A public name of `fdl`: where it is written, and what it is."
    module: str
    node: ast.stmt
    lesson: str
    cell: str

    @property
    def name(self) -> str: return self.node.name

    @property
    def full(self) -> str: return f"{self.module}.{self.name}"

    @property
    def target(self) -> str: return f"{self.lesson}-{self.cell}"

    @property
    def torch(self) -> str:
        "A link to torch's own, or nothing: in `torch.nn.functional`, say, or beside it in `torch`."
        import torch
        for place, page in filter(None, (MIRRORS.get(self.module), ("torch", GENERATED))):
            module = sys.modules.get(place) or getattr(torch, place.rsplit(".")[-1])
            full = f"{place}.{self.name}"
            if self.module in MIRRORS and callable(getattr(module, self.name, None)):
                return f"[`{full}`]({MANUAL}{page.format(full)})"
        return ""


def modules() -> dict[str, tuple[str, list[Name]]]:
    "Of each module of `fdl`: its docstring, and its public functions and classes in their order."
    found = {}
    for path in sorted((ROOT/"fdl").rglob("*.py")):
        source = path.read_text(encoding="utf-8")
        module = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        cells = re.split(r"^# %% .*nbs/(\w+)\.ipynb #(\S+)$", source, flags=re.M)
        qualify = Qualify(ast.parse(source), "fdl")
        names = [Name(module, qualify.visit(node), lesson, cell)
                 for lesson, cell, code in zip(cells[1::3], cells[2::3], cells[3::3])
                 for node in ast.parse(code).body
                 if isinstance(node, (ast.FunctionDef, ast.ClassDef)) and node.name[0] != "_"]
        if names: found[module] = (ast.get_docstring(ast.parse(source)) or "", names)
    return found


def title(path: Path) -> str:
    "The first line of a lesson."
    return nbformat.read(path, as_version=4).cells[0].source.split("\n")[0].removeprefix("# ")


def relink(text: str, folder: str, page: str) -> str:
    """The links of a text that stands in `folder` of the repository, as `page` of the book needs them.

    A file that is no page of the book is on GitHub; if the repository has no address, its name remains.
    """
    def new(link: re.Match) -> str:
        if link[1] is None: return link[0]  # code
        label, target, part = link[1], *re.fullmatch(r"([^#]*)(#.*)?", link[2]).groups()
        if not target or re.match(r"\w+:|<", target): return link[0]
        path = os.path.normpath(f"{folder}/{target}")
        if path in PAGES:
            return f"[{label}]({os.path.relpath(PAGES[path], os.path.dirname(page) or '.')}{part or ''})"
        if not (ROOT/path).exists(): sys.exit(f"{page}: a link to {target}, and there is no {path}")
        return f"[{label}]({ADDRESS}/blob/main/{path})" if REPOSITORY else label
    return re.sub(r"`[^`]*`|(?<!!)\[([^\]]*)\]\(([^)\s]+)\)", new, text)


# The lessons.

def alt(source: str) -> str | None:
    "What a cell says of its picture."
    found = re.search(r'^#\| fig-alt: "([^"]+)"', source, re.M)
    return found and re.sub(r"\n#\|\s*", " ", found[1])


def builds(names: list[Name]) -> str:
    "The line above an exported cell: what it adds to the package, and a target for links to it."
    refs = [f"{{py:obj}}`{name.full}`" + (f" (torch: {name.torch})" if name.torch else "")
            for name in names]
    return f"({names[0].target})=\n{{.builds}}\nInto the package: {', '.join(refs)}"


def words() -> dict[str, list[str]]:
    "The words of the glossary by the number of the lesson that brings them in."
    text = (ROOT/"docs"/"glossary.md").read_text(encoding="utf-8")
    found = {}
    for word, number in re.findall(r"^- \*\*(.+?)\*\*: .* \[(\d\d)\]\(\S+\)$", text, re.M):
        found.setdefault(number, []).append(word)
    return found


def symbols(number: str) -> str:
    "The symbols that the glossary says a lesson brings in."
    text = (ROOT/"docs"/"glossary.md").read_text(encoding="utf-8")
    return ", ".join(re.findall(rf"^\| (\$.+?\$) \|.*\[{number}\]\(\S+\) \|$", text, re.M))


# What a link may not be put into: code, formulas, links, headings, tables.
CLOSED = re.compile(r"(^```.*?^```|`+[^`]*`+|\$\$.*?\$\$|\$[^$]*\$|\[[^\]]*\]\([^)]*\)|^#.*?$|^\|.*?$)", re.M | re.S)


def link_words(cells: list, number: str) -> None:
    "Links the first use of each new word to the glossary: where the lesson prints it bold, or else at all."
    prose = [cell for cell in cells[1:] if cell.cell_type == "markdown"]
    for word in words().get(number, []):
        plain = rf"\b({re.escape(word)}s?)\b"
        for pattern, cell in [(p, cell) for p in (rf"\*\*{plain}\*\*", plain) for cell in prose]:
            parts = CLOSED.split(cell.source)
            first = next((i for i in range(0, len(parts), 2) if re.search(pattern, parts[i], re.I)), None)
            if first is None: continue
            parts[first] = re.sub(pattern, rf"{{term}}`\1 <{word}>`", parts[first], count=1, flags=re.I)
            cell.source = "".join(parts)
            break


def formulas() -> set[str]:
    "The numbers of all displayed formulas, as in `05.3`."
    return {tag for path in LESSONS for tag in re.findall(r"\\\\tag\{(\d\d\.\d+)\}", path.read_text(encoding="utf-8"))}


def link_formulas(cells: list, known: set[str]) -> None:
    "Gives each displayed formula a target, and makes a link of each place that names one: (05.3)."
    def target(block: re.Match) -> str:
        tag = re.search(r"\\tag\{([\d.]+)\}", block[0])
        return f"\n\n(formula-{tag[1]})=\n{block[0]}" if tag else block[0]
    for cell in cells:
        if cell.cell_type != "markdown": continue
        parts = CLOSED.split(cell.source)
        parts[::2] = [re.sub(r"\((\d\d\.\d+)\)", lambda m: f"[{m[0]}](#formula-{m[1]})" if m[1] in known else m[0], part)
                      for part in parts[::2]]
        cell.source = re.sub(r"^\$\$.*?\$\$", target, "".join(parts), flags=re.M | re.S)


def link_solutions(cells: list, number: str) -> None:
    "Below the heading of a lesson's exercises: where their solutions are."
    if not any(exercise.lesson == number for exercise in EXERCISES.values()): return
    for cell in cells:
        if cell.cell_type == "markdown":
            cell.source = re.sub(r"^## Exercises$", f"## Exercises\n\n[Hints and solutions, folded](../solutions.md#lesson-{number})",
                                 cell.source, count=1, flags=re.M)


def write_lesson(path: Path, names: list[Name], known: set[str], into: Path) -> None:
    "A lesson for Sphinx: without directives, with its links, its pictures' descriptions and its exports."
    nb = nbformat.read(path, as_version=4)
    number, page = path.stem[:2], f"lessons/{path.name}"
    link_words(nb.cells, number)
    link_formulas(nb.cells, known)
    cells = []
    for cell in nb.cells:
        if cell.cell_type == "markdown":
            cell.source = relink(cell.source, "nbs", page)
        else:
            here = [name for name in names if name.lesson == path.stem and name.cell == cell.id]
            if here:
                cells.append(nbformat.v4.new_markdown_cell(builds(here), id=f"built-{cell.id}"[:60]))
            if description := alt(cell.source): cell.metadata["mystnb"] = {"image": {"alt": description}}
            cell.source = re.sub(r"^#\|.*\n?", "", cell.source, flags=re.M).lstrip("\n")
            if not cell.source: continue
        cells.append(cell)
    take = [f"{{download}}`Download this notebook <../notebooks/{path.name}>`"]
    if REPOSITORY: take.append(f"[Open in Colab]({COLAB.format(REPOSITORY, path.name)})")
    new = symbols(number)
    more = f"\n\n{{.symbols}}\nNew symbols: {new}, in [the table](../glossary.md)." if new else ""
    cells[0].source += f"\n\n{{.take}}\n{' · '.join(take)}{more}"
    link_solutions(cells, number)
    nb.cells = cells
    write(into/page, nbformat.writes(nb))


# A machine of someone else: Colab opens a notebook alone, from a branch that has nothing but these.

FETCH = "\n".join([
    "# Colab has only this notebook: fetch the course and install what it needs. This takes a minute.",
    "!git clone --quiet --depth 1 {address} fdl", "%pip install --quiet ./fdl", "%cd fdl/nbs"])


def colab(path: Path, address: str) -> nbformat.NotebookNode:
    "A lesson whose first cell fetches the course from `address`."
    nb = nbformat.read(path, as_version=4)
    nb.cells.insert(1, nbformat.v4.new_code_cell(FETCH.format(address=address), id="fetch"))
    return nb


# The reference.

def markdown(docstring: str) -> str:
    "A docstring as Markdown: its parts as paragraphs, and no sign outside of code that Markdown takes up."
    text = re.sub(r"^(Shapes|Raises|Returns|Source|Sources)\b", r"\n\1", docstring, flags=re.M)
    parts = re.split(r"(`[^`]*`)", text)
    return "".join(part if part[:1] == "`" else re.sub(r"([*$<\[\]_])", r"\\\1", part) for part in parts)


class Qualify(ast.NodeTransformer):
    "Gives the names in annotations the modules that they are imported from: torch's `Tensor` is not ours."
    def __init__(self, tree: ast.Module, package: str):
        froms = [node for node in tree.body if isinstance(node, ast.ImportFrom) and node.module]
        places = [(package + "." if node.level else "") + node.module for node in froms]
        self.full = {alias.asname or alias.name: f"{place}.{alias.name}"
                     for node, place in zip(froms, places) for alias in node.names
                     if place.split(".")[0] in ("torch", package)}

    def visit_arg(self, node): return ast.arg(node.arg, node.annotation and self.annotation(node.annotation))

    def visit_FunctionDef(self, node):
        self.generic_visit(node)
        node.returns = node.returns and self.annotation(node.returns)
        return node

    def annotation(self, node):
        names = [each for each in ast.walk(node) if isinstance(each, ast.Name)]
        for each in names: each.id = self.full.get(each.id, each.id)
        return node


def signature(node: ast.FunctionDef) -> str:
    "The arguments of a function as they are written, `self` left out."
    arguments = ast.unparse(node.args)
    method = re.match(r"(self|cls)\b(, )?", arguments)
    if method: arguments = re.sub(r"^/, ", "", arguments[method.end():])
    return f"({arguments})" + (f" -> {ast.unparse(node.returns)}" if node.returns else "")


def fence(kind: str, head: str, body: str, colons: int) -> str:
    "A directive of Sphinx's Python domain."
    return f"{':'*colons}{{py:{kind}}} {head}\n{body}\n{':'*colons}\n"


def method(node: ast.FunctionDef) -> str:
    "A method or property of a class."
    decorators = {ast.unparse(each) for each in node.decorator_list}
    text = markdown(ast.get_docstring(node) or "")
    if decorators & {"property", "cached_property"}: return fence("property", node.name, text, 3)
    option = f":{min(decorators & {'classmethod', 'staticmethod'})}:\n" if decorators & {"classmethod", "staticmethod"} else ""
    return fence("method", node.name + signature(node), option + "\n" + text, 3)


def entry(name: Name) -> str:
    "A name's part of the reference: signature, docstring, the cell that builds it, torch's own."
    node = name.node
    text = [markdown(ast.get_docstring(node) or "")]
    lesson = title(ROOT/"nbs"/f"{name.lesson}.ipynb")
    text.append(f"Built in [{lesson}](#{name.target})." + (f" In torch: {name.torch}." if name.torch else ""))
    if isinstance(node, ast.FunctionDef):
        return fence("function", name.name + signature(node), "\n" + "\n\n".join(text), 4)
    functions = {each.name: each for each in node.body if isinstance(each, ast.FunctionDef)}
    text += [method(each) for each in functions.values() if each.name[0] != "_" and ast.get_docstring(each)
             and not any(ast.unparse(d).endswith(".setter") for d in each.decorator_list)]
    made = signature(functions["__init__"]) if "__init__" in functions else ""
    return fence("class", name.name + made.removesuffix(" -> None"), "\n" + "\n\n".join(text), 4)


def write_reference(found: dict, into: Path) -> None:
    "A page for each module, and one that lists all names."
    table = ["| name | built in | in torch |", "|---|---|---|"]
    for module, (text, names) in found.items():
        body = "\n".join(entry(name) for name in names)
        write(into/f"api/{module}.md", f"# {module}\n\n{text}\n\n:::{{py:module}} {module}\n:::\n\n{body}")
        table += [f"| {{py:obj}}`{n.full}` | [{n.lesson[:2]}](#{n.target}) | {n.torch} |" for n in names]
    pages = "\n".join(found)
    rows = "\n".join(table)
    write(into/"api/index.md", f"# Reference\n\nEvery name that the lessons export, the cell that builds it, "
          f"and the name in torch that does the same.\n\n{rows}\n\n```{{toctree}}\n:hidden:\n\n{pages}\n```\n")


# The solutions.

def folded(head: str, body: str) -> str:
    "What is shown when its heading is opened."
    return f"<details><summary>{head}</summary>\n\n{body}\n\n</details>\n"


def write_solutions(into: Path) -> None:
    "A page with the hints and the solutions of all exercises that have a checker, each folded."
    parts = ["# Hints and solutions\n\nOf the exercises that `check` knows. Open a hint first: `hint(your_function)` shows the same ones."]
    for path in LESSONS:
        mine = [e for e in EXERCISES.values() if e.lesson == path.stem[:2]]
        if mine: parts.append(f"(lesson-{path.stem[:2]})=\n## {title(path)}")
        for exercise in mine:
            parts.append(f"### {exercise.title}: `{stub_name(exercise)}`")
            parts += [folded(f"Hint {i}", text) for i, text in enumerate(exercise.hints, 1)]
            shown = (("A solution", exercise.solution), ("Another", exercise.second))
            parts += [folded(head, f"```python\n{source(exercise, answer)}\n```") for head, answer in shown]
    write(into/"solutions.md", "\n\n".join(parts) + "\n")


# The other pages.

def section(text: str, heading: str) -> str:
    "What stands under a heading of a Markdown text."
    return re.search(rf"^## {heading}\n(.*?)(?=^## |\Z)", text, re.M | re.S)[1].strip()


def write_pages(into: Path) -> None:
    "The pages of docs/; what the README says, the landing page repeats from there."
    readme = (ROOT/"README.md").read_text(encoding="utf-8")
    if REPOSITORY: readme = readme.replace("<address of this repository>", ADDRESS)
    table = re.search(r"(?:^\|.*\n?)+", section(readme, "The lessons"), re.M)[0].strip()
    index = relink((ROOT/"docs"/"index.md").read_text(encoding="utf-8"), "docs", "index.md")
    parts = {"<!-- README: start -->": section(readme, "Start"), "<!-- README: lessons -->": table}
    for mark, part in parts.items(): index = index.replace(mark, relink(part, ".", "index.md"))
    for description, file in re.findall(r"!\[([^\]]+)\]\(docs/readme/(\S+?)\)", readme):
        index = index.replace(f"![](readme/{file})", f"![{description}](readme/{file})")
    write(into/"index.md", index)
    shutil.copytree(ROOT/"docs"/"readme", into/"readme", dirs_exist_ok=True)
    lessons = "\n".join(path.stem for path in LESSONS)
    write(into/"lessons/index.md", f"# Lessons\n\n{relink(table, '.', 'lessons/index.md')}\n\n"
          f"```{{toctree}}\n:hidden:\n\n{lessons}\n```\n")
    glossary = (ROOT/"docs"/"glossary.md").read_text(encoding="utf-8")
    glossary = re.sub(r"^- \*\*(.+?)\*\*: (.+)$", r"\1\n  \2\n", glossary, flags=re.M)
    glossary = re.sub(r"(?<=in which you meet it\.\n\n)(.*)", r":::{glossary}\n\1:::\n", glossary, flags=re.S)
    write(into/"glossary.md", relink(glossary, "docs", "glossary.md"))
    for path in ("docs/teachers.md", "CONTRIBUTING.md", "benchmarks/README.md", "benchmarks/results/results.md"):
        text = (ROOT/path).read_text(encoding="utf-8")
        write(into/PAGES[path], relink(text, os.path.dirname(path) or ".", PAGES[path]))
    with (into/PAGES["benchmarks/README.md"]).open("a") as page:
        page.write("\n```{toctree}\n:hidden:\n\nresults\n```\n")
    shutil.copy(ROOT/"benchmarks"/"results"/"results.png", into/"benchmarks")
    shutil.copy(ROOT/"docs"/"changelog.md", into)


def write(path: Path, text: str) -> None:
    "Writes a file if it says something else: Sphinx reads again what is newer."
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.exists() or path.read_text(encoding="utf-8") != text:
        path.write_text(text, encoding="utf-8", newline="\n")


def write_mathjax(into: Path) -> None:
    "MathJax and its fonts, from the Python package that carries them."
    package = files("mathjax")/"static"/"mathjax"/"es5"
    for part in ("tex-chtml.js", "input/tex/extensions", "output/chtml/fonts/woff-v2"):
        (into/part).parent.mkdir(parents=True, exist_ok=True)
        (shutil.copy if part.endswith(".js") else shutil.copytree)(package/part, into/part)


def write_sources(into: Path) -> None:
    "Everything that Sphinx reads, in the folder `into`."
    found = modules()
    names = [name for _, names in found.values() for name in names]
    write_pages(into)
    write_reference(found, into)
    write_solutions(into)
    known = formulas()
    for path in LESSONS:
        write_lesson(path, names, known, into)
        write(into/"notebooks"/path.name, path.read_text(encoding="utf-8"))
        if REPOSITORY: write(BUILD/"colab"/path.name, nbformat.writes(colab(path, ADDRESS)))
    if not (into/"mathjax").exists(): write_mathjax(into/"mathjax"/"mathjax")


# The links.

class Page(HTMLParser):
    "The ids of a page, and where its links and pictures lead."
    def __init__(self, path: Path):
        super().__init__()
        self.ids, self.links = set(), set()
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        self.ids |= {attrs.get("id"), attrs.get("name")}
        if tag != "link": self.links |= {attrs.get("href"), attrs.get("src")} - {None}


def broken_links(site: Path) -> list[str]:
    "Each link from one page of the site to another that leads to nothing."
    pages = {path: Page(path) for path in site.rglob("*.html")
             if path.relative_to(site).parts[0] != "_static"}
    wrong = []
    for path, page in pages.items():
        for link in sorted(page.links):
            parts = urlsplit(link)
            if parts.scheme or parts.netloc: continue
            target = (path.parent/unquote(parts.path)).resolve() if parts.path else path
            if target.is_dir(): target /= "index.html"
            known = target not in pages or parts.fragment in {"", *pages[target].ids}
            if not target.exists() or not known and unquote(parts.fragment) not in pages[target].ids:
                wrong.append(f"{path.relative_to(site)}: {link}")
    return wrong


def main(external: bool) -> None:
    "Builds the site and checks its links, or follows those that lead out."
    sources, site = BUILD/"sources", BUILD/"docs"
    write_sources(sources)
    builder, into = ("linkcheck", BUILD/"links") if external else ("html", site)
    command = [sys.executable, "-m", "sphinx", "--nitpicky", "--fail-on-warning", "--keep-going", "--quiet",
               "--builder", builder, "--conf-dir", str(ROOT/"docs"), "--doctree-dir", str(BUILD/"doctrees"),
               str(sources), str(into)]
    if status := subprocess.run(command, cwd=ROOT).returncode: sys.exit(status)
    if external: return
    if wrong := broken_links(site): sys.exit("Links that lead to nothing:\n" + "\n".join(wrong))
    print(f"The book stands in {site.relative_to(ROOT)}. `make docs-serve` shows it.")


if __name__ == "__main__": main("--external" in sys.argv[1:])
