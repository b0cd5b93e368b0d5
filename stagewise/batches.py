"""Batches of any nested structure: their size, parts of them, and a data set as one batch."""

from collections.abc import Callable
from typing import Any

import torch
from lightning_utilities.core.apply_func import apply_to_collection
from torch import Tensor
from torch.utils.data import Dataset, IterableDataset, default_collate

from stagewise.errors import InputError

Batch = Any
"""What a loss function takes: a tensor, or tuples, lists and mappings of tensors that share their leading size."""


def tensors(batch: Batch) -> list[Tensor]:
    """All tensors of a batch, in order."""
    found: list[Tensor] = []
    apply_to_collection(batch, Tensor, found.append)
    return found


def num_samples(batch: Batch) -> int:
    """Leading size shared by all tensors of a batch.

    Args:
        batch: nested tensors, each of shape ``[sample, ...]``; zero-dimensional tensors are passed over.

    Raises:
        InputError: no tensor was found, or leading sizes differ.
    """
    sizes = [len(tensor) for tensor in tensors(batch) if tensor.dim()]
    if not sizes:
        raise InputError(
            f"got a batch without tensors ({type(batch).__name__}); expected tensors of shape [sample, ...]; "
            "pass the batch as your loss function takes it"
        )
    if len(set(sizes)) > 1:
        raise InputError(
            f"got tensors of leading sizes {sorted(set(sizes))} in one batch; expected one leading size, the number of "
            "samples; pad or stack them"
        )
    return sizes[0]


def take(batch: Batch, index: Tensor | slice) -> Batch:
    """Samples of a batch, in its own structure.

    Args:
        batch: nested tensors of shape ``[sample, ...]``.
        index: integer tensor ``[k]`` or a slice.
    """
    return apply_to_collection(batch, Tensor, lambda tensor: tensor[index] if tensor.dim() else tensor)


def to_device(batch: Batch, device: torch.device) -> Batch:
    """A batch with its tensors on ``device``."""
    return apply_to_collection(batch, Tensor, lambda tensor: tensor.to(device))


def first_samples(
    dataset: Any, limit: int | None = None, collate_fn: Callable[[list[Any]], Batch] | None = None
) -> Batch:
    """The first samples of a map-style data set, as one batch.

    Args:
        dataset: has a length, and samples by index.
        limit: at most so many samples.
        collate_fn: how samples become a batch; torch's default if not given.

    Raises:
        InputError: the data set has no length, or holds no sample.
    """
    if not hasattr(dataset, "__len__") or isinstance(dataset, IterableDataset):
        raise InputError(
            f"got an iterable data set ({type(dataset).__name__}) ; expected a map-style data set or a "
            "batch; draw a fixed set of samples from it and pass that"
        )
    size = len(dataset) if limit is None else min(limit, len(dataset))
    if size == 0:
        raise InputError(f"got an empty data set ({type(dataset).__name__}); expected at least one sample")
    # As a DataLoader fetches: a data set may answer for many samples at once, and its collate function counts on it.
    fetch = getattr(dataset, "__getitems__", None)
    samples = fetch(list(range(size))) if fetch is not None else [dataset[index] for index in range(size)]
    return (collate_fn or default_collate)(samples)


def as_batch(data: Dataset | Batch, collate_fn: Callable[[list[Any]], Batch] | None = None) -> Batch:
    """A torch or Hugging Face data set as one batch; anything else is taken to be a batch already.

    Args:
        data: map-style data set, or a batch.
        collate_fn: how samples become a batch; torch's default if not given.

    Raises:
        InputError: there is no sample, or no length.
    """
    if isinstance(data, Dataset) or hasattr(data, "__getitems__"):
        return first_samples(data, collate_fn=collate_fn)
    if num_samples(data) == 0:
        raise InputError("got a batch of 0 samples; expected at least one")
    return data
