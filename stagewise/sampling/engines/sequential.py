"""Sequential engine: one chain at a time, any module, in one flat weight buffer."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from stagewise.batches import Batch, num_samples, take
from stagewise.losses.contract import Losses
from stagewise.sampling.weights import FlatWeights


class SequentialEngine:
    """Runs one chain at a time, within :func:`~stagewise.isolation.with_weights` over ``weights.leaves``.

    See :class:`~stagewise.sampling.engines.engine.Engine`.
    """

    def __init__(
        self,
        weights: FlatWeights,
        evaluate_batch: Callable[[Batch], Losses],
        sampling: Batch,
        observed: Sequence[Batch],
    ) -> None:
        """Sets up at the anchor.

        Args:
            weights: of the chain.
            evaluate_batch: returns the losses of a batch at the module's present weights.
            sampling: the sampling set.
            observed: the observed set, in chunks.
        """
        self._weights = weights
        self._evaluate = evaluate_batch
        self._sampling = sampling
        self._observed = observed
        self.state = weights.state.unsqueeze(0)
        self.anchor = weights.anchor

    def moved(self) -> None:
        """See :class:`~stagewise.sampling.engines.engine.Engine`."""
        self._weights.publish()

    def gradient(self, rows: Tensor | None) -> Tensor:
        """See :class:`~stagewise.sampling.engines.engine.Engine`."""
        batch = self._sampling if rows is None else take(self._sampling, rows[0])
        return self._weights.gradient(self._evaluate(batch).mean()).unsqueeze(0)

    def anchor_gradient(self, rows: Tensor | None) -> Tensor:
        """See :class:`~stagewise.sampling.engines.engine.Engine`."""
        with self._weights.at_anchor():
            return self.gradient(rows)

    def observed_gradient(self) -> Tensor:
        """See :class:`~stagewise.sampling.engines.engine.Engine`."""
        total, count = torch.zeros_like(self.anchor), 0
        for chunk in self._observed:
            losses = self._evaluate(chunk)
            total += self._weights.gradient(losses.values.sum())
            count += int(losses.mask.sum())
        return (total / count).unsqueeze(0)

    def slope(self, batch_size: int) -> Tensor:
        """Returns the gradient ``[weight]`` of the sampling set at w*: chunk means weighted by their samples.

        Args:
            batch_size: samples per forward pass.
        """
        size = num_samples(self._sampling)
        total = torch.zeros_like(self.anchor)
        with self._weights.at_anchor():
            for start in range(0, size, batch_size):
                chunk = take(self._sampling, slice(start, start + batch_size))
                total.add_(self._weights.gradient(self._evaluate(chunk).mean()), alpha=num_samples(chunk) / size)
        return total

    @torch.no_grad()
    def losses(self) -> Tensor:
        """See :class:`~stagewise.sampling.engines.engine.Engine`."""
        return self._recorded().values.unsqueeze(0)

    @torch.no_grad()
    def anchor_losses(self) -> Losses:
        """See :class:`~stagewise.sampling.engines.engine.Engine`."""
        with self._weights.at_anchor():
            return self._recorded()

    def _recorded(self) -> Losses:
        parts = [self._evaluate(chunk) for chunk in self._observed]
        if len(parts) == 1:
            return parts[0]
        return Losses(torch.cat([part.values for part in parts]), torch.cat([part.mask for part in parts]))
