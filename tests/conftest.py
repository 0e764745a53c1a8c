import sys
from pathlib import Path

from hypothesis import settings

sys.path.insert(0, str(Path(__file__).parent))
settings.register_profile("fdl", derandomize=True, deadline=None)  # the same examples each time: a red run can be repeated
settings.load_profile("fdl")
