import sys
from pathlib import Path

from hypothesis import settings

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parent.parent/"scripts")]
settings.register_profile("fdl", derandomize=True, deadline=None)  # the same examples each time: a red run can be repeated
settings.load_profile("fdl")
