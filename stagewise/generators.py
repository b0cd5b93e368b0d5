"""Random generators that objects carry: found, kept as they are during a look, and seeded."""

import random
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import FunctionType, MethodType, ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor

_KINDS = (torch.Generator, np.random.Generator, np.random.RandomState, random.Random)
_LEAVES = (Tensor, np.ndarray, str, bytes, int, float, complex, type(None), type, ModuleType, FunctionType)
_LONGEST = 256
"""Entries. Longer lists and mappings are data, and are not looked into."""
_DEPTH = 16
_PASSED_OVER = frozenset({"_trainer", "trainer", "_fabric"})
"""Attributes that lead from a module to the whole run."""


def find_generators(*owners: Any) -> list[Any]:
    """Generators of torch, numpy and ``random`` in the attributes of objects, and in what these hold.

    Those in closures, in the interpreter's global state and in other processes are not found.
    """
    found: list[Any] = []
    seen: set[int] = set()
    waiting = [(owner, _DEPTH) for owner in owners]
    while waiting:
        value, depth = waiting.pop()
        if id(value) in seen or isinstance(value, _LEAVES):
            continue
        seen.add(id(value))
        if isinstance(value, _KINDS):
            found.append(value)
        elif depth:
            waiting += [(child, depth - 1) for child in _inside(value)]
    return found


def _inside(value: Any) -> list[Any]:
    if isinstance(value, (Mapping, list, tuple, set, frozenset)):
        if len(value) > _LONGEST:
            return []
        return list(value.values()) if isinstance(value, Mapping) else list(value)
    if isinstance(value, MethodType):
        return [value.__self__]
    held = getattr(value, "__dict__", {})
    return [child for name, child in held.items() if name not in _PASSED_OVER]


def _state(generator: Any) -> Any:
    if isinstance(generator, torch.Generator):
        return generator.get_state()
    if isinstance(generator, np.random.Generator):
        return generator.bit_generator.state
    return generator.get_state() if isinstance(generator, np.random.RandomState) else generator.getstate()


def _restore(generator: Any, state: Any) -> None:
    if isinstance(generator, (torch.Generator, np.random.RandomState)):
        generator.set_state(state)
    elif isinstance(generator, np.random.Generator):
        generator.bit_generator.state = state
    else:
        generator.setstate(state)


@contextmanager
def generators_kept(*owners: Any) -> Iterator[None]:
    """Put the generators of objects back to where they were, on every way out."""
    states = [(generator, _state(generator)) for generator in find_generators(*owners)]
    try:
        yield
    finally:
        for generator, state in states:
            _restore(generator, state)


def seed_generators(owner: Any, seed: int) -> None:
    """Seed every generator of an object with the same seed."""
    for generator in find_generators(owner):
        if isinstance(generator, torch.Generator):
            generator.manual_seed(seed)
        elif isinstance(generator, np.random.Generator):
            generator.bit_generator.state = type(generator.bit_generator)(seed).state
        else:
            generator.seed(seed)


def seed_global_states(seed: int) -> None:
    """Seed torch (CPU, and CUDA where it is in use), numpy and ``random``; for a body that puts them back."""
    # Not `torch.manual_seed`: where CUDA is not in use yet, the seed would be kept for when it is.
    torch.default_generator.manual_seed(seed)
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        torch.cuda.manual_seed_all(seed)
    np.random.seed(seed)  # noqa: NPY002
    random.seed(seed)


@contextmanager
def global_seed(seed: int) -> Iterator[None]:
    """Seed the global states of torch (CPU), numpy and ``random`` inside the body; they are put back on every way out.

    Args:
        seed: of all three.
    """
    kept = torch.get_rng_state(), np.random.get_state(), random.getstate()  # noqa: NPY002
    try:
        # Not `torch.manual_seed`, which would seed accelerators too.
        torch.default_generator.manual_seed(seed)
        np.random.seed(seed)  # noqa: NPY002
        random.seed(seed)
        yield
    finally:
        torch.set_rng_state(kept[0])
        np.random.set_state(kept[1])  # noqa: NPY002
        random.setstate(kept[2])
