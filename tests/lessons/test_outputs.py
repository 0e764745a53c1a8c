"What counts as the same output, and that running a notebook renews the others only."
import base64
import platform
import re
import struct
import sys

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

import run_notebooks
from course import ROOT
from run_notebooks import difference


def cell(*outputs, source: str = "") -> nbformat.NotebookNode:
    "A cell with these outputs; text is what it printed."
    return new_code_cell(source, outputs=[new_output("stream", text=o) if isinstance(o, str) else o for o in outputs])


def picture(width: int, height: int, content: bytes = b"") -> nbformat.NotebookNode:
    "A picture, as far as its head goes."
    head = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + struct.pack(">2I", width, height) + content
    return new_output("display_data", {"image/png": base64.b64encode(head).decode(), "text/plain": "<Figure size 640x480 with 1 Axes>"})


def value(text: str) -> nbformat.NotebookNode: return new_output("execute_result", {"text/plain": text})


SAME = {"nothing": ((), ()),
        "the last digit": (("loss 0.4321, -1.5e-3",), ("loss 0.4322, -1.4e-3",)),
        "a wider column": (("a   9.99  b",), ("a  10.00  b",)),
        "a sign at zero": (("[ 0.00,  1.]",), ("[-0.00,  1.]",)),
        "one stream in two": (("a\n", "b\n"), ("a\nb\n",)),
        "an address": ((value("<f at 0x7f00aa11bb22>"),), (value("<f at 0x7f99aa11bb22>"),)),
        "a picture": ((picture(640, 480),), (picture(640, 480),))}
OTHER = {"a digit": (("loss 0.4321",), ("loss 0.4331",)),
         "a digit of an integer": (("torch.Size([3, 4])",), ("torch.Size([3, 5])",)),
         "a sign": (("0.5",), ("-0.5",)),
         "an exponent": (("1e-3",), ("1e-4",)),
         "a word": (("loss 0.5",), ("cost 0.5",)),
         "nan": (("0.5",), ("nan",)),
         "a number more": (("0.5 0.5",), ("0.5",)),
         "a digit in a name": (("float32",), ("float64",)),
         "a line more": (("a\n",), ("a\nb\n",)),
         "a line less": (("a\nb\n",), ("a\n",)),
         "an output more": ((), (value("1"),)),
         "an output less": ((value("1"),), ()),
         "a missing picture": ((picture(640, 480),), ()),
         "another picture": ((picture(640, 480),), (picture(640, 480, b"!"),)),
         "a picture of another size": ((picture(640, 480),), (picture(640, 960),)),
         "an error": ((new_output("error", ename="E", evalue=""),), (new_output("error", ename="E", evalue=""),))}


@pytest.mark.parametrize("name", SAME)
def test_same(name): assert not difference(*(cell(*outputs) for outputs in SAME[name]))


@pytest.mark.parametrize("name", OTHER)
def test_other(name): assert difference(*(cell(*outputs) for outputs in OTHER[name]))


def test_says_where():
    assert difference(cell("a\nb 1.5\nc\n"), cell("a\nb 2.5\nc\n")) == "line 2\n  stored  b 1.5\n  now     b 2.5"
    assert re.fullmatch(r"line 2\n  stored  \(nothing\)\n  now     picture, 640 by 480 pixels, \w{8}", difference(cell("a\n"), cell("a\n", picture(640, 480))))


@pytest.mark.parametrize("source", ["#| timed\nf()", "#| slow\n#| timed\nf()"])
def test_timed(source):
    "Of a cell that takes times, any numbers will do, in the same words, and pictures of about the same size."
    stored = cell("took 1.5 s, 20 times\n", picture(640, 480), source=source)
    assert not difference(stored, cell("took 0.123 s, 3000 times\n", picture(650, 478, b"!")))
    assert difference(stored, cell("took 1.5 s\n", picture(640, 480)))
    assert difference(stored, cell("took 1.5 s, 20 times\n", picture(640, 580)))
    assert difference(stored, cell("took 1.5 s, 20 times\n"))


def test_elsewhere():
    "On a machine that rounds otherwise, numbers may drift, those of a training run anywhere; words and shapes may not."
    for a, b in [("accuracy 0.9405", "accuracy 0.9312"), ("largest error 3e-11", "largest error 8e-11"), ("2.54", "2.57"), ("220 of 500", "225 of 500")]:
        assert not difference(cell(a), cell(b), exact=False) and difference(cell(a), cell(b))
    for a, b in [("accuracy 0.94", "accuracy 0.84"), ("loss 0.5", "cost 0.5"), ("0.5", "nan"), ("torch.Size([3, 4])", "torch.Size([3, 5])")]:
        assert difference(cell(a), cell(b), exact=False)
    assert not difference(cell(picture(640, 480)), cell(picture(650, 478, b"!")), exact=False)
    assert difference(cell(picture(640, 480)), cell(picture(640, 580)), exact=False)
    trained = [cell(f"accuracy {a}", source="#| slow\nfit()") for a in (0.94, 0.84)]
    assert not difference(*trained, exact=False) and difference(*trained)


