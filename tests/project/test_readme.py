"The README: in step with its notebook, its programs run as printed, its pictures described."
import os
import re
import subprocess
import sys
from pathlib import Path
from textwrap import dedent

import nbformat
import pytest

import readme
from course import LESSONS, ROOT, exports, fdl_imports, read
from run_notebooks import ENVIRONMENT, agree

TEXT = (ROOT/"README.md").read_text(encoding="utf-8")
# Each program, and what is printed below it.
BLOCKS = re.findall(r"^```python\n((?:(?!```).*\n)*)```\n((?:\n|    .*\n)*)", TEXT, re.M)
RUN = """import ast, sys
for block in sys.stdin.read().split("\\0"):
    *lines, last = ast.parse(block).body
    exec(compile(ast.Module(lines, []), "README.md", "exec"))
    exec(compile(ast.Interactive([last]), "README.md", "single"))  # shows a value, like a notebook
    print("\\0", end="")"""


def pictures(text: str) -> list[tuple[str, str]]:
    "The (alt text, address) of each picture in a markdown text."
    return re.findall(r"!\[([^]]*)\]\(([^)]*)\)", text)


def test_in_step(tmp_path):
    subprocess.run([sys.executable, ROOT/"scripts"/"readme.py", tmp_path], check=True)
    made = {p.relative_to(tmp_path): p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}
    assert Path("README.md") in made
    for name, content in made.items():
        same = (ROOT/name).read_bytes().replace(b"\r\n", b"\n") == content.replace(b"\r\n", b"\n")
        assert same, f"{name} is not what nbs/index.ipynb says: run `make export`"
    there = {p.name for p in (ROOT/"docs"/"readme").iterdir()}
    assert there == {p.name for p in made if p.parts[0] == "docs"}


def test_programs_run_as_printed(tmp_path):
    "In order, in one fresh interpreter, in an empty folder; they print the words below them."
    threads = {name: ENVIRONMENT[name] for name in ("OMP_NUM_THREADS", "OMP_WAIT_POLICY")}
    env = os.environ | threads | {"PYTHONPATH": str(ROOT), "MPLBACKEND": "agg"}
    programs = "\0".join(program for program, _ in BLOCKS)
    ran = subprocess.run([sys.executable, "-c", RUN], input=programs, cwd=tmp_path, env=env,
                         capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr[-2000:]
    for (program, below), printed in zip(BLOCKS, ran.stdout.split("\0")):
        shown, printed = dedent(below).strip().split("\n"), dedent(printed).strip().split("\n")
        same = [agree(a, b, timed=True, exact=False) for a, b in zip(shown, printed)]
        wrong = f"{program}\nprints {printed}, but below it stands {shown}"
        assert len(shown) == len(printed) and all(same), wrong


def test_first_program_is_written_by_the_lesson_it_names():
    last = re.search(r"By lesson (\d\d) you have written .*:\n\n```python\n", TEXT)[1]
    written = set()
    for path in LESSONS[:int(last) + 1]:
        for module, names in exports(path).items():
            written |= {f"fdl.{module}", *(f"fdl.{module}.{name}" for name in names)}
    assert {f"{module}.{name}".strip(".") for module, name in fdl_imports(BLOCKS[0][0])} <= written


def test_pictures_are_described():
    assert len(pictures(TEXT)) == len(list((ROOT/"docs"/"readme").iterdir()))
    for alt, address in pictures(TEXT):
        assert (ROOT/address).is_file()
        described = len(alt.split()) >= 5 and Path(address).stem not in alt
        assert described, f"{address}: {alt!r} does not say what the picture shows"


@pytest.mark.parametrize("line, alt", [
    ('#| fig-alt: "A line\n#|   that falls."', "A line that falls."),
    ("", None)])
def test_alt_text(tmp_path, monkeypatch, line, alt):
    picture = nbformat.v4.new_output("display_data", {"image/png": "iVBORw0KGgo="})
    cell = nbformat.v4.new_code_cell(f"{line}\ndraw()", outputs=[picture])
    (tmp_path/"nbs").mkdir()
    nbformat.write(nbformat.v4.new_notebook(cells=[cell]), tmp_path/"nbs"/"index.ipynb")
    monkeypatch.setattr(readme, "ROOT", tmp_path)
    if alt is None:
        with pytest.raises(SystemExit, match="cell 0 shows a picture"): readme.main(tmp_path)
    else:
        readme.main(tmp_path)
        text = (tmp_path/"README.md").read_text(encoding="utf-8")
        assert pictures(text) == [(alt, "docs/readme/readme_0_0.png")] and "#|" not in text


def test_hours_are_those_of_the_lessons():
    starts = ["\n".join(cell.source for cell in read(path).cells[:3]) for path in LESSONS]
    minutes = [int(re.search(r"Reading takes about (\d+) minutes", start)[1]) for start in starts]
    said = re.search(r"about (\d+) hours of reading, (\d+) to (\d+) minutes", TEXT).groups()
    assert tuple(map(int, said)) == (round(sum(minutes)/60), min(minutes), max(minutes))


def test_lists_every_lesson():
    assert not [p.name for p in LESSONS if f"nbs/{p.name}" not in TEXT]
