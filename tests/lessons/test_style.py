"""What can be counted of how a lesson reads.

Each rule is a function that takes the name and the cells of a notebook and yields what is wrong, in words. The rules stand
in CONTRIBUTING.md; every one is broken on purpose in `BREAKS`. What stands below the exercises is the learner's: no rule complains of what is added there.
"""
import ast
import re
from collections.abc import Iterator
from itertools import groupby
from statistics import median

import pytest

from course import LESSONS, ROOT, code_lines, directive, notebook, parse, read, sections, titles
from run_notebooks import ours

LAST = ["Traps", "What torch gives you", "Recap", "Exercises", "Where to read more"]
WORDS, LONGEST, ROW, WORDS_A_LINE = (1500, 3000), 40, 4, 4
LINES, MEDIAN, WIDTH, VERIFYING = 300, 8, 100, 0.08
MINUTES, WORDS_A_MINUTE, SECONDS_A_LINE = 50, 150, 6     # what slow readers take
BANNED = r"\b(simply|just|obviously|trivially|of course)\b|!"
DRAWS = {"plot", "scatter", "bar", "barh", "hist", "semilogx", "semilogy", "loglog", "errorbar", "fill_between", "contour", "contourf", "boxplot", "violinplot"}


def codes(cells) -> list[str]:
    "The sources of the code cells."
    return [cell.source for cell in cells if cell.cell_type == "code"]


def prose(text: str) -> str:
    "A markdown text without its fences, displayed formulas and tables."
    return re.sub(r"^\|.*$", "", re.sub(r"^```.*?^```|\$\$.*?\$\$", "", text, flags=re.M | re.S), flags=re.M)


def first_line(source: str) -> str:
    "How a message names a cell."
    return next((line for line in source.split("\n") if line.strip() and not line.startswith("#|")), source[:40])[:70]


def statements(source: str) -> int:
    "The lines of a cell that say something; imports do not."
    return code_lines(source, (ast.Import, ast.ImportFrom))


def lesson_lines(cells) -> int:
    "The lines of code in a lesson, exercises left out."
    parts = sections(cells)
    return sum(statements(text) for title, pieces in parts if title != "Exercises" for kind, text in pieces if kind == "code")


def anatomy(name, cells) -> Iterator[str]:
    "The parts of a lesson, in their order."
    parts = sections(cells)
    names, pieces = [title for title, _ in parts], dict(parts)
    start = pieces[""][0][1].split("\n\n") if pieces[""] else [""]
    if not re.fullmatch(rf"# {name[:2]} \S.*", start[0]): yield f"the first line must be '# {name[:2]} Title', not {start[0]!r}"
    if len(start) != 2 or not re.fullmatch(r"> .*[^\n]", start[1]): yield "after the title comes one line that starts with '>', the promise"
    if names[1:2] != ["Before you start"]: yield "the first section must be 'Before you start'"
    at = names.index("Exercises") + 1 if "Exercises" in names else len(names)
    if names[at - 4:at] != LAST[:4] or LAST[4] not in names[at:]: yield f"the last sections must be {', '.join(LAST)}, not {', '.join(names[-5:])}"
    if len(names) < 8: yield "no section of its own stands between 'Before you start' and 'Traps'"
    before = "\n".join(text for _, text in pieces.get("Before you start", ()))
    if not re.search(r"Reading takes about \d+ minutes; running takes at most \d+ CPU seconds", before): yield "'Before you start' must say 'Reading takes about N minutes; running takes at most N CPU seconds ...'"
    goals = re.findall(r"^- .*[;.]$", before.partition("By the end you can")[2], re.M)
    if not 3 <= len(goals) <= 4: yield f"'By the end you can' must list three or four goals, not {len(goals)}"
    for title in ("Recap", "Where to read more"):
        if not any(re.search(r"^- ", text, re.M) for _, text in pieces.get(title, ())): yield f"'{title}' must be a list"
    if not pieces.get("Traps"): yield "'Traps' is empty"
    torchs = pieces.get("What torch gives you", ())
    if not any(re.search(r"^\|[^|]+\|[^|]+\|\n\|[-: ]+\|[-: ]+\|\n\|", text, re.M) for _, text in torchs): yield "'What torch gives you' must have a table of two columns"
    if not any(kind == "code" and re.search(r"\bassert|\bagree\(", text) for kind, text in torchs): yield "'What torch gives you' must have a check"
    tasks = [task for kind, text in pieces.get("Exercises", ()) if kind == "markdown" for task in re.findall(r"^(?:\*\*)?\d\.", text, re.M)]
    if len(tasks) < 3: yield f"'Exercises' must have three or more of them, numbered, not {len(tasks)}"


