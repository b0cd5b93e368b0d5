"""Gradient dot product, the limit of BIF at strong localization."""

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from stagewise.errors import require
from stagewise.influence.baselines.folds import assign_folds, pairs_between
from stagewise.influence.baselines.gradients import group_gradients, sharded_gradients
from stagewise.influence.groups import Groups
from stagewise.isolation import untouched, with_weights
from stagewise.sampling.double_blocks import double_block
from stagewise.sampling.selection import Entries, moved_entries, trainable
from stagewise.sampling.sharded_weights import ShardedWeights
from stagewise.sampling.sharding import Sharding
from stagewise.sampling.target import Target

SIGN = "positive = helpful: a gradient step on sample i lowers the loss of sample j"
"""Sign of the gradient dot product, and of TracIn."""

UNITS = "nats^2 per squared weight"
"""Unit of the gradient dot product."""

VECTORS = 2
"""Number of gradients held per group: the sum over earlier folds, and that of the present fold."""


def gradient_dot(
    module: nn.Module,
    target: Target,
    groups: Groups,
    *,
    num_folds: int | None = None,
    block_size: int | None = None,
) -> NDArray[np.float64]:
    """Computes the mean gradient dot product over pairs of losses of two groups in different folds.

    At strong localization g, BIF tends to minus this over g. Here *positive* = helpful: a gradient step on one lowers
    the loss of the other.

    With one fold per sample (``num_folds=None``) these are all pairs in different samples, the pairs of influence. F
    folds of equal size keep about 1 - 1/F of them, and take one backward pass per fold and group instead of one per
    sample and group. The folds depend on ``groups`` alone. Any two groups with a pair keep at least one, which may
    require more folds than requested, see :func:`~stagewise.influence.baselines.folds.assign_folds`.

    Memory is two gradients per group, in float32 or float64, plus one more; ``block_size`` bounds the former.

    Args:
        module: left unchanged, bit for bit; evaluated at its current weights, in eval mode.
        target: loss, observed set, and the weights to differentiate with respect to; each forward pass takes
            ``chunk_size`` samples of a fold, a whole fold if None.
        groups: over the observed set.
        num_folds: number of folds of the observed set; None for all pairs in different samples.
        block_size: number of weights whose gradients are held at once. Each block repeats all passes. All weights if
            None.

    Returns:
        ``[group, group]``, nats^2 per squared weight unit; NaN where two groups have no pair in different samples.

    Raises:
        InputError: fewer than two folds, a size below 1, no trainable parameter, a pattern that matches none, or masks
            that do not fit.

    Source: GradSim; one checkpoint of TracIn (Pruthi et al. 2020) at learning rate 1. Folds: the sum over folds a != b
    of G_a[g] . G_b[h], where G_a[g] is the gradient of the summed losses of group g in fold a.
    """
    good = block_size is None or block_size >= 1
    require(good, "block_size", block_size, "an integer >= 1, or None for all at once", "raise it")
    folds = assign_folds(groups.counts, num_folds)
    fold_of, parts = _parts(folds, target.chunk_size)
    if target.sharding is not None:
        sums = _over_shards(module, target, groups, target.sharding, block_size, fold_of, parts)
        return _mean(sums, groups, folds)
    leaves = {name: value.clone().requires_grad_() for name, value in trainable(module, target.selection).items()}
    moved = moved_entries(module, target.selection)
    blocks = list(_blocks(moved, block_size))

    def products() -> NDArray[np.float64]:
        total = np.zeros((len(groups), len(groups)))
        for block in blocks:
            touched = [leaves[entries.name] for entries, _ in block]
            found = group_gradients(module, target, groups, touched, parts)
            total += _between_folds(found, fold_of, block, len(groups), touched[0])
        return total

    with untouched(module), torch.enable_grad():
        sums = with_weights(module, leaves, products)
    return _mean(sums, groups, folds)


def _mean(sums: NDArray[np.float64], groups: Groups, folds: NDArray[np.int64]) -> NDArray[np.float64]:
    pairs = pairs_between(groups.counts, folds)
    return np.divide(sums, pairs, out=np.full(sums.shape, np.nan), where=pairs > 0)


