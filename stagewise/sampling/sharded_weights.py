"""Flat weights of a chain whose module is sharded: each process moves its own part in place."""

from collections.abc import Callable, Mapping
from typing import TypeVar

import torch
from torch import Tensor, nn

from stagewise.errors import InputError
from stagewise.isolation import with_weights
from stagewise.isolation.shards import local, recover, reshard
from stagewise.sampling.row_noise import Stretch
from stagewise.sampling.selection import Entries, Selection, trainable
from stagewise.sampling.sharding import Sharding, check_spread
from stagewise.sampling.target import Target
from stagewise.sampling.weights import FlatWeights

T = TypeVar("T")


class ShardedWeights(FlatWeights):
    """Buffer of this process's part of the weights that a chain moves.

    FSDP2 gathers whole weights from the memory behind a module's own parameters, which other tensors cannot replace.
    Chains therefore write to this memory, within :meth:`moving`, which restores every bit.

    Attributes:
        entries: moving entries of each parameter's shard in the buffer, in order.
        anchor: ``[weight]``, this process's part of the training weights w*.
        state: ``[weight]``, this process's part of the chain's weights.
        leaves: shards by parameter name.
        layout: rows of the parameters in the buffer.
        most: largest number of weights that a process holds.
        num_weights: number of weights on all processes.
    """

    def __init__(self, module: nn.Module, selection: Selection, sharding: Sharding) -> None:
        """Starts at the module's current weights.

        Args:
            module: its weights are in shards, see :func:`~stagewise.sampling.sharding.check_shards`.
            selection: see :class:`~stagewise.sampling.weights.FlatWeights`.
            sharding: of the processes.

        Raises:
            InputError: see :class:`~stagewise.sampling.weights.FlatWeights`.
        """
        reshard(module)
        parameters = trainable(module, selection)
        masks = selection if isinstance(selection, Mapping) else {}
        self._module, self._sharding = module, sharding
        numbers = {name: number for number, (name, _) in enumerate(module.named_parameters())}
        self.leaves, self.entries, self.layout, sizes, wholes = {}, [], [], [], []
        for name, whole in parameters.items():
            shard, rows = local(whole), len(whole)
            size = -(-rows // sharding.world_size)
            first = min(sharding.rank * size, rows)
            if len(shard) != min(first + size, rows) - first:
                raise InputError(
                    f"got {len(shard)} of {rows} rows of {name!r} on rank {sharding.rank} of {sharding.world_size}; "
                    "expected equal parts in the order of ranks; shard by fully_shard on a mesh of all processes"
                )
            index, moved = None, torch.full((sharding.world_size,), size * whole[:1].numel())
            mask = masks.get(name)
            if mask is not None and not mask.all():
                parts = [part.reshape(-1) for part in mask.split(size)]
                index = mask[first : first + len(shard)].reshape(-1).nonzero().flatten().to(shard.device)
                moved = torch.tensor([int(part.sum()) for part in parts])
            self.leaves[name] = shard
            self.entries.append(Entries(name, shard.shape, shard.dtype, index))
            self.layout.append(Stretch(numbers[name], rows, whole[:1].numel(), first, len(shard), index))
            sizes.append(int(moved.max()))
            wholes.append(whole.numel() if index is None else int(moved.sum()))
        self.most, self.num_weights = sum(sizes), sum(wholes)
        dtype = torch.float64 if any(value.dtype == torch.float64 for value in parameters.values()) else torch.float32
        self.anchor = torch.cat([entry.take(self.leaves[entry.name]).to(dtype) for entry in self.entries])
        self.state = self.anchor.clone()
        self._parts = self.state.split([entry.size for entry in self.entries])

    def publish(self) -> None:
        """Writes the buffer to the shards."""
        reshard(self._module)
        with torch.no_grad():
            for entry, part in zip(self.entries, self._parts, strict=True):
                # `data`: the writes are undone later, and autograd must not count them.
                entry.write_(self.leaves[entry.name].data, part)

    def moving(self, body: Callable[[], T]) -> T:
        """Runs ``body``, which may move the weights, and restores every bit of the shards, even after an exception.

        Processes meet before each module that gathers, see :class:`~stagewise.sampling.sharding.Sharding`.

        Raises:
            InputError: see :func:`~stagewise.sampling.sharding.check_spread`.
        """
        check_spread(self._module)
        own = [shard.clone() for shard in self.leaves.values()]
        try:
            with self._sharding.meeting(self._module):
                return body()
        finally:
            recover(self._module)
            for parameter in self._module.parameters():
                parameter.grad = None
            with torch.no_grad():
                for shard, copy in zip(self.leaves.values(), own, strict=True):
                    shard.data.copy_(copy)

    def gather(self, named: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Returns this process's moving entries ``[entry]`` by parameter name; omits other parameters."""
        return {entry.name: entry.take(local(named[entry.name])) for entry in self.entries if entry.name in named}

    def gradient(self, loss: Tensor) -> Tensor:
        """Returns this process's part ``[weight]`` of the gradient of the mean of ``loss`` over the processes."""
        self._sharding.meet()
        # Not `torch.autograd.grad`: FSDP2 distributes gradients over the processes as they accumulate.
        loss.backward()
        found = []
        named = dict(self._module.named_parameters())
        for entry in self.entries:
            slope = named[entry.name].grad
            shard = self.leaves[entry.name]
            found.append(entry.take(torch.zeros_like(shard) if slope is None else local(slope)).to(self.state.dtype))
        for parameter in named.values():
            parameter.grad = None
        reshard(self._module)
        return torch.cat(found)


def weights_of(module: nn.Module, target: Target) -> FlatWeights:
    """Returns the weights that chains of a target move, all of them or this process's part.

    Raises:
        InputError: see :class:`~stagewise.sampling.weights.FlatWeights`.
    """
    if target.sharding is None:
        return FlatWeights(module, target.selection)
    return ShardedWeights(module, target.selection, target.sharding)


def while_moving(module: nn.Module, weights: FlatWeights, body: Callable[[], T]) -> T:
    """Runs ``body`` with ``module`` at ``weights``; restores the module's own weights afterwards, bit for bit.

    Args:
        module: of the weights.
        weights: from :func:`weights_of`.
        body: may change ``weights.state`` and publish it.
    """
    return weights.moving(body) if isinstance(weights, ShardedWeights) else with_weights(module, weights.leaves, body)
