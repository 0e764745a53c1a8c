"""The exercises of the lessons, and what to say of an answer.

    from exercises import check, hint, inputs, program, progress, solution, use

`check(answer)` finds the exercise by the function's name. README.md says how an exercise is added.
"""
import functools
import importlib
import inspect
import json
import os
import re
import sys
from collections.abc import Callable
from html import escape
from pathlib import Path
from typing import Any

from torch import Tensor

from . import engine
from .engine import EXERCISES, Verdict, name_of, source, stub_name, verdict
from .sliders import slide

__all__ = ["check", "hint", "inputs", "program", "progress", "slide", "solution", "use"]
HERE = Path(__file__).resolve().parent
for module in sorted(HERE.glob("lesson_*.py")): importlib.import_module(f"exercises.{module.stem}")
TITLES = {path.stem[:2]: path.stem[3:].replace("_", " ") for path in sorted((HERE.parent/"nbs").glob("[0-9][0-9]_*.ipynb"))}


# Messages.

class Message:
    "Lines of (kind, text): rich in a notebook, plain elsewhere. Kinds: good, open, bad, text, code, folded."
    COLOURS = {"good": "#117733", "open": "#888888", "bad": "#cc6677"}  # readable on white and on black
    SIGNS = {"good": "✔ ", "open": "○ ", "bad": "✘ "}

    def __init__(self, kind: str, *lines: tuple[str, str]): self.kind, self.lines = kind, lines

    def __repr__(self) -> str:
        shown = [(kind, text.partition("\n")[2] if kind == "folded" else text) for kind, text in self.lines]
        return "\n".join(self.SIGNS.get(k, "") + re.sub("`", "", t) if k != "code" and k != "folded" else "    " + t.replace("\n", "\n    ") for k, t in shown)

    def _repr_html_(self) -> str:
        parts = []
        for kind, text in self.lines:
            if kind == "folded":
                head, _, body = text.partition("\n")
                parts.append(f"<details><summary>{escape(head)}</summary><pre>{escape(body)}</pre></details>")
                continue
            safe = escape(text)
            if kind == "code": parts.append(f"<pre style='margin:2px 0 2px 1.5em'>{safe}</pre>")
            else:
                safe = re.sub(r"`([^`]+)`", r"<code>\1</code>", safe)
                if kind in self.COLOURS: safe = f"<b style='color:{self.COLOURS[kind]}'>{self.SIGNS[kind]}</b><b>{safe}</b>"
                parts.append(f"<div>{safe}</div>")
        return f"<div style='border-left:4px solid {self.COLOURS[self.kind]};padding-left:10px'>{''.join(parts)}</div>"


def show(x: Any) -> str:
    "A value as a reader wants to see it: a large tensor by its shape and type."
    if isinstance(x, Tensor):
        x = x.detach()
        if x.numel() > 24: return f"a tensor of shape {tuple(x.shape)}, {name_of(x.dtype)}"
        kind = "" if name_of(x.dtype) in ("float32", "int64", "bool") or ", dtype" in repr(x) else f"   # {name_of(x.dtype)}"
        return repr(x).replace(", dtype=torch.float64", "") + kind
    if isinstance(x, dict): return "{" + ", ".join(f"{k!r}: {show(v)}" for k, v in x.items()) + "}"
    if isinstance(x, (list, tuple)):
        left, right = "[]" if isinstance(x, list) else "()"
        return left + ", ".join(map(show, x)) + ("," if isinstance(x, tuple) and len(x) == 1 else "") + right
    return getattr(x, "__name__", None) or repr(x)


def plain(value: Any) -> Any:
    "The value itself; of several things that are looked at, the first."
    return next(iter(value.values())) if isinstance(value, dict) and value else value