def headings(name, cells) -> Iterator[str]:
    "One title, sections, parts of sections; each named once."
    found = [heading for cell in cells if cell.cell_type == "markdown" for heading in titles(cell.source)]
    if [text for level, text in found if level == 1] != [text for level, text in found[:1]]: yield "there must be one title, at the top"
    for (above, _), (level, text) in zip(found, found[1:]):
        if level > above + 1 or level > 3: yield f"the heading {text!r} is of level {level}, under one of level {above}"
    sections_ = [text for level, text in found if level == 2]
    for text in {text for text in sections_ if sections_.count(text) > 1}: yield f"two sections are called {text!r}"


def cell_length(name, cells) -> Iterator[str]:
    "A cell fits in the eye."
    for source in codes(cells):
        if (lines := len(source.split("\n"))) > LONGEST: yield f"the cell '{first_line(source)}' has {lines} lines, more than {LONGEST}"
        if wide := [line for line in source.split("\n") if len(line) > WIDTH]:
            yield f"the line '{wide[0][:60]}...' has {len(wide[0])} characters, more than {WIDTH}"
    if (middle := median(map(statements, codes(cells)))) > MEDIAN: yield f"the median of its code cells is {middle:g} lines, more than {MEDIAN}"


def count_words(cells) -> int:
    "The words of a lesson's prose."
    return sum(len(prose(cell.source).split()) for cell in cells if cell.cell_type == "markdown")


def length(name, cells) -> Iterator[str]:
    "A lesson is read in one sitting, in the time that it declares, and it is mostly prose."
    words, own, lines = count_words(cells), count_words(ours(cells)), lesson_lines(cells)
    if words < WORDS[0] or own > WORDS[1]: yield f"{words} words of prose, not {WORDS[0]} to {WORDS[1]}"
    if lines > LINES: yield f"{lines} lines of code, more than {LINES}"
    if words < WORDS_A_LINE*lines: yield f"{words/lines:.1f} words of prose for a line of code, fewer than {WORDS_A_LINE}"
    needed, said = own/WORDS_A_MINUTE + lines*SECONDS_A_LINE/60, re.search(r"Reading takes about (\d+) minutes", cells[1].source)
    if said and not needed - 1 <= int(said[1]) <= min(MINUTES, needed + 5): yield f"it declares {said[1]} minutes; {own} words and {lines} lines take {needed:.0f}, and at most {MINUTES} are allowed"


def checks_only(node: ast.AST) -> bool:
    "Whether a statement only verifies: an assertion, a call of one, or a block that expects an error."
    if isinstance(node, ast.Assert): return True
    called = lambda n: ast.unparse(n.func).split(".")[-1] if isinstance(n, ast.Call) else ""
    if isinstance(node, ast.Expr): return bool(re.match(r"assert_|test_|check_|gradcheck|agree", called(node.value)))
    if isinstance(node, (ast.For, ast.With)): return all(map(checks_only, node.body)) or isinstance(node, ast.With) and any(re.match("expect_fail|ExceptionExpected|raises", called(item.context_expr)) for item in node.items)
    return isinstance(node, ast.FunctionDef) and bool(re.match(r"check_|agree|test_", node.name))


def verifying(name, cells) -> Iterator[str]:
    "A lesson shows; its test file proves."
    lines = 0
    for source in codes(cells):
        if directive(source, "export") is None: lines += sum(node.end_lineno - node.lineno + 1 for node in parse(source).body if checks_only(node))
    if lines > VERIFYING*max(lesson_lines(cells), 100): yield f"{lines} of {lesson_lines(cells)} lines only verify, more than {VERIFYING:.0%}"


def rows(name, cells) -> Iterator[str]:
    "Code cells have prose between them."
    for kind, group in groupby(cells, key=lambda cell: cell.cell_type):
        group = list(group)
        if kind == "code" and len(group) > ROW: yield f"{len(group)} code cells in a row, more than {ROW}, from '{first_line(group[0].source)}' on"


def words(name, cells) -> Iterator[str]:
    "No word that tells the reader how easy it is; no exclamation."
    for cell in cells:
        if cell.cell_type != "markdown": continue
        text = re.sub(r"`[^`]*`|\$[^$]*\$|!(?=\[)|\*[^*\n]*\*(?=, | \()", "", prose(cell.source))      # titles of papers are quoted as they are
        for found in re.finditer(BANNED, text, re.I): yield f"{found[0]!r} in '...{text[max(0, found.start() - 30):found.end() + 30]}...'".replace("\n", " ")


def comparing(name, cells) -> Iterator[str]:
    "Tensors are compared by `assert_close`, and what is not written raises NotImplementedError."
    for source in codes(cells):
        for node in ast.walk(parse(source)):
            if isinstance(node, ast.Name) and node.id == "test_close": yield f"test_close in '{first_line(source)}': it lets a wrong shape pass; use torch.testing.assert_close"
            if isinstance(node, ast.Raise) and re.fullmatch(r"NotImplemented(\(.*\))?", ast.unparse(node.exc or node)): yield f"raise NotImplemented in '{first_line(source)}': it must be NotImplementedError"
    if not any("assert_close(" in source for source in codes(cells)): yield "nothing is compared by assert_close"


