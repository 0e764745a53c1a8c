"`fdl.data` beside `torch.utils.data`: the same batches for the same seed, whatever the dataset, the sampler and the options."
import os
import random
from collections import OrderedDict, namedtuple

import numpy as np
import pytest
import torch
import torch.utils.data as T
from hypothesis import given, settings, strategies as st
from torch.nn.utils.rnn import pad_sequence
from torch.testing import assert_close

import fdl.data as D
from helpers import Crossings, assert_alike, assert_hands_on, seeded

x, y = torch.randn(103, 5, generator=seeded()), torch.arange(103)
Point = namedtuple("Point", "x y")
DATASETS = {"whole": lambda m: m.TensorDataset(x, y), "subset": lambda m: m.Subset(m.TensorDataset(x, y), list(range(100, 3, -2))),
            "subset of a subset": lambda m: m.Subset(m.Subset(m.TensorDataset(x, y), range(60)), [5, 0, 7, 5]), "pairs": lambda m: [(x[i], i) for i in range(37)],
            "dicts": lambda m: [{"a": x[i], "b": (i, i/2), "c": Point(i, np.float32(i))} for i in range(19)], "numbers": lambda m: y}
SAMPLERS = {"in order": lambda m, d, g: {}, "shuffled": lambda m, d, g: dict(shuffle=True), "a list": lambda m, d, g: dict(sampler=[3, 1, 2]),
            "torch's": lambda m, d, g: dict(sampler=T.SubsetRandomSampler([0, 3, 2], g)), "ours": lambda m, d, g: dict(sampler=m.RandomSampler(d, generator=g))}


def test_names():
    assert_hands_on(D, T, "WeightedRandomSampler")
    assert D.IterableDataset is T.IterableDataset and D.get_worker_info is T.get_worker_info


@settings(max_examples=150)
@given(st.sampled_from(sorted(DATASETS)), st.sampled_from(sorted(SAMPLERS)), st.sampled_from([1, 3, 10, 103, 200]), st.booleans(), st.booleans(), st.booleans())
def test_same_batches_and_same_draws(dataset, sampler, batch_size, drop_last, own_generator, pin):
    "Over three epochs, the second broken off after a batch; and the random numbers afterwards."
    found = []
    for module in (D, T):
        torch.manual_seed(5)
        data, generator = DATASETS[dataset](module), seeded(3) if own_generator else None
        options = SAMPLERS[sampler](module, data, seeded(4))
        dl = module.DataLoader(data, batch_size, generator=generator, drop_last=drop_last, **options)
        found.append([list(dl), next(iter(dl), None), list(dl), len(dl), torch.rand(1), torch.rand(1, generator=generator)])
    assert_alike(*found)


def test_samplers():
    for n in (1, 7):
        for ours, theirs in ((D.SequentialSampler(range(n)), T.SequentialSampler(range(n))),
                             (D.RandomSampler(range(n), generator=seeded()), T.RandomSampler(range(n), generator=seeded()))):
            assert [list(ours) for _ in range(3)] == [list(theirs) for _ in range(3)] and len(ours) == len(theirs)
        for size in (1, 3, 7, 9):
            for drop_last in (False, True):
                ours, theirs = (m.BatchSampler(m.SequentialSampler(range(n)), size, drop_last) for m in (D, T))
                assert list(ours) == list(theirs) and len(ours) == len(theirs)
    endless = iter(D.BatchSampler(iter(int, 1), 3, False))
    assert next(endless) == next(endless) == [0, 0, 0]


class Rows:
    "A sampler of indices of some kind."
    def __init__(self, kind): self.kind = kind
    def __iter__(self): return (self.kind(i) for i in (2, 0, 1))
    def __len__(self): return 3


@pytest.mark.parametrize("kind", [int, torch.tensor, np.int64, np.int32, lambda i: torch.tensor(i, dtype=torch.int32)], ids=["int", "tensor", "int64", "int32", "short"])
def test_indices_of_every_kind(kind):
    whole = D.TensorDataset(x, y)
    part = D.Subset(whole, range(3, 30))
    for data, want in ((whole, [2, 0, 1]), (part, [5, 3, 4]), (D.Subset(part, [5, 0, 7]), [10, 8, 3])):
        assert next(iter(D.DataLoader(data, 3, sampler=Rows(kind))))[1].tolist() == want
        assert next(iter(D.DataLoader(data, 2, sampler=torch.tensor([1, 0]))))[1].tolist() == [data[1][1].item(), data[0][1].item()]
        assert next(iter(D.DataLoader(data, 2, sampler=[-1, 0])))[1].tolist() == [data[-1][1].item(), data[0][1].item()]
        for bad in (103, -104):
            with pytest.raises(IndexError): list(D.DataLoader(data, sampler=[bad]))
        with pytest.raises((TypeError, IndexError)): list(D.DataLoader(data, sampler=[1.5]))
    assert list(D.DataLoader({"a": 1, "b": 2}, 2, sampler=["b", "a"]))[0].tolist() == [2, 1]      # any index that the dataset takes


