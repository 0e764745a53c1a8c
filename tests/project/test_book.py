"The web book's sources, without building it: what scripts/book.py makes of notebooks, docstrings and links."
import ast
import os
import re
import subprocess
import venv
from configparser import ConfigParser

import nbformat
import pytest
import yaml
from jupyter_client.kernelspec import KernelSpec
from jupyter_client.manager import KernelManager
from nbclient import NotebookClient

import book
from course import LESSONS, ROOT, exports, read


@pytest.fixture(scope="module")
def names(): return [name for _, names in book.modules().values() for name in names]


@pytest.mark.parametrize("path", LESSONS, ids=lambda path: path.stem)
def test_a_lesson_in_the_book(path, names, tmp_path):
    "No directive is left, each picture has its description, and what is exported is named above its cell."
    book.write_lesson(path, names, book.formulas(), tmp_path)
    cells = nbformat.read(tmp_path/"lessons"/path.name, as_version=4).cells
    code = [cell for cell in cells if cell.cell_type == "code"]
    pictures = [cell for cell in code if any("image/png" in out.get("data", {}) for out in cell.outputs)]
    assert not [cell.source for cell in code if re.search(r"^#\|", cell.source, re.M)]
    assert all(len(cell.metadata.mystnb.image.alt) > 20 for cell in pictures)
    named = set(re.findall(r"{py:obj}`(.+?)`", "".join(cell.source for cell in cells if ".builds" in cell.source)))
    assert named == {f"fdl.{module}.{name}" for module, found in exports(path).items() for name in found}


@pytest.mark.parametrize("source, linked", [
    ("A bias, then a **bias**.", "A bias, then a {term}`bias <bias>`."),
    ("# Bias\n`bias` and $bias$\n\nTwo biases, one Bias.", "# Bias\n`bias` and $bias$\n\nTwo biases, one {term}`Bias <bias>`."),
    ("[the bias](a.md)\n\n| bias |", "[the bias](a.md)\n\n| bias |")])
def test_the_first_use_of_a_word(monkeypatch, source, linked):
    "Leads to the glossary, once; not out of code, formulas, links, headings or tables."
    monkeypatch.setattr(book, "words", lambda: {"02": ["bias"]})
    cells = [nbformat.v4.new_markdown_cell("# 02 The bias"), nbformat.v4.new_markdown_cell(source)]
    book.link_words(cells, "02")
    assert cells[1].source == linked


@pytest.mark.parametrize("source, linked", [
    ("See (05.3), not (5.3) or (05.9).", "See [(05.3)](#formula-05.3), not (5.3) or (05.9)."),
    ("By (05.3):\n\n$$a = b \\tag{05.4}$$\n\nand `(05.3)`", "By [(05.3)](#formula-05.3):\n\n\n\n(formula-05.4)=\n$$a = b \\tag{05.4}$$\n\nand `(05.3)`")])
def test_formulas_are_linked(source, linked):
    cells = [nbformat.v4.new_markdown_cell(source)]
    book.link_formulas(cells, {"05.3", "05.4"})
    assert cells[0].source == linked


def test_every_formula_is_known():
    known = book.formulas()
    assert len(known) > 80 and {"02.1", "05.3", "21.1"} <= known


def test_solutions_are_folded(tmp_path):
    book.write_solutions(tmp_path)
    text = (tmp_path/"solutions.md").read_text(encoding="utf-8")
    assert text.count("<details>") == text.count("</details>") == sum(len(e.hints) + 2 for e in book.EXERCISES.values())
    outside = re.sub(r"<details>.*?</details>", "", text, flags=re.S)
    assert "```" not in outside and all(f"`{book.stub_name(e)}`" in outside for e in book.EXERCISES.values())


def test_each_cell_of_the_package_is_in_its_lesson(names):
    ids = {(path.stem, cell.id) for path in LESSONS for cell in read(path).cells}
    assert {(name.lesson, name.cell) for name in names} <= ids


def test_torchs_own(names):
    torch = {name.full: name.torch for name in names}
    assert "/generated/torch.nn.functional.linear.html" in torch["fdl.functional.linear"]
    assert "`torch.logsumexp`" in torch["fdl.functional.logsumexp"]
    assert "/data.html#torch.utils.data.DataLoader" in torch["fdl.data.DataLoader"]
    assert torch["fdl.diagnose.diagnose"] == torch["fdl.training.fit"] == ""


