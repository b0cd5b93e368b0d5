"""The data of a run's probes as a digest: probes of other data do not compare."""

import hashlib
from collections.abc import Iterable

import torch

from stagewise.batches import Batch, tensors
from stagewise.influence.groups import Groups


def data_digest(batches: Iterable[Batch], groups: Groups) -> str:
    """SHA-256 of the bytes of all tensors, and of the names and sizes of the groups.

    Args:
        batches: of samples, on any device.
        groups: over the first of them.
    """
    digest = hashlib.sha256()
    for batch in batches:
        for tensor in tensors(batch):
            digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    digest.update(repr((groups.names, groups.counts.tolist())).encode())
    return digest.hexdigest()
