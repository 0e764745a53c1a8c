"""Leads `import fdl` in a notebook of this folder to the package beside the folder, installed or not.

A kernel looks for modules in the folder of its notebook first, so it finds this file.
"""
import sys
from importlib.machinery import PathFinder
from importlib.util import module_from_spec
from pathlib import Path

here = Path(__file__).resolve().parent
elsewhere = [place for place in sys.path if Path(place).resolve() != here]
spec = PathFinder.find_spec("fdl", [str(here.parent), *elsewhere])
sys.modules["fdl"] = module_from_spec(spec)
spec.loader.exec_module(sys.modules["fdl"])
