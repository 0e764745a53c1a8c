"""What an exercise is, and how an answer to it is judged.

An answer is run on the same inputs as the solution. The first labelled mistake that does what the answer does names the
misconception; only if there is none, the first difference is described.
"""
import copy
import dis
import inspect
import linecache
import re
import signal
import sys
import textwrap
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves

SECONDS = 5  # that an answer may take for one input
HERE = Path(__file__).resolve().parent
EXERCISES: dict[str, type["Exercise"]] = {}  # by name


class Wrong(NamedTuple):
    "A mistake that people make: its label, what it is in words, a hint, and an answer that makes it."
    label: str
    words: str
    hint: str
    answer: Callable


def wrong(words: str, hint: str = "") -> Callable:
    "Marks an answer inside an exercise as wrong. `words` continue the sentence 'You probably ...'."
    return lambda answer: Wrong(answer.__name__, words, hint, answer)


class Exercise:
    """One exercise is a class that is named as its stub; README.md says what stands in it.

    All functions in it are plain ones, without `self`.
    """
    lesson = title = kind = ""
    hints: tuple[str, ...] = ()
    then = ""                     # what to try next
    forbidden: tuple[str, ...] = ()  # torch's functions that would do the exercise
    most_calls = 0                # of torch's functions: a loop over the entries needs more
    most_numbers = None           # in one tensor, given the inputs
    gradients = True              # are compared, where there are some
    replaces = ""                 # the name in fdl that `use` puts the answer in the place of
    compare: dict[str, float] = {}  # tolerances; torch's own if empty
    given: Callable | None = None  # the program with its bug, for kind "debug": what the learner starts from

    def __init_subclass__(cls):
        vars_ = dict(vars(cls))
        for name, value in vars_.items():
            if inspect.isfunction(value): setattr(cls, name, staticmethod(value))
        cls.wrongs = [value for value in vars_.values() if isinstance(value, Wrong)]
        cls.lesson = cls.lesson or cls.__module__.rpartition("_")[2]
        if cls.__name__ in EXERCISES and EXERCISES[cls.__name__].__module__ != cls.__module__:
            raise ValueError(f"two exercises are called {cls.__name__}")
        EXERCISES[cls.__name__] = cls

    def run(answer: Callable, *args) -> Any: return answer(*args)


def inputs(exercise: type[Exercise]) -> list[tuple[str, dict[str, Any]]]:
    "The inputs on which answers are judged, made anew: (what is special, the arguments by name)."
    generator = torch.Generator().manual_seed(15)
    randn = lambda *shape: torch.randn(shape, generator=generator, dtype=torch.float64)
    run = vars(exercise).get("run")
    known = inspect.signature(run.__func__ if run else exercise.solution).parameters.values()
    names = [p.name for p in known][1 if run else 0:]
    if run and known and any(p.kind is p.VAR_POSITIONAL for p in known): names = names[:-1]
    return [(words, dict(zip(names + [f"argument {i}" for i in range(len(names), len(args))], args)))
            for words, args in exercise.cases(randn)]


# What an answer does.

class TooLong(BaseException):
    "The time is up. No `except Exception` of an answer catches it."


@contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    "Stops what takes longer; only in the main thread, and where there are signals."
    if threading.current_thread() is not threading.main_thread() or not hasattr(signal, "setitimer"):
        yield
        return
    def stop(*_): raise TooLong
    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try: yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


class Watch(TorchFunctionMode):
    "Notes which of torch's functions are called, how often, and the largest tensor that comes out."
    def __init__(self):
        super().__init__()
        self.names, self.largest = [], 0

    def __torch_function__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        name = getattr(func, "__name__", "")
        if name not in ("__get__", "__set__", "size", "dim", "numel", "__len__"): self.names.append(name)
        for t in tree_leaves(result):
            if isinstance(t, Tensor): self.largest = max(self.largest, t.numel())
        return result


class Outcome(NamedTuple):
    "What an answer did with one input."
    value: Any = None            # {"": what it returned, and the gradients}
    error: BaseException | None = None
    line: str = ""               # the learner's own, at which the error came
    changed: str = ""            # the argument that is not what it was
    used: str = ""               # a function of torch's that is not allowed
    calls: int = 0               # of torch's functions, if too many
    largest: int = 0             # tensor, if too large


