"""A data loader of your own: for the same seed the same batches as PyTorch's."""
import operator
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence, Sized
from functools import partial
from itertools import accumulate, islice
from math import ceil, floor, isclose
from typing import Any

import numpy as np
import torch
from fastcore.basics import store_attr
from torch import Generator, Tensor
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import IterableDataset

from fdl.workers import iterate

__all__ = ["Dataset", "IterableDataset", "SequentialSampler", "RandomSampler", "BatchSampler",
           "default_collate", "pad_collate", "TensorDataset", "Subset", "random_split",
           "DataLoader"]


class Dataset:
    "Items read by index: a subclass defines `__getitem__(index)` and `__len__()`."
    def __getitem__(self, index: Any) -> Any:
        raise NotImplementedError(f"{type(self).__name__} must define __getitem__(index)")

class _Sampler:
    "A sampler that knows a whole pass as a tensor, which `orders` makes when it is needed."
    def __iter__(self) -> Iterator[int]:
        for order in self.orders(): yield from order.tolist()

    def __len__(self) -> int: return len(self.data_source)

class SequentialSampler(_Sampler):
    "The indices 0, 1, 2, ... of `data_source`, in order."
    def __init__(self, data_source: Sized) -> None: self.data_source = data_source

    def orders(self) -> Iterator[Tensor]:
        "One tensor with the indices of a pass."
        yield torch.arange(len(self.data_source))

def _random_seed(generator: Generator | None) -> int:
    "A random 63-bit number from `generator`, or from torch's global one if that is None."
    return torch.empty((), dtype=torch.int64).random_(generator=generator).item()

class RandomSampler(_Sampler):
    "All indices of `data_source` in random order, a new one in each pass, as torch draws it."
    def __init__(self, data_source: Sized, *, generator: Generator | None = None) -> None:
        if len(data_source) == 0: raise ValueError("the dataset is empty: nothing to shuffle")
        self.data_source, self.generator = data_source, generator

    def orders(self) -> Iterator[Tensor]:
        "One tensor with the indices of a pass."
        n, generator = len(self.data_source), self.generator
        if generator is None: generator = Generator().manual_seed(_random_seed(None))
        yield torch.randperm(n, generator=generator)
        torch.randperm(n, generator=generator)          # torch draws one more: stay in step

class BatchSampler:
    "Lists of `batch_size` indices of `sampler`; `drop_last` leaves out a last one that is shorter."
    def __init__(self, sampler: Iterable[int], batch_size: int, drop_last: bool) -> None:
        if not isinstance(batch_size, int) or batch_size < 1:
            raise ValueError(f"batch_size must be a positive integer, not {batch_size!r}")
        self.sampler, self.batch_size, self.drop_last = sampler, batch_size, drop_last

    def __iter__(self) -> Iterator[list[int]]:
        indices = iter(self.sampler)
        for batch in iter(lambda: list(islice(indices, self.batch_size)), []):
            if len(batch) == self.batch_size or not self.drop_last: yield batch

    def __len__(self) -> int:
        batches = len(self.sampler) / self.batch_size
        return floor(batches) if self.drop_last else ceil(batches)

def _collate(batch: Sequence, join: Callable[[list[Tensor]], Any]) -> Any:
    "A batch of items by the type of the first, field by field; `join` makes one of many tensors."
    first = batch[0]
    if isinstance(first, (str, bytes)): return list(batch)
    if isinstance(first, (Tensor, np.ndarray, np.generic)):
        return join([torch.as_tensor(item) for item in batch])
    if isinstance(first, float): return torch.tensor(batch, dtype=torch.float64)
    if isinstance(first, int): return torch.tensor(batch)
    if not isinstance(first, (dict, tuple, list)):
        raise TypeError(f"cannot collate {type(first).__name__}: pass a collate_fn of your own")
    if any(len(item) != len(first) for item in batch):
        raise RuntimeError("items differ in length: make sequences tensors, and use pad_collate")
    if isinstance(first, dict):
        return first | {key: _collate([item[key] for item in batch], join) for key in first}
    fields = [_collate(field, join) for field in zip(*batch)]
    return type(first)(*fields) if hasattr(first, "_fields") else fields