def test_batch_samplers_of_any_kind():
    data = D.TensorDataset(x, y)
    for batches in ([[1, 2], [3]], T.BatchSampler(range(9), 4, True), [torch.tensor([4, 2])], D.BatchSampler([3, 1, 2], 2, False)):
        ours, theirs = D.DataLoader(data, batch_sampler=batches), T.DataLoader(data, batch_sampler=batches)
        assert_alike(list(ours), list(theirs))
        assert len(ours) == len(theirs)


class Eager:
    "Draws when an epoch starts, not when its first batch is read."
    def __iter__(self): return iter(torch.randperm(12).view(4, 3).tolist())


@pytest.mark.parametrize("options", [{}, dict(collate_fn=len)], ids=str)
def test_an_eager_sampler_draws_before_the_seed_for_workers(options):
    "That seed is drawn with no workers, too."
    epochs = []
    for module in (D, T):
        torch.manual_seed(0)
        dl = module.DataLoader(module.TensorDataset(x, y), batch_sampler=Eager(), **options)
        epochs.append([*dl, *dl, torch.rand(1)])
    assert_alike(*epochs)


def test_a_change_in_a_subclass_is_not_passed_by():
    class Moved(D.TensorDataset):
        def __getitem__(self, i): return tuple(t + 1 for t in super().__getitem__(i))
    class Doubled(D.Subset):
        def __getitem__(self, i): return tuple(2*t for t in super().__getitem__(i))
    class Backwards(D.SequentialSampler):
        def __iter__(self): return reversed(range(len(self.data_source)))
    class Pairs(D.BatchSampler):
        def __iter__(self): yield [0, 1]
    whole = D.TensorDataset(y)
    for data, want in ((Moved(y), y[:4] + 1), (D.Subset(Moved(y), range(4)), y[:4] + 1), (Doubled(whole, range(4)), 2*y[:4]), (D.Subset(Doubled(whole, range(9)), range(4)), 2*y[:4])):
        assert_alike(next(iter(D.DataLoader(data, 4))), [want])
    assert_alike(next(iter(D.DataLoader(whole, 2, sampler=Backwards(y)))), [torch.tensor([102, 101])])
    assert_alike(list(D.DataLoader(whole, batch_sampler=Pairs(range(5), 2, False))), [[torch.tensor([0, 1])]])
    seen = []
    next(iter(D.DataLoader(whole, 4, collate_fn=seen.append)))
    assert len(seen[0]) == 4 and isinstance(seen[0][0], tuple)
    with pytest.raises(NotImplementedError, match="__getitem__"): D.Dataset()[0]


def test_batches_of_tensors_are_their_own():
    data = D.TensorDataset(x.clone())
    for shuffle in (False, True):
        for batch, in D.DataLoader(data, 200, shuffle=shuffle): batch.zero_()
    assert_close(data.tensors[0], x)
    lazy = torch.tensor([1+2j, 3j]).conj()
    assert_close(next(iter(D.DataLoader(D.TensorDataset(lazy), 2)))[0], lazy)


def test_our_datasets_in_torchs_loader_and_theirs_in_ours():
    for data in (D.TensorDataset(x, y), T.TensorDataset(x, y)):
        for subset in (D.Subset(data, [5, 3, 2]), T.Subset(data, [5, 3, 2])):
            assert_alike(list(T.DataLoader(subset, 2)), list(D.DataLoader(subset, 2)))
    assert D.TensorDataset(np.ones(3), [1, 2, 3])[0][1] == 1                   # arrays and lists, too
    assert next(iter(D.DataLoader(D.TensorDataset(np.ones((3, 2))), 2)))[0].shape == (2, 2)


def test_options_for_workers_mean_nothing_without_them():
    found = []
    for options in ({}, dict(persistent_workers=True, multiprocessing_context="fork")):
        torch.manual_seed(0)
        dl = D.DataLoader(D.TensorDataset(x), 50, shuffle=True, **options)
        found.append([list(dl), list(dl), torch.rand(1)])
    assert_alike(*found)


