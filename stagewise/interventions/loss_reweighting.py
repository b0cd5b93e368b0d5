"""Loss weights as a training step asks for them."""

from collections.abc import Mapping

import torch
from torch import Tensor

from stagewise.interventions.group_weights import GroupWeights
from stagewise.interventions.loss_weights import loss_weights, weighted_loss
from stagewise.losses.contract import Losses


class LossReweighting:
    """The mean loss of a batch with the weights that hold now; a callback sets them before each batch.

    A training step finds it as ``self.intervention_weights`` while an intervention by loss weights is attached::

        losses = self.per_sample_loss(batch)
        weigh = getattr(self, "intervention_weights", None)
        loss = losses.mean() if weigh is None else weigh(losses, {"induction": batch["is_induction"]})

    Attributes:
        weights: of the groups, now.
        calls: how often it was asked.
    """

    def __init__(self, weights: GroupWeights) -> None:
        """Start with these weights."""
        self.weights = weights
        self.calls = 0

    def __call__(self, losses: Tensor | tuple[Tensor, Tensor], masks: Mapping[str, Tensor]) -> Tensor:
        """Weighted mean, sum(rho l) / sum(rho), in the batch: with weights of 1 the mean, to the last bit.

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
