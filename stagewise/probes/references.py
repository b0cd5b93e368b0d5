"""The cached draws of earlier probes, as far back as later probes may need them."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from stagewise.influence.reduced_draws import ReducedDraws

_RESOLUTION = 16
"""Cached probes lie at least a factor ratio^(1/16) apart, .9 % of the step at a ratio of 1.15."""

MAX_CACHED = _RESOLUTION + 2
"""Probes in the cache, at most, however long the run and however dense its schedule."""


class References:
    """Finds, for a probe at step t, the latest cached probe at or before t / ratio.

    Every probe is cached unless it lies within a factor ratio^(1/16) of the one cached before it. So, where probes lie
    further apart, the reference is the latest of *all* probes at or before t / ratio; where they lie closer (every n
    steps, late in a long run), it is at most that factor further back. Without it the cache would grow with t: a probe
    every n steps needs each of the t (1 - 1 / ratio) / n probes before it, sooner or later.
    """

    def __init__(self, ratio: float) -> None:
        """Start without any probe; ``ratio`` is more than 1."""
        self._ratio = ratio
        self._kept: list[ReducedDraws] = []

    def for_step(self, step: int) -> ReducedDraws | None:
        """The reference of a probe at ``step``; None if there is none yet."""
        found = None
        for features in self._kept:
            if features.step <= step / self._ratio and features.step < step:
                found = features
        return found

    def add(self, features: ReducedDraws) -> None:
        """Cache a probe, unless one lies just before it, and forget those that no later probe can refer to."""
        step = features.step
        current = self.for_step(step)
        oldest = -1 if current is None else current.step
        self._kept = [kept for kept in self._kept if kept.step >= oldest]
        if not self._kept or step >= self._kept[-1].step * self._ratio ** (1 / _RESOLUTION):
            self._kept = [*self._kept, features]

    def at(self, step: int) -> ReducedDraws | None:
        """The cached probe at a step; None where that one is not cached."""
        return next((features for features in self._kept if features.step == step), None)

    def follow(self, steps: list[int], newest: ReducedDraws | None) -> None:
        """Hold what a cache that was the same holds after a probe.

        Args:
            steps: of its probes.
            newest: the probe, where it was cached.
        """
        known = self._kept if newest is None else [*self._kept, newest]
        self._kept = [features for features in known if features.step in steps]

    @property
    def steps(self) -> list[int]:
        """Steps of the probes in the cache, increasing."""
        return [features.step for features in self._kept]

    def keep(self, rows: NDArray[np.int64], reduced: list[int]) -> None:
        """Go on with some samples, and some of what draws are reduced to, by their positions."""
        self._kept = [features.part(rows, reduced) for features in self._kept]

    def state_dict(self) -> list[dict[str, Any]]:
        """Tensors and plain Python."""
        return [features.state_dict() for features in self._kept]

    def load_state_dict(self, state: list[dict[str, Any]]) -> None:
        """Loads what :meth:`state_dict` saved."""
        self._kept = [ReducedDraws.from_state_dict(features) for features in state]
