"A picture that a reader can move: a slider for each of its numbers in Jupyter, the picture alone elsewhere."
import inspect
import os
import sys
from collections.abc import Callable, Sequence
from typing import Any


def slide(draw: Callable, **values: Sequence) -> Any:
    """Draws `draw` with its default arguments; where Jupyter can show widgets, with a slider over the `values` of each.

    Without a Jupyter kernel, and where FDL_STATIC is set (as in the runs whose outputs are stored), it is the picture alone.
    """
    defaults = {name: inspect.signature(draw).parameters[name].default for name in values}
    missing = [name for name, value in defaults.items() if value not in values[name]]
    if missing: raise ValueError(f"the default of {missing[0]}, {defaults[missing[0]]!r}, is none of its values {list(values[missing[0]])}")
    if os.environ.get("FDL_STATIC") or not in_jupyter(): return draw()
    import ipywidgets

    def control(name):
        kind = ipywidgets.Dropdown if isinstance(defaults[name], str) else ipywidgets.SelectionSlider
        more = {} if kind is ipywidgets.Dropdown else {"continuous_update": False}
        return kind(options=list(values[name]), value=defaults[name], description=name, **more)

    ipywidgets.interact(draw, **{name: control(name) for name in values})


def in_jupyter() -> bool:
    "Whether this is the kernel of a notebook."
    if "IPython" not in sys.modules: return False
    return type(sys.modules["IPython"].get_ipython()).__name__ in ("ZMQInteractiveShell", "Shell")  # Colab's is a `Shell`
