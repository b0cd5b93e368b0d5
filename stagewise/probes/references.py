"""Cache of the draws of earlier probes, for later probes to refer to."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from stagewise.influence.group_draws import GroupDraws

_RESOLUTION = 16
"""Cached probes lie at least a factor ratio^(1/16) apart, .9 % of the step at a ratio of 1.15."""

MAX_CACHED = _RESOLUTION + 2
"""Maximal number of probes in the cache."""


class References:
    """Finds, for a probe at step t, the latest cached probe at or before t / ratio.

    A probe is cached unless it lies within a factor ratio^(1/16) of the previous cached one. For probes further apart,
    the reference is the latest of *all* probes at or before t / ratio; for closer ones (every n steps, late in a long
    run), it is at most this factor further back. Without this rule the cache would grow with t: probes every n steps
    would need t (1 - 1 / ratio) / n entries.
    """

    def __init__(self, ratio: float) -> None:
        """Starts without probes; ``ratio`` is above 1."""
        self._ratio = ratio
        self._kept: list[GroupDraws] = []

    def for_step(self, step: int) -> GroupDraws | None:
        """Returns the reference of a probe at ``step``; None if there is none."""
        found = None
        for features in self._kept:
            if features.step <= step / self._ratio and features.step < step:
                found = features
        return found

    def add(self, features: GroupDraws) -> None:
        """Caches a probe, unless it is close to the previous one, and drops those that are no longer needed."""
        step = features.step
        current = self.for_step(step)
        oldest = -1 if current is None else current.step
        self._kept = [kept for kept in self._kept if kept.step >= oldest]
        if not self._kept or step >= self._kept[-1].step * self._ratio ** (1 / _RESOLUTION):
            self._kept = [*self._kept, features]

    def at(self, step: int) -> GroupDraws | None:
        """Returns the cached probe at a step; None if it is not cached."""
        return next((features for features in self._kept if features.step == step), None)

    def follow(self, steps: list[int], newest: GroupDraws | None) -> None:
        """Repeats the update of an equal cache by a probe.

        Args:
            steps: of the probes in that cache.
            newest: the probe, if it was cached.
        """
        known = self._kept if newest is None else [*self._kept, newest]
        self._kept = [features for features in known if features.step in steps]

    @property
    def steps(self) -> list[int]:
        """Steps of the cached probes, increasing."""
        return [features.step for features in self._kept]

    def keep(self, rows: NDArray[np.int64], reduced: list[int]) -> None:
        """Keeps a subset of the samples and features, by position."""
        self._kept = [features.part(rows, reduced) for features in self._kept]

    def state_dict(self) -> list[dict[str, Any]]:
        """Returns the state as tensors and plain Python."""
        return [features.state_dict() for features in self._kept]

    def load_state_dict(self, state: list[dict[str, Any]]) -> None:
        """Loads what :meth:`state_dict` saved."""
        self._kept = [GroupDraws.from_state_dict(features) for features in state]
