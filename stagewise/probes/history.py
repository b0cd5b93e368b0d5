"""History of a run's probes so far."""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import xarray as xr

from stagewise.phases.no_window import why_no_window
from stagewise.phases.offline import MIN_PROMINENCE, find_windows
from stagewise.phases.window import Window


@dataclass
class Record:
    """Running account of the probes, saved with checkpoints: plain Python only.

    Attributes:
        last_step: training step looked at last; -1 before the first.
        steps: training steps of the probes that were kept.
        signal: for each of them the signal, nats; NaN without a reference.
        signal_se: for each of them the signal's standard error, nats; NaN where unknown.
        failed_steps: training steps of probes that lost all their chains.
        chains_dropped: chains that failed, over all probes.
        skipped_steps: training steps at which a probe was due that the budget did not allow.
        faults: how often something else went wrong, by kind, see :mod:`stagewise.callbacks.faults`.
        faulty_steps: training steps at which it did.
        changes: settings that were others after a resume: step, setting, before, now.
        lost_samples: observed samples that were left out since their loss was not finite, ``sample`` by its number in
            the set that was given, from ``step`` on: signal and influence are then over the others.
        flags: how many probes were flagged, for each kind of flag that occurred.
        flagged_steps: training steps of the probes with a flag.
        probe_seconds: time spent in probes.
        last_probe_seconds: time that the last finished probe took; None before the first.
        training_seconds: time spent training, probes not counted.
    """

    last_step: int = -1
    steps: list[int] = field(default_factory=list)
    signal: list[float] = field(default_factory=list)
    signal_se: list[float] = field(default_factory=list)
    failed_steps: list[int] = field(default_factory=list)
    chains_dropped: int = 0
    skipped_steps: list[int] = field(default_factory=list)
    faults: dict[str, int] = field(default_factory=dict)
    faulty_steps: list[int] = field(default_factory=list)
    changes: list[dict[str, Any]] = field(default_factory=list)
    lost_samples: list[dict[str, int]] = field(default_factory=list)
    flags: dict[str, int] = field(default_factory=dict)
    flagged_steps: list[int] = field(default_factory=list)
    probe_seconds: float = 0.0
    last_probe_seconds: float | None = None
    training_seconds: float = 0.0

    def add(self, step: int, result: xr.Dataset | None, *, chains_dropped: int) -> None:
        """Take in one probe; ``result`` is None where all its chains failed."""
        self.chains_dropped += chains_dropped
        if result is None:
            self.failed_steps.append(step)
            return
        self.steps.append(step)
        self.signal.append(float(result["signal"]))
        self.signal_se.append(float(result["signal_se"]))
        names = result.attrs["flags"]
        if names:
            self.flagged_steps.append(step)
        for name in names:
            self.flags[name] = self.flags.get(name, 0) + 1

    def add_fault(self, kind: str, step: int) -> int:
        """Count a fault; returns how many of its kind there are now."""
        self.faults[kind] = self.faults.get(kind, 0) + 1
        if step not in self.faulty_steps:
            self.faulty_steps.append(step)
        return self.faults[kind]

    def add_lost(self, samples: Iterable[int], step: int) -> None:
        """Take note of observed samples that are left out from a step on."""
        self.lost_samples += [{"sample": int(sample), "step": step} for sample in samples]

    @property
    def num_attempts(self) -> int:
        """Probes that were begun: what a schedule of controls counts."""
        return len({*self.steps, *self.failed_steps, *self.faulty_steps})

    def add_probe_time(self, seconds: float, *, finished: bool) -> None:
        """Count the time of a probe; one that finished tells what the next one costs."""
        self.probe_seconds += seconds
        if finished:
            self.last_probe_seconds = seconds

    @property
    def overhead(self) -> float | None:
        """Probe seconds over training seconds; None before any training."""
        return self.probe_seconds / self.training_seconds if self.training_seconds > 0 else None

    def windows(self, *, min_prominence: float = MIN_PROMINENCE) -> list[Window]:
        """Transitions in the signal. Probes without a reference have no signal and are left out.

        Args:
            min_prominence: see :func:`~stagewise.phases.offline.find_windows`.
        """
        values = np.asarray(self.signal, dtype=np.float64)
        known = np.isfinite(values)
        steps, errors = np.asarray(self.steps)[known], np.asarray(self.signal_se, dtype=np.float64)[known]
        return find_windows(steps, values[known], errors, min_prominence=min_prominence)

    def why_no_window(self, *, min_prominence: float = MIN_PROMINENCE) -> str | None:
        """Reason why there is no transition in the signal; None where there is one.

        Args:
            min_prominence: see :func:`~stagewise.phases.offline.find_windows`.
        """
        return why_no_window(self.steps, self.signal, self.signal_se, min_prominence=min_prominence)

    def state_dict(self) -> dict[str, Any]:
        """Plain Python."""
        return asdict(self)

    @classmethod
    def from_state_dict(cls, state: Mapping[str, Any]) -> "Record":
        """Loads what :meth:`state_dict` saved."""
        return cls(**state)
