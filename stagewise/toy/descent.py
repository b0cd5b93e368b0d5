"""Gradient descent in a deep linear network with one-hot items: many runs at once, in plain matrix algebra."""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor


class Weights(NamedTuple):
    """Weights of y = second first x, for one network or for a batch of them.

    Attributes:
        first: ``[..., hidden, item]``.
        second: ``[..., property, hidden]``.
    """

    first: Tensor
    second: Tensor

    def map(self) -> Tensor:
        """Returns the output of the network for each item, ``[..., property, item]``."""
        return self.second @ self.first

    def repeat(self, *counts: int) -> "Weights":
        """Repeats the network as a batch of shape ``[*counts, ...]``."""
        return Weights(*(part.expand(*counts, *part.shape).clone() for part in self))


def item_losses(weights: Weights, targets: Tensor) -> Tensor:
    """Returns half the squared error of each item, ``[..., item]``, nats (a Gaussian of unit variance).

    Args:
        weights: one network or a batch.
        targets: ``[property, item]``.
    """
    return ((weights.map() - targets) ** 2).sum(dim=-2) / 2


def gradient(weights: Weights, targets: Tensor, sample_weights: Tensor) -> Weights:
    """Returns the gradient of (1/n) sum_i b_i l_i.

    The factor 1/n does not depend on the weights: dropping an item (b = 0) does not change the step size of the others.

    Args:
        weights: one network or a batch.
        targets: ``[property, item]``.
        sample_weights: ``[..., item]``, b.
    """
    error = (weights.map() - targets) * sample_weights[..., None, :] / targets.shape[-1]
    return Weights(weights.second.mT @ error, error @ weights.first.mT)


def descend(
    weights: Weights, targets: Tensor, sample_weights: Tensor, *, lr: float, num_steps: int
) -> Iterator[Weights]:
    """Yields the weights after 0, 1, ..., ``num_steps`` steps of gradient descent.

    Args:
        weights: starting point; not changed.
        targets: ``[property, item]``.
        sample_weights: ``[..., item]``.
        lr: learning rate.
        num_steps: number of steps.
    """
    yield weights
    for _ in range(num_steps):
        slope = gradient(weights, targets, sample_weights)
        weights = Weights(weights.first - lr * slope.first, weights.second - lr * slope.second)
        yield weights


def trajectory(weights: Weights, targets: Tensor, *, lr: float, num_steps: int) -> Weights:
    """Returns the weights ``[step, ...]`` of one run with all items at weight 1, steps 0 to ``num_steps``."""
    ones = torch.ones(targets.shape[-1], dtype=targets.dtype)
    run = list(descend(weights, targets, ones, lr=lr, num_steps=num_steps))
    return Weights(torch.stack([state.first for state in run]), torch.stack([state.second for state in run]))
