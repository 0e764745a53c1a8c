"What several test files need."
import torch
from torch.testing import assert_close


def seeded(seed: int = 0) -> torch.Generator:
    "A generator that starts from `seed`."
    return torch.Generator().manual_seed(seed)


def assert_alike(ours, theirs):
    "Equal in values, types, dtypes and structure."
    assert type(ours) is type(theirs), (type(ours), type(theirs))
    if isinstance(ours, torch.Tensor): assert_close(ours, theirs, rtol=0, atol=0, equal_nan=True)
    elif isinstance(ours, dict):
        assert list(ours) == list(theirs)
        for key in ours: assert_alike(ours[key], theirs[key])
    elif isinstance(ours, (list, tuple)):
        assert len(ours) == len(theirs)
        for a, b in zip(ours, theirs): assert_alike(a, b)
    else: assert ours == theirs


def assert_hands_on(ours, theirs, name: str):
    "A module of ours gives torch's object for a name that it has not built, and lists its own names only."
    assert name not in dir(ours) and getattr(ours, name) is getattr(theirs, name)
    assert sorted(dir(ours)) == sorted(ours.__all__)
    for missing in ("NoSuchName", "_private"):
        try: getattr(ours, missing)
        except AttributeError as error: assert ours.__name__ in str(error) and missing in str(error)
        else: raise AssertionError(missing)