def test_renews_what_changed(tmp_path, monkeypatch, capsys):
    "`make run` keeps the outputs that still hold, to the last digit, and writes the others."
    path = tmp_path/"nb.ipynb"
    cells = [cell("0.12346\n", source="print(0.12345)"), cell("1\n", source="print(2)"), cell(source="3"), cell("4", source="x = 4"), cell("5 s\n", source="#| timed\nprint('6 s')")]
    nbformat.write(new_notebook(cells=cells), path)
    monkeypatch.setattr(sys, "argv", ["run_notebooks.py", str(path)])
    run_notebooks.main()
    assert [list(run_notebooks.shown(cell)) for cell in nbformat.read(path, 4).cells] == [["0.12346"], ["2"], ["3"], [], ["5 s"]]
    assert re.fullmatch(r"nb.ipynb: \d+ CPU seconds, \d+ MB\n", capsys.readouterr().out)
    before = path.read_text()
    run_notebooks.main()
    assert path.read_text() == before, "a second run changes nothing"


def test_says_which_cell_failed(tmp_path):
    path = tmp_path/"nb.ipynb"
    nbformat.write(new_notebook(cells=[cell(source="x = 0"), cell(source="1/x")]), path)
    with pytest.raises(run_notebooks.Failure, match=r"nb.ipynb, cell 1 \(id \w+\): ZeroDivisionError: division by zero"): run_notebooks.execute(path)


def test_below_the_exercises_a_cell_may_fail(tmp_path):
    path = tmp_path/"nb.ipynb"
    nbformat.write(new_notebook(cells=[cell(source="x = 0"), new_markdown_cell("## Exercises"), cell(source="1/x"), cell(source="print(x)")]), path)
    nb, _ = run_notebooks.execute(path)
    assert [list(run_notebooks.shown(cell)) for cell in nb.cells[2:]] == [["error: ZeroDivisionError: division by zero"], ["0"]]
    assert run_notebooks.ours(nb.cells) == nb.cells[:1]


def test_whose_rounding(monkeypatch):
    "The outputs are stored in one arithmetic, a lesson in bfloat16 in the machine's own; whoever sets a variable gets that."
    for name in run_notebooks.ROUNDINGS["stored"]: monkeypatch.delenv(name, raising=False)
    assert run_notebooks.rounding("slow", ROOT/"nbs"/"02_matmul.ipynb") == run_notebooks.ROUNDINGS["slow"]
    assert {run_notebooks.rounding("stored", ROOT/"nbs"/f"{name}.ipynb") == {} for name in run_notebooks.OWN} == {True}
    assert {(ROOT/"nbs"/f"{name}.ipynb").exists() for name in run_notebooks.OWN} == {True}
    monkeypatch.setenv("MKL_CBWR", "AVX")
    assert run_notebooks.rounding("slow") == {}


@pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="the variables are for x86 processors")
def test_the_sets_of_variables_round_otherwise(monkeypatch):
    for name in run_notebooks.ROUNDINGS["stored"]: monkeypatch.delenv(name, raising=False)
    run_notebooks.machine.cache_clear()
    assert len({run_notebooks.machine(how) for how in ("stored", "avx2", "slow")}) == 3
    run_notebooks.machine.cache_clear()


def test_shifted_seeds(tmp_path, monkeypatch):
    "A lesson run after `shifted_seeds.py` draws with each seed what others draw with the one that is so much higher."
    program = """import random, numpy as np, torch
random.seed({0}); np.random.seed({0}); torch.manual_seed({0})
draws = [random.random(), np.random.rand(), torch.rand(1).item(), random.Random({0}).random(), np.random.default_rng({0}).random(),
         torch.rand(1, generator=torch.Generator().manual_seed({0})).item()]"""
    monkeypatch.setenv("FDL_SEED_SHIFT", "5")
    path = tmp_path/"nb.ipynb"
    nbformat.write(new_notebook(cells=[cell(source=program.format(2) + "\nprint(*map(float, draws))")]), path)
    nb, _ = run_notebooks.execute(path, (ROOT/"tests"/"lessons"/"shifted_seeds.py").read_text())
    exec(program.format(7), here := {})
    assert [float(n) for n in nb.cells[0].outputs[0].text.split()] == here["draws"]
