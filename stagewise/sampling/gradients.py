"""Estimators of the gradient that drives a chain: plain, control variates, tilted."""

from collections.abc import Callable

import torch
from torch import Tensor

from stagewise.batches import Batch, num_samples, take
from stagewise.sampling.config import Drift
from stagewise.sampling.weights import FlatWeights

BatchLoss = Callable[[Batch], Tensor]
"""Mean loss of a batch at the weights that the module holds."""


class DriftGradient:
    """Gradient ``[weight]`` of L at a chain's weights, estimated from one minibatch.

    With gm the minibatch gradient: plain gm(w); control variates gm(w) - gm(w*) + the full gradient at w*; tilted
    gm(w) - gm(w*), which leaves out the slope at w*, so that the chain fluctuates around w* instead of sliding down.

    Source: control variates, Baker et al. 2019.
    """

    def __init__(self, drift: Drift, weights: FlatWeights, loss: BatchLoss, sampling: Batch, batch_size: int) -> None:
        """Compute what stays the same over the chains of a probe.

        Args:
            drift: which estimator.
            weights: of the chains; at w* when this is called.
            loss: mean loss of a batch.
            sampling: the whole sampling set; control variates pass over it once.
            batch_size: samples for each forward pass of that pass.
        """
        self._drift = drift
        self._weights = weights
        self._loss = loss
        self._slope = self._full_gradient(sampling, batch_size) if drift is Drift.control_variate else None

    def _full_gradient(self, sampling: Batch, batch_size: int) -> Tensor:
        """Gradient of the mean over the sampling set: chunk means weighted by their samples."""
        size = num_samples(sampling)
        total = torch.zeros_like(self._weights.state)
        for start in range(0, size, batch_size):
            chunk = take(sampling, slice(start, start + batch_size))
            total.add_(self._weights.gradient(self._loss(chunk)), alpha=num_samples(chunk) / size)
        return total

    def __call__(self, batch: Batch) -> Tensor:
        """Estimate from one minibatch at the chain's present weights."""
        gradient = self._weights.gradient(self._loss(batch))
        if self._drift is Drift.plain:
            return gradient
        with self._weights.at_anchor():
            gradient -= self._weights.gradient(self._loss(batch))
        return gradient if self._slope is None else gradient.add_(self._slope)