def code_files(answer: Callable) -> set[str]:
    "The files (in a notebook: the cells) in which an answer is written."
    functions = [f for f in vars(answer).values() if inspect.isfunction(f)] if inspect.isclass(answer) else [answer]
    return {f.__code__.co_filename for f in functions if hasattr(f, "__code__")}


def own_line(answer: Callable, error: BaseException) -> str:
    "The last line of the learner's own that an error went through."
    found, trace, files = "", error.__traceback__, code_files(answer)
    while trace:
        name = trace.tb_frame.f_code.co_filename
        if name in files:
            found = f"line {trace.tb_lineno}: {linecache.getline(name, trace.tb_lineno).strip()}".rstrip(": ")
        trace = trace.tb_next
    return found


def snapshot(x: Any) -> Any:
    "A copy to compare with later."
    if isinstance(x, torch.nn.Module): return {k: v.detach().clone() for k, v in x.state_dict().items()}
    if isinstance(x, Tensor): return x.detach().clone()
    if isinstance(x, (list, tuple)): return [snapshot(y) for y in x]
    return copy.copy(x)


def judge(exercise: type[Exercise], answer: Callable, args: dict[str, Any]) -> Outcome:
    "Runs an answer on one input."
    before = {name: snapshot(x) for name, x in args.items()}
    leaves = [(name, x) for name, x in args.items() if isinstance(x, Tensor) and x.dtype == torch.float64 and x.numel()]
    given = dict(args)
    if exercise.gradients:
        for name, x in leaves: given[name] = args[name] = x.requires_grad_()
        given |= {name: x.clone() for name, x in leaves}  # not leaves: they may be changed, and this is noticed
    changed = lambda: next((name for name in given if difference(snapshot(given[name]), before[name])), "")
    watch = Watch()
    try:
        with time_limit(SECONDS), watch: value = exercise.run(answer, *given.values())
        differentiable = exercise.gradients and isinstance(value, Tensor) and value.dtype.is_floating_point and value.numel() and not changed()
        value = {"": value} | (gradients(value, leaves) if differentiable else {})
    except (Exception, TooLong) as error:
        value, failed = None, error
        line = own_line(answer, error)
    else: failed, line = None, ""
    used = next((name for name in watch.names if name in exercise.forbidden), "")
    most = exercise.most_numbers(*args.values()) if exercise.most_numbers else watch.largest
    return Outcome(value, failed, line, changed(), used, len(watch.names) if exercise.most_calls and len(watch.names) > exercise.most_calls else 0,
                   watch.largest if watch.largest > most else 0)


def gradients(value: Tensor, leaves: list[tuple[str, Tensor]]) -> dict[str, Any]:
    "The gradient of a weighted sum of an answer, for each argument."
    if not value.requires_grad: return {f"gradient for {name}": None for name, _ in leaves}
    weights = torch.linspace(.5, 1.5, value.numel(), dtype=value.dtype).view(value.shape)
    grads = torch.autograd.grad((weights*value).sum(), [x for _, x in leaves], allow_unused=True)
    return {f"gradient for {name}": g for (name, _), g in zip(leaves, grads)}


# Where two values differ.

class Difference(NamedTuple):
    "The first place at which two values differ, how (type, shape, dtype, length, keys, value), and what stands there."
    where: str
    how: str
    mine: Any
    right: Any


def difference(mine: Any, right: Any, where: str = "", **tolerance: float) -> Difference | None:
    "The first difference of two values, however nested; None if there is none."
    if isinstance(right, Tensor):
        if not isinstance(mine, Tensor): return Difference(where, "type", mine, right)
        if mine.shape != right.shape: return Difference(where, "shape", mine, right)
        if mine.dtype != right.dtype: return Difference(where, "dtype", mine, right)
        try: torch.testing.assert_close(mine.detach(), right.detach(), equal_nan=True, **tolerance)
        except AssertionError: return Difference(where, "value", mine, right)
        return None
    if isinstance(right, Mapping):
        if not isinstance(mine, Mapping): return Difference(where, "type", mine, right)
        for key in right:
            if key not in mine: return Difference(where, "keys", list(mine), list(right))
            place = f"{where}, {key}".strip(", ")
            if found := difference(mine[key], right[key], place, **tolerance): return found
        return Difference(where, "keys", list(mine), list(right)) if len(mine) != len(right) else None
    if isinstance(right, (list, tuple)):
        if not isinstance(mine, (list, tuple)): return Difference(where, "type", mine, right)
        if len(mine) != len(right): return Difference(where, "length", mine, right)
        pairs = enumerate(zip(mine, right), 1)
        return next((d for i, (a, b) in pairs if (d := difference(a, b, f"{where}, part {i}".strip(", "), **tolerance))), None)
    if isinstance(right, float) and isinstance(mine, (int, float)):
        return None if abs(mine - right) <= 1e-6*max(1, abs(right)) else Difference(where, "value", mine, right)
    if type(mine) is not type(right): return Difference(where, "type", mine, right)
    return None if mine == right else Difference(where, "value", mine, right)