@pytest.mark.parametrize("batch_size", [1, 10, 103])
@pytest.mark.parametrize("shuffle", [True, False])
@pytest.mark.parametrize("rows", [None, list(range(100)), torch.arange(100)], ids=["whole", "list", "tensor"])
def test_the_order_goes_to_the_device_once_an_epoch(rows, shuffle, batch_size):
    "Rehearsed on the meta device, which every machine has."
    data = D.TensorDataset(x.to("meta"), y.to("meta"))
    if rows is not None: data = D.Subset(D.Subset(data, range(103)), rows)
    loader = D.DataLoader(data, batch_size, shuffle=shuffle)
    with Crossings() as crossings: batches = list(loader)
    assert crossings.count == 1
    assert all(t.is_meta for batch in batches for t in batch)
    assert [len(yb) for _, yb in batches] == [len(rows) for rows in torch.arange(len(data)).split(batch_size)]


@pytest.mark.skipif(not torch.accelerator.is_available(), reason="needs an accelerator")
def test_the_same_batches_on_an_accelerator():
    device = torch.accelerator.current_accelerator()
    for wrap in (lambda data: data, lambda data: D.Subset(data, range(100, 3, -2))):
        host, there = (list(D.DataLoader(wrap(D.TensorDataset(x.to(d), y.to(d))), 10, shuffle=True, generator=seeded())) for d in ("cpu", device))
        assert_alike(host, [[t.cpu() for t in batch] for batch in there])


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_batches_do_not_synchronise_on_cuda():
    for data in (D.TensorDataset(x.cuda(), y.cuda()), D.Subset(D.TensorDataset(x.cuda(), y.cuda()), range(50))):
        batches = iter(D.DataLoader(data, 10, shuffle=True))
        first = next(batches)
        torch.cuda.set_sync_debug_mode("error")
        try: rest = list(batches)
        finally: torch.cuda.set_sync_debug_mode("default")
        assert all(t.is_cuda for batch in (first, *rest) for t in batch)


# Streams.

class Stream(D.IterableDataset):
    def __init__(self, n): self.n = n
    def __iter__(self): return ((float(i), i) for i in range(self.n))


class Sized(Stream):
    def __len__(self): return self.n


def test_streams():
    for n in (0, 4, 7):
        for options in (dict(batch_size=2), dict(batch_size=2, drop_last=True), dict(batch_size=3, collate_fn=len)):
            assert_alike(list(D.DataLoader(Stream(n), **options)), list(T.DataLoader(Stream(n), **options)))
            assert len(D.DataLoader(Sized(n), **options)) == len(T.DataLoader(Sized(n), **options))
    assert_alike(list(D.DataLoader(Stream(7), 2, num_workers=2)), list(T.DataLoader(Stream(7), 2)))   # each item once, in order
    with pytest.raises(TypeError): len(D.DataLoader(Stream(3)))
    for options in (dict(shuffle=True), dict(sampler=[0]), dict(batch_sampler=[[0]])):
        with pytest.raises(ValueError): D.DataLoader(Stream(3), **options)
    asked = []
    class Watched(Stream):
        def __iter__(self):
            for item in super().__iter__():
                asked.append(item)
                yield item
    next(iter(D.DataLoader(Watched(9), 2)))
    assert len(asked) == 2                                                      # never more than was asked for


# Splitting.

@pytest.mark.filterwarnings("ignore:.*empty:UserWarning", "ignore:Length of split:UserWarning")
@settings(max_examples=60)
@given(st.integers(1, 103), st.lists(st.floats(0, 1), min_size=1, max_size=6))
def test_random_split(n, shares):
    if sum(shares) == 0: return
    fractions = [share/sum(shares) for share in shares]
    cuts = sorted(int(n*share) for share in fractions[:-1])
    for lengths in (fractions, [b - a for a, b in zip([0, *cuts], [*cuts, n])]):
        ours = D.random_split(y[:n], lengths, seeded(2))
        assert sorted(int(i) for part in ours for i in part.indices) == list(range(n))
        if sum(lengths) in (1, n):                                              # torch refuses a sum that rounding has left above 1
            assert [part.indices.tolist() for part in ours] == [list(part.indices) for part in T.random_split(y[:n], lengths, seeded(2))]


def test_random_split_corners():
    assert [len(part) for part in D.random_split(range(100), [.05]*20)] == [5]*20
    for bad in ([5, -2], [1.5, -.5], [1.01, -.01], [-1, 4], [2, 2], [.5, .4]):
        with pytest.raises(ValueError, match="0 or more.*3 items"): D.random_split(range(3), bad)
    assert [len(part) for part in D.random_split(range(2), [0.9, 0.05, 0.05])] == [2, 0, 0]
    torch.manual_seed(1)
    first = D.random_split(y, [100, 3])[1].indices
    torch.manual_seed(1)
    assert first.tolist() == T.random_split(y, [100, 3])[1].indices