@pytest.mark.parametrize("text, folder, page, wanted", [
    ("[a](05_cross_entropy.ipynb#traps)", "nbs", "lessons/x.ipynb", "[a](05_cross_entropy.ipynb#traps)"),
    ("[a](../docs/glossary.md)", "nbs", "lessons/x.ipynb", "[a](../glossary.md)"),
    ("[a](nbs/02_matmul.ipynb)", ".", "index.md", "[a](lessons/02_matmul.ipynb)"),
    ("[a](https://x.org/y.ipynb) [b](#start)", ".", "index.md", "[a](https://x.org/y.ipynb) [b](#start)"),
    ("[licence](LICENSE), ![p](docs/p.png)", ".", "index.md", "licence, ![p](docs/p.png)")])
def test_links(monkeypatch, text, folder, page, wanted):
    monkeypatch.setattr(book, "REPOSITORY", "")
    assert book.relink(text, folder, page) == wanted


def test_a_link_to_nothing_ends_the_build():
    with pytest.raises(SystemExit, match="gone.md"): book.relink("[a](gone.md)", ".", "index.md")


def test_links_of_the_site(tmp_path):
    (tmp_path/"a.html").write_text('<p id="x"></p><a href="b.html#y"></a><a href="b.html#z"></a><a href="#x"></a>')
    (tmp_path/"b.html").write_text('<p id="y"></p><img src="c.png"><a href="https://x.org/gone"></a>')
    assert sorted(book.broken_links(tmp_path)) == ["a.html: b.html#z", "b.html: c.png"]


@pytest.mark.parametrize("source, shown", [
    ("def f(self, x: Tensor, *, n: int = 1) -> Tensor: ...", "(x: torch.Tensor, *, n: int=1) -> torch.Tensor"),
    ("def f(self) -> Module: ...", "() -> fdl.nn.Module"),
    ("def f(cls, *args): ...", "(*args)")])
def test_signatures(source, shown):
    "A name in an annotation says where it comes from: torch's tensor is not lesson 04's."
    qualify = book.Qualify(ast.parse("from torch import Tensor\nfrom .nn import Module"), "fdl")
    assert book.signature(qualify.visit(ast.parse(source).body[0])) == shown


def test_docstrings_are_markdown():
    assert book.markdown("`a*b` of x*y[0].\nShapes: any.") == "`a*b` of x\\*y\\[0\\].\n\nShapes: any."


def test_the_landing_page(tmp_path):
    "Has the README's way to start, all lessons, and the map with its description."
    book.write_pages(tmp_path)
    text = (tmp_path/"index.md").read_text(encoding="utf-8")
    assert "make lab" in text and "<!--" not in text
    assert {path.name for path in LESSONS} <= set(re.findall(r"\]\(lessons/(\S+?)\)", text))
    assert len(re.findall(r"!\[[^\]]{40,}\]\(readme/\S+\)", text)) == 2


def test_what_the_project_says_of_itself():
    settings = ConfigParser()
    settings.read(ROOT/"settings.ini", encoding="utf-8")
    citation = yaml.safe_load((ROOT/"CITATION.cff").read_text(encoding="utf-8"))
    assert citation["version"] == settings["DEFAULT"]["version"] and citation["license"] == settings["DEFAULT"]["license"]
    forms = sorted((ROOT/".github"/"ISSUE_TEMPLATE").glob("[0-9]-*.yml"))
    assert len(forms) == 3 and all(yaml.safe_load(form.read_text(encoding="utf-8"))["body"] for form in forms)


@pytest.mark.weekly
def test_a_lesson_as_colab_opens_it(tmp_path):
    "A notebook alone in an empty folder, in an environment that has Jupyter's kernel and nothing of ours."
    venv.create(tmp_path/"env", with_pip=True)
    python = tmp_path/"env"/("Scripts/python.exe" if os.name == "nt" else "bin/python")
    subprocess.run([python, "-m", "pip", "install", "--quiet", "ipykernel"], check=True)
    nb = book.colab(ROOT/"nbs"/"02_matmul.ipynb", ROOT.as_uri())
    kernels = KernelManager()
    kernels._kernel_spec = KernelSpec(argv=[str(python), "-m", "ipykernel_launcher", "-f", "{connection_file}"],
                                      language="python")
    (tmp_path/"content").mkdir()
    client = NotebookClient(nb, km=kernels, timeout=900, resources={"metadata": {"path": str(tmp_path/"content")}})
    client.execute()
    assert [out for cell in nb.cells if cell.cell_type == "code" for out in cell.outputs if out.output_type == "error"] == []
