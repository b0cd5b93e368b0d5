"""Labels of a batch of labelled samples, and the default groups made of them."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from stagewise.batches import Batch, num_samples
from stagewise.errors import InputError
from stagewise.structure import is_column

FEWEST, MOST = 2, 20
"""Fewest and most distinct labels that become groups: one separates nothing, and more are too many to read."""

_NAMES = ("labels", "label", "targets", "target", "y")
_IGNORED = -100


def sample_labels(batch: Batch) -> Tensor | None:
    """Finds the integer label of each sample, in the second place of a pair or under a usual name.

    Args:
        batch: ``(x, y)``, or a mapping with ``labels``, ``label``, ``targets``, ``target`` or ``y``.

    Returns:
        Int64 ``[sample]``, on the CPU; None if there are none.
    """
    if isinstance(batch, Mapping):
        found = next((batch[name] for name in _NAMES if name in batch), None)
    elif isinstance(batch, (tuple, list)) and len(batch) == 2 and not is_column(batch):
        found = batch[1]
    else:
        return None
    labels = _integers(found)
    try:
        return labels if labels is not None and len(labels) == num_samples(batch) else None
    except InputError:  # raised again where the batch is used
        return None


def _integers(found: Any) -> Tensor | None:
    if isinstance(found, np.ndarray) and found.dtype.kind in "iu" and found.ndim == 1:
        return torch.from_numpy(found.astype(np.int64))
    if isinstance(found, (list, tuple)) and found and all(type(entry) is int for entry in found):
        return torch.tensor(found, dtype=torch.int64)
    if not isinstance(found, Tensor) or found.layout is not torch.strided or found.dim() != 1:
        return None
    if found.is_floating_point() or found.is_complex() or found.dtype == torch.bool:
        return None
    return found.detach().cpu().long()


def label_name(label: int) -> str:
    """Returns the name of a group, such as ``label 3``, also used for its samples."""
    return f"label {label}"


def label_groups(batch: Batch) -> dict[str, Tensor]:
    """Makes a group of each label, if there are 2 to 20 distinct ones.

    Samples with the label -100, which torch's losses ignore, are in no group.

    Args:
        batch: see :func:`sample_labels`.

    Returns:
        ``label <n>`` to bool ``[sample]``, by increasing label; empty without labels, or with too few or too many.
    """
    labels = sample_labels(batch)
    if labels is None:
        return {}
    distinct = [int(label) for label in labels.unique() if label != _IGNORED]
    if not FEWEST <= len(distinct) <= MOST:
        return {}
    return {label_name(label): labels == label for label in distinct}
