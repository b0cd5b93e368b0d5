"""Weights of individual losses, and their use in a training step."""

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
    """Returns the weight of each sample of the data set, ``[sample]``, pure numbers with mean 1; see ``Strata.rho``."""
    return strata.rho(weights)[strata.labels]


def loss_weights(losses: Losses, masks: Mapping[str, Tensor], weights: GroupWeights) -> Tensor:
    """Returns the weight of each loss of a batch: the product of the weights of its groups, 1 without a group.

    Args:
        losses: ``[sample]`` or ``[sample, token]``.
        masks: maps names to bool ``[sample]`` or, for token losses, ``[sample, token]``: True for losses of this batch
            in the group, possibly none.
        weights: of the groups; 1 for groups that are not mentioned.

    Returns:
        Pure numbers of the shape and type of the losses, not normalised; 0 where losses are masked.

    Raises:
        InputError: a group has no mask, a mask has another shape or type, or a weight is not a finite number of 0 or
            more.
    """
    result = losses.mask.to(losses.values.dtype)
    for name, weight in check_values(weights).items():
        if name not in masks:
            raise InputError(
                f"got a weight for group {name!r} and masks for {', '.join(map(repr, masks)) or 'no group'}; expected "
                "a mask of the batch for each weight"
            )
        mask = masks[name]
        # A mask over samples applies to all their tokens.
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
    """Returns the weighted mean loss, sum(rho l) / sum(rho), which does not depend on the scale of the weights.

    With weights of 1 it is ``losses.mean()``, to the last bit. The sum runs over the given batch: under DDP or with
    accumulated gradients each part is normalised separately, like the ordinary mean loss. If all losses of the batch
    have weight 0, the result and its gradient are 0.

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
    """Mean loss of a batch with the current weights, which a callback sets before each batch.

    While an intervention by loss weights is attached, it is available in the training step as
    ``self.intervention_weights``::

        losses = self.per_sample_loss(batch)
        weigh = getattr(self, "intervention_weights", None)
        loss = losses.mean() if weigh is None else weigh(losses, {"induction": batch["is_induction"]})

    Attributes:
        weights: current weights of the groups.
        calls: number of calls so far.
    """

    def __init__(self, weights: GroupWeights) -> None:
        """Stores the initial weights."""
        self.weights = weights
        self.calls = 0

    def __call__(self, losses: Tensor | tuple[Tensor, Tensor], masks: Mapping[str, Tensor]) -> Tensor:
        """Returns the weighted mean sum(rho l) / sum(rho) over the batch: with weights of 1 the mean, to the last bit.

        Args:
            losses: unreduced, ``[sample]`` or ``[sample, token]``, nats; or ``(losses, mask)``.
            masks: maps names to bool ``[sample]`` or ``[sample, token]``: True for losses of the batch in the group.

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
