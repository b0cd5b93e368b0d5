import numpy as np
import pytest
import torch

from stagewise.sampling.config import SGLDConfig
from stagewise.sampling.streams import chain_streams

CPU = torch.device("cpu")


def firsts(chain, step, **settings):
    """First numbers of both streams of a chain."""
    noise, batches = chain_streams(SGLDConfig(**settings), chain, step, CPU)
    return [tuple(torch.randn(4, generator=item).tolist()) for item in (noise, batches)]


@pytest.mark.parametrize(("seed", "chain"), [(0, 0), (0, 3), (7, 0), (2**40, 5)])
def test_common_streams_depend_on_seed_and_chain_but_not_on_the_step(seed, chain):
    """The meaning of a seed must not change: the state is that of numpy's SeedSequence of (kind, seed, chain)."""
    for kind, got in enumerate(firsts(chain, 11, seed=seed)):
        state = int(np.random.SeedSequence((kind, seed, chain)).generate_state(1, np.uint64)[0])
        want = torch.randn(4, generator=torch.Generator().manual_seed(state >> 1))
        assert got == tuple(want.tolist())
    assert firsts(chain, 11, seed=seed) == firsts(chain, 0, seed=seed)


def test_no_two_chains_seeds_steps_and_kinds_share_a_stream():
    """Includes step 0 and common streams: a trailing zero in a key is easily lost."""
    found = [first for seed in range(3) for chain in range(3) for first in firsts(chain, 0, seed=seed)]
    for step in range(4):
        for seed in range(3):
            for chain in range(3):
                found += firsts(chain, step, seed=seed, common_noise=False)
    assert len(set(found)) == len(found) == 3 * 3 * 2 * 5


def test_streams_of_a_step_are_reproducible():
    assert firsts(1, 0, common_noise=False) == firsts(1, 0, common_noise=False)
