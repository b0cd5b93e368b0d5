"""The gradient dot product: what BIF tends to at strong localization."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from stagewise.batches import Batch
from stagewise.influence.baselines.gradients import group_gradients
from stagewise.influence.groups import Groups
from stagewise.isolation import untouched, with_weights
from stagewise.losses import LossFn
from stagewise.sampling.entries import Selection, moved_entries, trainable

SIGN = "positive = helpful: a gradient step on sample i lowers the loss of sample j"
"""Sign of the gradient dot product, and of TracIn."""

UNITS = "nats^2 per squared weight"
"""Unit of the gradient dot product."""


def gradient_dot(
    module: nn.Module,
    loss_fn: LossFn,
    observed: Batch,
    groups: Groups,
    *,
    parameters: Selection = None,
    forward_context: Callable[[], AbstractContextManager] = nullcontext,
) -> NDArray[np.float64]:
    """Mean gradient dot product over the pairs of losses of two groups in different samples.

    At strong localization g, BIF tends to minus this over g. Here *positive* = helpful: a gradient step on one lowers
    the loss of the other. One forward pass for each sample and one backward pass for each group that it holds; memory
    is two gradients for each group.

    Args:
        module: left bit for bit as it was; evaluated at its current weights, in eval mode.
        loss_fn: per-sample loss.
        observed: batch on the module's device.
        groups: over that batch.
        parameters: patterns of parameter names, or masks, as in the sampler; all trainable ones if None.
        forward_context: entered around each forward pass (autocast).

    Returns:
        ``[group, group]``, nats^2 per squared weight unit; NaN where two groups have no pair in different samples.

    Raises:
        InputError: no trainable parameter, a pattern that matches none, or masks that do not fit.

    Source: GradSim; one checkpoint of TracIn (Pruthi et al. 2020) at learning rate 1.
    """
    leaves = {name: value.clone().requires_grad_() for name, value in trainable(module, parameters).items()}
    moved = moved_entries(module, parameters)
    size = len(groups)

    def products() -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        total: dict[int, list[Tensor]] = {}
        same_sample = np.zeros((size, size))
        tensors = list(leaves.values())
        for _, found in group_gradients(module, loss_fn, observed, groups, tensors, forward_context):
            gradients = {
                group: [it.take(part) for it, part in zip(moved, parts, strict=True)] for group, parts in found.items()
            }
            same_sample += _dots(gradients, size)
            for group, gradient in gradients.items():
                if group in total:
                    torch._foreach_add_(total[group], gradient)
                else:
                    total[group] = gradient
        return _dots(total, size), same_sample

    with untouched(module), torch.enable_grad():
        everything, same_sample = with_weights(module, leaves, products)
    return groups.per_pair(everything - same_sample)


def _dots(gradients: dict[int, list[Tensor]], size: int) -> NDArray[np.float64]:
    """``[group, group]`` dot products, each pair taken once; zero for groups without a gradient."""
    dots = np.zeros((size, size))
    for row, left in gradients.items():
        for column, right in gradients.items():
            if row <= column:
                dots[row, column] = dots[column, row] = sum(
                    float(torch.dot(a.flatten().double(), b.flatten().double()))
                    for a, b in zip(left, right, strict=True)
                )
    return dots
