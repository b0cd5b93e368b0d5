"""Batches of any nested structure: their size, their parts, and data sets as one batch."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence
from torch.utils.data import Dataset, IterableDataset, default_collate

from stagewise.errors import InputError, first_line
from stagewise.structure import INDICES, Path, chosen, each_tensor, holds_data, is_column, leaves, mapped, named, where
from stagewise.structure import tensors as tensors

Batch = Any
"""Argument of a loss function: nested tensors, arrays and columns that share their leading size, the number of samples.

* Tensors and numpy arrays have the samples on their first axis; zero-dimensional ones belong to the whole batch.
* Lists and tuples of strings, numbers or other objects without data are *columns*, with one entry per sample.
* Lists and tuples that hold a tensor, an array or a container are *structure*, like ``(x, y)``, whatever their length;
  so are mappings, named tuples and dataclasses. A list of one tensor per sample is therefore not a batch.
* None, single strings and numbers, and column names (a pandas ``Index``) belong to the whole batch.

Anything else that holds data (graphs, packed sequences, ragged lists, objects with tensors or a length) cannot be cut
into samples and is refused; use :class:`~stagewise.losses.collated.CollatedLoss` for it.
"""


def _sized(batch: Batch) -> Iterator[tuple[Path, Any, int]]:
    """Yields each leaf that has one entry per sample, with its path and its number of entries.

    Raises:
        InputError: a leaf that cannot be cut into samples.
    """
    for path, leaf in leaves(batch):
        if isinstance(leaf, Tensor) and not leaf.is_nested:
            if leaf.dim():
                yield path, leaf, len(leaf)
        elif isinstance(leaf, np.ndarray):
            if leaf.ndim:
                yield path, leaf, len(leaf)
        elif is_column(leaf):
            if len(leaf):
                yield path, leaf, len(leaf)
        elif isinstance(leaf, (list, tuple)) and not isinstance(leaf, PackedSequence):
            continue  # empty
        elif isinstance(leaf, Tensor) or holds_data(leaf):
            raise InputError(
                f"got a {named(leaf)} at {where(path)}, which cannot be cut into samples; expected tensors [sample, "
                f"...] and lists of one string or number a sample; {INDICES}"
            )


def num_samples(batch: Batch) -> int:
    """Returns the common leading size of tensors and arrays with axes, and of columns.

    Args:
        batch: see :data:`Batch`.

    Raises:
        InputError: nothing has a leading size, leading sizes differ, or something cannot be cut into samples.
    """
    size = None
    for _, _, length in _sized(batch):
        if size is None:
            size = length
        elif size != length:
            raise InputError(_different(batch))
    if size is None:
        raise InputError(
            f"got a batch without tensors ({type(batch).__name__}); expected tensors of shape [sample, ...]; "
            "pass the batch as your loss function takes it"
        )
    return size


def _different(batch: Batch) -> str:
    found = [(path, leaf, length) for path, leaf, length in _sized(batch)]
    sizes = sorted({length for *_, length in found})
    listed = ", ".join(
        f"{where(path)} {list(leaf.shape) if isinstance(leaf, (Tensor, np.ndarray)) else f'{length} entries'}"
        for path, leaf, length in found[:6]
    )
    return (
        f"got leading sizes {sizes} in one batch ({listed}{', ...' if len(found) > 6 else ''}); expected one leading "
        f"size, the number of samples; pad or stack ragged entries, leave out those not of samples, or {INDICES}"
    )


def take(batch: Batch, index: Tensor | slice) -> Batch:
    """Returns samples of a batch, in its own structure.

    Args:
        batch: see :data:`Batch`.
        index: integer tensor ``[k]`` or a slice.

    Raises:
        InputError: as :func:`num_samples`.
    """
    num_samples(batch)

    def of_leaf(leaf: Any) -> Any:
        if isinstance(leaf, Tensor):
            if leaf.dim() == 0:
                return leaf
            if leaf.layout is not torch.strided:
                rows = torch.arange(len(leaf))[index] if isinstance(index, slice) else index
                return leaf.index_select(0, rows.to(leaf.device))
            return leaf[index if isinstance(index, slice) else index.to(leaf.device)]
        if isinstance(leaf, np.ndarray) and leaf.ndim:
            return leaf[index if isinstance(index, slice) else index.cpu().numpy()]
        return chosen(leaf, index) if is_column(leaf) else leaf

    return mapped(batch, of_leaf)


def joined(batches: Sequence[Batch]) -> Batch:
    """Concatenates batches along the samples; entries that belong to a whole batch come from the first.

    Raises:
        InputError: the batches differ in structure, or in more than their leading size.
    """
    if len(batches) == 1:
        return batches[0]
    parts = [list(leaves(batch)) for batch in batches]
    places = [[path for path, _ in part] for part in parts]
    if any(other != places[0] for other in places):
        raise InputError("got batches of different structure; expected one structure; give observed= and sampling=")
    columns = iter(zip(*([leaf for _, leaf in part] for part in parts), strict=True))

    def of_leaf(first: Any) -> Any:
        held = list(next(columns))
        try:
            if isinstance(first, Tensor) and first.dim():
                return torch.cat(held)
            if isinstance(first, np.ndarray) and first.ndim:
                return np.concatenate(held)
            if is_column(first):
                return (
                    type(first)(entry for column in held for entry in column) if not isinstance(first, range) else held
                )
        except (RuntimeError, ValueError, TypeError) as error:
            raise InputError(
                f"got batches that cannot be concatenated ({first_line(error)}); expected one shape of "
                "sample; give observed= and sampling="
            ) from error
        return first

    return mapped(batches[0], of_leaf)


def has_columns(batch: Batch) -> bool:
    """Returns True if per-sample entries of a batch are not all tensors: arrays, or lists of strings or numbers."""
    return any(not isinstance(leaf, Tensor) for _, leaf, _ in _sized(batch))


def plain_parts(batch: Batch) -> str:
    """Returns a text of all non-tensor parts of a batch, which a traced program treats as constants."""
    return repr([(path, leaf) for path, leaf in leaves(batch) if not isinstance(leaf, Tensor)])


def to_device(batch: Batch, device: torch.device) -> Batch:
    """Returns a batch with its tensors on ``device``."""
    return each_tensor(batch, lambda tensor: tensor.to(device))


def collated(dataset: Any, indices: Sequence[Any], collate_fn: Callable[[list[Any]], Batch] | None = None) -> Batch:
    """Returns samples of a map-style data set as one batch, fetched as a ``DataLoader`` would.

    Args:
        dataset: gives samples by index; its ``__getitems__``, if present, is called once for all.
        indices: of the samples.
        collate_fn: turns samples into a batch; torch's default if None.
    """
    fetch = getattr(dataset, "__getitems__", None)
    samples = fetch(list(indices)) if fetch is not None else [dataset[index] for index in indices]
    return (collate_fn or default_collate)(samples)


def first_samples(
    dataset: Any, limit: int | None = None, collate_fn: Callable[[list[Any]], Batch] | None = None
) -> Batch:
    """Returns the first samples of a map-style data set, as one batch.

    Args:
        dataset: has a length, and gives samples by index.
        limit: largest number of samples; all of them if None.
        collate_fn: turns samples into a batch; torch's default if None.

    Raises:
        InputError: the data set has no length, or holds no sample.
    """
    if not hasattr(dataset, "__len__") or isinstance(dataset, IterableDataset):
        raise InputError(
            f"got an iterable data set ({type(dataset).__name__}); expected a map-style data set or a batch; draw a "
            "fixed set of samples from it and pass that as observed= (losses recorded) and sampling= (drives chains)"
        )
    size = len(dataset) if limit is None else min(limit, len(dataset))
    if size == 0:
        raise InputError(f"got an empty data set ({type(dataset).__name__}); expected at least one sample")
    return collated(dataset, range(size), collate_fn)


def as_batch(data: Dataset | Batch, collate_fn: Callable[[list[Any]], Batch] | None = None) -> Batch:
    """Returns a torch or Hugging Face data set as one batch; anything else is assumed to be a batch already.

    Args:
        data: map-style data set, or a batch.
        collate_fn: turns samples into a batch; torch's default if None.

    Raises:
        InputError: no samples, or a data set without a length.
    """
    if isinstance(data, Dataset) or hasattr(data, "__getitems__"):
        return first_samples(data, collate_fn=collate_fn)
    if num_samples(data) == 0:
        raise InputError("got a batch of 0 samples; expected at least one")
    return data


def chunks(batch: Batch, chunk_size: int | None) -> list[Batch]:
    """Splits a batch into parts of at most ``chunk_size`` samples, in order; the whole batch if None."""
    size = num_samples(batch)
    if chunk_size is None or chunk_size >= size:
        return [batch]
    return [take(batch, slice(start, start + chunk_size)) for start in range(0, size, chunk_size)]
