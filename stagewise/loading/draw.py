"""Samples drawn by a training loader, read without advancing it."""

import copy
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any

import numpy as np
from torch import Tensor
from torch.utils.data import (
    BatchSampler,
    Dataset,
    DistributedSampler,
    IterableDataset,
    RandomSampler,
    SequentialSampler,
    SubsetRandomSampler,
)

from stagewise.batches import Batch, collated, joined, num_samples, take
from stagewise.errors import InputError
from stagewise.isolation import unmoved
from stagewise.isolation.seeding import global_seed, seed_generators
from stagewise.loading.order import EpochBatches
from stagewise.structure import named

SEED = 0
"""Seed of random draws while reading a sampler."""

_EPOCHS = 10
"""Largest number of passes over a sampler to collect the requested number of samples."""

_GIVE_DATA = "pass the data of the probes: observed= (losses recorded) and sampling= (drives the chains)"


def has_samples(loader: Any) -> bool:
    """Returns True if a loader is backed by a single map-style data set."""
    dataset = getattr(loader, "dataset", None)
    if isinstance(dataset, IterableDataset):
        return False
    return hasattr(dataset, "__len__") and hasattr(dataset, "__getitem__")


def draw_batch(loader: Any, limit: int, *, distinct: bool) -> Batch:
    """Returns samples of a loader as one batch, through its sampler, its ``collate_fn`` and its form of a batch.

    The loader, its sampler and all random states are not advanced; samples are fetched in this process.

    Args:
        loader: with a map-style data set.
        limit: largest number of samples.
        distinct: take each sample once, even if the sampler draws with replacement.

    Returns:
        The samples of :func:`draw_indices`. With ``batch_size=None`` items of the data set are batches: the first are
        concatenated until there are ``limit`` samples.

    Raises:
        InputError: a sampler that cannot be read without advancing it, a sample that cannot be fetched here, or batches
            that cannot be concatenated.
    """
    dataset, collate_fn = loader.dataset, getattr(loader, "collate_fn", None)
    with unmoved(dataset, collate_fn):
        try:
            if _items_are_batches(loader):
                return _whole_batches(loader, limit, distinct=distinct)
            return collated(dataset, draw_indices(loader, limit, distinct=distinct), collate_fn)
        except InputError:
            raise
        except Exception as error:
            raise InputError(
                f"got {named(dataset)}, from which samples cannot be fetched in this process ({type(error).__name__}: "
                f"{error}); expected one that needs no worker; {_GIVE_DATA}"
            ) from error


def draw_indices(loader: Any, limit: int, *, distinct: bool) -> list[Any]:
    """Returns the indices of samples that a loader draws, depending on its sampler.

    * Samplers over a whole data set, in order or shuffled (those of torch, of Lightning under DDP, and of this
      package's loaders): the first indices of the set.
    * ``SubsetRandomSampler``: the first of its indices.
    * Any other sampler or batch sampler: the first indices drawn by a copy, with random states seeded with
      :data:`SEED`, from epoch 0; up to ten epochs if it draws with replacement. Every rank gets the same.

    Args:
        loader: with a map-style data set.
        limit: largest number of indices.
        distinct: take each index once.

    Raises:
        InputError: no sample, or a sampler that cannot be read without advancing it.
    """
    dataset = loader.dataset
    batches = getattr(loader, "batch_sampler", None)
    if batches is None or type(batches) is BatchSampler:
        sampler = getattr(loader, "sampler", None) if batches is None else batches.sampler
        found = _of_sampler(sampler, dataset, limit, distinct=distinct)
    elif isinstance(batches, EpochBatches):
        found = list(range(min(limit, len(dataset))))
    else:
        found = _of_copy(batches, dataset, limit, distinct=distinct, batched=True)
    if not found:
        raise InputError(f"got an empty data set ({type(dataset).__name__}); expected at least one sample")
    return found


