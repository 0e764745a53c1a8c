"""The graders are graded: what is right passes, what is wrong is refused and named, and each break of a solution is noticed.

`pytest -s` shows the confusion matrix: how many answers of each kind were given which kind of verdict.
"""
import inspect
import re
import textwrap

import pytest
import torch
from matplotlib.figure import Figure

import exercises
from course import ROOT
from exercises import engine
from exercises.engine import EXERCISES, Exercise, verdict
from mutants import broken

import held_out

ALL = list(EXERCISES.values())
LABELLED = [(e, w) for e in ALL for w in e.wrongs]
HELD_OUT = [(m[1], m[2], answer) for name, answer in vars(held_out).items() if (m := re.match("(.+?)__(?!_)(.+?)__", name)) and m[1] in EXERCISES]
GOAL = .95
# Breaks of a solution that change nothing that the exercise asks for, by exercise: the new line, or a part of it.
EQUIVALENT = {
    # A sum is steepest where a mean is; four neighbours smooth too; the rate beside the steepest is as good.
    "steepest_lr": ["1).sum(1)", "torch.tensor(losses).unfold", "unfold(0, 4, 1)", "+    return rates[smooth.diff().argmin()]", "argmin() + 2]", "argmin() + 0]"],
    # One in 65,536 cannot be seen in a few thousand draws; the last bit is rounded off.
    "rounded_at_random": ["randint(1, 65536", "randint(0, 65537", "randint(0, 65535", "& -65535)"],
    "checkerboard": ["(place[:, None] - place) % 2"],  # a difference is odd where the sum is
    "tent": ["3.0]) - t)"],  # the same tent from the right
    "critical_momentum": ["- 1) ** 2"],  # a square has no sign
    "two_class_loss": ["logaddexp(z, torch.zeros_like"],  # a sum in another order
    "mse_loss": ["(target - input)"],  # a square has no sign
    "Linear": ["uniform_(bound, bound)) if bias"],  # a bias may start anywhere within the bound
    # A mean may be a tensor, and remember how it came to be; weights too; a square has no sign.
    "accuracy_between_epochs": ["+    preds = model(x).argmax(1)", "double().mean()\n"],
    "trained_classifier": ["w = w.requires_grad_()", "+    return w\n"],
    "balanced_accuracy": [".mean()\n"],
    "step_in_pieces": ["lr, piece=7"],  # pieces of fewer rows give the same step
    "learning_rate_test": ["randperm(len(x)).split", "[:updates + 1]", ">= 4 * min"],  # "four times", and about `updates`
    "balanced": ["torch.ones(", "= 2 / (labels", "replacement=True)\n"],  # weights count by their ratio; indices may be a tensor
    "bucket_batches": ["window=51"],  # no one could tell
    "NoisyDigits": ["image - 0.1 *", "image + 0.1 /", "image + 0.05 *"],  # how much noise, and of which kind, is free
    "clipped": ["w = w.requires_grad_()", "(y - x @ w)", "+    return w\n"]}


@pytest.fixture(autouse=True)
def short(monkeypatch, tmp_path):
    "Less time for an answer, and a file of one's own for the progress."
    monkeypatch.setattr(engine, "SECONDS", 2)
    monkeypatch.setenv("FDL_PROGRESS", str(tmp_path/"progress.json"))


@pytest.mark.parametrize("exercise", ALL, ids=lambda e: e.__name__)
def test_complete(exercise):
    "What CONTRIBUTING wants of each exercise."
    assert exercise.title and exercise.kind in ("implement", "predict", "debug", "derive", "extend", "rewrite")
    assert len(exercise.wrongs) >= 5 and len(exercise.hints) >= 2
    assert len({w.words for w in exercise.wrongs}) == len(exercise.wrongs)
    assert len(engine.inputs(exercise)) >= 4


@pytest.mark.parametrize("exercise", ALL, ids=lambda e: e.__name__)
def test_right_answers_pass(exercise):
    assert inspect.getsource(exercise.solution) != inspect.getsource(exercise.second)
    for answer in (exercise.solution, exercise.second):
        v = verdict(exercise, answer)
        assert v.kind == "passed", f"{answer.__name__}: {exercises.message(v)!r}"


def stubs(exercise: type[Exercise]) -> list:
    "What a learner has before the first line is written."
    def ellipsis(*args, **kwargs): ...
    def described(*args, **kwargs):
        "What it shall do."
        ...
    def raises(*args): raise NotImplementedError("write it")
    class Whole(exercises.engine.torch.nn.Module):
        "What it shall do."
        def __init__(self, block): ...
        def forward(self, x): ...
    return [ellipsis, described, raises, Whole]


@pytest.mark.parametrize("exercise", ALL, ids=lambda e: e.__name__)
def test_a_stub_is_not_started(exercise):
    for stub in stubs(exercise): assert verdict(exercise, stub).kind == "not started"


