"""The baseline that stands beside every BIF curve: the gradient dot product."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from stagewise.batches import Batch, num_samples, take
from stagewise.influence.groups import Groups
from stagewise.isolation import untouched, with_weights
from stagewise.losses import LossFn, evaluate
from stagewise.sampling.weights import trainable


def gradient_dot(
    module: nn.Module,
    loss_fn: LossFn,
    observed: Batch,
    groups: Groups,
    *,
    forward_context: Callable[[], AbstractContextManager] = nullcontext,
) -> NDArray[np.float64]:
    """Mean gradient dot product over the pairs of losses of two groups in different samples.

    At strong localization g, BIF tends to minus this over g. Here *positive* = helpful: a gradient step on one lowers
    the loss of the other. One forward pass for each sample and one backward pass for each group that it holds; memory
    is one gradient for each group.

    Args:
        module: left bit for bit as it was; evaluated at its current weights, in eval mode.
        loss_fn: per-sample loss.
        observed: batch on the module's device.
        groups: over that batch.
        forward_context: entered around each forward pass (autocast).

    Returns:
        ``[group, group]``, nats^2 per squared weight unit.

    Source: GradSim; one checkpoint of TracIn (Pruthi et al. 2020) at learning rate 1.
    """
    leaves = {name: value.clone().requires_grad_() for name, value in trainable(module).items()}
    tensors = list(leaves.values())
    num_groups = len(groups)

    def products() -> tuple[Tensor, Tensor]:
        total: list[list[Tensor] | None] = [None] * num_groups
        same_sample = torch.zeros(num_groups, num_groups, dtype=torch.float64)
        for sample in range(num_samples(observed)):
            with forward_context():
                losses = evaluate(loss_fn, module, take(observed, slice(sample, sample + 1)))
            held = [row for row in range(num_groups) if groups.counts[row, sample]]
            gradients: dict[int, list[Tensor]] = {}
            for row in held:
                mask = torch.from_numpy(np.asarray(groups.masks[row, sample])).to(losses.values.device)
                gradients[row] = list(
                    torch.autograd.grad(
                        (losses.values[0] * mask).sum(),
                        tensors,
                        retain_graph=row != held[-1],
                        allow_unused=True,
                        materialize_grads=True,
                    )
                )
            for row in held:
                for column in held:
                    same_sample[row, column] += _dot(gradients[row], gradients[column])
                summed = total[row]
                if summed is None:
                    total[row] = gradients[row]
                else:
                    torch._foreach_add_(summed, gradients[row])
        everything = torch.zeros_like(same_sample)
        for row, left in enumerate(total):
            for column, right in enumerate(total):
                everything[row, column] = _dot(left or [], right or [])
        return everything, same_sample

    with untouched(module), torch.enable_grad():
        everything, same_sample = with_weights(module, leaves, products)
    return (everything - same_sample).numpy() / groups.num_pairs


def _dot(left: list[Tensor], right: list[Tensor]) -> float:
    return float(sum(torch.dot(a.flatten().double(), b.flatten().double()) for a, b in zip(left, right, strict=True)))
