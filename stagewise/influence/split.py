"""Total covariance of two probes' draws = within (fluctuation) + drift + between."""

from dataclasses import dataclass, fields
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

PARTS = ("within", "drift", "between", "total")
"""Parts of a split, in order; the first three add up to the fourth."""


class Centering(StrEnum):
    """Around which means the fluctuation within a phase is taken.

    What centring removes is the drift: each choice moves variance between ``within`` and ``drift``, none loses any.

    Members are named as the YAML writes them:
        chain: mean over the draws of each chain (works from one chain on).
        step: mean over the chains at each draw index: removes a common slide off w* exactly; wants several chains:
            C of them show (1 - 1/C) of the fluctuation.
        pooled: mean over all draws of a probe; the drift is zero.
    """

    chain = "chain"
    step = "step"
    pooled = "pooled"


@dataclass(frozen=True)
class Split:
    """Covariances over the pooled draws of two phases, ``[feature, feature]``, 1/N moments, unit of the draws squared.

    Attributes:
        within: mean over phases of the covariance around the centring means (fluctuation).
        drift: mean over phases of the covariance of the centring means around the phase mean.
        between: covariance of the phase means; (1/4) D D^T with D their difference.
        total: covariance around the grand mean, computed on its own: within + drift + between equals it to rounding.
    """

    within: Array
    drift: Array
    between: Array
    total: Array

    def parts(self) -> dict[str, Array]:
        """The four matrices by name, in the order of :data:`PARTS`."""
        return {field.name: getattr(self, field.name) for field in fields(self)}


def _second_moment(draws: Array) -> Array:
    """``[feature, feature]`` mean of x x^T over ``[chain, draw, feature]``."""
    flat = draws.reshape(-1, draws.shape[-1])
    return flat.T @ flat / len(flat)


def _centres(draws: Array, centering: Centering) -> Array:
    """Means that broadcast against ``[chain, draw, feature]``."""
    axes: tuple[int, ...] = {Centering.chain: (1,), Centering.step: (0,), Centering.pooled: (0, 1)}[centering]
    return draws.mean(axis=axes, keepdims=True)


def split(current: Array, reference: Array | None = None, *, centering: Centering = Centering.chain) -> Split:
    """Split the covariance of the draws of two probes, each with weight 1/2.

    For equilibrated draws the total is exactly minus the BIF of the posterior under the two-component localization
    prior whose weights are tuned to coexistence.

    Args:
        current: ``[chain, draw, feature]``, V.
        reference: ``[chain, draw, feature]``, U; None for a probe without one: between is then exactly zero.
        centering: see :class:`Centering`.

    Source: law of total covariance, nested; 1/N moments, since ddof = 1 breaks the identity.
    """
    phases = [current] if reference is None else [reference, current]
    weight = 1 / len(phases)
    means = [phase.mean(axis=(0, 1)) for phase in phases]
    grand = sum(means) * weight
    size = current.shape[-1]
    within, drift, between, total = (np.zeros((size, size)) for _ in PARTS)
    for phase, mean in zip(phases, means, strict=True):
        centres = _centres(phase, centering)
        within += weight * _second_moment(phase - centres)
        drift += weight * _second_moment(centres - mean)
        between += weight * np.outer(mean - grand, mean - grand)
        total += weight * _second_moment(phase - grand)
    return Split(within, drift, between, total)
