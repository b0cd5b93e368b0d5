"""Means over seeds with intervals."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import stats

from stagewise.errors import InputError

SEED = 0
"""Of the generator that resamples: the same values have the same interval."""

RESAMPLES = 10_000


@dataclass(frozen=True)
class Interval:
    """A mean over seeds, with two 95 % intervals.

    ``low`` and ``high`` are the percentile bootstrap over seeds, which supposes no shape but is a little narrow for few
    seeds: over 8 normal values it holds the truth in about 90 % of the cases. ``t_low`` and ``t_high`` are Student's t,
    which holds it in 95 % where the values are normal. See ``tests/experiments/intervention/test_statistics.py``.

    Attributes:
        mean: over seeds.
        low: lower end of the bootstrap interval; None for a single seed.
        high: upper end of it.
        t_low: lower end of Student's t interval; None for a single seed.
        t_high: upper end of it.
        n: number of seeds.
        per_seed: the value of each seed.
    """

    mean: float
    low: float | None
    high: float | None
    t_low: float | None
    t_high: float | None
    n: int
    per_seed: Mapping[int, float]

    def as_dict(self) -> dict[str, Any]:
        """As plain data for JSON; seeds become words."""
        numbers = {name: getattr(self, name) for name in ("mean", "low", "high", "t_low", "t_high", "n")}
        return {**numbers, "per_seed": {str(seed): value for seed, value in self.per_seed.items()}}


def interval_over_seeds(per_seed: Mapping[int, float]) -> Interval | None:
    """Mean and intervals of one value a seed, paired differences mostly; None without any.

    Args:
        per_seed: seed to value.

    Raises:
        InputError: a value is not finite.
    """
    values = np.array([per_seed[seed] for seed in sorted(per_seed)], dtype=np.float64)
    if not np.isfinite(values).all():
        raise InputError(f"got values {dict(per_seed)}; expected finite ones; leave out seeds that have none")
    if len(values) == 0:
        return None
    mean, kept = float(values.mean()), {seed: float(per_seed[seed]) for seed in sorted(per_seed)}
    if len(values) == 1:
        return Interval(mean, None, None, None, None, 1, kept)
    if np.ptp(values) == 0:
        mean = float(values[0])
        return Interval(mean, mean, mean, mean, mean, len(values), kept)
    found = stats.bootstrap(
        (values,), np.mean, n_resamples=RESAMPLES, method="percentile", rng=np.random.default_rng(SEED)
    ).confidence_interval
    half = float(stats.t.ppf(0.975, len(values) - 1) * values.std(ddof=1) / np.sqrt(len(values)))
    return Interval(mean, float(found.low), float(found.high), mean - half, mean + half, len(values), kept)
