"""Leads `import exercises` in a notebook of this folder to the folder `exercises` beside it.

A kernel looks for modules in the folder of its notebook first, so it finds this file.
"""
import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

folder = Path(__file__).resolve().parent.parent/"exercises"
spec = spec_from_file_location("exercises", folder/"__init__.py", submodule_search_locations=[str(folder)])
sys.modules["exercises"] = module_from_spec(spec)
spec.loader.exec_module(sys.modules["exercises"])
