"""Communication of processes that hold a module in shards and together evaluate it and run each chain."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from stagewise.batches import Batch, num_samples, take
from stagewise.errors import InputError
from stagewise.isolation.shards import is_sharded, sharded_modules
from stagewise.losses.contract import Losses


def _nobody() -> None:
    """Returns at once: a single process waits for no others."""


def _own(mine: Tensor) -> list[Tensor]:
    return [mine]


@dataclass(frozen=True, eq=False)
class Sharding:
    """Communication of the processes that evaluate a sharded module together.

    A forward pass of such a module gathers weights from all processes: all must enter it, and a process that fails must
    not leave the others waiting in it. Hence processes meet before every module that gathers, before each backward
    pass, and before each exchange of numbers. A failure within a backward pass is not covered: the other processes wait
    for the time limit of the process group, as in training.

    Attributes:
        rank: number of this process, from 0.
        world_size: number of processes.
        meet: waits for all processes; raises if one of them has failed.
        exchange: takes a CPU tensor, of one shape on all processes, and returns those of all, in the order of ranks.
    """

    rank: int = 0
    world_size: int = 1
    meet: Callable[[], None] = _nobody
    exchange: Callable[[Tensor], list[Tensor]] = _own

    def total(self, values: Tensor) -> Tensor:
        """Sums ``values`` over the processes, in double precision and in a fixed order: all get the same bits."""
        return torch.stack(self._all(values.detach().double().cpu())).sum(dim=0).to(values.device)

    def norms(self, vectors: Tensor) -> Tensor:
        """Returns the Euclidean norm over all processes of each row of ``[row, weight]``, this process's part."""
        return self.total(torch.linalg.vector_norm(vectors.double(), dim=1).square()).sqrt().to(vectors.dtype)

    def part(self, batch: Batch) -> tuple[Batch, bool]:
        """Returns this process's samples of a batch, and True; the first sample, and False, if it has none."""
        rows = torch.tensor(range(self.rank, num_samples(batch), self.world_size), dtype=torch.int64)
        return (take(batch, rows), True) if len(rows) else (take(batch, torch.zeros(1, dtype=torch.int64)), False)

    def joined(self, losses: Losses, size: int) -> Losses:
        """Combines the losses of all parts to those of a batch of ``size`` samples.

        Args:
            losses: of this process's part.
            size: samples of the whole batch.
        """
        most = -(-size // self.world_size)
        padded = losses.values.new_zeros(2, most, *losses.values.shape[1:])
        padded[0, : len(losses.values)], padded[1, : len(losses.mask)] = losses.values, losses.mask
        values = losses.values.new_empty(size, *losses.values.shape[1:])
        mask = torch.empty_like(values, dtype=torch.bool)
        for rank, part in enumerate(self._all(padded.detach().cpu())):
            count = len(range(rank, size, self.world_size))
            values[rank :: self.world_size] = part[0, :count].to(values.device)
            mask[rank :: self.world_size] = part[1, :count].to(values.device) != 0
        return Losses(values, mask, losses.axes)

    def _all(self, mine: Tensor) -> list[Tensor]:
        self.meet()
        return self.exchange(mine)

    @contextmanager
    def meeting(self, module: nn.Module) -> Iterator[None]:
        """Context in which processes meet before every submodule of ``module`` that gathers weights."""
        handles = [
            child.register_forward_pre_hook(lambda *_: self.meet(), prepend=True) for child in sharded_modules(module)
        ]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()


def check_shards(module: nn.Module, world_size: int) -> None:
    """Refuses sharded weights that chains cannot move.

    Args:
        module: as set up by the strategy.
        world_size: number of processes.

    Raises:
        InputError: a version of torch that cannot recover from a failed pass, a trainable parameter that is not sharded
            by rows over all processes, an optimizer step within the backward pass, or gradients that are not averaged.
    """
    advice = "set InfluenceCallback(enabled=False) to train without probes"
    sharded = sharded_modules(module)
    if sharded and not hasattr(sharded[0], "reset_iter_state"):
        raise InputError(
            f"got weights in shards and torch {torch.__version__}, whose FSDP2 cannot recover from a pass that failed; "
            f"expected FSDPModule.reset_iter_state, as torch 2.13 has it; update torch, or {advice}"
        )
    for name, value in module.named_parameters():
        if not value.requires_grad:
            continue
        if not is_sharded(value):
            raise InputError(
                f"got {name!r}, a trainable parameter that is not sharded, beside a strategy that shards; expected all "
                f"of them in modules that fully_shard was applied to; apply it to the outermost module too, or {advice}"
            )
        mesh, placements = value.device_mesh, value.placements  # type: ignore[attr-defined]
        if not (len(placements) == 1 and placements[0].is_shard(0) and mesh.size() == world_size):
            shown = ", ".join(map(str, placements))
            raise InputError(
                f"got {name!r} placed as ({shown}) on {mesh.size()} of {world_size} processes; expected rows over all "
                "of them, as by fully_shard on a mesh of one axis (data_parallel_size = number of processes, "
                f"tensor_parallel_size = 1); change the mesh, or {advice}"
            )
        if getattr(value, "_post_accumulate_grad_hooks", None):
            raise InputError(
                f"got a hook on the gradient of {name!r}, as of an optimizer that steps within the backward pass; "
                f"expected none, or a probe would train; step after the backward pass, or {advice}"
            )
    for group in _groups(module):
        if group.gradient_divide_factor is not None:
            raise InputError(
                f"got set_gradient_divide_factor({group.gradient_divide_factor:g}); expected gradients that are "
                f"averaged over the processes; leave it out, or {advice}"
            )


def check_spread(module: nn.Module) -> None:
    """Refuses a module that would not synchronize gradients in its next backward pass.

    Raises:
        InputError: gradient synchronization is off.
    """
    if not all(group.reduce_grads and group.all_reduce_grads for group in _groups(module)):
        raise InputError(
            "got a module after set_requires_gradient_sync(False); expected one that spreads its gradients, as after a "
            "step of the optimizer; set it to True for the last batch of a step"
        )


def _groups(module: nn.Module) -> list[Any]:
    return [group for child in sharded_modules(module) for group in child._get_fsdp_state()._fsdp_param_groups]
