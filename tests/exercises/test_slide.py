"`slide`: the picture alone where nothing can be moved, a control for each value in a kernel."
import IPython
import ipywidgets
import pytest

from exercises import slide

drawn = []


def picture(lr=0.1, kernel="top"): drawn.append((lr, kernel))


@pytest.fixture(autouse=True)
def nothing_drawn(monkeypatch):
    drawn.clear()
    monkeypatch.delenv("FDL_STATIC", raising=False)


@pytest.fixture
def kernel(monkeypatch):
    "A session that looks like a notebook's kernel; the controls that it was given."
    given = {}
    class ZMQInteractiveShell: pass
    monkeypatch.setattr(IPython, "get_ipython", ZMQInteractiveShell)
    monkeypatch.setattr(ipywidgets, "interact", lambda f, **controls: given.update(controls, f=f))
    return given


def test_alone():
    slide(picture, lr=[0.1, 0.2], kernel=["top", "left"])
    assert drawn == [(0.1, "top")]


def test_stored_outputs_are_pictures(kernel, monkeypatch):
    monkeypatch.setenv("FDL_STATIC", "1")
    slide(picture, lr=[0.1, 0.2])
    assert drawn == [(0.1, "top")] and not kernel


def test_in_a_kernel(kernel):
    slide(picture, lr=[0.1, 0.2], kernel=["top", "left"])
    assert not drawn and kernel["f"] is picture
    assert isinstance(kernel["lr"], ipywidgets.SelectionSlider) and isinstance(kernel["kernel"], ipywidgets.Dropdown)
    assert kernel["lr"].options == (0.1, 0.2) and kernel["lr"].value == 0.1 and kernel["lr"].description == "lr"


def test_a_default_that_cannot_be_chosen():
    with pytest.raises(ValueError, match=r"the default of lr, 0\.1, is none of its values \[1, 2\]"): slide(picture, lr=[1, 2])
