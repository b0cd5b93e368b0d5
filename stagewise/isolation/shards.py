"""Parameters sharded by ``fully_shard`` (FSDP2) of torch: DTensors, each with a local part."""

import sys
from typing import Any

from torch import Tensor, nn


def is_sharded(tensor: Any) -> bool:
    """Returns True for a DTensor, of which this process holds a part."""
    # If the module, which takes a third of a second to import, was not imported, there are no DTensors.
    known = sys.modules.get("torch.distributed.tensor")
    return known is not None and isinstance(tensor, known.DTensor)


def local(tensor: Tensor) -> Tensor:
    """Returns the local part of a DTensor, or the tensor itself."""
    return tensor._local_tensor if is_sharded(tensor) else tensor  # type: ignore[attr-defined]


def sharded_modules(module: nn.Module) -> list[Any]:
    """Returns the modules to which ``fully_shard`` was applied, outer before inner."""
    known = sys.modules.get("torch.distributed.fsdp")
    kind = getattr(known, "FSDPModule", None)
    return [] if kind is None else [child for child in module.modules() if isinstance(child, kind)]


def reshard(module: nn.Module) -> None:
    """Frees whole weights left by a pass without gradients, so that the module holds its shards; no communication."""
    for child in sharded_modules(module):
        child.reshard()


def recover(module: nn.Module) -> None:
    """Makes the module hold its shards wherever the last pass ended, even in an error; no communication.

    Pending gradients of that pass are discarded.
    """
    for child in sharded_modules(module):
        # Unknown before the first pass, when nothing has been gathered.
        if child._get_fsdp_state()._is_root:
            child.reset_iter_state()
    reshard(module)
