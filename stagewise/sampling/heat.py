"""How hot minibatch noise makes a chain, in the directions where losses move."""

from collections.abc import Sequence

import torch
from torch import Tensor

from stagewise.sampling.preconditioners import Preconditioner

NUM_GRADIENTS = 6
"""Gradient estimates at one place that the heat is taken from: 60 products of a difference with a third."""


def minibatch_heat(
    gradients: Sequence[Tensor], *, lr: float, nbeta: float, preconditioner: Preconditioner | None = None
) -> Tensor:
    """Variance that minibatch noise adds to a step, over that of the injected noise, along the gradients themselves.

    A mean over weights says nothing: gradients lie in the few directions where losses move, and so does their noise.
    With e_a independent estimates at the same weights, it is lr nbeta^2 / 4 times the mean of
    ((e_a - e_b) P e_c)^2 / 2 over that of e_c P e_c: the noise along the directions of the estimates. So much (times
    1 / (1 - lr lam / 4) in a direction of curvature lam) the variance of the losses comes out too large.

    Args:
        gradients: three or more estimates ``[chain, weight]`` at the same weights, nats per weight.
        lr: step size.
        nbeta: of the target.
        preconditioner: P; None is P = 1.

    Returns:
        ``[chain]``, pure numbers; zero where the estimates do not differ.
    """
    stacked = torch.stack(list(gradients))
    scaled = stacked if preconditioner is None else torch.stack([preconditioner.times(it) for it in gradients])
    # [chain, a, c]: e_a P e_c
    gram = torch.einsum("acw,bcw->cab", stacked.double(), scaled.double())
    number = len(stacked)
    length = torch.diagonal(gram, dim1=1, dim2=2).mean(dim=1)
    total = torch.zeros_like(length)
    for a in range(number):
        for b in range(a):
            difference = (gram[:, a] - gram[:, b]).square() / 2
            total += difference.sum(dim=1) - difference[:, a] - difference[:, b]
    pairs = number * (number - 1) // 2 * (number - 2)
    heat = torch.where(length > 0, total / pairs / length.clamp(min=torch.finfo(length.dtype).tiny), 0.0)
    return heat * (lr * nbeta**2 / 4)
