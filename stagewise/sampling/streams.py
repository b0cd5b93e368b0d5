"""Random streams of the chains, all derived from the seed."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from stagewise.sampling.config import Integrator, SGLDConfig, Start

_NOISE, _BATCHES, _PARTITION, _ROWS = 0, 1, 2, 3

_BATCHES_AHEAD = 64
"""Number of steps whose minibatches are moved to a GPU at once: each move waits for the device."""

_BLOCK_STEPS = 16
_BLOCK_NUMBERS = 2**20
"""Number of steps for which noise is drawn at once, and the largest block in numbers: small models are bound by
dispatch. Draws depend on both: another block size gives other draws from the same seed."""


def _generator(device: torch.device, key: tuple[int, ...], step: int | None) -> torch.Generator:
    # The step goes into the spawn key, which makes a SeedSequence pad the key first. Appended to the key itself, step
    # 0 would give the stream without a step, since a SeedSequence ignores trailing zeros.
    spawned = () if step is None else (step,)
    state = int(np.random.SeedSequence(key, spawn_key=spawned).generate_state(1, np.uint64)[0])
    return torch.Generator(device=device).manual_seed(state >> 1)


def chain_streams(
    config: SGLDConfig, chain: int, step: int, device: torch.device
) -> tuple[torch.Generator, torch.Generator]:
    """Returns generators of one chain: noise (on ``device``) and minibatches (on the CPU).

    Keyed by (seed, chain), and without ``common_noise`` also by the training step: even at step 0 these streams differ
    from those of common noise. Chains differ in both noise and minibatches.
    """
    key, at = (config.seed, chain), None if config.common_noise else step
    return _generator(device, (_NOISE, *key), at), _generator(torch.device("cpu"), (_BATCHES, *key), at)


def noise_generator(
    device: torch.device, key: tuple[int, int], step: int | None, place: tuple[int, int, int]
) -> torch.Generator:
    """Returns a generator for one block of one noise of a chain, independent of earlier draws.

    Args:
        device: of the generator.
        key: seed and chain.
        step: training step; None with common noise.
        place: numbers of the noise, the parameter and the block.
    """
    # With more than four numbers a SeedSequence does not ignore trailing zeros.
    state = np.random.SeedSequence((_ROWS, *key, *place), spawn_key=() if step is None else (step,))
    return torch.Generator(device=device).manual_seed(int(state.generate_state(1, np.uint64)[0]) >> 1)


class Minibatches(NamedTuple):
    """One minibatch for each chain.

    Attributes:
        rows: samples of the sampling set ``[chain, sample]``, on the weights' device; None if each minibatch is the
            whole set.
        numbers: ``[chain]``, positions of the minibatches in the partition; None if drawn at random.
    """

    rows: Tensor | None
    numbers: Tensor | None = None


def partition(config: SGLDConfig, num_sampling: int) -> Tensor:
    """Splits the sampling set into random minibatches of equal size, the same at every probe.

    Args:
        config: seed and ``batch_size``; minibatches are slightly smaller if it does not divide the set.
        num_sampling: samples of the sampling set.

    Returns:
        Samples ``[minibatch, sample]``, each once; if the sizes do not divide, fewer samples than minibatches occur
        twice.
    """
    number = -(-num_sampling // config.batch_size)
    size = -(-num_sampling // number)
    order = torch.randperm(num_sampling, generator=_generator(torch.device("cpu"), (_PARTITION, config.seed), None))
    return torch.cat([order, order[: number * size - num_sampling]]).view(number, size)


class Streams:
    """Noise and minibatches of some chains, step by step; each chain's streams are independent of the others."""

    def __init__(
        self,
        config: SGLDConfig,
        chains: Sequence[int],
        step: int,
        like: Tensor,
        num_sampling: int,
        choices: Tensor | None = None,
    ) -> None:
        """Starts the streams.

        Args:
            config: seed and sizes.
            chains: numbers of the chains.
            step: training step.
            like: flat weights ``[weight]``, for size, device and type of the noise.
            num_sampling: samples of the sampling set.
            choices: minibatches to choose from, see :func:`partition`; None draws new ones at each step.
        """
        streams = [chain_streams(config, chain, step, like.device) for chain in chains]
        self._noise, self._batches = zip(*streams, strict=True)
        averaged = config.integrator is Integrator.leimkuhler_matthews
        self._left = config.num_steps + int(averaged) + int(config.start is Start.gaussian)
        self._position = self._block_steps = num_noises_ahead(len(like))
        self._block = like.new_empty(len(streams), self._block_steps, len(like))
        self._kept = like.new_empty(len(streams), len(like)) if averaged else None
        self._last: Tensor | None = None
        self._num_sampling = num_sampling
        self._batch_size = config.batch_size
        self._choices = choices
        self._device = like.device
        self._ahead: list[Minibatches] = []

    def noise(self) -> Tensor:
        """Returns the next standard normal noise ``[chain, weight]``, a buffer that later calls overwrite."""
        if self._position == self._block_steps:
            self._position = 0
            for block, generator in zip(self._block, self._noise, strict=True):
                block[: self._left].normal_(generator=generator)
        self._position += 1
        self._left -= 1
        return self._block[:, self._position - 1]

    def upcoming(self) -> Tensor:
        """Returns the first noise of :meth:`two_noises`, before the first step."""
        if self._last is None:
            self._last = self.noise()
        return self._last

    def two_noises(self) -> tuple[Tensor, Tensor]:
        """Returns the noises of this step and the next, which the integrator of Leimkuhler and Matthews averages."""
        assert self._kept is not None
        last = self.upcoming()
        if self._position == self._block_steps:
            # The next block overwrites this noise.
            last = self._kept.copy_(last)
        self._last = self.noise()
        return last, self._last

    def minibatches(self) -> Minibatches:
        """Returns the next minibatches."""
        if self._batch_size >= self._num_sampling:
            return Minibatches(None)
        if not self._ahead:
            self._ahead = self._next_minibatches(num_steps_ahead(self._device))[::-1]
        return self._ahead.pop()

    def _next_minibatches(self, num_steps: int) -> list[Minibatches]:
        """Draws the minibatches of some steps on the CPU, in order, and moves them to the device together."""
        if self._choices is not None:
            number = len(self._choices)
            drawn = [[torch.randint(number, (1,), generator=own) for own in self._batches] for _ in range(num_steps)]
            numbers = torch.stack([torch.cat(step) for step in drawn])
            chosen = self._choices[numbers].to(self._device)
            return [Minibatches(*step) for step in zip(chosen, numbers.to(self._device), strict=True)]
        orders = [
            [torch.randperm(self._num_sampling, generator=own)[: self._batch_size] for own in self._batches]
            for _ in range(num_steps)
        ]
        rows = torch.stack([torch.stack(step) for step in orders]).to(self._device)
        return [Minibatches(step) for step in rows]


def num_steps_ahead(device: torch.device) -> int:
    """Returns the number of steps whose minibatches are drawn at once: one on a CPU, where nothing waits."""
    return 1 if device.type == "cpu" else _BATCHES_AHEAD


def num_noises_ahead(num_weights: int) -> int:
    """Returns the number of steps whose noise is drawn at once: one for a large model."""
    return min(_BLOCK_STEPS, max(1, _BLOCK_NUMBERS // num_weights))