def drawn(tree: ast.AST, functions: dict[str, ast.AST], seen: frozenset = frozenset()) -> set[str]:
    "What a cell draws and labels, in its own statements and in the lesson's functions that it calls."
    found = set()
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call): continue
        called = node.func.attr if isinstance(node.func, ast.Attribute) else ast.unparse(node.func)
        if isinstance(node.func, ast.Attribute) and called in DRAWS: found.add("draws")
        found |= {k.arg for k in node.keywords if k.arg in ("xlabel", "ylabel")} | {called.removeprefix("set_")} & {"xlabel", "ylabel"}
        if called == "barh": found.add("ylabel")        # its bars have names
        if called == "axis" and "off" in ast.unparse(node): found |= {"xlabel", "ylabel"}
        if called in functions and called not in seen: found |= drawn(functions[called], functions, seen | {called})
    return found


def axis_labels(name, cells) -> Iterator[str]:
    "Whoever draws lines, points or bars says what the axes are. (Images have none; those of `fdl.plots` have theirs.)"
    functions = {}
    for source in codes(cells):
        body = parse(source).body
        functions |= {node.name: node for node in body if isinstance(node, (ast.FunctionDef, ast.ClassDef))}
        rest = ast.Module([node for node in body if not isinstance(node, (ast.FunctionDef, ast.ClassDef))], [])
        found = drawn(rest, functions)
        if "draws" in found and (missing := {"xlabel", "ylabel"} - found): yield f"the picture of '{first_line(source)}' has no {' and no '.join(sorted(missing))}"


def pictures(name, cells) -> Iterator[str]:
    "A sentence beside a picture says what to see."
    for before, cell, after in zip([None, *cells], cells, [*cells[1:], None]):
        if cell.cell_type != "code" or not any("image/png" in output.get("data", {}) for output in cell.outputs): continue
        if not any(c and c.cell_type == "markdown" and re.search(r"\w[.:?](\s|$)", prose(c.source)) for c in (before, after)):
            yield f"no sentence stands before or after the picture of '{first_line(cell.source)}'"


def links(name, cells) -> Iterator[str]:
    "A link leads to a lesson or a file that is there, and its text has the lesson's number."
    for text, target in re.findall(r"\[([^\]]*)\]\(([^)\s]+)\)", "\n".join(prose(cell.source) for cell in cells if cell.cell_type == "markdown")):
        if re.match(r"https?:|#|attachment:", target): continue
        if not (ROOT/"nbs"/target.split("#")[0]).exists(): yield f"the link [{text}]({target}) leads nowhere"
        elif re.match(r"\d\d ", text) and text[:2] != target[:2]: yield f"the link [{text}] leads to {target}"


RULES = [anatomy, headings, cell_length, length, verifying, rows, words, comparing, axis_labels, pictures, links]


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
@pytest.mark.parametrize("path", LESSONS, ids=lambda p: p.stem)
def test_style(path, rule):
    nb = read(path)
    wrong = list(rule(path.stem, nb.cells if rule in (anatomy, length) else ours(nb.cells)))
    assert not wrong, f"{path.name}: " + "; ".join(wrong)


FILLER = "Some words that a reader reads. " * 300
PLOT = 'ax.plot(x, y)\nax.set(xlabel="step", ylabel="loss")'
STUB = 'md:1. Write it.', 'def f(x):\n    raise NotImplementedError'
GOOD = ["md:# 99 A lesson\n\n> What you will have built.",
        "md:## Before you start\n\nReading takes about 15 minutes; running takes at most 9 CPU seconds.\n\nBy the end you can:\n\n- do this;\n- do that;\n- do more.",
        "from torch.testing import assert_close",
        "md:## A section\n\n" + FILLER + "See [00 Setup](00_setup.ipynb).\n\n### A part", PLOT,
        "md:## Traps\n\nA trap.", "x = 1",
        "md:## What torch gives you\n\n| ours | torch's |\n|---|---|\n| `f` | `torch.f` |", "assert_close(f(x), torch.f(x))",
        "md:## Recap\n\n- It works.\n\n## Exercises", *STUB, *STUB, *STUB, "md:## Where to read more\n\n- A paper (1999)."]


def planted(old: str = "", new: str = ""):
    "The good lesson with one thing changed; a form feed starts a new cell."
    assert any(old in source for source in GOOD), old
    cells = notebook(*[part for source in GOOD for part in (source.replace(old, new) if old else source).split("\f")]).cells
    for cell in cells:
        if cell.cell_type == "code" and "plot" in cell.source: cell.outputs = [{"output_type": "display_data", "metadata": {}, "data": {"image/png": ""}}]
    return cells


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_a_good_lesson_passes(rule):
    assert list(rule("99_lesson", planted())) == []


