"""Heat of minibatch noise in a chain, in the direction of the losses' gradient."""

from collections.abc import Callable, Iterable
from functools import partial

import torch
from torch import Tensor

from stagewise.sampling.double_blocks import double_block
from stagewise.sampling.preconditioners.diagonal import Preconditioner

NUM_GRADIENTS = 8
"""Number of gradient estimates for the heat: its relative error is then sqrt(2 / 7)."""


def _dot(left: Tensor, right: Tensor) -> Tensor:
    """Returns dot products over the last axis, in float64, of single vectors or ``[chain, weight]``."""
    chains = max(1, left.shape[:-1].numel())
    size = max(1, double_block(left.device) // chains)
    parts = zip(left.split(size, dim=-1), right.split(size, dim=-1), strict=True)
    sums = [(one.double() * other.double()).sum(dim=-1) for one, other in parts]
    return sums[0] if len(sums) == 1 else torch.stack(sums).sum(dim=0)


def minibatch_heat(
    gradients: Iterable[Tensor],
    direction: Tensor,
    *,
    lr: float,
    nbeta: float,
    preconditioner: Preconditioner | None = None,
    total: Callable[[Tensor], Tensor] | None = None,
) -> Tensor:
    """Returns the variance that minibatch noise adds to a step in a direction u, over that of the injected noise.

    lr nbeta^2 Var(e P u) / (4 u P u), e the gradient estimates. Losses vary in few directions, in which minibatch noise
    is concentrated: a mean over all weights can be a thousand times smaller. Times 1 / (1 - lr lam / 4), lam the
    curvature along u, this is the relative excess variance of a loss with gradient u.

    Args:
        gradients: two or more independent estimates ``[chain, weight]`` at the same weights, nats per weight. They are
            taken one by one, so that a generator need hold only one at a time.
        direction: u ``[chain, weight]``, of any length: gradient of the observed losses.
        lr: step size.
        nbeta: of the target.
        preconditioner: P; None is P = 1.
        total: sums over the processes that hold the other weights; None if the vectors cover all weights.

    Returns:
        ``[chain]``, pure numbers; zero for a zero direction.
    """
    scaled = direction if preconditioner is None else preconditioner.times(direction)
    # `map` keeps no gradient while the next one is computed.
    along = torch.stack(list(map(partial(_dot, scaled), gradients)))
    length = _dot(direction, scaled)
    if total is not None:
        *parts, length = total(torch.stack([*along, length]))
        along = torch.stack(parts)
    heat = along.var(dim=0) * (lr * nbeta**2 / 4) / length
    return torch.where(length > 0, heat, 0.0)
