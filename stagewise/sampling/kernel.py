"""One step of a chain."""

import math

from torch import Tensor

from stagewise.sampling.preconditioners.diagonal import Preconditioner


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
    next_noise: Tensor | None = None,
) -> None:
    """Move ``weights`` by one step, in place; ``gradient`` may be used up as scratch.

    w <- w - (lr / 2) P (nbeta * gradient + localization (w - w*)) + sqrt(lr P) R

    With R = ``noise`` this is the Euler step: for a quadratic target of curvature lam the stationary variance is
    (1 / lam) / (1 - lr lam / 4), and the lag-k correlation a^k, a = 1 - lr lam / 2. With R = (``noise`` +
    ``next_noise``) / 2, where ``next_noise`` is the ``noise`` of the step after, it is that of Leimkuhler and Matthews:
    the variance is 1 / lam at every stable step (lr lam < 4), and the lag-k correlation a^(k - 1) (1 + a) / 2. Noise
    of minibatches is not averaged; it adds lr nbeta^2 Var / 4 / (1 - lr lam / 4) to the variance in either case.

    Args:
        weights: ``[weight]`` or ``[chain, weight]``, the state w.
        anchor: ``[weight]``, the training weights w*.
        gradient: shape of ``weights``, of the minibatch mean loss, nats per weight.
        noise: shape of ``weights``, standard normal.
        lr: step size epsilon.
        nbeta: inverse temperature times the number of samples.
        localization: precision of the Gaussian around ``anchor``.
        preconditioner: P; None is P = 1.
        next_noise: shape of ``weights``, standard normal; None for the Euler step.

    Source: Welling and Teh 2011; localized form in Hitchcock and Hoogland, arXiv 2507.21449; averaged noise in
    Leimkuhler and Matthews 2013, arXiv 1203.5428; P as in Li et al. 2016, frozen.
    """
    noises = (noise,) if next_noise is None else (noise, next_noise)
    scale = math.sqrt(lr) / len(noises)
    if preconditioner is None:
        # Few passes over the weights: the pull to w* is an interpolation.
        weights.lerp_(anchor.expand_as(weights), lr * localization / 2)
        weights.add_(gradient, alpha=-lr * nbeta / 2)
        for it in noises:
            weights.add_(it, alpha=scale)
        return
    force = gradient.mul_(nbeta).add_(weights, alpha=localization).sub_(anchor, alpha=localization)
    weights.add_(preconditioner.times(force), alpha=-lr / 2)
    weights.add_(preconditioner.root_times(noise if next_noise is None else noise + next_noise), alpha=scale)
