"""The linear datamodeling score (Park et al. 2023, arXiv 2303.14186)."""

from collections.abc import Sequence

import numpy as np
from scipy.stats import rankdata, t
from torch import Tensor


def spearman(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Rank correlation over the first axis, column by column."""
    a, b = (rankdata(values, axis=0) for values in (left, right))
    a, b = a - a.mean(0), b - b.mean(0)
    return (a * b).sum(0) / np.sqrt((a**2).sum(0) * (b**2).sum(0))


def linear_datamodeling_score(scores: Tensor, subsets: Tensor, truth: Tensor) -> float:
    """Mean over test samples of the rank correlation between predicted and retrained losses over the subsets.

    Args:
        scores: ``[train, test]``, negative = helpful.
        subsets: ``[subset, member]``, indices of training samples.
        truth: ``[subset, test]``, loss after retraining on the subset.
    """
    predicted = scores.double()[subsets].sum(dim=1)
    return float(spearman(predicted.numpy(), truth.numpy()).mean())


def ceiling(truth: Tensor) -> float:
    """Score of the losses of one half of the retraining seeds, ``[seed, subset, test]``, against the other half."""
    half = len(truth) // 2
    return float(spearman(truth[:half].mean(0).numpy(), truth[half:].mean(0).numpy()).mean())


def interval(values: Sequence[float]) -> tuple[float, float, float]:
    """Mean, and a 95 % t interval of it over seeds."""
    array = np.asarray(values)
    reach = t.ppf(0.975, len(array) - 1) * array.std(ddof=1) / np.sqrt(len(array)) if len(array) > 1 else np.nan
    return float(array.mean()), float(array.mean() - reach), float(array.mean() + reach)
