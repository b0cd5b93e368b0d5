"""Progress of the intervention experiment, with the remaining time."""

import time
from collections import Counter
from collections.abc import Sequence
from statistics import fmean

from stagewise.jobs.sharing import Progress, clock
from stagewise.studies.intervention.arms import PROBED
from stagewise.studies.intervention.cell import Cell


class CellReport:
    """Reporter of a line for each finished cell, with the remaining time.

    Cells with probes take several times as long as others, so the estimate uses the mean of each kind so far.
    """

    def __init__(self, progress: Progress, missing: Sequence[str], total: int, num_workers: int) -> None:
        """Starts the clock.

        Args:
            progress: called with each line.
            missing: arms of the cells that are still to compute.
            total: cells of the study.
            num_workers: processes that share them.
        """
        self._progress, self._total, self._num_workers = progress, total, num_workers
        self._began = time.monotonic()
        self._left = Counter(arm in PROBED for arm in missing)
        self._seconds: dict[bool, list[float]] = {True: [], False: []}

    def _estimate(self) -> str:
        means = {kind: fmean(seconds) for kind, seconds in self._seconds.items() if seconds}
        left = sum(means.get(kind, 0.0) * number for kind, number in self._left.items()) / self._num_workers
        at_least = any(number and kind not in means for kind, number in self._left.items())
        return f"{'at least' if at_least else 'about'} {clock(left)} left"

    def __call__(self, cell: Cell) -> None:
        """Reports a finished cell."""
        kind = cell.arm in PROBED
        self._left[kind] -= 1
        self._seconds[kind].append(cell.seconds)
        curve = cell.curve
        step = None if curve is None else curve.score_step
        found = cell.note or ("no head" if step is None else f"head at step {step}")
        count = f"[{self._total - self._left.total()}/{self._total}]"
        passed = clock(time.monotonic() - self._began)
        self._progress(f"{count} seed {cell.seed} {cell.name}: {found}; {passed} passed, {self._estimate()}")