def default_collate(batch: Sequence) -> Any:
    """One batch from a list of items, by the type of the first; tuples and dicts field by field.

    Shapes: n tensors or arrays (...) become (n, ...), n numbers (n,). Strings stay a list.
    Raises `RuntimeError` when shapes or fields differ, `TypeError` for a type it does not know.
    """
    return _collate(batch, torch.stack)

def _pad(tensors: list[Tensor], padding_value: float) -> Any:
    shapes = [tuple(tensor.shape) for tensor in tensors]
    if len({(len(shape), *shape[1:]) for shape in shapes}) > 1:
        raise ValueError(f"only the first dimension may differ, not {shapes}")
    if shapes[0] == (): return torch.stack(tensors)          # numbers, not sequences
    lengths = torch.tensor([shape[0] for shape in shapes])
    return pad_sequence(tensors, batch_first=True, padding_value=padding_value), lengths

def pad_collate(batch: Sequence, padding_value: float = 0) -> Any:
    """`default_collate` for sequences: each field of tensors becomes a pair (padded, lengths).

    Shapes: n tensors (length_i, ...) become `padded` (n, longest, ...) and `lengths` (n,) int64.
    Raises `ValueError` when two sequences differ in more than their length.
    """
    return _collate(batch, partial(_pad, padding_value=padding_value))

class TensorDataset(Dataset):
    "Item i is row i of each of `tensors`, as a tuple; shapes (n, ...), with the same n."
    def __init__(self, *tensors: Tensor) -> None:
        sizes = [len(tensor) for tensor in tensors]
        if len(set(sizes)) != 1:
            raise ValueError(f"tensors must have the same number of rows each, not {sizes}")
        self.tensors = tuple(torch.as_tensor(tensor) for tensor in tensors)      # arrays too

    def __getitem__(self, index: Any) -> tuple[Tensor, ...]:
        return tuple(tensor[index] for tensor in self.tensors)

    def __len__(self) -> int: return len(self.tensors[0])

class Subset(Dataset):
    "The items of `dataset` at `indices`, in that order; nothing is copied."
    def __init__(self, dataset: Any, indices: Sequence[int]) -> None:
        self.dataset, self.indices = dataset, torch.as_tensor(indices, dtype=torch.int64)

    def __getitem__(self, index: int) -> Any: return self.dataset[self.indices[index].item()]
    def __len__(self) -> int: return len(self.indices)

def random_split(dataset: Any, lengths: Sequence[int | float],
                 generator: Generator | None = None) -> list[Subset]:
    """Subsets of these `lengths` (or fractions that sum to 1), which share out the items at random.

    Raises `ValueError` when a length is negative or they sum neither to `len(dataset)` nor to 1.
    """
    n, lengths = len(dataset), list(lengths)
    if min(lengths) < 0 or not (sum(lengths) == n or isclose(sum(lengths), 1)):
        raise ValueError(f"lengths must be 0 or more and sum to {n} items or to 1, not {lengths}")
    if isclose(sum(lengths), 1):
        lengths = [floor(n*fraction) for fraction in lengths]
        for i in range(n - sum(lengths)): lengths[i % len(lengths)] += 1
    if 0 in lengths: warnings.warn(f"random_split made an empty subset: {lengths}", stacklevel=2)
    order = torch.randperm(n, generator=generator)
    return [Subset(dataset, order[end - k:end]) for end, k in zip(accumulate(lengths), lengths)]

def _rows(dataset: Any, indices: Any) -> tuple[tuple[Tensor, ...], Tensor] | None:
    "Tensors, and the rows there of these items; None where a class has changed what an item is."
    subsets = []
    while (get := getattr(type(dataset), "__getitem__", None)) is Subset.__getitem__:
        subsets.append(dataset.indices)
        dataset = dataset.dataset
    if get is not TensorDataset.__getitem__: return None
    if not isinstance(indices, Tensor):
        indices = torch.tensor(list(map(operator.index, indices)), dtype=torch.int64)
    for rows in subsets: indices = rows[indices]
    indices = torch.where(indices < 0, indices + len(dataset), indices)
    return dataset.tensors, indices.to(dataset.tensors[0].device)

def _take(tensors: tuple[Tensor, ...], rows: Tensor) -> list[Tensor]:
    return [tensor.index_select(0, rows.to(tensor.device)) for tensor in tensors]

