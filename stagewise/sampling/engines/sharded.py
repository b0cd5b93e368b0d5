"""Engine of chains whose weights are sharded over several processes: all of them run one chain at a time."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from stagewise.batches import Batch, num_samples, take
from stagewise.losses.contract import Losses
from stagewise.sampling.engines.sequential import SequentialEngine
from stagewise.sampling.sharded_weights import ShardedWeights
from stagewise.sampling.sharding import Sharding


class ShardedEngine(SequentialEngine):
    """Runs one chain on all processes, each of which evaluates its share of the samples of every batch.

    Weight vectors hold this process's part of the weights; losses are those of all samples, the same on each process.
    Must be used within :meth:`~stagewise.sampling.sharded_weights.ShardedWeights.moving`.
    """

    def __init__(
        self,
        weights: ShardedWeights,
        evaluate_batch: Callable[[Batch], Losses],
        sampling: Batch,
        observed: Sequence[Batch],
        sharding: Sharding,
    ) -> None:
        """Sets up at the anchor, see :class:`~stagewise.sampling.engines.sequential.SequentialEngine`.

        Args:
            weights: of the chain.
            evaluate_batch: returns the losses of a batch at the module's present weights.
            sampling: the sampling set.
            observed: the observed set, in chunks.
            sharding: of the processes.
        """
        super().__init__(weights, evaluate_batch, sampling, observed)
        self._sharding = sharding

    def gradient(self, rows: Tensor | None) -> Tensor:
        """See :class:`~stagewise.sampling.engines.engine.Engine`."""
        batch = self._sampling if rows is None else take(self._sampling, rows[0])
        return self._mean_gradient(batch)[0].unsqueeze(0)

    def observed_gradient(self) -> Tensor:
        """See :class:`~stagewise.sampling.engines.engine.Engine`."""
        total, count = torch.zeros_like(self.anchor), 0
        for chunk in self._observed:
            mean, number = self._mean_gradient(chunk)
            total.add_(mean, alpha=number)
            count += number
        return (total / count).unsqueeze(0)

    def slope(self, batch_size: int) -> Tensor:
        """See :class:`~stagewise.sampling.engines.sequential.SequentialEngine`."""
        size = num_samples(self._sampling)
        total = torch.zeros_like(self.anchor)
        with self._weights.at_anchor():
            for start in range(0, size, batch_size):
                chunk = take(self._sampling, slice(start, start + batch_size))
                total.add_(self._mean_gradient(chunk)[0], alpha=num_samples(chunk) / size)
        return total

    def _mean_gradient(self, batch: Batch) -> tuple[Tensor, int]:
        """Returns the gradient of the mean loss of a batch, and the number of its losses."""
        mine, counts = self._sharding.part(batch)
        losses = self._evaluate(mine)
        number = int(self._sharding.total(losses.mask.sum() * counts))
        # FSDP2 averages gradients over the processes. A placeholder sample has no weight.
        share = self._sharding.world_size / max(number, 1) if counts else 0.0
        return self._weights.gradient(losses.values.sum() * share), number

    def _recorded(self) -> Losses:
        parts = []
        for chunk in self._observed:
            losses = self._evaluate(self._sharding.part(chunk)[0])
            parts.append(self._sharding.joined(losses, num_samples(chunk)))
        if len(parts) == 1:
            return parts[0]
        return Losses(torch.cat([part.values for part in parts]), torch.cat([part.mask for part in parts]))
