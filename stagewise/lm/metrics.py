"""Induction scores as torchmetrics: each class accumulates over batches what its function computes on one."""

from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric

from stagewise.lm.induction import icl_score, loss_gap, prefix_matching_sums, previous_token


class _WeightedMean(Metric):
    """Mean over batches: a running sum and its divisor."""

    full_state_update = False
    total: Tensor
    count: Tensor

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.add_state("total", torch.zeros(()), dist_reduce_fx="sum")
        self.add_state("count", torch.zeros(()), dist_reduce_fx="sum")

    def _add(self, total: Tensor, count: Tensor | int) -> None:
        self.total = self.total + total
        self.count = self.count + count

    def compute(self) -> Tensor:
        """Returns the mean: ``[layer, head]`` for scores of attention, a scalar in nats per token for losses."""
        return self.total / self.count


class PrefixMatching(_WeightedMean):
    """:func:`~stagewise.lm.induction.prefix_matching` over batches.

    ``compute`` gives ``[layer, head]``; the score of a model is the maximum, its best head.
    """

    higher_is_better = True

    def update(self, attention: Tensor, ids: Tensor) -> None:
        """Adds attention ``[layer, sample, head, position, position]`` over ids ``[sample, position]``."""
        self._add(*prefix_matching_sums(attention, ids))


class PreviousToken(_WeightedMean):
    """:func:`~stagewise.lm.induction.previous_token` over batches: ``compute`` gives ``[layer, head]``."""

    higher_is_better = True

    def update(self, attention: Tensor) -> None:
        """Adds attention ``[layer, sample, head, position, position]``."""
        self._add(previous_token(attention) * attention.shape[1], attention.shape[1])


class ICLScore(_WeightedMean):
    """:func:`~stagewise.lm.induction.icl_score` over batches of sequences of one length."""

    higher_is_better = False

    def update(self, losses: Tensor) -> None:
        """Adds losses ``[sample, position - 1]``, nats."""
        self._add(icl_score(losses) * len(losses), len(losses))


class LossGap(_WeightedMean):
    """:func:`~stagewise.lm.induction.loss_gap` over batches of sequences of one length."""

    higher_is_better = False

    def __init__(self, segment_length: int, *, bos: bool = False, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.segment_length, self.bos = segment_length, bos

    def update(self, losses: Tensor) -> None:
        """Adds losses ``[sample, position - 1]``, nats."""
        self._add(loss_gap(losses, self.segment_length, bos=self.bos) * len(losses), len(losses))
