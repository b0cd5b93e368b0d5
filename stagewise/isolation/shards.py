"""Parameters in shards, as ``fully_shard`` (FSDP2) of torch leaves them: DTensors, each with a local part."""

import sys
from typing import Any

from torch import Tensor, nn


def is_sharded(tensor: Any) -> bool:
    """True for a DTensor, of which this process holds a part."""
    # Without the import, which takes a third of a second, there are none.
    known = sys.modules.get("torch.distributed.tensor")
    return known is not None and isinstance(tensor, known.DTensor)


def local(tensor: Tensor) -> Tensor:
    """Returns the memory of this process behind a tensor: the local part of a DTensor, else the tensor itself."""
    return tensor._local_tensor if is_sharded(tensor) else tensor  # type: ignore[attr-defined]


def sharded_modules(module: nn.Module) -> list[Any]:
    """Returns the modules that ``fully_shard`` was applied to, the outer before the inner."""
    known = sys.modules.get("torch.distributed.fsdp")
    kind = getattr(known, "FSDPModule", None)
    return [] if kind is None else [child for child in module.modules() if isinstance(child, kind)]


def reshard(module: nn.Module) -> None:
    """Has the module hold its shards where a pass without gradients has left whole weights; communicates nothing."""
    for child in sharded_modules(module):
        child.reshard()


def recover(module: nn.Module) -> None:
    """Has the module hold its shards wherever the last pass ended, also by an error; communicates nothing.

    Gradients of that pass that are still on their way are given up.
    """
    for child in sharded_modules(module):
        # Unknown before the first pass: then nothing was gathered by one.
        if child._get_fsdp_state()._is_root:
            child.reset_iter_state()
    reshard(module)
