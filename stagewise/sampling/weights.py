"""The weights of a chain, flat."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from fnmatch import fnmatchcase

import torch
from torch import Tensor, nn

from stagewise.errors import InputError


def trainable(module: nn.Module, patterns: Sequence[str] | None = None) -> dict[str, Tensor]:
    """Trainable parameters by name, detached; those that a pattern matches, in the module's order.

    Raises:
        InputError: no trainable parameter, or a pattern that matches none.
    """
    parameters = {name: value.detach() for name, value in module.named_parameters() if value.requires_grad}
    if not parameters:
        raise InputError("got a module without trainable parameters; expected at least one; unfreeze a part of it")
    if patterns is None:
        return parameters
    for pattern in patterns:
        if not any(fnmatchcase(name, pattern) for name in parameters):
            raise InputError(
                f"got parameters={pattern!r}, which matches no trainable parameter; expected a pattern such as "
                f"{next(iter(parameters))!r} or '*{next(iter(parameters)).split('.')[-1]}'; see named_parameters()"
            )
    return {name: value for name, value in parameters.items() if any(fnmatchcase(name, it) for it in patterns)}


class FlatWeights:
    """The parameters that a chain moves in one buffer, and leaf tensors that look into it.

    Attributes:
        anchor: ``[weight]``, the training weights w*.
        state: ``[weight]``, the chain's weights, changed in place.
        leaves: by parameter name, what the module computes with.
    """

    def __init__(self, module: nn.Module, patterns: Sequence[str] | None = None) -> None:
        """Start at the weights that the module has now.

        Args:
            module: its trainable parameters are copied.
            patterns: names of the parameters to move, ``*`` matches anything; all trainable ones if None.

        Raises:
            InputError: no trainable parameter, a pattern that matches none, or parameters on several devices.
        """
        parameters = trainable(module, patterns)
        devices = {value.device for value in parameters.values()}
        if len(devices) > 1:
            raise InputError(f"got parameters on {sorted(map(str, devices))}; expected one device; place it on one")
        dtype = torch.float64 if any(value.dtype == torch.float64 for value in parameters.values()) else torch.float32
        self.anchor = torch.cat([value.reshape(-1).to(dtype) for value in parameters.values()])
        self.state = self.anchor.clone()
        parts = self.state.split([value.numel() for value in parameters.values()])
        self._views = [part.view(value.shape) for part, value in zip(parts, parameters.values(), strict=True)]
        # Half-precision parameters get leaves of their own: noise smaller than their rounding lives in `state`.
        self.leaves = {
            name: (view.detach() if view.dtype == value.dtype else value.clone()).requires_grad_()
            for (name, value), view in zip(parameters.items(), self._views, strict=True)
        }

    def publish(self) -> None:
        """Bring leaves that are copies up to date with the buffer."""
        with torch.no_grad():
            for leaf, view in zip(self.leaves.values(), self._views, strict=True):
                if leaf.dtype != view.dtype:
                    leaf.copy_(view)

    @contextmanager
    def at_anchor(self) -> Iterator[None]:
        """Put the module at w* for the body, then back where the chain is."""
        here = self.state.clone()
        self.reset()
        try:
            yield
        finally:
            self.state.copy_(here)
            self.publish()

    def reset(self) -> None:
        """Go back to w*."""
        self.state.copy_(self.anchor)
        self.publish()

    def gradient(self, loss: Tensor) -> Tensor:
        """Flat gradient ``[weight]``; zero for parameters that the loss does not use."""
        parts = torch.autograd.grad(loss, list(self.leaves.values()), allow_unused=True, materialize_grads=True)
        dense = (part.to_dense() if part.is_sparse else part for part in parts)
        return torch.cat([part.reshape(-1).to(self.state.dtype) for part in dense])