LONG = "x = 1\n" * 40 + "x"
HELPER = 'def draw(ax):\n    ax.plot(x)\n    ax.set_xlabel("x")\ndraw(ax)\n'
BREAKS = [
    (anatomy, "# 99 A lesson", "# A lesson", "the first line must be '# 99 Title'"),
    (anatomy, "> What", "What", "the promise"),
    (anatomy, "## Before you start", "## Before", "the first section must be"),
    (anatomy, "15 minutes; ", "long; ", "Reading takes about N minutes"),
    (anatomy, "9 CPU", "some CPU", "CPU seconds"),
    (anatomy, "- do more.", "", "three or four goals, not 2"),
    (anatomy, "- do more.", "- do more;\n- and more;\n- and more.", "three or four goals, not 5"),
    (anatomy, "## A section", "", "no section of its own"),
    (anatomy, "## Traps", "## Pitfalls", "the last sections must be"),
    (anatomy, "## Recap\n\n- It works.\n\n## Exercises", "## Exercises\n\n## Recap\n\n- It works.", "the last sections must be"),
    (anatomy, "| ours | torch's |\n|---|---|\n| `f` | `torch.f` |", "| ours |\n|---|\n| `f` |", "a table of two columns"),
    (anatomy, "assert_close(f(x), torch.f(x))", "f(x), torch.f(x)", "must have a check"),
    (anatomy, "- It works.", "It works.", "'Recap' must be a list"),
    (anatomy, "1. Write it.", "Write it.", "three or more of them, numbered"),
    (headings, "## Traps", "# Traps", "one title"),
    (headings, "### A part", "#### A part", "is of level 4"),
    (headings, "## Traps", "## A section\n\n## Traps", "two sections are called 'A section'"),
    (cell_length, "x = 1", LONG, "has 41 lines"),
    (cell_length, "x = 1", "x = " + "1 + "*25 + "1", "has 105 characters"),
    (cell_length, "x = 1", '#| fig-alt: "' + "A line. "*12 + '"\nx = 1', "has 110 characters"),
    (length, FILLER, FILLER[:1000], "words of prose"),
    (length, "15 minutes", "9 minutes", "declares 9 minutes"),
    (length, "15 minutes", "25 minutes", "declares 25 minutes"),
    (verifying, "x = 1", "assert x\nassert_close(x, y)\nwith expect_fail():\n    f()\n    g()\nfor x in y:\n    assert x\n    assert x", "9 of 1\\d lines only verify"),
    (length, FILLER, FILLER * 2, "words of prose"),
    (length, "x = 1", "x = 1\n" * 301, r"30\d lines of code, more than 300"),
    (rows, "md:1. Write it.", "y = 2", "code cells in a row"),
    (words, "A trap.", "You just do it.", "'just'"),
    (words, "A trap.", "It works!", "'!'"),
    (comparing, "x = 1", "test_close(a, b)", "test_close"),
    (comparing, "x = 1", "def f(): raise NotImplemented", "NotImplementedError"),
    (comparing, "assert_close(f(x), torch.f(x))", "assert f(x) == 1", "nothing is compared"),
    (axis_labels, ', ylabel="loss"', "", "no ylabel"),
    (axis_labels, PLOT, HELPER, "no ylabel"),
    (pictures, PLOT, "x = 2\f" + PLOT + "\fx = 3", "no sentence stands before or after"),
    (links, "00_setup.ipynb", "00_set_up.ipynb", "leads nowhere"),
    (links, "[00 Setup]", "[01 Setup]", r"leads to 00_setup"),
]


@pytest.mark.parametrize("rule, old, new, message", BREAKS, ids=lambda x: getattr(x, "__name__", str(x)[:25]))
def test_a_broken_lesson_fails(rule, old, new, message):
    assert re.search(message, "; ".join(rule("99_lesson", planted(old, new))))


def test_every_rule_is_broken_once():
    assert {rule for rule, *_ in BREAKS} == set(RULES)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_below_the_exercises_anything_goes(rule):
    "A learner writes there what they like: long cells, other headings, no stub any more."
    own = notebook("md:# My notes\n\n" + "Of course it works! " * 3000, LONG, "y = 2", "def f(): raise NotImplemented", "ax.plot(x)", "test_close(a, b)").cells
    cells = planted("    raise NotImplementedError", "    return 1/x")
    at = next(i for i, cell in enumerate(cells) if "## Exercises" in cell.source) + 1
    cells[at:at] = own
    assert list(rule("99_lesson", cells if rule in (anatomy, length) else ours(cells))) == []
