"""Influence of groups on each other, from draws, without a matrix over groups and samples."""

import numpy as np
from numpy.typing import NDArray

from stagewise.influence.chain_splits import ChainSplits
from stagewise.influence.groups import Groups
from stagewise.influence.split import PARTS, Centering, Split, split
from stagewise.influence.uncertainty import jackknife_error, z_scores

Array = NDArray[np.float64]


def _influence(parts: Split) -> Array:
    """``[part, ...]``, with the sign of influence."""
    named = parts.parts()
    return np.stack([-named[name] for name in PARTS])


def _mean_square(draws: Array) -> Array:
    """``[feature]``, of ``[..., feature]``."""
    return np.square(draws).reshape(-1, draws.shape[-1]).mean(axis=0)


def group_influence(
    current: Array, reference: Array | None, groups: Groups, *, centering: Centering = Centering.chain
) -> dict[str, Array]:
    """Group BIF by part, with its error over chains.

    A mean over pairs in different samples needs the covariance of the group totals, less what each sample's own pairs
    add to it: memory is that of a few copies of the draws.

    Args:
        current: ``[chain, draw, group * sample]``, sums of the losses of each group in each sample, nats.
        reference: the same chains at the reference probe, or None.
        groups: as the sums were taken with.
        centering: see :class:`~stagewise.influence.split.Centering`.

    Returns:
        Arrays ``[part, group, group]``, negative = helpful: ``group_bif`` (nats^2), ``group_bif_se`` (nats^2, jackknife
        over chains; NaN with too few of them), ``group_bif_z`` (see :func:`~stagewise.influence.uncertainty.z_scores`)
        and ``group_bif_correlation`` (every part divided by the total standard deviations). All are NaN where two
        groups have no pair of losses in different samples, as a group of one sample with itself.
    """
    value = _influence(split(current, reference, centering=centering, moment=groups.pair_means))
    # Centring over chains needs two of them left in every jackknife sample.
    if len(current) >= (3 if centering is Centering.step else 2):
        over = ChainSplits(current, reference, centering=centering, moment=groups.pair_means)
        error = jackknife_error(lambda chains: _influence(over(chains)), len(current))
    else:
        error = None
    known = np.full_like(value, np.nan) if error is None else error

    variance = split(current, reference, centering=centering, moment=_mean_square).total

    def correlation(draws: Array) -> Array:
        return groups.standardized_pair_means(draws, variance)

    return {
        "group_bif": value,
        "group_bif_se": known,
        "group_bif_z": z_scores(value, known),
        "group_bif_correlation": _influence(split(current, reference, centering=centering, moment=correlation)),
    }
