"""Digest of the data of a run's probes: probes of other data are not comparable."""

import hashlib
from collections.abc import Iterable

import numpy as np
import torch

from stagewise.batches import Batch, tensors
from stagewise.influence.groups import Groups
from stagewise.structure import is_column, leaves


def batches_digest(batches: Iterable[Batch], *words: str) -> str:
    """Returns the SHA-256 digest of all tensors, arrays and columns, and of some words.

    Args:
        batches: of samples, on any device.
        words: descriptions of further data.
    """
    digest = hashlib.sha256()
    for batch in batches:
        for tensor in tensors(batch):
            digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
        for _, leaf in leaves(batch):
            if isinstance(leaf, np.ndarray) and leaf.dtype != object:
                digest.update(np.ascontiguousarray(leaf).tobytes())
            elif isinstance(leaf, np.ndarray) or is_column(leaf):
                digest.update(repr(list(leaf)).encode())
    for word in words:
        digest.update(word.encode())
    return digest.hexdigest()


def data_digest(batches: Iterable[Batch], groups: Groups) -> str:
    """Returns :func:`batches_digest` with the names and sizes of the groups.

    Args:
        batches: of samples, on any device.
        groups: over the first of them.
    """
    return batches_digest(batches, repr((groups.names, groups.counts.tolist())))