def described(v: Verdict) -> list[tuple[str, str]]:
    "The smallest input that shows the mistake, the answer, the right one, and how far they are apart."
    one_line = lambda name, x: f"{name} = " + show(x).replace("\n", "\n" + " "*(len(name) + 3))
    lines = [("text", f"The smallest input that shows it ({v.case}):" if v.case else "The smallest input that shows it:"),
             ("code", "\n".join(one_line(name, x) for name, x in v.args.items()))]
    d = v.difference
    if v.outcome.error and not v.right.error: lines += [("text", "The right answer:"), ("code", show(plain(v.right.value[""])))]
    elif d:
        if d.where: lines.append(("text", f"The difference is here: {d.where}."))
        lines += [("code", one_line("yours", d.mine) + "\n" + one_line("right", d.right))]
        if isinstance(d.mine, Tensor) and isinstance(d.right, Tensor):
            facts = f"Shapes: yours {tuple(d.mine.shape)}, right {tuple(d.right.shape)}."
            if d.how == "dtype": facts += f" Types: yours {name_of(d.mine.dtype)}, right {name_of(d.right.dtype)}."
            if d.how == "value" and d.mine.numel(): facts += f" Largest difference: {float((d.mine.detach().double() - d.right.detach().double()).abs().max()):.3g}."
            lines.append(("text", facts))
    return lines


def message(v: Verdict) -> Message:
    "What is said of an answer."
    e = v.exercise
    if v.kind == "not started":
        do = f'Copy what `program("{e.__name__}")` shows into a cell, and mend it; then run this one.' if e.given else f"Write `{stub_name(e)}` above, run its cell, then this one."
        return Message("open", ("open", f"{e.title}: not started yet."), ("text", do))
    if v.kind == "passed":
        more = f" `use({stub_name(e)})` puts yours into fdl." if e.replaces else ""
        return Message("good", ("good", f"{e.title}: passed on all {len(engine.inputs(e))} inputs."), *([("text", e.then + more)] if e.then + more else []),
                       ("folded", "A solution\n" + source(e)))
    return Message("bad", ("bad", f"{e.title}: not yet."), ("text", v.words), *described(v), *([("text", "Hint: " + v.hint)] if v.hint else []),
                   ("text", f"`hint({stub_name(e)})` says more, `inputs({stub_name(e)})` shows every input that is tried."))


# What a learner calls.

def find(answer: Callable | str, name: str | None = None) -> tuple[type[engine.Exercise], Callable | None]:
    "The exercise, and the answer if there is one."
    name = name or (answer if isinstance(answer, str) else getattr(answer, "__name__", type(answer).__name__))
    key = name.removeprefix("my_")
    if key not in EXERCISES: raise LookupError(f"no exercise is called {name!r}; there are {', '.join(map(stub_name, EXERCISES.values()))}")
    if isinstance(answer, str): answer = sys._getframe(2).f_globals.get(stub_name(EXERCISES[key]))
    elif not callable(answer): raise TypeError(f"check needs the function or class that you wrote, or its name, not {type(answer).__name__}")
    return EXERCISES[key], answer


def check(answer: Callable | str, name: str | None = None) -> Message:
    """Says whether an answer is right, or what is wrong with it.

    `answer` is the function or class, or its name; `name` that of the exercise, where the two are not the same.
    """
    exercise, answer = find(answer, name)
    v = verdict(exercise, answer) if answer else Verdict(exercise, "not started")
    if v.kind != "not started": note(exercise, v.kind == "passed")
    return message(v)


_hints: dict[str, int] = {}


def hint(answer: Callable | str) -> Message:
    "A hint; a stronger one each time, the solution's first line at the end."
    exercise, _ = find(answer)
    name = exercise.__name__
    number = _hints[name] = min(_hints.get(name, 0) + 1, len(exercise.hints))
    last = number == len(exercise.hints)
    return Message("open", ("open", f"{exercise.title}, hint {number} of {len(exercise.hints)}"), ("text", exercise.hints[number - 1]),
                   ("text", f'That was the last. `solution("{stub_name(exercise)}")` shows how it can be done.' if last else "Call it again for a stronger one."))


def solution(answer: Callable | str) -> Message:
    "A solution, folded in a notebook."
    exercise, _ = find(answer)
    return Message("open", ("open", exercise.title), ("folded", "A solution\n" + source(exercise)), ("folded", "Another\n" + source(exercise, exercise.second)))


def inputs(answer: Callable | str) -> Message:
    "Every input that `check` tries, and the right answers."
    exercise, _ = find(answer)
    lines = []
    for (words, args), right in zip(engine.inputs(exercise), engine.known(exercise)[0]):
        value = right.value[""]
        lines += [("text", words), ("code", "\n".join(f"{name} = {show(x)}" for name, x in [*args.items(), ("right", value)]))]
    return Message("open", ("open", f"{exercise.title}: what is tried"), *lines)