# Collation.

LEAVES = [torch.rand(2, 3), torch.tensor(1), 1, 2.5, True, np.float32(1), np.float64(2), np.int8(3), np.bool_(1), np.ones((2, 2), "f4"), np.array(1)]
ITEMS = st.recursive(st.sampled_from(LEAVES), lambda inner: st.one_of(
    st.dictionaries(st.sampled_from("abc"), inner, min_size=1), st.tuples(inner, inner), st.lists(inner, min_size=1, max_size=3),
    st.builds(Point, inner, inner), st.builds(lambda v: OrderedDict(b=v, a=v), inner)), max_leaves=6)


@settings(max_examples=100)
@given(ITEMS, st.integers(1, 3))
def test_default_collate(item, n): assert_alike(D.default_collate([item]*n), T.default_collate([item]*n))


def test_default_collate_corners():
    assert D.default_collate(["a", "b"]) == ["a", "b"] and D.default_collate([(b"a", 1)]*2)[0] == [b"a", b"a"]
    assert type(D.default_collate([OrderedDict(a=1)]*2)) is OrderedDict
    for batch, error in (([torch.ones(2), torch.ones(3)], RuntimeError), ([(1, 2), (1,)], RuntimeError), ([{"a": 1}, {"a": 1, "b": 2}], RuntimeError), ([{"a": 1}, {"b": 2}], KeyError)):
        with pytest.raises(error): D.default_collate(batch)
    with pytest.raises(RuntimeError, match="pad_collate"): D.default_collate([[1], [1, 2]])
    for wrong in (object(), None, {1}, np.array("text"), np.array([None])):
        with pytest.raises(TypeError): D.default_collate([wrong])


def test_pad_collate():
    sequences = [torch.rand(n, 2) for n in (3, 1, 0, 4)]
    for value in (0, -1.5):
        padded, lengths = D.pad_collate(sequences, value)
        assert_alike([padded, lengths], [pad_sequence(sequences, batch_first=True, padding_value=value), torch.tensor([3, 1, 0, 4])])
    a, b = torch.tensor([1, 2, 3]), torch.tensor([4])
    want = torch.tensor([[1, 2, 3], [4, 0, 0]]), torch.tensor([3, 1])
    got = D.pad_collate([{"in": (a, {"deep": a}), "t": "ab", "p": Point(a, 1)}, {"in": (b, {"deep": b}), "t": "c", "p": Point(b, 2)}])
    for pair in (got["in"][0], got["in"][1]["deep"], got["p"].x, D.pad_collate([a.numpy(), b.numpy()]), D.pad_collate((a, b))): assert_alike(pair, want)
    assert got["t"] == ["ab", "c"] and got["p"].y.tolist() == [1, 2] and type(got["p"]) is Point
    assert D.pad_collate([torch.tensor(1), torch.tensor(2)]).tolist() == [1, 2]
    with pytest.raises(ValueError, match=r"\(2, 1\)"): D.pad_collate([torch.ones(2, 2), torch.ones(2, 1)])
    with pytest.raises(ValueError): D.pad_collate([torch.ones(2), torch.tensor(1.)])
    with pytest.raises(RuntimeError): D.pad_collate([(a, 1, 2), (b, 1)])


# Arguments.

@pytest.mark.parametrize("options", [
    dict(num_workers=-1), dict(sampler=[0], shuffle=True), dict(batch_sampler=[[0]], batch_size=2),
    dict(batch_sampler=[[0]], shuffle=True), dict(batch_sampler=[[0]], sampler=[0]), dict(batch_sampler=[[0]], sampler=torch.tensor([0, 0])), dict(batch_sampler=[[0]], drop_last=True),
    dict(batch_size=0), dict(batch_size=-1), dict(batch_size=2.5)], ids=str)
def test_argument_errors_are_torchs(options):
    for module in (T, D):
        with pytest.raises(ValueError): module.DataLoader(range(3), **options)


