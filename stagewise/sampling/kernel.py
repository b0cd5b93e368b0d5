"""One SGLD update, and the frozen RMSprop preconditioner."""

import math

import torch
from torch import Tensor

from stagewise.sampling.config import RMSprop


def sgld_step_(
    weights: Tensor,
    anchor: Tensor,
    gradient: Tensor,
    noise: Tensor,
    *,
    lr: float,
    nbeta: float,
    localization: float,
    preconditioner: Tensor | None = None,
) -> None:
    """Move ``weights`` by one step, in place; ``gradient`` and ``noise`` are used up as scratch.

    w <- w - (lr / 2) P (nbeta * gradient + localization (w - w*)) + sqrt(lr P) noise

    Args:
        weights: ``[weight]``, the state w.
        anchor: ``[weight]``, the training weights w*.
        gradient: ``[weight]``, of the minibatch mean loss, nats per weight.
        noise: ``[weight]``, standard normal.
        lr: step size epsilon.
        nbeta: inverse temperature times the number of samples.
        localization: precision of the Gaussian around ``anchor``.
        preconditioner: ``[weight]``, the diagonal P; None is P = 1.

    Source: Welling and Teh 2011; localized form in Hitchcock and Hoogland, arXiv 2507.21449; P as in Li et al. 2016,
    frozen.
    """
    drift = gradient.mul_(nbeta).add_(weights, alpha=localization).sub_(anchor, alpha=localization)
    if preconditioner is not None:
        drift.mul_(preconditioner)
        noise.mul_(preconditioner.sqrt())
    weights.add_(drift, alpha=-lr / 2).add_(noise, alpha=math.sqrt(lr))


class MeanSquare:
    """Running mean square of gradients, corrected for its start at zero."""

    def __init__(self, settings: RMSprop, like: Tensor) -> None:
        self._settings = settings
        self._sum = torch.zeros_like(like)
        self._weight = 0.0

    def update(self, gradient: Tensor) -> None:
        """Take in one gradient ``[weight]``."""
        alpha = self._settings.alpha
        self._sum.mul_(alpha).addcmul_(gradient, gradient, value=1 - alpha)
        self._weight = alpha * self._weight + 1 - alpha

    def preconditioner(self) -> Tensor:
        """P = 1 / (sqrt(v) + eps), ``[weight]``; 1 / eps before the first gradient."""
        mean_square = self._sum / self._weight if self._weight else self._sum
        return 1 / (mean_square.sqrt() + self._settings.eps)
