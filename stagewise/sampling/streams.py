"""Random streams of the chains: every number comes from a stated seed."""

import numpy as np
import torch

from stagewise.sampling.config import SGLDConfig

_NOISE, _BATCHES = 0, 1


def _generator(device: torch.device, *key: int) -> torch.Generator:
    state = int(np.random.SeedSequence(key).generate_state(1, np.uint64)[0])
    return torch.Generator(device=device).manual_seed(state >> 1)


def chain_streams(
    config: SGLDConfig, chain: int, step: int, device: torch.device
) -> tuple[torch.Generator, torch.Generator]:
    """Generators of one chain: noise (on ``device``) and minibatches (on the CPU).

    Keyed by (seed, chain), and by the training step too where ``common_noise`` is off. Chains differ in both.
    """
    key = (config.seed, chain) if config.common_noise else (config.seed, chain, step)
    return _generator(device, _NOISE, *key), _generator(torch.device("cpu"), _BATCHES, *key)