def test_other_arguments():
    for module in (D, T):
        with pytest.raises(ValueError): module.DataLoader([], shuffle=True)
        assert list(module.DataLoader([])) == []
        dl = module.DataLoader([1, 2, 3], 2, False, None, None, 0, None, True, True)          # torch's order: pin_memory, drop_last
        assert len(list(dl)) == 1 and dl.drop_last and dl.pin_memory and dl.batch_size == 2 and isinstance(dl.sampler, module.SequentialSampler)
    for sizes in ([], [x, y[:3]]):
        with pytest.raises(ValueError, match="rows"): D.TensorDataset(*sizes)
    for option in ("timeout", "prefetch_factor"):
        with pytest.raises(TypeError, match=option): D.DataLoader([1], **{option: 2})


class NoLength:
    def __getitem__(self, i): return i


class OnlyIter:
    def __iter__(self): return iter(range(3))


class RunsDry:
    def __len__(self): return 3
    def __getitem__(self, i): return next(iter([]))


def test_what_is_no_dataset():
    for data in (OnlyIter(), 3):
        with pytest.raises(TypeError, match=f"{type(data).__name__} needs __getitem__.*__len__"): D.DataLoader(data)
    with pytest.raises(TypeError, match="NoLength.*len"): list(D.DataLoader(NoLength()))
    assert [b.tolist() for b in D.DataLoader(NoLength(), 2, sampler=[4, 2])] == [[4, 2]]
    for options in ({}, dict(sampler=[0]), dict(batch_sampler=[[0]]), dict(num_workers=1)):
        with pytest.raises(RuntimeError, match="StopIteration"): list(D.DataLoader(RunsDry(), **options))


class Who:
    def __len__(self): return 2
    def __getitem__(self, i): return os.getpid()


def test_workers_read_where_they_are_asked_for():
    for n in (0, 1): assert (os.getpid() in torch.cat(list(D.DataLoader(Who(), num_workers=n))).tolist()) == (n == 0)


# Going on from a checkpoint.

class Noisy:
    def __len__(self): return 23
    def __getitem__(self, i): return i, random.random(), np.random.rand(), torch.rand(2)


def all_states(generator): return random.getstate(), np.random.get_state(), torch.get_rng_state(), generator and generator.get_state()


def set_states(states, generator):
    random.setstate(states[0]), np.random.set_state(states[1]), torch.set_rng_state(states[2])
    if generator: generator.set_state(states[3])


@pytest.mark.parametrize("dataset", [Noisy(), D.Subset(D.TensorDataset(x, y), range(50))], ids=["items", "tensors"])
@pytest.mark.parametrize("num_workers", [0, 2])
@pytest.mark.parametrize("own", [True, False], ids=["own generator", "global"])
@pytest.mark.parametrize("broken_off", [None, 0, 2], ids=["whole", "at the start", "in the middle"])
def test_an_epoch_comes_again_from_the_states_at_its_start(dataset, num_workers, own, broken_off):
    "With the same loader and with a new one, after whole epochs and after one that was broken off."
    def loader(generator): return D.DataLoader(dataset, 4, shuffle=True, generator=generator, num_workers=num_workers)
    random.seed(1), np.random.seed(2), torch.manual_seed(3)
    generator = seeded(4) if own else None
    dl = loader(generator)
    list(dl)                                                                    # an epoch before
    states = all_states(generator)
    second, third = list(dl), list(dl)
    set_states(states, generator)
    if broken_off is not None:
        got = [batch for _, batch in zip(range(broken_off), dl)]                # a run that was killed here
        assert_alike(got, second[:broken_off])
    torch.manual_seed(99), random.seed(99), np.random.seed(99)                  # another process
    generator = seeded(98) if own else None
    for again in (loader(generator), dl if not own else loader(generator)):
        set_states(states, generator)
        assert_alike([list(again), list(again)], [second, third])


def test_a_mask_picks_its_items():
    mask = y % 3 == 1
    for of_some_kind in (mask, mask.numpy(), mask.tolist()):
        part = D.Subset(D.TensorDataset(x, y), of_some_kind)
        assert [item[1].item() for item in (part[i] for i in range(len(part)))] == list(range(1, 103, 3))


def test_what_is_no_index_makes_no_subset():
    for bad in ([0.9, 2.5], torch.ones(2), [[0, 1]]):
        with pytest.raises(TypeError): D.Subset(D.TensorDataset(x, y), bad)
    assert len(D.Subset(D.TensorDataset(x, y), [])) == 0


def test_errors_say_what_to_leave_out():
    for options, message in ((dict(sampler=[0], shuffle=True), "sampler excludes shuffle"), (dict(batch_size=None), "integer of 1 or more, not None")):
        with pytest.raises(ValueError, match=message): D.DataLoader(range(3), **options)
    with pytest.raises(ValueError, match="a stream excludes shuffle and any sampler"): D.DataLoader(Stream(3), shuffle=True)