@pytest.mark.parametrize("exercise", [e for e in ALL if e.given], ids=lambda e: e.__name__)
def test_a_given_program_is_wrong_and_not_started(exercise):
    assert exercise.kind == "debug" and verdict(exercise, exercise.given).kind == "not started"
    space = dict(vars(inspect.getmodule(exercise)))
    exec(engine.source(exercise, exercise.given), space)   # as the learner copies it
    assert verdict(exercise, space[exercise.__name__]).kind == "not started"
    changed = lambda *args: exercise.given(*args)
    assert verdict(exercise, changed).kind == exercise.wrongs[0].label, "its bug is the first of the labelled ones"
    assert source_is_shown(exercise)


def source_is_shown(exercise) -> bool:
    "What `program` says holds the bug, under the learner's name."
    return f"def {exercise.__name__}(" in repr(exercises.program(exercise.__name__))


@pytest.mark.parametrize("exercise, wrong", LABELLED, ids=lambda x: getattr(x, "label", getattr(x, "__name__", "")))
def test_a_mistake_is_named(exercise, wrong):
    v = verdict(exercise, wrong.answer)
    assert v.kind == wrong.label, v.words
    said = repr(exercises.message(v))
    assert v.words in said.replace("`", "") or v.words.replace("`", "") in said


def test_held_out(capsys):
    "Answers written before the checker: all are refused, and nearly all are named."
    kinds = [(f"{name} {label}", verdict(EXERCISES[name], answer).kind, label) for name, label, answer in HELD_OUT]
    assert [name for name, kind, _ in kinds if kind in ("passed", "not started")] == []
    named = sum(kind == label for _, kind, label in kinds)
    with capsys.disabled(): print(f" {named} of {len(kinds)} held-out mistakes named ", end="")
    assert named >= .9*len(kinds), [k for k in kinds if k[1] != k[2]]


def draw(counts: dict[str, list[int]], columns: list[str]):
    "A row for each exercise, a column for each thing that may be said; saved in runs/, which git ignores."
    figure = Figure(figsize=(6, 1.5 + .2*len(counts)), layout="constrained")
    axes = figure.subplots()
    table = torch.tensor(list(counts.values()))
    axes.imshow(table.clamp(max=8).numpy(), cmap="Blues", aspect="auto")
    for i, row in enumerate(table.tolist()):
        for j, n in enumerate(row):
            if n: axes.text(j, i, n, ha="center", va="center", fontsize=7, color="white" if n > 4 else "black")
    axes.set_xticks(range(len(columns)), columns, fontsize=7)
    axes.set_yticks(range(len(counts)), list(counts), fontsize=7)
    axes.xaxis.tick_top()
    (ROOT/"runs").mkdir(exist_ok=True)
    figure.savefig(ROOT/"runs"/"graders.png", dpi=110)


def test_confusion(capsys):
    "The matrix, printed, and drawn in runs/graders.png: rows are what was given, columns what was said."
    columns = ["right: passed", "right: refused", "wrong: named", "wrong: other name", "wrong: passed"]
    counts = {}
    for e in ALL:
        passed = [verdict(e, a).kind == "passed" for a in (e.solution, e.second)]
        kinds = [(w.label, verdict(e, w.answer).kind) for w in e.wrongs]
        named, let_through = sum(a == b for a, b in kinds), sum(b == "passed" for _, b in kinds)
        counts[e.__name__] = [sum(passed), 2 - sum(passed), named, len(kinds) - named - let_through, let_through]
    total = torch.tensor(list(counts.values())).sum(0).tolist()
    with capsys.disabled(): print("\n" + "\n".join(f"{column:<18}{n:>5}" for column, n in zip(columns, total)))
    draw(counts, columns)
    assert total[1] == total[4] == 0 and total[2] >= GOAL*sum(total[2:])


def broken_answers(exercise: type[Exercise]):
    "The solution, broken by the audit's operators: (the lines that differ, the answer)."
    source = textwrap.dedent(inspect.getsource(exercise.solution))
    module = inspect.getmodule(exercise)
    for _, _, text, lines in broken(source):
        space = dict(vars(module))
        exec(compile(text, f"<{exercise.__name__}>", "exec"), space)
        yield lines, space["solution"]


@pytest.mark.parametrize("exercise", ALL, ids=lambda e: e.__name__)
def test_breaks_are_noticed(exercise):
    known = EQUIVALENT.get(exercise.__name__, [])
    found = [(lines, verdict(exercise, answer).kind) for lines, answer in broken_answers(exercise)]
    survived = [lines for lines, kind in found if kind == "passed"]
    unknown = [lines for lines in survived if not any(part in f"{lines}\n" for part in known)]
    unused = [part for part in known if not any(part in f"{lines}\n" for lines in survived)]
    total = len(found) - len(survived) + len(unknown)
    assert not unused, f"no break that survives has {unused}"
    assert len(unknown) <= (1 - GOAL)*total, "\n".join(unknown)
