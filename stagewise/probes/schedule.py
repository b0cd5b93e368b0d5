"""Schedules of probes: their training steps."""

from bisect import bisect_right
from dataclasses import dataclass
from functools import lru_cache
from typing import Annotated

import numpy as np

from stagewise.checks.bounds import settle_fields, shown
from stagewise.checks.counted import counted
from stagewise.checks.ranges import NonNegativeInt, PositiveInt, more_than, within
from stagewise.errors import InputError

_MOST_STEPS = 100_000

_LAST = 10**15
"""Largest step that is exact as a float."""


@dataclass(frozen=True)
class LogSpaced:
    """Steps spaced evenly in log t: transitions late in training are slower.

    Attributes:
        first: first step, at least 1.
        last: last step.
        num: number of steps, at most 100,000; fewer if neighbours round to the same step.

    Raises:
        InputError: an empty or reversed range, or too many steps.
    """

    first: PositiveInt
    last: Annotated[int, within(1, _LAST, "see max_steps")]
    num: Annotated[int, within(2, _MOST_STEPS, "60 is usual")]

    def __post_init__(self) -> None:
        settle_fields(self, prefix="log_spaced ")
        if not self.first < self.last:
            raise InputError(f"got log_spaced first={self.first}, last={self.last}; expected first < last; raise last")

    def steps(self) -> list[int]:
        """Returns the steps, increasing, each once."""
        return list(_log_spaced(self.first, self.last, self.num))


@lru_cache(maxsize=16)
def _log_spaced(first: int, last: int, num: int) -> tuple[int, ...]:
    """Computes the steps; cached, since a schedule is evaluated at every step.

    Not cached in an attribute, since jsonargparse reads all attributes.
    """
    return tuple(np.unique(np.rint(np.geomspace(first, last, num)).astype(np.int64)).tolist())


DEFAULT_EVERY_N_STEPS = 50

_LEAST, _USUAL = 3, 10
"""Fewest probes of a run that can have a peak, and the number proposed for a short run."""

_BUDGET = "0.1 lets probes take a tenth of the training time; null is no budget"


@dataclass(frozen=True)
class ProbeSchedule:
    """Schedule of the probes: one of three ways, or every 50 steps. Steps count as ``trainer.global_step`` does.

    Attributes:
        every_n_steps: at n, 2n, 3n, ...
        at_steps: at these steps; 0 is the initial weights.
        log_spaced: evenly in log t.
        max_overhead: limit on probe seconds over training seconds: a probe that would exceed it is skipped and reported
            (``sampler/skipped``, the summary), until enough training time has passed. The first probe is always taken.
            None sets no limit. Since wall-clock time decides, two runs with a budget may probe at different steps;
            training is the same bit for bit.

    Raises:
        InputError: several ways are given, steps that are negative, repeated or out of order, or a budget that is not
            positive.
    """

    every_n_steps: PositiveInt | None = None
    at_steps: list[NonNegativeInt] | None = None
    log_spaced: LogSpaced | None = None
    max_overhead: Annotated[float, more_than(0, _BUDGET)] | None = None

    def __post_init__(self) -> None:
        settle_fields(self)
        ways = [name for name in ("every_n_steps", "at_steps", "log_spaced") if getattr(self, name) is not None]
        if len(ways) > 1:
            raise InputError(f"got a schedule with {' and '.join(ways)}; expected one of them; set the others to null")
        if self.at_steps is not None:
            ordered = sorted(set(self.at_steps))
            if not ordered or ordered != self.at_steps:
                raise InputError(
                    f"got at_steps={shown(self.at_steps)}; expected increasing steps >= 0, each once; sort them"
                )

    @property
    def _period(self) -> int:
        """Steps between probes, for a periodic schedule."""
        return self.every_n_steps or DEFAULT_EVERY_N_STEPS

    @property
    def listed_steps(self) -> list[int] | None:
        """Listed steps, increasing; None for a periodic schedule."""
        if self.log_spaced is not None:
            return self.log_spaced.steps()
        return None if self.at_steps is None else list(self.at_steps)

    def check(self, max_steps: float) -> int:
        """Refuses a schedule without a probe in a run of ``max_steps``.

        Args:
            max_steps: steps of the run; may be infinite.

        Returns:
            Number of listed steps beyond the end, which are never due.

        Raises:
            InputError: no step would ever be due.
        """
        listed = self.listed_steps
        first = self._period if listed is None else listed[0]
        if first > max_steps:
            what = f"every {first} steps" if listed is None else f"at step {first}, the first,"
            raise InputError(
                f"got a probe {what} in a run of {max_steps:g} steps; expected probes within the run; lower the "
                f"schedule ({_denser(max_steps)}) or raise trainer.max_steps"
            )
        return sum(step > max_steps for step in listed or ())

    def few_words(self, max_steps: float) -> str | None:
        """Describes a periodic schedule with fewer probes than the three needed for a peak.

        Args:
            max_steps: steps of the run; may be infinite.

        Returns:
            None if there are enough probes, or steps are listed one by one.
        """
        number = self.count(max_steps)
        if number is None or number >= _LEAST or self.listed_steps is not None:
            return None
        return (
            f"only {counted(number, 'probe')} will be made in {max_steps:g} steps, one every {self._period} steps, and "
            f"a peak takes {_LEAST} or more; probe more often, {_denser(max_steps)}"
        )

    def count(self, max_steps: float) -> int | None:
        """Returns the number of probes of a run from its first step; None for a periodic schedule without an end.

        Args:
            max_steps: steps of the run; may be infinite.
        """
        listed = self.listed_steps
        if listed is not None:
            return sum(step <= max_steps for step in listed)
        return None if max_steps == float("inf") else int(max_steps) // self._period

    def due(self, previous: int, step: int) -> bool:
        """Returns True if a scheduled step lies in (previous, step].

        Args:
            previous: step of the previous call; -1 before the first.
            step: current step. It may advance by more than one (several optimizers).
        """
        listed = self.listed_steps
        if listed is None:
            return step > 0 and step // self._period > max(previous, 0) // self._period
        return bisect_right(listed, step) > bisect_right(listed, previous)


def _denser(max_steps: float) -> str:
    """Suggests a schedule with about ten probes in a run."""
    return f"such as ProbeSchedule(every_n_steps={max(1, int(max_steps) // _USUAL)})"
