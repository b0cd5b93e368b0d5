"""Budget: the share of a run's time that probes may take."""

import time
from collections.abc import Callable

import torch

from stagewise.probes.history import Record


class Stopwatch:
    """Seconds since it was last looked at."""

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        """Start now; ``clock`` returns seconds."""
        self._clock = clock
        self._last = clock()

    def lap(self) -> float:
        """Seconds since the start or the last lap; work that a GPU was given before counts as done before."""
        if torch.cuda.is_available() and torch.cuda.is_initialized():
            torch.cuda.synchronize()
        now = self._clock()
        seconds, self._last = now - self._last, now
        return seconds


def affords(record: Record, max_overhead: float) -> bool:
    """True if one more probe keeps the probes within their budget.

    The last probe tells what the next one costs. The first probe is always taken, since nothing else tells.

    Args:
        record: seconds of probes and of training up to now.
        max_overhead: probe seconds over training seconds, at most.
    """
    if record.last_probe_seconds is None:
        return True
    return record.probe_seconds + record.last_probe_seconds <= max_overhead * record.training_seconds