def same(a: Outcome, b: Outcome, tolerance: Mapping[str, float]) -> bool:
    "Whether two answers did the same."
    if (type(a.error), a.changed, bool(a.used), bool(a.calls), bool(a.largest)) != (type(b.error), b.changed, bool(b.used), bool(b.calls), bool(b.largest)): return False
    return a.error is not None or difference(a.value, b.value, **tolerance) is None


def is_right(outcome: Outcome, right: Outcome, tolerance: Mapping[str, float]) -> bool:
    "Whether an answer is right for one input: it gives what the solution gives, by allowed means."
    return not (outcome.error or outcome.changed or outcome.used or outcome.calls or outcome.largest) and difference(outcome.value, right.value, **tolerance) is None


# The judgement.

def is_stub(exercise: type[Exercise], answer: Callable) -> bool:
    "Whether nothing but `...`, `pass` or `raise NotImplementedError` has been written, or what was given has not been changed."
    if exercise.given and inspect.isfunction(answer) and facts(answer.__code__) == facts(exercise.given.__code__): return True
    functions = [f for f in vars(answer).values() if inspect.isfunction(f)] if inspect.isclass(answer) else [answer]
    return all(hasattr(f, "__code__") and empty(f.__code__) for f in functions)


def facts(code) -> list:
    "What a function reads, writes and computes with, in its order: the same for the same program, wherever it stands."
    steps = [i for i in dis.get_instructions(code) if i.opname.startswith(("LOAD", "STORE", "BINARY", "COMPARE"))]
    return [facts(i.argval) if inspect.iscode(i.argval) else i.argrepr if i.opname.startswith("BINARY") else i.argval for i in steps]


def empty(code) -> bool:
    "Whether a function only returns None or raises NotImplementedError."
    quiet = {"RESUME", "NOP", "LOAD_CONST", "RETURN_VALUE", "RETURN_CONST", "LOAD_GLOBAL", "RAISE_VARARGS", "PUSH_NULL", "PRECALL", "CALL", "CALL_FUNCTION"}
    raises = "NotImplementedError" in code.co_names
    known = lambda i: i.argval in (None, "NotImplementedError") or raises and isinstance(i.argval, str)
    steps = list(dis.get_instructions(code))
    return all(i.opname in quiet and (not i.opname.startswith(("LOAD", "RETURN_CONST")) or known(i)) for i in steps)


class Verdict(NamedTuple):
    """What is to be said of an answer.

    `kind` is "passed", "not started", a label of the exercise's, or in general "crash", "too long", "changed", "forbidden", "loop",
    "too large", "nothing", or what `Difference.how` says.
    """
    exercise: type[Exercise]
    kind: str
    words: str = ""
    hint: str = ""
    case: str = ""
    args: Mapping[str, Any] = {}
    outcome: Outcome = Outcome()
    right: Outcome = Outcome()
    difference: Difference | None = None


_known: dict[type[Exercise], tuple[list, list]] = {}


def known(exercise: type[Exercise]) -> tuple[list[Outcome], list[list[Outcome]]]:
    "What the solution and the labelled mistakes do with each input."
    if exercise not in _known:
        run = lambda answer: [judge(exercise, answer, args) for _, args in inputs(exercise)]
        _known[exercise] = run(exercise.solution), [run(w.answer) for w in exercise.wrongs]
    return _known[exercise]


