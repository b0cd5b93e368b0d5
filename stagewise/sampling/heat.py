"""Heat of minibatch noise in a chain, in the direction where losses move."""

from collections.abc import Sequence

import torch
from torch import Tensor

from stagewise.sampling.preconditioners.diagonal import Preconditioner

NUM_GRADIENTS = 8
"""Gradient estimates at one place that the heat is taken from: its relative error is then sqrt(2 / 7)."""


def minibatch_heat(
    gradients: Sequence[Tensor],
    direction: Tensor,
    *,
    lr: float,
    nbeta: float,
    preconditioner: Preconditioner | None = None,
) -> Tensor:
    """Variance that minibatch noise adds to a step, over that of the injected noise, in a direction u of the weights.

    lr nbeta^2 Var(e P u) / (4 u P u), e the gradient estimates. Losses move in few directions, and their minibatch
    noise is there: a mean over all weights can be a thousand times smaller. So much (times 1 / (1 - lr lam / 4), lam
    the curvature in this direction) the variance of a loss with gradient u comes out too large.

    Args:
        gradients: two or more independent estimates ``[chain, weight]`` at the same weights, nats per weight.
        direction: u ``[chain, weight]``, of any length: the gradient of the losses that are looked at.
        lr: step size.
        nbeta: of the target.
        preconditioner: P; None is P = 1.

    Returns:
        ``[chain]``, pure numbers; zero where the direction is.
    """
    scaled = direction if preconditioner is None else preconditioner.times(direction)
    along = torch.stack([(gradient.double() * scaled.double()).sum(dim=-1) for gradient in gradients])
    length = (direction.double() * scaled.double()).sum(dim=-1)
    heat = along.var(dim=0) * (lr * nbeta**2 / 4) / length
    return torch.where(length > 0, heat, 0.0)
