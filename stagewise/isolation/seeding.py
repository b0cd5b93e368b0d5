"""Seeding of the global random states, and of the generators within an object."""

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

from stagewise.isolation.guard import global_random_restored
from stagewise.isolation.walk import walk


def find_generators(owner: Any) -> list[Any]:
    """Finds the generators of torch, numpy and ``random`` in an object, see :func:`stagewise.isolation.walk.walk`."""
    return [found.value for found in walk(owner, data=True).random]


def seed_generators(owner: Any, seed: int) -> None:
    """Seeds every generator within an object, or the object itself, with the same seed."""
    for generator in find_generators(owner):
        if isinstance(generator, torch.Generator):
            generator.manual_seed(seed)
        elif isinstance(generator, np.random.Generator):
            generator.bit_generator.state = type(generator.bit_generator)(seed).state
        elif isinstance(generator, np.random.BitGenerator):
            generator.state = type(generator)(seed).state
        else:
            generator.seed(seed)


def seed_global_states(seed: int) -> None:
    """Seeds torch (CPU, and CUDA if in use), numpy and ``random``; the caller must restore their states."""
    # Not `torch.manual_seed`: if CUDA is not in use yet, it would keep the seed for later.
    torch.default_generator.manual_seed(seed)
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        torch.cuda.manual_seed_all(seed)
    np.random.seed(seed)  # noqa: NPY002
    random.seed(seed)


@contextmanager
def global_seed(seed: int) -> Iterator[None]:
    """Context in which the global random states are seeded; restores them even after an exception.

    Args:
        seed: of all states.
    """
    with global_random_restored():
        seed_global_states(seed)
        yield
