"""Exact unrolled influence: derivatives of the losses along gradient descent by the weight of each item."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from stagewise.toy.descent import Weights

Array = NDArray[np.float64]


def _tangent_step(weights: Weights, tangent: Weights, targets: Tensor, lr: float) -> Weights:
    """Advances the tangent dW of gradient descent by one step for each item p: dW - lr (H dW + (1/n) grad l_p)."""
    n = targets.shape[-1]
    error = (weights.map() - targets) / n
    # The weighted error changes through the weights, and because item p has a larger weight.
    change = (tangent.second @ weights.first + weights.second @ tangent.first) / n
    change = change + error * torch.eye(n, dtype=targets.dtype)[:, None, :]
    first = tangent.second.mT @ error + weights.second.T @ change
    second = change @ weights.first.T + error @ tangent.first.mT
    return Weights(tangent.first - lr * first, tangent.second - lr * second)


def unrolled_influence(run: Weights, targets: Tensor, *, lr: float, steps: Sequence[int]) -> Array:
    """Returns the derivative of each item's loss with respect to each item's weight during *all* training so far.

    Computed by tangent-linear gradient descent, exact up to rounding: the limit of retraining with weight 1 + delta.

    Args:
        run: ``[step, ...]``, the run at weight 1, with all steps from 0.
        targets: ``[property, item]``.
        lr: learning rate of the run.
        steps: steps at which to read the influence, increasing.

    Returns:
        ``[step, item, item_j]``: d l_j / d b_i in nats; negative = helpful: more weight on i lowers the loss of j.

    Source: unrolled differentiation (Bae et al. 2024, arXiv 2405.12186, without its approximations).
    """
    wanted = {int(step): row for row, step in enumerate(steps)}
    items = targets.shape[-1]
    found = np.full((len(wanted), items, items), np.nan)
    tangent = Weights(*(torch.zeros(items, *part.shape[1:], dtype=part.dtype) for part in run))
    for step in range(max(wanted) + 1):
        weights = Weights(run.first[step], run.second[step])
        if step in wanted:
            moved = tangent.second @ weights.first + weights.second @ tangent.first
            found[wanted[step]] = ((weights.map() - targets) * moved).sum(dim=-2).numpy()
        tangent = _tangent_step(weights, tangent, targets, lr)
    return found
