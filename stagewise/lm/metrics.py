"""The induction scores as torchmetrics: each class accumulates over batches what its function says of one batch."""

from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric

from stagewise.lm.induction import icl_score, loss_gap, prefix_matching_sums, previous_token


class PrefixMatching(Metric):
    """:func:`~stagewise.lm.induction.prefix_matching` over batches.

    ``compute`` gives ``[layer, head]``; the score of a model is the maximum, its best head.
    """

    full_state_update = False
    higher_is_better = True
    mass: Tensor
    count: Tensor

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.add_state("mass", torch.zeros(()), dist_reduce_fx="sum")
        self.add_state("count", torch.zeros(()), dist_reduce_fx="sum")

    def update(self, attention: Tensor, ids: Tensor) -> None:
        """Add attention ``[layer, sample, head, position, position]`` over ids ``[sample, position]``."""
        mass, count = prefix_matching_sums(attention, ids)
        self.mass = self.mass + mass
        self.count = self.count + count

    def compute(self) -> Tensor:
        """``[layer, head]``."""
        return self.mass / self.count


class PreviousToken(Metric):
    """:func:`~stagewise.lm.induction.previous_token` over batches: ``compute`` gives ``[layer, head]``."""

    full_state_update = False
    higher_is_better = True
    mass: Tensor
    count: Tensor

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.add_state("mass", torch.zeros(()), dist_reduce_fx="sum")
        self.add_state("count", torch.zeros(()), dist_reduce_fx="sum")

    def update(self, attention: Tensor) -> None:
        """Add attention ``[layer, sample, head, position, position]``."""
        self.mass = self.mass + previous_token(attention) * attention.shape[1]
        self.count = self.count + attention.shape[1]

    def compute(self) -> Tensor:
        """``[layer, head]``."""
        return self.mass / self.count


class _MeanOverSequences(Metric):
    """The mean of a score that is itself a mean over sequences of one length."""

    full_state_update = False
    higher_is_better = False
    total: Tensor
    count: Tensor

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.add_state("total", torch.zeros(()), dist_reduce_fx="sum")
        self.add_state("count", torch.zeros(()), dist_reduce_fx="sum")

    def _score(self, losses: Tensor) -> Tensor:
        raise NotImplementedError

    def update(self, losses: Tensor) -> None:
        """Add losses ``[sample, position - 1]``, nats."""
        self.total = self.total + self._score(losses) * len(losses)
        self.count = self.count + len(losses)

    def compute(self) -> Tensor:
        """A scalar, nats per token."""
        return self.total / self.count


class ICLScore(_MeanOverSequences):
    """:func:`~stagewise.lm.induction.icl_score` over batches."""

    def _score(self, losses: Tensor) -> Tensor:
        return icl_score(losses)


class LossGap(_MeanOverSequences):
    """:func:`~stagewise.lm.induction.loss_gap` over batches."""

    def __init__(self, segment_length: int, *, bos: bool = False, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.segment_length, self.bos = segment_length, bos

    def _score(self, losses: Tensor) -> Tensor:
        return loss_gap(losses, self.segment_length, bos=self.bos)