def verdict(exercise: type[Exercise], answer: Callable) -> Verdict:
    "Judges an answer."
    if is_stub(exercise, answer): return Verdict(exercise, "not started")
    cases, outcomes = inputs(exercise), []
    for _, args in cases:
        outcomes.append(judge(exercise, answer, args))
        if isinstance(outcomes[-1].error, TooLong): break
    right, mistakes = known(exercise)
    failing = [i for i, o in enumerate(outcomes) if not is_right(o, right[i], exercise.compare)]
    if not failing: return Verdict(exercise, "passed")
    at = failing[0]
    found = Verdict(exercise, "", "", exercise.hints[0] if exercise.hints else "", cases[at][0], inputs(exercise)[at][1], outcomes[at], right[at],
                    difference(outcomes[at].value, right[at].value, **exercise.compare) if not outcomes[at].error else None)
    agreement = []
    for w, theirs in zip(exercise.wrongs, mistakes):
        also = [i for i in range(len(outcomes)) if i in failing or not is_right(theirs[i], right[i], exercise.compare)]
        share = sum(same(outcomes[i], theirs[i], exercise.compare) for i in also)/len(also)
        agreement.append((share, same(outcomes[at], theirs[at], exercise.compare) and not is_right(theirs[at], right[at], exercise.compare)))
    best = max(range(len(agreement)), key=lambda i: agreement[i][0], default=None)
    telling = best is not None and not isinstance(outcomes[at].error, (TooLong, NameError, SyntaxError))
    if telling and (agreement[best][0] == 1 or agreement[best][0] > .6 and agreement[best][1]):
        w = exercise.wrongs[best]
        return found._replace(kind=w.label, words=f"You probably {w.words}.", hint=w.hint or found.hint)
    kind, words = in_general(exercise, found)
    return found._replace(kind=kind, words=words)


def in_general(exercise: type[Exercise], v: Verdict) -> tuple[str, str]:
    "What can be said of an answer that makes none of the labelled mistakes."
    o, d = v.outcome, v.difference
    at = f" It came from your {o.line}" if o.line else ""
    if isinstance(o.error, TooLong): return "too long", f"Your code was still running after {SECONDS} seconds, and was stopped.{at.replace('It came from', 'It was at')}"
    if o.error: return "crash", f"Your code stopped with {type(o.error).__name__}: {str(o.error).splitlines()[0] if str(o.error) else 'no message'}.{at}"
    if o.changed: return "changed", f"Your code changed its input `{o.changed}`. Whoever calls it may need that again: make a new tensor or list."
    if o.used: return "forbidden", f"Your code calls torch's `{o.used}`, which does what the exercise asks you to write."
    if d and d.mine is None and d.where.startswith("gradient for"):
        return "gradient", "The numbers are right, but no gradient comes through to " + d.where.removeprefix("gradient for ") + ": was something detached, or made anew from numbers?"
    if d:
        place = f" ({d.where})" if d.where else ""
        if d.mine is None and not d.where: return "nothing", "Your code returned nothing. Is there a `return`?"
        if d.how == "type": return "type", f"Your answer is of type {type(d.mine).__name__}, not {type(d.right).__name__}{place}."
        if d.how == "shape": return "shape", f"Your answer has the shape {tuple(d.mine.shape)}, not {tuple(d.right.shape)}{place}."
        if d.how == "dtype": return "dtype", f"Your answer is {name_of(d.mine.dtype)}, the right one {name_of(d.right.dtype)}{place}: the numbers must stay in the type that came in."
        if d.how == "length": return "length", f"Your answer has {len(d.mine)} parts, not {len(d.right)}{place}."
        if d.how == "keys": return "keys", f"Your answer has other keys{place}."
        return "value", f"The {d.where} is not right." if d.where else "The shape and the type are right, the numbers are not."
    if o.calls: return "loop", f"The numbers are right, but it took {o.calls} calls of torch's functions. This is a loop over the entries: a tensor operation does all of them at once."
    if o.largest: return "too large", f"The numbers are right, but one of your tensors has {o.largest:,} entries. The exercise asks to do without it."
    return "value", "The answer is not right."


def name_of(dtype: torch.dtype) -> str: return str(dtype).removeprefix("torch.")


def source(exercise: type[Exercise], answer: Callable | None = None) -> str:
    "The source of a solution, as the learner would have written it."
    answer = answer or exercise.solution
    text = re.sub(r"^@staticmethod\n", "", textwrap.dedent(inspect.getsource(answer)))
    return re.sub(rf"\b{answer.__name__}\b", stub_name(exercise), text, count=1).rstrip()


def stub_name(exercise: type[Exercise]) -> str:
    "How the learner's function is called: what is in fdl already has `my_` before it."
    return ("my_" if exercise.replaces else "") + exercise.__name__
