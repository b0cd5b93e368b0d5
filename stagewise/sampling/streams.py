"""Random streams of the chains: every number comes from a stated seed."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from stagewise.sampling.config import SGLDConfig

_NOISE, _BATCHES = 0, 1

_BLOCK_STEPS = 16
_BLOCK_NUMBERS = 2**20
"""Noise is drawn for so many steps at once, where it is no more than so many numbers, since small models are bound by
dispatch. Part of what a seed means: another block gives other draws."""


def _generator(device: torch.device, key: tuple[int, ...], step: int | None) -> torch.Generator:
    # A step is no further number of the key: a SeedSequence does not see zeros at its end, so that step 0 would have
    # the stream without a step. With a spawn key it fills the key up first.
    spawned = () if step is None else (step,)
    state = int(np.random.SeedSequence(key, spawn_key=spawned).generate_state(1, np.uint64)[0])
    return torch.Generator(device=device).manual_seed(state >> 1)


def chain_streams(
    config: SGLDConfig, chain: int, step: int, device: torch.device
) -> tuple[torch.Generator, torch.Generator]:
    """Generators of one chain: noise (on ``device``) and minibatches (on the CPU).

    Keyed by (seed, chain), and by the training step too where ``common_noise`` is off: those are streams of their own
    at step 0 as well. Chains differ in both.
    """
    key, at = (config.seed, chain), None if config.common_noise else step
    return _generator(device, (_NOISE, *key), at), _generator(torch.device("cpu"), (_BATCHES, *key), at)


class Streams:
    """Noise and minibatches of some chains, step by step; what one chain gets does not depend on the others."""

    def __init__(self, config: SGLDConfig, chains: Sequence[int], step: int, like: Tensor, num_sampling: int) -> None:
        """Start the streams.

        Args:
            config: seed and sizes.
            chains: numbers of the chains.
            step: training step.
            like: flat weights ``[weight]``, for size, device and type of the noise.
            num_sampling: samples of the sampling set.
        """
        streams = [chain_streams(config, chain, step, like.device) for chain in chains]
        self._noise, self._batches = zip(*streams, strict=True)
        self._left = config.num_steps
        self._position = self._block_steps = min(_BLOCK_STEPS, max(1, _BLOCK_NUMBERS // len(like)))
        self._block = like.new_empty(len(streams), self._block_steps, len(like))
        self._num_sampling = num_sampling
        self._batch_size = config.batch_size

    def noise(self) -> Tensor:
        """Standard normal ``[chain, weight]`` for the next step; overwritten later."""
        if self._position == self._block_steps:
            self._position = 0
            for block, generator in zip(self._block, self._noise, strict=True):
                block[: self._left].normal_(generator=generator)
        self._position += 1
        self._left -= 1
        return self._block[:, self._position - 1]

    def rows(self) -> Tensor | None:
        """Samples of the next minibatches ``[chain, sample]``, on the CPU; None where each is the whole set."""
        if self._batch_size >= self._num_sampling:
            return None
        permutations = [torch.randperm(self._num_sampling, generator=generator) for generator in self._batches]
        return torch.stack([order[: self._batch_size] for order in permutations])