def program(answer: Callable | str) -> Message:
    "The program of an exercise in which a bug is to be found."
    exercise, _ = find(answer)
    if not exercise.given: raise LookupError(f"{exercise.__name__} has no program; there are {', '.join(e.__name__ for e in EXERCISES.values() if e.given)}")
    return Message("open", ("open", exercise.title), ("code", source(exercise, exercise.given)))


# Progress.

def notes() -> Path:
    "The file in which it is kept; git ignores it."
    return Path(os.environ.get("FDL_PROGRESS") or HERE.parent/".fdl-progress.json")


def read_notes() -> dict[str, bool]:
    "For each exercise that was tried: has it passed?"
    try: return json.loads(notes().read_text(encoding="utf-8"))
    except (OSError, ValueError): return {}


def note(exercise: type[engine.Exercise], passed: bool) -> None:
    "Keeps that an exercise was tried; once passed it stays so. Where nothing can be written, nothing is kept."
    known = read_notes()
    known[exercise.__name__] = passed or known.get(exercise.__name__, False)
    try: notes().write_text(json.dumps(known, indent=1), encoding="utf-8")
    except OSError: pass


def progress() -> Message:
    "The map of lessons: which exercises are done (■), tried (◪), open (□)."
    known, lines, done = read_notes(), [], 0
    for number, title in TITLES.items():
        mine = [e for e in EXERCISES.values() if e.lesson == number]
        if not mine: continue
        done += sum(known.get(e.__name__, False) for e in mine)
        boxes = "".join("■" if known.get(e.__name__) else "◪" if e.__name__ in known else "□" for e in mine)
        left = [e.title for e in mine if not known.get(e.__name__)]
        lines.append(("code", f"{number} {title:<16} {boxes:<8} {'next: ' + left[0] if left else 'all done'}"))
    return Message("good" if done == len(EXERCISES) else "open", ("open", f"{done} of {len(EXERCISES)} exercises done"), *lines)


# Your code runs the course.

_used: list[tuple[dict, str, Any]] = []


def adapted(answer: Callable, old: Callable) -> Callable:
    "A function for all arguments of `old`: those that `answer` does not take must have their defaults, and are left out."
    mine, theirs = inspect.signature(answer), inspect.signature(old)
    n = len(mine.parameters)
    if not inspect.isfunction(answer) or n >= len(theirs.parameters): return answer

    @functools.wraps(answer)
    def call(*args, **kwargs):
        bound = theirs.bind(*args, **kwargs)
        bound.apply_defaults()
        values = list(bound.arguments.items())
        same = lambda a, b: a is b or isinstance(a, (int, float, str)) and a == b
        more = [name for name, value in values[n:] if not same(value, theirs.parameters[name].default)]
        if more: raise TypeError(f"your {answer.__name__} does not take {', '.join(more)}, which are asked for here: use.reset() brings back fdl's own")
        return answer(*[value for _, value in values[:n]])
    return call


def use(answer: Callable, name: str | None = None) -> Message:
    """Puts an answer that passes in the place of fdl's own, for this session: in `fdl`, and in the names of whoever calls.

    `use.reset()` undoes it.
    """
    exercise, answer = find(answer, name)
    if not exercise.replaces: raise LookupError(f"{exercise.__name__} is not a part of fdl; there are {', '.join(stub_name(e) for e in EXERCISES.values() if e.replaces)}")
    v = verdict(exercise, answer) if answer else Verdict(exercise, "not started")
    if v.kind != "passed": return message(v)
    note(exercise, True)
    module, _, attribute = exercise.replaces.rpartition(".")
    old = getattr(importlib.import_module(module), attribute)
    answer = adapted(answer, old)
    spaces = [vars(m) for n, m in list(sys.modules.items()) if m and n.split(".")[0] == "fdl"] + [sys._getframe(1).f_globals]
    for space in spaces:
        for key in [key for key, value in space.items() if value is old]:
            _used.append((space, key, old))
            space[key] = answer
    return Message("good", ("good", f"{exercise.replaces} is yours now, until use.reset() or a new kernel."))


def reset() -> Message:
    "Puts back what `use` replaced."
    while _used:
        space, key, old = _used.pop()
        space[key] = old
    return Message("open", ("open", "fdl is as it was."))


use.reset = reset
