"\"The next version of the same name\" comes with a check that it equals the one before (how: refactors.py)."
import pytest

from course import LESSONS, notebook, read
from refactors import refactors
from run_notebooks import ours

FIRST = "def f(x): return x + x\ny = f(x)\nassert_close(y, three)"
SECOND = "def f(x): return 2*x"
CLASS = "class A:\n    def run(self): return 1\n    def stop(self): return 2\nrun = A().run()"


@pytest.mark.parametrize("path", LESSONS, ids=lambda p: p.stem)
def test_a_better_version_is_compared_with_the_one_before(path):
    unproved = [r for r in refactors(ours(read(path).cells)) if not r.proved]
    assert not unproved, f"{path.name} defines again, and up to the next ## compares with no version before: " + \
        "; ".join(f"{r.name} (cell {r.cell}: {r.line})" for r in unproved)


@pytest.mark.parametrize("cells", [
    [FIRST, SECOND, "assert_close(f(x), y)"],                                               # a value of the old version
    [FIRST, SECOND + "\nassert f(x) == y"],
    [FIRST, "old_f = f", SECOND, "assert_close(f(x), old_f(x))"],                           # the old version itself
    ["f = lambda x: x + x", "ways = {'first': f}", SECOND, "assert_close(f(x), ways['first'](x))"],
    [FIRST, SECOND, "md:A sentence.", "out = f(x)", "md:### A part", "for a, b in zip(out, y): assert a == b"],
    [FIRST, SECOND, "assert all(torch.equal(a, b) for a, b in zip(f(x), y))"],
    [FIRST, SECOND, "assert_close(f(x), three)"],                                           # what the old one was compared with
    ["def relu(x): return x*(x > 0)\nassert_close(relu(x), F.relu(x))", "def relu(x): return x.clamp(0)", "assert_close(relu(z), F.relu(z))"],
    [FIRST, "def f(x): return x", "assert f(x) != y"],                                      # broken on purpose, and shown to be
    ["def f(x): return g(x)\ndef g(x): return x\ny = f(x)", "def g(x): return x*1", "assert f(x) == y"],     # inside another function
    ["class A: pass\nold = A().run()", "class A: new = True", "p = [w]\nmodel = A(p)\nmodel.backward()\nassert p.grad == old"],
    ["from fdl.functional import relu", "before = relu(x)", "def relu(x): return x.clamp(0)", "assert_close(relu(x), before)"],
    [CLASS, "@patch\ndef run(self: A): return 1.", "assert A().run() == run"],
], ids=str)
def test_proved(cells):
    found, = refactors(notebook(*cells).cells)
    assert found.proved, found


@pytest.mark.parametrize("cells", [
    [FIRST, SECOND],                                                                        # no check at all
    [FIRST, SECOND, "print(f(x), y)"],                                                      # seen, not asserted
    [FIRST, SECOND, "assert_close(x + x, y)"],                                              # a check without the new version
    [FIRST, SECOND, "assert_close(f(x), x + x)"],                                           # a check without the old one
    [FIRST, SECOND, "assert_close(f(y), torch.zeros(3))"],                                  # the old value only goes in
    [FIRST, SECOND, "y = f(x)\nassert_close(f(x), y)"],                                     # the old value is gone
    [FIRST, "old_f = lambda x: f(x)", SECOND, "assert_close(f(x), old_f(x))"],              # the old name calls the new version
    [FIRST, SECOND, "md:## The next section", "assert_close(f(x), y)"],                     # too late
    [FIRST, SECOND, "with expect_fail(ValueError): assert_close(f(x), y)"],                 # a check that fails
    ["def relu(x): return x\nassert_close(relu(x), F.relu(x))", "def relu(x): return x", "assert_close(relu(x), torch.tensor([1.]))"],
    ["def relu(x): return x", "def relu(x): return x.clamp(0)", "assert_close(relu(x), F.relu(x))"],   # only the new one was held against torch
    ["from fdl.functional import relu", "def relu(x): return x.clamp(0)", "assert relu(x).shape == x.shape"],
    [CLASS, "class A(A):\n    def run(self): return 1.", "assert A().stop() == 2"],
    [CLASS, "A.run = lambda self: 3", "assert A().run() == 3"],
], ids=str)
def test_unproved(cells):
    found, = refactors(notebook(*cells).cells)
    assert not found.proved, found


@pytest.mark.parametrize("cells", [
    [CLASS, "@patch\ndef walk(self: A): return 1", "class A(A):\n    def rest(self): return 2", "A.sleep = lambda self: 3"],
    ["class A:\n    @property\n    def x(self): return 1\n    @x.setter\n    def x(self, value): pass"],
    ["f = 3\nf = 4", "def f(x): return x"],                                                 # a number, then a function
    ["from torch import nn", "from torch import nn"],
], ids=str)
def test_an_addition_is_no_new_version(cells):
    assert refactors(notebook(*cells).cells) == []


def test_each_version_is_compared_with_the_one_before_it():
    cells = [FIRST, SECOND, "assert_close(f(x), y)", "def f(x): return x*2", "assert_close(f(x), 6)", "def f(x): return 4*x/2", "assert_close(f(x), y)"]
    assert [r.proved for r in refactors(notebook(*cells).cells)] == [True, False, False]
