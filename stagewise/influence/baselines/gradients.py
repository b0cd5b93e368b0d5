"""Gradients of the losses of groups, sample by sample."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager

import torch
from torch import Tensor, nn

from stagewise.batches import Batch, num_samples, take
from stagewise.influence.groups import Groups
from stagewise.losses import LossFn, evaluate

ForwardContext = Callable[[], AbstractContextManager]


def group_gradients(
    module: nn.Module,
    loss_fn: LossFn,
    observed: Batch,
    groups: Groups,
    leaves: list[Tensor],
    forward_context: ForwardContext,
) -> Iterator[tuple[int, dict[int, list[Tensor]]]]:
    """For each sample: the gradient of the summed losses of each group that it holds.

    One forward pass for each sample and one backward pass for each of its groups.

    Args:
        module: holds ``leaves`` as its parameters while this runs.
        loss_fn: per-sample loss.
        observed: batch on the module's device.
        groups: over that batch.
        leaves: what to differentiate by.
        forward_context: entered around each forward pass.

    Yields:
        The sample, and by group one tensor for each leaf, nats per weight.
    """
    for sample in range(num_samples(observed)):
        held = [group for group in range(len(groups)) if groups.counts[group, sample]]
        if not held:
            continue
        with forward_context():
            losses = evaluate(loss_fn, module, take(observed, slice(sample, sample + 1))).values[0]
        gradients = {}
        for group in held:
            mask = torch.as_tensor(groups.masks[group, sample]).to(losses.device)
            gradients[group] = list(
                torch.autograd.grad(
                    (losses * mask).sum(),
                    leaves,
                    retain_graph=group != held[-1],
                    allow_unused=True,
                    materialize_grads=True,
                )
            )
        yield sample, gradients