def _of_sampler(sampler: Any, dataset: Any, limit: int, *, distinct: bool) -> list[Any]:
    if sampler is None:
        return list(range(min(limit, len(dataset))))
    if type(sampler) in (SequentialSampler, RandomSampler):
        return list(range(min(limit, len(sampler.data_source))))
    if type(sampler) is DistributedSampler:
        return list(range(min(limit, len(sampler.dataset))))  # type: ignore[arg-type]
    if isinstance(sampler, DistributedSampler) and type(sampler).__name__ == "DistributedSamplerWrapper":
        return _of_sampler(sampler.dataset._sampler, dataset, limit, distinct=distinct)  # type: ignore[attr-defined]
    if type(sampler) is SubsetRandomSampler:
        sampler = sampler.indices
    if isinstance(sampler, (list, tuple, range, Tensor, np.ndarray)):
        indices = [_plain(index) for index in sampler]
        return list(dict.fromkeys(indices) if distinct else indices)[:limit]
    return _of_copy(sampler, dataset, limit, distinct=distinct, batched=False)


def _of_copy(sampler: Any, dataset: Any, limit: int, *, distinct: bool, batched: bool) -> list[Any]:
    """Returns the first indices that a copy of a sampler draws."""
    try:
        with global_seed(SEED):
            return _first(_copied(sampler, dataset), limit, distinct=distinct, batched=batched)
    except Exception as error:
        raise InputError(
            f"got {named(sampler)} for training, which cannot be read without advancing it ({type(error).__name__}: "
            f"{error}); expected a sampler that can be copied and iterated again; {_GIVE_DATA}"
        ) from error


def _copied(sampler: Any, dataset: Any) -> Any:
    if isinstance(sampler, Iterator):
        raise TypeError("it is an iterator, which is used up by reading")
    # The data set is shared: it may be large.
    shared = [dataset, *(value for value in getattr(sampler, "__dict__", {}).values() if isinstance(value, Dataset))]
    twin = copy.deepcopy(sampler, {id(dataset): dataset for dataset in shared})
    seed_generators(twin, SEED)
    return twin


def _first(sampler: Any, limit: int, *, distinct: bool, batched: bool) -> list[Any]:
    found: list[Any] = []
    seen: set[Any] = set()
    for epoch in range(_EPOCHS):
        for owner in (sampler, getattr(sampler, "sampler", None)):
            if callable(getattr(owner, "set_epoch", None)):
                owner.set_epoch(epoch)  # type: ignore[union-attr]
        known, drawn = len(seen), 0
        # A sampler may go on forever.
        for entry in islice(iter(sampler), 100 * limit):
            for index in map(_plain, entry if batched else (entry,)):
                drawn += 1
                key = repr(index) if isinstance(index, list) else index
                if not (distinct and key in seen):
                    found.append(index)
                seen.add(key)
                if len(found) == limit:
                    return found
        # An epoch without repetition has all indices; further epochs would only repeat them.
        if drawn == len(seen) - known or len(seen) == known:
            break
    return found


def _plain(index: Any) -> Any:
    """Returns an index as plain Python."""
    return index.item() if isinstance(index, (Tensor, np.generic)) else index


def _items_are_batches(loader: Any) -> bool:
    return hasattr(loader, "batch_sampler") and loader.batch_sampler is None and loader.batch_size is None


def _whole_batches(loader: Any, limit: int, *, distinct: bool) -> Batch:
    sampler, dataset = loader.sampler, loader.dataset
    batches: list[Batch] = []
    total = 0
    for index in _items(sampler, dataset, limit, distinct=distinct):
        batches.append(loader.collate_fn(dataset[index]))
        total += num_samples(batches[-1])
        if total >= limit:
            break
    if total == 0:
        raise InputError(f"got an empty data set ({type(dataset).__name__}); expected at least one sample")
    return take(joined(batches), slice(0, limit))


def _items(sampler: Any, dataset: Any, limit: int, *, distinct: bool) -> Sequence[Any]:
    """Returns keys of batches in the data set: numbers, or e.g. lists of indices from a batch sampler."""
    if isinstance(sampler, BatchSampler):
        inner = _of_sampler(sampler.sampler, dataset, limit, distinct=distinct)
        return [inner[start : start + sampler.batch_size] for start in range(0, len(inner), sampler.batch_size)]
    return _of_sampler(sampler, dataset, limit, distinct=distinct)
