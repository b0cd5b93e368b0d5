"""Flat weights of a chain."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from stagewise.errors import InputError
from stagewise.sampling.selection import Selection, moved_entries, trainable


class FlatWeights:
    """Buffer of the weights that a chain moves, with leaf tensors for the module.

    A parameter that moves as a whole is a view of the buffer. For one that moves in part, the buffer holds only the
    moving entries, so that the others stay at w* bit for bit.

    Attributes:
        entries: moving entries of each parameter in the buffer, in order.
        anchor: ``[weight]``, the training weights w*.
        state: ``[weight]``, the chain's weights, changed in place.
        leaves: tensors for the module by parameter name.
    """

    def __init__(self, module: nn.Module, selection: Selection = None) -> None:
        """Starts at the module's current weights.

        Args:
            module: its trainable parameters are copied.
            selection: names of the parameters to move, ``*`` matches anything, or masks; all trainable ones if None.

        Raises:
            InputError: no trainable parameter, a pattern that matches none, masks that do not fit, or parameters on
                several devices.
        """
        parameters = trainable(module, selection)
        devices = {value.device for value in parameters.values()}
        if len(devices) > 1:
            raise InputError(f"got parameters on {sorted(map(str, devices))}; expected one device; place it on one")
        dtype = torch.float64 if any(value.dtype == torch.float64 for value in parameters.values()) else torch.float32
        self.entries = moved_entries(module, selection)
        self.anchor = torch.cat([entry.take(parameters[entry.name]).to(dtype) for entry in self.entries])
        self.state = self.anchor.clone()
        self._parts = self.state.split([entry.size for entry in self.entries])
        self.leaves: dict[str, Tensor] = {}
        self._copies = []
        for entry, part in zip(self.entries, self._parts, strict=True):
            value = parameters[entry.name]
            if entry.index is None and value.dtype == dtype:
                # `data`: each leaf counts its own writes. Otherwise autograd would take a forward pass that writes to
                # one weight for a write to all.
                leaf = part.view(value.shape).data
            else:
                # Half-precision parameters get leaves of their own: noise smaller than their rounding lives in `state`.
                leaf = value.clone() if entry.index is None else value.clone(memory_format=torch.contiguous_format)
                self._copies.append((entry, leaf, part))
            self.leaves[entry.name] = leaf.requires_grad_()

    def publish(self) -> None:
        """Updates leaves that are copies from the buffer."""
        with torch.no_grad():
            for entry, leaf, part in self._copies:
                entry.write_(leaf, part)

    @contextmanager
    def at_anchor(self) -> Iterator[None]:
        """Context with the weights at w*; restores the state of the chain afterwards."""
        here = self.state.clone()
        self.reset()
        try:
            yield
        finally:
            self.state.copy_(here)
            self.publish()

    def reset(self) -> None:
        """Resets the state to w*."""
        self.state.copy_(self.anchor)
        self.publish()

    def flat(self, parts: Sequence[Tensor]) -> Tensor:
        """Flattens tensors in the shapes and order of the leaves to ``[weight]``."""
        dense = (part.to_dense() if part.is_sparse else part for part in parts)
        return torch.cat(
            [entry.take(part).to(self.state.dtype) for entry, part in zip(self.entries, dense, strict=True)]
        )

    def spread(self, vector: Tensor) -> list[Tensor]:
        """Splits a vector ``[weight]`` into tensors of the leaves' shapes, zero for weights that do not move."""
        parts = vector.split([entry.size for entry in self.entries])
        return [entry.spread(part) for entry, part in zip(self.entries, parts, strict=True)]

    def gather(self, named: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Returns the moving entries ``[entry]`` of named tensors by parameter name; omits other parameters."""
        return {entry.name: entry.take(named[entry.name]) for entry in self.entries if entry.name in named}

    def gradient(self, loss: Tensor) -> Tensor:
        """Returns the flat gradient ``[weight]``; zero for parameters that the loss does not use."""
        leaves = list(self.leaves.values())
        return self.flat(torch.autograd.grad(loss, leaves, allow_unused=True, materialize_grads=True))
