"""One SGLD update."""

import math

from torch import Tensor

from stagewise.sampling.preconditioners import Preconditioner


def sgld_step_(
    weights: Tensor,
    anchor: Tensor,
    gradient: Tensor,
    noise: Tensor,
    *,
    lr: float,
    nbeta: float,
    localization: float,
    preconditioner: Preconditioner | None = None,
) -> None:
    """Move ``weights`` by one step, in place; ``gradient`` may be used up as scratch.

    w <- w - (lr / 2) P (nbeta * gradient + localization (w - w*)) + sqrt(lr P) noise

    Args:
        weights: ``[weight]`` or ``[chain, weight]``, the state w.
        anchor: ``[weight]``, the training weights w*.
        gradient: shape of ``weights``, of the minibatch mean loss, nats per weight.
        noise: shape of ``weights``, standard normal.
        lr: step size epsilon.
        nbeta: inverse temperature times the number of samples.
        localization: precision of the Gaussian around ``anchor``.
        preconditioner: P; None is P = 1.

    Source: Welling and Teh 2011; localized form in Hitchcock and Hoogland, arXiv 2507.21449; P as in Li et al. 2016,
    frozen.
    """
    if preconditioner is None:
        # Three passes over the weights: the pull to w* is an interpolation.
        weights.lerp_(anchor.expand_as(weights), lr * localization / 2)
        weights.add_(gradient, alpha=-lr * nbeta / 2).add_(noise, alpha=math.sqrt(lr))
        return
    force = gradient.mul_(nbeta).add_(weights, alpha=localization).sub_(anchor, alpha=localization)
    weights.add_(preconditioner.times(force), alpha=-lr / 2)
    weights.add_(preconditioner.root_times(noise), alpha=math.sqrt(lr))
