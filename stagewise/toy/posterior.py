"""Local posterior of the deep linear network as a Gaussian, without sampling: the reference for all chains."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from stagewise.errors import InputError, require
from stagewise.toy.curvature import Precision, lowest_curvature, precision_at
from stagewise.toy.descent import Weights, gradient, item_losses

Array = NDArray[np.float64]

_MOST_STEPS = 100
_CONVERGED = 1e-12
"""Squared distance to the mode, in posterior standard deviations, from which one more Newton step is exact."""


@dataclass(frozen=True, eq=False)
class LocalGaussian:
    """Laplace's approximation to p(w) ~ exp(-nbeta L(w) - (localization / 2) |w - w*|^2), L the mean loss.

    It gives the covariance of losses to second order, with the gradients g_i and Hessians H_i of the items' losses at
    the mode, H the mean of H_i, and S = (nbeta H + localization)^-1. Losses are in nats.

    Attributes:
        mode: w_loc, where p is largest; differs from w*, unless that is a stationary point of L.
        mean_losses: ``[item]``, l_i + 1/2 tr(H_i S), nats.
        first_order: ``[item, item]``, g_i^T S g_j, nats^2; minus nbeta times this is the damped influence at the mode.
        covariance: ``[item, item]``, first order + 1/2 tr(H_i S H_j S), nats^2. The Bayesian influence function is
            minus this: a positive covariance is helpful.
        lowest_curvature: smallest eigenvalue of H at the mode, nats per squared weight; below 0 at a saddle.
    """

    mode: Weights
    mean_losses: Array
    first_order: Array
    covariance: Array
    lowest_curvature: float


def local_gaussian(weights: Weights, targets: Tensor, *, nbeta: float, localization: float) -> LocalGaussian:
    """Computes the mode of the local posterior, by Newton's method from w*, and the Gaussian around it.

    During training the loss slopes at w*, and the posterior's mode lies downhill. Expanded at w*, covariances are off
    by a quarter to a factor of 2 if the localization is weak; here by 3 to 5 % (against long chains on a small tree).
    The computation is in double precision, and only the posterior is approximated.

    Source: Laplace's method; the covariance of two quadratic forms of a Gaussian, e.g. Magnus, The moments of products
    of quadratic forms in normal variables, 1978.

    Args:
        weights: w*, one network.
        targets: ``[property, item]``.
        nbeta: inverse temperature times the number of samples, 0 or more; 0 is a negative control.
        localization: precision of the Gaussian around w*, above 0: rotations of the hidden units cost no loss.

    Raises:
        InputError: a setting out of range, shapes that do not fit, a value that is not finite, nbeta H + localization
            that is not positive definite at w* or on the way to the mode, or no convergence.
    """
    require(0 <= nbeta < math.inf, "nbeta", nbeta, "0 or more", "30 to 300 is usual")
    require(0 < localization < math.inf, "localization", localization, "a number above 0", "100 to 2000 is usual")
    shapes = tuple(weights.first.shape), tuple(weights.second.shape), tuple(targets.shape)
    fits = [len(shape) for shape in shapes] == [2, 2, 2]
    fits = fits and shapes[2] == (shapes[1][0], shapes[0][1]) and shapes[0][0] == shapes[1][1]
    expected = "[hidden, item], [property, hidden] and [property, item]"
    finite = all(bool(part.isfinite().all()) for part in (*weights, targets))
    require(finite, "weights or targets", "nan or inf", "finite numbers", "look for a run that diverged")
    require(fits, "shapes of first, second, targets", shapes, expected, "give one network and its targets")
    anchor, targets = Weights(*(part.detach().double() for part in weights)), targets.detach().double()
    mode, precision = _mode(anchor, targets, nbeta, localization)
    first_order, second_order, spread = precision.loss_covariance()
    return LocalGaussian(
        mode,
        (item_losses(mode, targets) + spread / 2).numpy(),
        first_order.numpy(),
        (first_order + second_order / 2).numpy(),
        lowest_curvature(mode, targets),
    )


def _mode(anchor: Weights, targets: Tensor, nbeta: float, localization: float) -> tuple[Weights, Precision]:
    """Returns w_loc, and the precision of the posterior there."""
    ones = torch.ones(targets.shape[1], dtype=targets.dtype)

    def energy(weights: Weights) -> float:
        distance = sum(float((part - home).square().sum()) for part, home in zip(weights, anchor, strict=True))
        return nbeta * float(item_losses(weights, targets).mean()) + localization / 2 * distance

    weights, place, last = anchor, "at the training weights", False
    for _ in range(_MOST_STEPS):
        precision = precision_at(weights, targets, nbeta, localization)
        if precision is None:
            lowest = lowest_curvature(weights, targets)
            raise InputError(
                f"got localization={localization:g}; expected more than nbeta times the most negative curvature = "
                f"{-nbeta * lowest:.4g} (found {place}); raise localization or lower nbeta"
            )
        if last:
            return weights, precision
        slope = gradient(weights, targets, ones)
        slope = Weights(
            nbeta * slope.first + localization * (weights.first - anchor.first),
            nbeta * slope.second + localization * (weights.second - anchor.second),
        )
        step = precision.solve(slope)
        decrement = float((slope.first * step.first).sum() + (slope.second * step.second).sum())
        last = decrement < _CONVERGED
        weights = _moved(weights, step, 1.0) if last else _shortened(weights, step, energy, decrement)
        place = "on the way to the posterior's mode"
    raise InputError(
        f"got no mode of the local posterior in {_MOST_STEPS} Newton steps; expected a few to do; raise localization "
        "or lower nbeta"
    )


def _moved(weights: Weights, step: Weights, length: float) -> Weights:
    return Weights(weights.first - length * step.first, weights.second - length * step.second)


def _shortened(weights: Weights, step: Weights, energy: Callable[[Weights], float], decrement: float) -> Weights:
    """Takes the step, halved until the energy decreases enough (Armijo's rule)."""
    before, length = energy(weights), 1.0
    # Changes within the rounding of the energy are accepted.
    while energy(_moved(weights, step, length)) > before - 1e-4 * length * decrement + 1e-12 * (1 + before):
        length /= 2
    return _moved(weights, step, length)
