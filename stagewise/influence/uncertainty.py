"""Standard errors over chains, and z-scores."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def jackknife_error(estimate: Callable[[list[int]], Array], num_chains: int) -> Array | None:
    """Standard error of an estimate by leaving out one chain at a time.

    For an estimate that is a mean over chains this is the standard error of that mean. Estimates are taken in as they
    come: memory is three of them, however many chains there are.

    Args:
        estimate: the estimate from a list of chain positions.
        num_chains: how many chains there are.

    Returns:
        Shape of the estimate; None with fewer than two chains.

    Source: Quenouille 1956, Tukey 1958; running sums of squares as in Welford 1962.
    """
    if num_chains < 2:
        return None
    chains = list(range(num_chains))
    mean, spread = np.zeros(()), np.zeros(())
    for count, skip in enumerate(chains, start=1):
        left_out = estimate([chain for chain in chains if chain != skip])
        step = left_out - mean
        mean = mean + step / count
        spread = spread + step * (left_out - mean)
    return np.sqrt(spread * (num_chains - 1) / num_chains)


def mean_error(chain_means: Array) -> Array | None:
    """Standard error ``[...]`` of the mean over ``[chain, ...]`` (ddof 1); None with fewer than two chains."""
    if len(chain_means) < 2:
        return None
    return chain_means.std(axis=0, ddof=1) / np.sqrt(len(chain_means))


def length_error(chain_means: Array) -> float:
    """Standard error of the length of the mean over ``[chain, feature]``; zero where there is no length, or one chain.

    Taken along the mean's direction, chain by chain: the features of one chain move together.
    """
    mean = chain_means.mean(axis=0)
    length = float(np.linalg.norm(mean))
    error = mean_error(chain_means @ mean / length) if length > 0 else None
    return 0.0 if error is None else float(error)


def z_scores(value: Array, error: Array) -> Array:
    """Value over its standard error, elementwise.

    Zero where the value is exactly zero and its error is known: what is zero by construction has no error either. NaN
    where the error or the value is NaN, and where the error is zero while the value is not.
    """
    scores = np.full_like(value, np.nan)
    np.divide(value, error, out=scores, where=error > 0)
    scores[(value == 0) & np.isfinite(error)] = 0.0
    return scores
