"""Budget: the fraction of a run's time that probes may take."""

import time
from collections.abc import Callable

import torch

from stagewise.probes.history import Record


class Stopwatch:
    """Stopwatch that measures laps."""

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        """Starts the first lap; ``clock`` returns seconds."""
        self._clock = clock
        self._last = clock()

    def lap(self) -> float:
        """Returns seconds since the start or the last lap, after waiting for the GPU."""
        if torch.cuda.is_available() and torch.cuda.is_initialized():
            torch.cuda.synchronize()
        now = self._clock()
        seconds, self._last = now - self._last, now
        return seconds


def affords(record: Record, max_overhead: float) -> bool:
    """Returns True if another probe keeps within the budget.

    The cost of the last probe predicts that of the next. The first probe is always taken.

    Args:
        record: seconds of probes and of training up to now.
        max_overhead: limit on probe seconds over training seconds.
    """
    if record.last_probe_seconds is None:
        return True
    return record.probe_seconds + record.last_probe_seconds <= max_overhead * record.training_seconds
