"""Total covariance of two probes' draws = within (fluctuation) + drift + between."""

from collections.abc import Callable
from dataclasses import dataclass, fields
from enum import StrEnum
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

Floats = TypeVar("Floats", NDArray[np.float32], NDArray[np.float64])

Moment = Callable[[Array], Array]
"""Maps ``[..., feature]`` to the mean over draws of a quadratic function of the features."""

PARTS = ("within", "drift", "between", "total")
"""Parts of a split, in order; the first three add up to the fourth."""


class Centering(StrEnum):
    """Ways to centre the fluctuation within a phase.

    The part that centring removes is the drift: choices differ in how they divide variance between ``within`` and
    ``drift``; none loses any.

    Members are named as the YAML writes them:
        pooled: mean over all draws of a probe; the drift is zero. The default: for chains in equilibrium the
            expectation is the covariance of the posterior, up to a factor 1 - 1 / n, n the effective draws of all
            chains together.
        chain: mean over the draws of each chain; a single chain suffices. Biased low by the share of variance between
            short chains, which goes to the drift: 1 - 1 / n with the n of *one* chain, .45 of the truth at 20 draws
            with an autocorrelation of .9. Unaffected by chains that have not mixed.
        step: mean over the chains at each draw index. Removes a common slide off w* exactly, but needs several chains:
            C of them show (1 - 1/C) of the fluctuation.
    """

    chain = "chain"
    step = "step"
    pooled = "pooled"


@dataclass(frozen=True)
class Split:
    """Covariances over the pooled draws of two phases, 1/N moments, unit of the draws squared.

    Each has the shape that the moment returns: ``[feature, feature]`` by default.

    Attributes:
        within: mean over phases of the covariance around the centring means (fluctuation).
        drift: mean over phases of the covariance of the centring means around the phase mean.
        between: covariance of the phase means; (1/4) D D^T with D their difference.
        total: covariance around the grand mean, computed separately: equals within + drift + between up to rounding.
    """

    within: Array
    drift: Array
    between: Array
    total: Array

    def parts(self) -> dict[str, Array]:
        """Returns the four matrices by name, in the order of :data:`PARTS`."""
        return {field.name: getattr(self, field.name) for field in fields(self)}


def second_moment(draws: Array) -> Array:
    """Returns the mean of x x^T, ``[feature, feature]``, over ``[..., feature]``."""
    flat = draws.reshape(-1, draws.shape[-1])
    return flat.T @ flat / len(flat)


def centering_means(draws: Floats, centering: Centering) -> Floats:
    """Returns the means that a centring subtracts; they broadcast against ``[chain, draw, ...]``."""
    axes: tuple[int, ...] = {Centering.chain: (1,), Centering.step: (0,), Centering.pooled: (0, 1)}[centering]
    return draws.mean(axis=axes, keepdims=True)


def split(
    current: Array,
    reference: Array | None = None,
    *,
    centering: Centering = Centering.pooled,
    moment: Moment = second_moment,
) -> Split:
    """Splits the covariance of the draws of two probes, each with weight 1/2.

    For equilibrated draws the total is exactly minus the BIF of the posterior under the two-component localization
    prior whose weights are tuned to coexistence.

    Args:
        current: ``[chain, draw, feature]``, V.
        reference: ``[chain, draw, feature]``, U; None if there is none: between is then exactly zero.
        centering: see :class:`Centering`; in equilibrium pooled is unbiased up to 1 - 1 / effective draws.
        moment: statistic of the centred draws: the whole covariance, or a quadratic form of it that needs no matrix
            over features. The parts add up for any such statistic.

    Source: law of total covariance, nested; 1/N moments, since ddof = 1 breaks the identity.
    """
    phases = [current] if reference is None else [reference, current]
    weight = 1 / len(phases)
    means = [phase.mean(axis=(0, 1)) for phase in phases]
    grand = sum(means) * weight
    rows = []
    for phase, mean in zip(phases, means, strict=True):
        centres = centering_means(phase, centering)
        rows.append((moment(phase - centres), moment(centres - mean), moment(mean - grand), moment(phase - grand)))
    return Split(*(weight * sum(part, np.zeros(())) for part in zip(*rows, strict=True)))
