"Run in a kernel before a lesson, this moves every seed that the lesson sets by FDL_SEED_SHIFT: it then draws other numbers, and must still be right."


def shift_seeds(by: int) -> None:
    "From here on whoever seeds a generator of Python, NumPy or torch with `seed` gets `seed + by`."
    import functools
    import random

    import numpy as np
    import torch

    def moved(seed): return (int(seed) + by) % 2**32 if isinstance(seed, (int, np.integer)) and not isinstance(seed, bool) and seed >= 0 else seed

    def shifted(f): return functools.wraps(f)(lambda seed=None, *args, **kwargs: f(moved(seed), *args, **kwargs))

    class Generator(torch.Generator):
        __module__, __qualname__ = "torch", "Generator"  # there a worker that starts afresh finds torch's own
        def manual_seed(self, seed): return super().manual_seed(moved(seed))

    class Random(random.Random):
        def seed(self, a=None, version=2): super().seed(moved(a), version)

    torch.Generator, random.Random = Generator, Random
    torch.manual_seed, np.random.seed, random.seed, np.random.default_rng = map(shifted, (torch.manual_seed, np.random.seed, random.seed, np.random.default_rng))


shift_seeds(int(__import__("os").environ["FDL_SEED_SHIFT"]))
del shift_seeds
