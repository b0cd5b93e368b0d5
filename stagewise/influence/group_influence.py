"""Influence of groups and of samples on each other, from draws."""

import numpy as np
from numpy.typing import NDArray

from stagewise.influence.groups import Groups
from stagewise.influence.sign import signed
from stagewise.influence.split import PARTS, Centering, second_moment, split
from stagewise.influence.uncertainty import ChainSplits, error_over_chains, z_scores

Array = NDArray[np.float64]


def _mean_square(draws: Array) -> Array:
    """Returns the mean square ``[feature]`` over ``[..., feature]``."""
    return np.square(draws).reshape(-1, draws.shape[-1]).mean(axis=0)


def group_influence(
    current: Array, reference: Array | None, groups: Groups, *, centering: Centering = Centering.pooled
) -> dict[str, Array]:
    """Computes the group BIF by part, with its error over chains.

    A mean over pairs in different samples needs only the covariance of the group totals, less the contribution of pairs
    within each sample: memory is a few copies of the draws.

    Args:
        current: ``[chain, draw, group * sample]``, sums of the losses of each group in each sample, nats.
        reference: the same chains at the reference probe, or None.
        groups: of the sums.
        centering: see :class:`~stagewise.influence.split.Centering`; in equilibrium the pooled within part is unbiased
            up to a factor 1 - 1 / effective draws, all chains together.

    Returns:
        Arrays ``[part, group, group]``, negative = helpful. All are NaN where two groups have no pair of losses in
        different samples, e.g. a group of one sample with itself. Errors and quantities derived from them are NaN with
        too few chains.

        - ``group_bif``: nats^2.
        - ``group_bif_se``: its jackknife standard error over chains, nats^2.
        - ``group_bif_z``: see :func:`~stagewise.influence.uncertainty.z_scores`.
        - ``group_bif_correlation``: every part divided by the total standard deviations, a pure number.
        - ``group_bif_correlation_se``: its jackknife standard error; standard deviations are those of the remaining
          chains.

    Source: jackknife over chains, Quenouille 1956, Tukey 1958; see :func:`~stagewise.influence.uncertainty.t_interval`
    for the coverage of intervals from such errors.
    """
    num_chains = len(current)
    value = signed(split(current, reference, centering=centering, moment=groups.pair_means))
    over = ChainSplits(current, reference, centering=centering, moment=groups.pair_means)
    squares = ChainSplits(current, reference, centering=centering, moment=_mean_square)

    def correlation(chains: list[int]) -> Array:
        variance = squares(chains).total
        kept = current[chains] if len(chains) < num_chains else current
        past = None if reference is None else reference[chains] if len(chains) < num_chains else reference

        def moment(draws: Array) -> Array:
            return groups.standardized_pair_means(draws, variance)

        return signed(split(kept, past, centering=centering, moment=moment))

    error = error_over_chains(lambda chains: signed(over(chains)), value, num_chains, centering)
    correlations = correlation(list(range(num_chains)))
    return {
        "group_bif": value,
        "group_bif_se": error,
        "group_bif_z": z_scores(value, error),
        "group_bif_correlation": correlations,
        "group_bif_correlation_se": error_over_chains(correlation, correlations, num_chains, centering),
    }


_TOTAL = PARTS.index("total")


def sample_influence(
    current: Array, reference: Array | None, *, centering: Centering = Centering.pooled
) -> dict[str, Array]:
    """Computes the BIF of each pair of samples by part, with its error over chains.

    Args:
        current: ``[chain, draw, sample]``, nats.
        reference: the same chains at the reference probe, or None.
        centering: see :class:`~stagewise.influence.split.Centering`; in equilibrium the pooled within part is unbiased
            up to a factor 1 - 1 / effective draws, all chains together.

    Returns:
        Arrays ``[part, sample, sample]``, negative = helpful: ``bif`` (nats^2), ``bif_correlation`` (every part divided
        by the total standard deviations; zero where a loss does not vary), and the jackknife standard errors of both
        over chains, ``bif_se`` and ``bif_correlation_se``, NaN with too few chains. Arrays ``[part, sample]``:
        ``sample_bif`` (nats^2), the influence of each sample on the mean loss of all others, and its error
        ``sample_bif_se``; NaN for a single sample.

    Source: BIF, arXiv 2509.26544; jackknife, Quenouille 1956, Tukey 1958.
    """
    value = signed(split(current, reference, centering=centering))
    correlations = _correlation(value)
    over = ChainSplits(current, reference, centering=centering, moment=second_moment)
    both = _with_means(value)
    error = error_over_chains(lambda chains: _with_means(signed(over(chains))), both, len(current), centering)
    return {
        "bif": value,
        "bif_se": error[..., :-1],
        "sample_bif": both[..., -1],
        "sample_bif_se": error[..., -1],
        "bif_correlation": correlations,
        "bif_correlation_se": error_over_chains(
            lambda chains: _correlation(signed(over(chains))), correlations, len(current), centering
        ),
    }


def _with_means(influence: Array) -> Array:
    """Appends to ``[part, sample, sample]`` a column with each row's mean over the other samples."""
    others = influence.shape[-1] - 1
    own = np.diagonal(influence, axis1=1, axis2=2)
    total = influence.sum(axis=-1) - own
    means = total / others if others else np.full_like(total, np.nan)
    return np.concatenate([influence, means[..., None]], axis=-1)


def _correlation(influence: Array) -> Array:
    """Divides ``[part, sample, sample]`` by the total standard deviations of both sides; zero where one is zero."""
    variance = -np.diagonal(influence[_TOTAL])
    scale = np.zeros_like(variance)
    np.divide(1.0, np.sqrt(variance), out=scale, where=variance > 0)
    return influence * scale[:, None] * scale
