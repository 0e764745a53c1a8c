import sys
from pathlib import Path

import pytest
import torch
from hypothesis import Phase, settings

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT), str(ROOT/"tests"), str(ROOT/"scripts")]  # the root first: tests/fdl is not the package
settings.register_profile("fdl", derandomize=True, deadline=None)  # the same examples each time: a red run can be repeated
settings.register_profile("audit", settings.get_profile("fdl"), phases=[Phase.explicit, Phase.generate])  # no time for the smallest example
settings.load_profile("fdl")


@pytest.fixture
def one_thread():
    "torch on one thread."
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
