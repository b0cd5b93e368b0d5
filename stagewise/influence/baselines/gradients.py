"""Gradients of the losses of groups, over parts of the observed set."""

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from stagewise.batches import take
from stagewise.influence.groups import Groups
from stagewise.sampling.sharded_weights import ShardedWeights
from stagewise.sampling.sharding import Sharding
from stagewise.sampling.target import Target


def group_gradients(
    module: nn.Module,
    target: Target,
    groups: Groups,
    leaves: list[Tensor],
    parts: Sequence[NDArray[np.int64]],
) -> Iterator[tuple[int, int, list[Tensor]]]:
    """Yields, for each part of the observed set, the gradient of the summed losses of each group in it.

    Each part takes one forward pass, and one backward pass per group in it; one gradient is held at a time.

    Args:
        module: holds ``leaves`` as its parameters while this runs.
        target: loss and observed set.
        groups: over that set.
        leaves: tensors to differentiate with respect to.
        parts: samples of each part, by their positions in the batch.

    Yields:
        Number of the part, number of the group, and one tensor per leaf, nats per weight.
    """
    for part, samples in enumerate(parts):
        held = np.flatnonzero(groups.counts[:, samples].any(axis=1)).tolist()
        if not held:
            continue
        losses = target.evaluate(module, take(target.observed, torch.from_numpy(samples))).values
        for group in held:
            mask = torch.as_tensor(groups.masks[group, samples]).to(losses.device)
            found = torch.autograd.grad(
                (losses * mask).sum(),
                leaves,
                retain_graph=group != held[-1],
                allow_unused=True,
                materialize_grads=True,
            )
            # Embeddings may give sparse gradients.
            yield part, group, [gradient.to_dense() if gradient.is_sparse else gradient for gradient in found]


def sharded_gradients(
    module: nn.Module,
    target: Target,
    groups: Groups,
    weights: ShardedWeights,
    sharding: Sharding,
    parts: Sequence[NDArray[np.int64]],
) -> Iterator[tuple[int, int, list[Tensor]]]:
    """Yields the same as :func:`group_gradients` for sharded weights: one tensor ``[weight]`` of this process.

    Each part and group takes a forward and a backward pass, with a share of the samples on each process.

    Args:
        module: within :meth:`~stagewise.sampling.sharded_weights.ShardedWeights.moving`.
        target: loss and observed set.
        groups: over that set.
        weights: to differentiate with respect to.
        sharding: of the processes, all of which iterate.
        parts: samples of each part, by their positions in the batch.
    """
    for part, samples in enumerate(parts):
        for group in np.flatnonzero(groups.counts[:, samples].any(axis=1)).tolist():
            whole = take(target.observed, torch.from_numpy(samples))
            mine, counts = sharding.part(whole)
            losses = target.evaluate(module, mine).values
            rows = samples[sharding.rank :: sharding.world_size] if counts else samples[:1]
            mask = torch.as_tensor(groups.masks[group, rows]).to(losses.device)
            # FSDP2 averages gradients over the processes.
            scale = sharding.world_size if counts else 0
            yield part, group, [weights.gradient((losses * mask).sum() * scale)]
