"""Own random generators for the streams of a seed."""

import torch

from stagewise.errors import InputError


def seeded(seed: int, stream: int = 0) -> torch.Generator:
    """An own CPU generator for one stream of a seed, so that no draw touches the global random state.

    Args:
        seed: the user's seed, 0 or more.
        stream: which of the independent streams of that seed (training, validation, observed set, ...).

    Raises:
        InputError: ``seed`` is negative.
    """
    if seed < 0:
        raise InputError(f"got seed {seed}; expected an integer of 0 or more")
    # Neighbouring seeds of the Mersenne Twister are independent after its own scrambling; the odd factor keeps
    # (seed, stream) pairs apart.
    return torch.Generator().manual_seed((seed * 1_000_003 + stream * 7_919 + 17) % 2**63)
