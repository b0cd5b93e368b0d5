"""Gradients of the losses of groups, over parts of the observed set."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from stagewise.batches import Batch, take
from stagewise.influence.groups import Groups
from stagewise.losses.contract import LossFn, evaluate

ForwardContext = Callable[[], AbstractContextManager]


def group_gradients(
    module: nn.Module,
    loss_fn: LossFn,
    observed: Batch,
    groups: Groups,
    leaves: list[Tensor],
    forward_context: ForwardContext,
    parts: Sequence[NDArray[np.int64]],
) -> Iterator[tuple[int, int, list[Tensor]]]:
    """Yields, for each part of the observed set, the gradient of the summed losses of each group in it.

    One forward pass for each part and one backward pass for each of its groups; one gradient is held at a time.

    Args:
        module: holds ``leaves`` as its parameters while this runs.
        loss_fn: per-sample loss.
        observed: batch on the module's device.
        groups: over that batch.
        leaves: tensors to differentiate with respect to.
        forward_context: entered around each forward pass.
        parts: samples of each part, by their positions in the batch.

    Yields:
        The number of the part, the group, and one tensor for each leaf, nats per weight.
    """
    for part, samples in enumerate(parts):
        held = np.flatnonzero(groups.counts[:, samples].any(axis=1)).tolist()
        if not held:
            continue
        with forward_context():
            losses = evaluate(loss_fn, module, take(observed, torch.from_numpy(samples))).values
        for group in held:
            mask = torch.as_tensor(groups.masks[group, samples]).to(losses.device)
            found = torch.autograd.grad(
                (losses * mask).sum(),
                leaves,
                retain_graph=group != held[-1],
                allow_unused=True,
                materialize_grads=True,
            )
            # An embedding may give sparse gradients, whatever its module says.
            yield part, group, [gradient.to_dense() if gradient.is_sparse else gradient for gradient in found]
