"What a learner calls: messages, progress, and `use`, which lets the learner's code run the course."
import functools
import json
import os
import subprocess
import sys
import threading

import pytest
import torch
from torch.testing import assert_close

import exercises
import fdl.functional
import fdl.nn
from course import ROOT, notebook
from exercises import check, engine, hint, inputs, progress, solution, use
from exercises.engine import EXERCISES

REPLACING = [e for e in EXERCISES.values() if e.replaces]


@pytest.fixture(autouse=True)
def own_notes(monkeypatch, tmp_path):
    monkeypatch.setenv("FDL_PROGRESS", str(tmp_path/"progress.json"))
    monkeypatch.setattr(engine, "SECONDS", 1)
    yield
    use.reset()


def train() -> list[float]:
    "The losses of a short training run on everything that can be replaced."
    torch.manual_seed(0)
    model = fdl.nn.Sequential(fdl.nn.Flatten(), fdl.nn.Linear(4, 8), fdl.nn.ReLU(), fdl.nn.Linear(8, 3))
    x, y, losses = torch.randn(12, 2, 2), torch.arange(12) % 3, []
    f = fdl.functional
    for _ in range(5):
        out = model(x)
        loss = (f.cross_entropy(out, y) + f.nll_loss(f.log_softmax(out, 1), y) + f.mse_loss(f.softmax(out, 1), torch.ones_like(out))
                + f.logsumexp(f.relu(f.linear(out, torch.eye(3))), 1).mean())
        grads = torch.autograd.grad(loss, list(model.parameters()))
        with torch.no_grad():
            for p, g in zip(model.parameters(), grads): p -= .1*g
        losses.append(loss.item())
    return losses


def test_ten_names_can_be_replaced(): assert len(REPLACING) >= 10


@pytest.mark.parametrize("exercise", REPLACING, ids=lambda e: e.__name__)
def test_a_right_rewrite_carries_a_training_run(exercise):
    before, calls = train(), []
    answer = exercise.solution
    if isinstance(answer, type):
        class counted(answer):
            def forward(self, *args):
                calls.append(1)
                return super().forward(*args)
    else:
        @functools.wraps(answer)
        def counted(*args, **kwargs):
            calls.append(1)
            return answer(*args, **kwargs)
    said = use(counted, name=exercise.__name__)
    assert said.kind == "good", repr(said)
    calls.clear()
    after = train()
    assert calls
    if exercise.__name__ == "Linear": assert after[-1] < after[0]  # it draws its own weights
    else: assert_close(after, before, rtol=1e-4, atol=1e-5)
    use.reset()
    assert_close(train(), before, rtol=0, atol=0)


@pytest.mark.parametrize("exercise", REPLACING, ids=lambda e: e.__name__)
def test_a_planted_mistake_is_refused_by_name(exercise):
    module, _, name = exercise.replaces.rpartition(".")
    old = getattr(sys.modules[module], name)
    wrong = exercise.wrongs[0]
    said = use(wrong.answer, name=exercise.__name__)
    assert said.kind == "bad" and wrong.words in dict(said.lines)["text"] + repr(said.lines)
    assert getattr(sys.modules[module], name) is old


def outer(a, b):
    return a.unsqueeze(-1) * b

def test_passed():
    said = check(outer)
    assert said.kind == "good" and "passed" in repr(said) and "<details>" in said._repr_html_()
    assert "■" in repr(progress()) and json.loads(exercises.notes().read_text()) == {"outer": True}
    assert check("outer").kind == "good"


def test_what_is_told_apart():
    "Each has its own words; the learner's line is shown where one is to blame."
    e = EXERCISES["outer"]
    def crash(a, b): return a.no_such_thing
    def forever(a, b):
        while True: pass
    def changes(a, b):
        result = a[:, None] * b
        a += 1
        return result
    def torchs(a, b): return torch.einsum("i,j->ij", a, b)
    def nothing(a, b): a[:, None] * b
    def numbers(a, b): return (a[:, None] * b).tolist()
    def shape(a, b): return (a[:, None] * b)[None]
    def dtype(a, b): return (a[:, None] * b).half()
    def cut_off(a, b): return (a[:, None] * b).detach()
    def value(a, b): return a[:, None] * b + 1
    kinds = {"crash": crash, "too long": forever, "changed": changes, "nothing": nothing, "type": numbers, "shape": shape, "dtype": dtype, "gradient": cut_off, "value": value}
    for kind, answer in kinds.items(): assert engine.verdict(e, answer).kind == kind
    assert engine.verdict(e, torchs).kind in ("forbidden", "torchs")
    assert "a.no_such_thing" in repr(check(crash, "outer")) and "while True" in repr(check(forever, "outer"))


def test_html_is_escaped():
    def answer(a, b): raise ValueError("<script>")
    assert "<script>" not in check(answer, "outer")._repr_html_()


def test_in_another_thread():
    "There is no time limit there, and no error either."
    found = []
    thread = threading.Thread(target=lambda: found.append(check(outer).kind))
    thread.start()
    thread.join()
    assert found == ["good"]


def test_hints_inputs_solution():
    said = [repr(hint("outer")) for _ in range(4)]
    assert "hint 1 of 3" in said[0] and "hint 3 of 3" in said[2] and said[2] == said[3]
    assert repr(inputs(outer)).count("right = ") == len(engine.inputs(EXERCISES["outer"]))
    assert "def outer(a, b):" in repr(solution("outer")) and "class my_Linear(" in repr(solution("Linear"))


def test_what_is_no_exercise():
    with pytest.raises(LookupError, match="no exercise is called 'len'"): check(len)
    with pytest.raises(LookupError, match="not a part of fdl"): use(outer)


def test_nothing_is_kept_where_nothing_can_be_written(monkeypatch, tmp_path):
    monkeypatch.setenv("FDL_PROGRESS", str(tmp_path/"no"/"such"/"folder"))
    assert check(outer).kind == "good" and "0 of" in repr(progress())


def test_notebooks_import_it():
    done = subprocess.run([sys.executable, "-c", "from exercises import check; from exercises.engine import EXERCISES; print(len(EXERCISES))"],
                          cwd=ROOT/"nbs", env=os.environ | {"PYTHONPATH": ""}, capture_output=True, text=True)
    assert done.stdout.strip() == str(len(EXERCISES)), done.stderr


def test_arguments_that_a_rewrite_does_not_take():
    "They are left out where they have their defaults, and refused by name where they have not."
    use(EXERCISES["nll_loss"].solution, name="nll_loss")
    table, target = torch.randn(4, 3).log_softmax(1), torch.tensor([0, 1, 2, 0])
    assert_close(fdl.functional.nll_loss(table, target, None, -100, "mean"), torch.nn.functional.nll_loss(table, target))
    with pytest.raises(TypeError, match="does not take reduction, which are asked for here"): fdl.functional.nll_loss(table, target, reduction="sum")
