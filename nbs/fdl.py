"""Leads `import fdl` in a notebook of this folder to the package beside the folder, installed or not.

A kernel looks for modules in the folder of its notebook first, so it finds this file.
"""
import sys
from importlib.util import module_from_spec
from pathlib import Path

here = Path(__file__).resolve().parent
places = [str(here.parent), *(place for place in sys.path if Path(place).resolve() != here)]
specs = (finder.find_spec("fdl", places) for finder in sys.meta_path)
spec = next(filter(None, specs), None)
if spec is None: raise ModuleNotFoundError("No module named 'fdl': it is neither beside this folder nor installed")
sys.modules["fdl"] = module_from_spec(spec)
spec.loader.exec_module(sys.modules["fdl"])
