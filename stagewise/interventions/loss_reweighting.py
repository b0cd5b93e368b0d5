"""Weights of single losses, and their use in a training step."""

from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from stagewise.errors import InputError
from stagewise.interventions.check_weights import GroupWeights, check_values
from stagewise.interventions.strata import Strata
from stagewise.losses.contract import Losses


def sample_weights(strata: Strata, weights: GroupWeights) -> NDArray[np.float64]:
    """Returns ``[sample]``: weight of each sample of the data set, a pure number with mean 1; see ``Strata.rho``."""
    return strata.rho(weights)[strata.labels]


def loss_weights(losses: Losses, masks: Mapping[str, Tensor], weights: GroupWeights) -> Tensor:
    """Returns the weight of each loss of a batch: the product of the weights of the groups it is in, 1 in none.

    Args:
        losses: ``[sample]`` or ``[sample, token]``.
        masks: name to bool ``[sample]`` or, for token losses, ``[sample, token]``: which losses of this batch are in
            the group. A group may have none here.
        weights: of the groups; those that are not named have weight 1.

    Returns:
        The shape and type of the losses, pure numbers, not normalised; 0 where the losses are masked.

    Raises:
        InputError: a group has no mask, a mask has another shape or type, or a weight is not finite or negative.
    """
    result = losses.mask.to(losses.values.dtype)
    for name, weight in check_values(weights).items():
        if name not in masks:
            raise InputError(
                f"got a weight for group {name!r} and masks for {', '.join(map(repr, masks)) or 'no group'}; expected "
                "a mask of the batch for each weight"
            )
        mask = masks[name]
        # A sample's mask holds for all of its tokens.
        column = mask[:, None] if mask.dim() == 1 and result.dim() == 2 else mask
        fits = column.dim() == result.dim() and column.shape in (result.shape, (len(result), 1))
        if mask.dtype != torch.bool or not fits:
            raise InputError(
                f"got a mask of {mask.dtype} {list(mask.shape)} for group {name!r}; expected torch.bool "
                f"{list(result.shape)} or [{len(result)}]"
            )
        if weight != 1.0:
            result = torch.where(column.to(result.device), result * weight, result)
    return result


def weighted_loss(losses: Losses, weights: Tensor) -> Tensor:
    """Returns the weighted mean loss, sum(rho l) / sum(rho): weights of any scale leave the size of the loss as it is.

    With weights of 1 it is ``losses.mean()``, to the last bit. The sum runs over the batch that is given: under DDP or
    with accumulated gradients each part is normalised for itself, as the ordinary mean loss is. Where every loss of the
    batch has weight 0 the result is 0, and so is its gradient.

    Args:
        losses: ``[sample]`` or ``[sample, token]``, nats.
        weights: rho, the same shape, 0 where masked; see :func:`loss_weights`.

    Returns:
        Zero-dimensional, nats.

    Raises:
        InputError: the shapes differ.
    """
    if weights.shape != losses.values.shape:
        raise InputError(
            f"got weights {list(weights.shape)} for losses {list(losses.values.shape)}; expected equal shapes"
        )
    total = weights.sum()
    return (weights * losses.values).sum() / torch.where(total > 0, total, torch.ones_like(total))


class LossReweighting:
    """Mean loss of a batch with the weights that hold now; a callback sets them before each batch.

    A training step finds it as ``self.intervention_weights`` while an intervention by loss weights is attached::

        losses = self.per_sample_loss(batch)
        weigh = getattr(self, "intervention_weights", None)
        loss = losses.mean() if weigh is None else weigh(losses, {"induction": batch["is_induction"]})

    Attributes:
        weights: of the groups, now.
        calls: number of calls.
    """

    def __init__(self, weights: GroupWeights) -> None:
        """Starts with these weights."""
        self.weights = weights
        self.calls = 0

    def __call__(self, losses: Tensor | tuple[Tensor, Tensor], masks: Mapping[str, Tensor]) -> Tensor:
        """Returns the weighted mean, sum(rho l) / sum(rho), in the batch: with weights of 1 the mean, to the last bit.

        Args:
            losses: unreduced, ``[sample]`` or ``[sample, token]``, nats; or ``(losses, mask)``.
            masks: name to bool ``[sample]`` or ``[sample, token]``: which losses of the batch are in each group.

        Returns:
            Zero-dimensional, nats.

        Raises:
            InputError: a group has no mask, or a mask does not fit.
        """
        self.calls += 1
        values, kept = losses if isinstance(losses, tuple) else (losses, None)
        kept = torch.ones_like(values, dtype=torch.bool) if kept is None else kept.bool()
        known = Losses(torch.where(kept, values, 0.0), kept)
        return weighted_loss(known, loss_weights(known, masks, self.weights))
