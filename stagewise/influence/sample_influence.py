"""Influence of samples on each other, from draws."""

import numpy as np
from numpy.typing import NDArray

from stagewise.influence.chain_splits import ChainSplits, error_over_chains, signed
from stagewise.influence.split import PARTS, Centering, second_moment, split

Array = NDArray[np.float64]

_TOTAL = PARTS.index("total")


def sample_influence(
    current: Array, reference: Array | None, *, centering: Centering = Centering.pooled
) -> dict[str, Array]:
    """BIF of each pair of samples by part, with its error over chains.

    Args:
        current: ``[chain, draw, sample]``, nats.
        reference: the same chains at the reference probe, or None.
        centering: see :class:`~stagewise.influence.split.Centering`; the pooled within part is unbiased in
            equilibrium but for a factor 1 - 1 / effective draws, all chains together.

    Returns:
        Arrays ``[part, sample, sample]``, negative = helpful: ``bif`` (nats^2), ``bif_correlation`` (every part divided
        by the total standard deviations; zero where a loss does not vary), and the jackknife standard errors of both
        over chains, ``bif_se`` and ``bif_correlation_se``, NaN with too few of them.

    Source: BIF, arXiv 2509.26544; jackknife, Quenouille 1956, Tukey 1958.
    """
    value = signed(split(current, reference, centering=centering))
    correlations = _correlation(value)
    over = ChainSplits(current, reference, centering=centering, moment=second_moment)
    return {
        "bif": value,
        "bif_se": error_over_chains(lambda chains: signed(over(chains)), value, len(current), centering),
        "bif_correlation": correlations,
        "bif_correlation_se": error_over_chains(
            lambda chains: _correlation(signed(over(chains))), correlations, len(current), centering
        ),
    }


def _correlation(influence: Array) -> Array:
    """Divide ``[part, sample, sample]`` by the total standard deviations of both sides; zero where one is zero."""
    variance = -np.diagonal(influence[_TOTAL])
    scale = np.zeros_like(variance)
    np.divide(1.0, np.sqrt(variance), out=scale, where=variance > 0)
    return influence * scale[:, None] * scale
