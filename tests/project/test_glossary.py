"The list of symbols and words: its links lead to lessons, and each lesson has what the list says."
import re

import pytest

from course import LESSONS, ROOT, read

TEXT = (ROOT/"docs"/"glossary.md").read_text(encoding="utf-8")
WORDS = re.findall(r"^- \*\*(.+?)\*\*: (.+)\. \[(\d\d)\]\(\.\./nbs/(\w+)\.ipynb\)$", TEXT, re.M)
SYMBOLS = re.findall(r"^\| (\$.+?\$) \|.*\| \[(\d\d)\]\(\.\./nbs/(\w+)\.ipynb\) \|$", TEXT, re.M)


def prose(stem: str) -> str:
    "The markdown of a lesson, its white space made even."
    cells = read(ROOT/"nbs"/f"{stem}.ipynb").cells
    return " ".join(" ".join(cell.source for cell in cells if cell.cell_type == "markdown").split())


def test_the_list_is_read_whole():
    assert len(WORDS) == TEXT.count("\n- **") > 100 and len(SYMBOLS) == len(re.findall(r"^\| \$", TEXT, re.M)) > 20
    names = [word.lower() for word, *_ in WORDS]
    assert names == sorted(set(names)), "in the order of the alphabet, each once"
    assert {stem for *_, stem in WORDS + SYMBOLS} <= {path.stem for path in LESSONS}


@pytest.mark.parametrize("word, meaning, number, stem", WORDS, ids=[word for word, *_ in WORDS])
def test_a_word_stands_in_its_lesson(word, meaning, number, stem):
    assert stem[:2] == number and word.lower() in prose(stem).lower()


@pytest.mark.parametrize("symbols, number, stem", SYMBOLS, ids=[symbols for symbols, *_ in SYMBOLS])
def test_a_symbol_stands_in_its_lesson(symbols, number, stem):
    for symbol in re.findall(r"\$(.+?)\$", symbols): assert stem[:2] == number and re.search(rf"{re.escape(symbol)}(?![a-z])", prose(stem))