def _read(dataset: Any, collate_fn: Callable[[list], Any], indices: Sequence) -> Any:
    "A batch: rows of tensors all at once where it may, else one item after another."
    if collate_fn is default_collate and (found := _rows(dataset, indices)): return _take(*found)
    return collate_fn([dataset[i] for i in indices])

class DataLoader:
    """Iterates over `dataset` in batches: names, order, defaults and draws are torch's.

    A batch is `collate_fn` (or `default_collate`) of a list of items. A stream (`IterableDataset`)
    is read in the main process. `pin_memory` is there for torch's programs, and changes nothing;
    nothing is moved to a device. Raises `ValueError` for options that exclude one another, and
    `RuntimeError` for an error in a worker, with its traceback, or for one that dies.
    """
    def __init__(self, dataset: Any, batch_size: int = 1, shuffle: bool | None = None,
                 sampler: Iterable | None = None, batch_sampler: Iterable[Sequence] | None = None,
                 num_workers: int = 0, collate_fn: Callable[[list], Any] | None = None,
                 pin_memory: bool = False, drop_last: bool = False, *,
                 worker_init_fn: Callable[[int], None] | None = None,
                 multiprocessing_context: Any = None, generator: Generator | None = None,
                 persistent_workers: bool = False) -> None:
        stream, ordered = isinstance(dataset, IterableDataset), sampler is not None
        if batch_sampler is not None and (batch_size != 1 or shuffle or ordered or drop_last):
            raise ValueError("batch_sampler replaces batch_size, shuffle, sampler and drop_last")
        if ordered and shuffle or stream and (ordered or shuffle or batch_sampler is not None):
            raise ValueError("shuffle and sampler exclude one another, and a stream has its order")
        if num_workers < 0 or num_workers == 0 and (persistent_workers or multiprocessing_context):
            raise ValueError(f"num_workers must be 0 or more, and more for persistent_workers or a "
                             f"multiprocessing_context, not {num_workers}")
        sized = hasattr(dataset, "__len__") or ordered or batch_sampler is not None
        if not stream and not (hasattr(dataset, "__getitem__") and sized):
            raise TypeError(f"{type(dataset).__name__} needs __getitem__(index) and __len__(), or "
                            "to be an IterableDataset")
        if shuffle: sampler = RandomSampler(dataset, generator=generator)
        elif sampler is None: sampler = dataset if stream else SequentialSampler(dataset)
        if batch_sampler is None: batch_sampler = BatchSampler(sampler, batch_size, drop_last)
        else: batch_size = None
        collate_fn = collate_fn or default_collate
        store_attr()
        self.workers = self._seed = None

    def __len__(self) -> int: return len(self.batch_sampler)

    def __iter__(self) -> Iterator:
        source, collate_fn, batches = self.dataset, self.collate_fn, iter(self.batch_sampler)
        read = collate_fn if source is self.sampler else partial(_read, source, collate_fn)
        if self._seed is None or not self.persistent_workers:
            self._seed = _random_seed(self.generator)          # torch draws it without workers too
        if self.num_workers: return iterate(self, read, batches, self._seed)
        whole = type(self.batch_sampler) is BatchSampler and collate_fn is default_collate
        if (whole and type(self.batch_sampler.sampler).__iter__ is _Sampler.__iter__
                and _rows(source, [])): return self._cut(self.batch_sampler)
        return (read(indices) for indices in batches)

    def _cut(self, batches: BatchSampler) -> Iterator:
        "The batches of an order that goes to the device of the tensors, whole, once an epoch."
        for order in batches.sampler.orders():
            tensors, order = _rows(self.dataset, order)
            for rows in order.split(batches.batch_size):
                if len(rows) == batches.batch_size: yield _take(tensors, rows)
        rest = len(order) % batches.batch_size          # the sampler is at its end, as torch's is
        if rest and not batches.drop_last: yield _take(tensors, order[-rest:])

def __getattr__(name: str) -> Any:
    "What is not built here is torch's: samplers, datasets, `get_worker_info`."
    if name[0] != "_" and hasattr(torch.utils.data, name): return getattr(torch.utils.data, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

def __dir__() -> list[str]: return __all__
