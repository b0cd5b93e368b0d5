"""Check that the loss of a sample does not depend on other samples in its batch."""

import torch
from torch import nn

from stagewise.batches import Batch, num_samples, take
from stagewise.errors import LossContractError
from stagewise.losses.contract import Losses, LossFn, evaluate

TOLERANCE, HALF_TOLERANCE = 1e-3, 3e-2
"""Tolerated difference of a sample's losses between two batches over 1 + |loss|, in full and in half precision."""


def check_chunking(loss_fn: LossFn, module: nn.Module, observed: Batch, losses: Losses) -> None:
    """Compares the losses of the first samples with those in a batch of another size.

    Args:
        loss_fn: per-sample loss.
        module: in the state that ``losses`` were computed in.
        observed: the observed set.
        losses: of its first chunk.

    Raises:
        LossContractError: a loss differs by more than the tolerance.
    """
    first, size = len(losses.values), num_samples(observed)
    if size == 1:
        return
    other = first // 2 if first > 1 else 2
    again = evaluate(loss_fn, module, take(observed, slice(0, other)))
    common = min(first, other)
    if again.values.shape[1:] != losses.values.shape[1:]:
        # As with padding to the longest sample of a batch.
        raise LossContractError(
            f"got losses of shape {[first, *losses.axes]} and {[other, *again.axes]} for {first} and {other} samples; "
            "expected axes that do not depend on the batch; pad to one length and mask the padding, or "
            "return one loss per sample"
        )
    left, right = losses.values[:common], again.values[:common]
    half = torch.is_autocast_enabled(left.device.type) or any(
        parameter.dtype in (torch.float16, torch.bfloat16) for parameter in module.parameters()
    )
    gap = (left - right).abs() / (1 + left.abs())
    if bool((gap <= (HALF_TOLERANCE if half else TOLERANCE)).all()):  # False with NaN
        return
    sample = int(gap.reshape(common, -1).amax(dim=1).argmax())
    one, two = (
        float(values.reshape(common, -1)[sample, gap.reshape(common, -1)[sample].argmax()]) for values in (left, right)
    )
    raise LossContractError(
        f"got losses that depend on the samples beside them: sample {sample} has {one:.4g} nats among {first} samples "
        f"and {two:.4g} among {other}; expected a loss of each sample alone; leave out negatives from the batch "
        "(contrastive losses: take fixed ones), statistics of the batch (normalisation: use running ones in eval mode) "
        "and division by the batch size"
    )
