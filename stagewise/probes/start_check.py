"""Check of the loss contract before the first probe."""

from collections.abc import Collection
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from stagewise.batches import Batch, chunks, num_samples, take
from stagewise.errors import LossContractError
from stagewise.losses.contract import Losses, check_finite, check_loss, check_some, evaluate
from stagewise.probes.chunking import check_chunking
from stagewise.probes.lost_samples import kinds_seen, not_finite_rows
from stagewise.probes.stale import check_stale
from stagewise.sampling.sharded_weights import ShardedWeights, weights_of, while_moving
from stagewise.sampling.target import Target


class Found(NamedTuple):
    """Result of the check.

    Attributes:
        present: bool ``[sample]`` or ``[sample, token]``, True where the observed set has a loss.
        bad: observed samples whose loss is not finite, increasing.
        seen: description of these losses; empty if there are none.
        moved_weights: number of weights that chains move.
    """

    present: NDArray[np.bool_]
    bad: NDArray[np.int64]
    seen: str
    moved_weights: int


def check_start(
    module: nn.Module,
    target: Target,
    *,
    batch_size: int,
    lost: Collection[int] = (),
) -> Found:
    """Checks the loss on the observed set, chunk by chunk, and on a minibatch of the sampling set.

    Samples whose loss is not finite are returned; other checks use the remaining ones. Only the loss draws random
    numbers.

    Args:
        module: in eval mode; its weights are restored, see :func:`~stagewise.sampling.sharded_weights.while_moving`.
        target: of the chains.
        batch_size: of the minibatches of chains.
        lost: observed samples to leave out without a check.

    Raises:
        LossContractError: the loss violates its contract; it is finite in none of the observed samples, or not finite
            in the minibatch of the sampling set.
    """
    masks: list[Tensor] = []
    bad: list[int] = []
    seen: list[NDArray[np.float64]] = []
    weights = weights_of(module, target)

    def observe() -> Batch:
        with target.forward_context(), torch.no_grad():
            for chunk in target.observed_chunks():
                losses, start = evaluate(target.loss_fn, module, chunk), sum(map(len, masks))
                values = losses.values.cpu().double().numpy()
                rows = [int(row) for row in not_finite_rows(values) if start + int(row) not in lost]
                if not masks:
                    _check_neighbours(module, target, chunk, losses, {*rows, *lost})
                masks.append(losses.mask.cpu())
                bad.extend(start + row for row in rows)
                seen.append(values[rows].ravel())
            present = torch.cat(masks)
            check_some(present, "an observed set (observed)")
            leave = {*bad, *lost}
            if bad and len(leave) == len(present):
                raise LossContractError(
                    f"got losses that are not finite ({kinds_seen(np.concatenate(seen))}) in all {len(bad)} samples of "
                    "the observed set; expected finite nats; look at the model, its weights and what it is given, or "
                    "mask losses out by returning (losses, mask)"
                )
            drives = target.driving
            if target.sampling is None and leave:
                drives = take(drives, torch.tensor([row for row in range(len(present)) if row not in leave]))
            return _first_with_loss(module, target, drives, batch_size)

    def gradient() -> Tensor:
        with target.forward_context():
            losses = check_loss(target.loss_fn, module, minibatch)
        return weights.gradient(losses.mean())

    # As in a probe: a forward pass that writes to weights (max-norm) writes to those of the chain.
    minibatch = while_moving(module, weights, observe)
    with torch.enable_grad():
        found = while_moving(module, weights, gradient)
    if not torch.isfinite(found).all():
        raise LossContractError(
            "got a gradient that is not finite from a finite loss; expected finite gradients; look for square "
            "roots, norms and logarithms at zero"
        )
    check_stale(module, target, minibatch)
    description = kinds_seen(np.concatenate(seen))
    moved = weights.num_weights if isinstance(weights, ShardedWeights) else len(weights.anchor)
    return Found(torch.cat(masks).numpy(), np.array(bad, dtype=np.int64), description, moved)


def _check_neighbours(module: nn.Module, target: Target, chunk: Batch, losses: Losses, leave: Collection[int]) -> None:
    """Checks that finite losses of the first chunk do not depend on other samples."""
    size = num_samples(chunk)
    kept = [row for row in range(size) if row not in leave]
    if len(kept) == size:
        check_chunking(target.loss_fn, module, target.observed, losses)
    elif kept:
        good = take(chunk, torch.tensor(kept))
        check_chunking(target.loss_fn, module, good, evaluate(target.loss_fn, module, good))


def _first_with_loss(module: nn.Module, target: Target, sampling: Batch, batch_size: int) -> Batch:
    """Returns the first minibatch of the sampling set with an unmasked loss, since some may ignore every label."""
    masks: list[Tensor] = []
    for batch in chunks(sampling, batch_size):
        losses = evaluate(target.loss_fn, module, batch)
        check_finite(losses, "the sampling set", sum(map(len, masks)))
        if losses.mask.any():
            return batch
        masks.append(losses.mask)
    check_some(torch.cat(masks), "a sampling set (sampling)")
    raise AssertionError("check_some has refused")