def _over_shards(
    module: nn.Module,
    target: Target,
    groups: Groups,
    sharding: Sharding,
    block_size: int | None,
    fold_of: Sequence[int],
    parts: Sequence[NDArray[np.int64]],
) -> NDArray[np.float64]:
    """Returns the sums of products over the weights of all processes, all of which must call this."""
    weights = ShardedWeights(module, target.selection, sharding)
    like = weights.state
    moved = [Entries("", torch.Size([len(like)]), like.dtype)]
    blocks = list(_blocks(moved, block_size))
    # A process with fewer weights must still take part in the passes of the others.
    blocks += [[]] * (-(-weights.most // (block_size or weights.most)) - len(blocks))

    def products() -> NDArray[np.float64]:
        total = np.zeros((len(groups), len(groups)))
        for block in blocks:
            found = sharded_gradients(module, target, groups, weights, sharding, parts)
            total += _between_folds(found, fold_of, block, len(groups), like)
        return total

    with untouched(module), torch.enable_grad():
        sums = weights.moving(products)
    return sharding.total(torch.from_numpy(sums)).numpy()


Block = list[tuple[Entries, slice]]
"""Stretches of the entries of parameters."""


def _blocks(moved: Sequence[Entries], block_size: int | None) -> Iterator[Block]:
    """Yields all entries in order, in blocks of one dtype and at most ``block_size`` entries."""
    block: Block = []
    room = limit = sum(entries.size for entries in moved) if block_size is None else block_size
    for entries in moved:
        start = 0
        while start < entries.size:
            if block and (room == 0 or block[0][0].dtype != entries.dtype):
                yield block
                block, room = [], limit
            stop = min(entries.size, start + room)
            block.append((entries, slice(start, stop)))
            room -= stop - start
            start = stop
    if block:
        yield block


def _parts(folds: NDArray[np.int64], chunk_size: int | None) -> tuple[list[int], list[NDArray[np.int64]]]:
    """Returns the fold and the samples of each chunk, fold after fold."""
    fold_of, parts = [], []
    for fold in range(folds.max() + 1):
        samples = np.flatnonzero(folds == fold)
        size = chunk_size or len(samples)
        for start in range(0, len(samples), size):
            fold_of.append(fold)
            parts.append(samples[start : start + size])
    return fold_of, parts


def _between_folds(
    found: Iterator[tuple[int, int, list[Tensor]]], fold_of: Sequence[int], block: Block, size: int, like: Tensor
) -> NDArray[np.float64]:
    """Returns ``[group, group]``: sum of G_a[g] . G_b[h] over folds a != b and the entries of a block."""
    width = sum(stretch.stop - stretch.start for _, stretch in block)
    dtype = torch.float64 if like.dtype == torch.float64 else torch.float32
    earlier, here = (torch.zeros(size, width, dtype=dtype, device=like.device) for _ in range(VECTORS))
    products = np.zeros((size, size))
    current = 0

    def close_fold() -> None:
        nonlocal products
        if current > 0:
            products += _products(earlier, here)
        earlier.add_(here)
        here.zero_()

    for part, group, gradients in found:
        if fold_of[part] != current:
            close_fold()
            current = fold_of[part]
        at = 0
        for (entries, stretch), gradient in zip(block, gradients[: len(block)], strict=True):
            taken = entries.take(gradient)[stretch]
            here[group, at : at + len(taken)] += taken
            at += len(taken)
    close_fold()
    # Each pair of folds was taken in one order.
    return products + products.T


def _products(left: Tensor, right: Tensor) -> NDArray[np.float64]:
    """Returns ``[row, row]`` dot products in double precision, block by block."""
    size = max(1, double_block(left.device) // len(left))
    total = torch.zeros(len(left), len(right), dtype=torch.float64, device=left.device)
    for start in range(0, left.shape[1], size):
        columns = slice(start, start + size)
        total += left[:, columns].double() @ right[:, columns].double().T
    return total.cpu().numpy()
