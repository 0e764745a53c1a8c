"Times several things in turn, in one process, and says how they compare."
import gc
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from statistics import median, quantiles
from time import perf_counter


def in_turn(sides: dict[str, Callable[[], Callable]], rounds: int, check: Callable | None = None, own_clock: bool = False,
            clock: Callable[[], float] = perf_counter) -> dict[str, list[float]]:
    """The seconds of each of `sides` in each of `rounds`, after one round to warm up.

    A round runs every side once, every second round in reverse. A side makes a run, untimed; the run is timed, with
    the garbage collector off; `check(name, result)` looks at what it returned, untimed. With `own_clock`, what a run
    returns are its seconds.
    """
    seconds = {name: [] for name in sides}
    for i in range(-1, rounds):
        for name in list(sides) if i % 2 == 0 else reversed(sides):
            run = sides[name]()
            gc.collect()
            gc.disable()
            try:
                start = clock()
                result = run()
                taken = clock() - start
            finally: gc.enable()
            if check: check(name, result)
            if i >= 0: seconds[name].append(result if own_clock else taken)
    return seconds


def per_call(calls: dict[str, Callable[[], object]], rounds: int, at_least: float = 0.02) -> dict[str, list[float]]:
    "The same for short calls: each is repeated so often that the first of them takes `at_least` so many seconds."
    def repeat(call, n) -> float:
        start = perf_counter()
        for _ in range(n): call()
        return perf_counter() - start

    first, n = next(iter(calls.values())), 1
    while repeat(first, n) < at_least: n *= 2
    seconds = in_turn({name: lambda call=call: lambda: repeat(call, n) for name, call in calls.items()}, rounds)
    return {name: [taken/n for taken in values] for name, values in seconds.items()}


def medians(seconds: dict[str, list[float]]) -> dict[str, float]:
    "The median seconds of each side."
    return {name: median(values) for name, values in seconds.items()}


@dataclass
class Row:
    "One line of the table: what was measured, what it should be, and what it was: the median, and the middle half."
    name: str
    sense: str                         # "at most" or "at least"
    target: float | None = None        # None: shown, and held against no target
    value: float | None = None         # None: not measured; `note` says why
    low: float | None = None
    high: float | None = None
    unit: str = "times"
    seconds: dict[str, float] = field(default_factory=dict)
    note: str = ""
    group: str = ""

    @property
    def met(self) -> bool | None:
        "Whether the target is met; None without a value or a target."
        if self.value is None or self.target is None: return None
        return self.value <= self.target if self.sense == "at most" else self.value >= self.target

    @property
    def effort(self) -> float | None:
        "The value as a share of what is allowed: 1 is the target, less is better."
        if self.value is None or self.target is None: return None
        return self.value/self.target if self.sense == "at most" else self.target/self.value

    def slower_than(self, before: "Row") -> float:
        "How many times slower than `before` this row is."
        return self.value/before.value if self.sense == "at most" else before.value/self.value


def summary(name: str, sense: str, target: float | None, values: Iterable[float], **more) -> Row:
    "A row from repeated measurements."
    values = list(values)
    low, middle, high = quantiles(values, n=4, method="inclusive") if len(values) > 1 else values*3
    return Row(name, sense, target, middle, low, high, **more)


def at_most(target: float | None, name: str, seconds: dict[str, list[float]], ours: str, theirs: str, **more) -> Row:
    "A row for `ours` over `theirs`, round by round."
    return _paired(name, "at most", target, seconds, ours, theirs, **more)


def at_least(target: float | None, name: str, seconds: dict[str, list[float]], ours: str, theirs: str, **more) -> Row:
    "A row for how many times faster `ours` is than `theirs`, round by round."
    return _paired(name, "at least", target, seconds, theirs, ours, **more)


def _paired(name, sense, target, seconds, over, under, **more):
    ratios = [a/b for a, b in zip(seconds[over], seconds[under], strict=True)]
    return summary(name, sense, target, ratios, seconds={side: median(seconds[side]) for side in (over, under)}, **more)
