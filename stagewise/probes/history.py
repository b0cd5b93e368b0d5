"""Record of a run's probes."""

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
    """Counts and times of the probes, saved in checkpoints: plain Python only.

    Attributes:
        last_step: last training step checked; -1 before the first.
        steps: training steps of the probes that were kept.
        signal: of each of them, nats; NaN without a reference.
        signal_se: its standard error, nats; NaN if unknown.
        failed_steps: training steps of probes that lost all their chains.
        not_finite_steps: those among them whose losses were not finite at the training weights.
        chains_dropped: chains that failed, over all probes.
        skipped_steps: training steps of probes skipped due to the budget.
        faults: number of other errors by kind, see :mod:`stagewise.callbacks.fault_log`.
        faulty_steps: training steps of these errors, also those without a due probe.
        broken_steps: training steps of probes that ended in an error and were not kept.
        changes: settings changed at a resume: step, setting, before, now.
        lost_samples: observed samples left out because their loss was not finite: ``sample``, the number in the
            original set, from ``step`` on.
        flags: number of probes with each flag.
        flagged_steps: training steps of flagged probes.
        probe_seconds: time spent in probes.
        last_probe_seconds: time of the last finished probe; None before the first.
        chain_seconds: part of ``probe_seconds`` in the kept probes themselves, the sum of their ``seconds``.
        curvature_seconds: part of ``probe_seconds`` in measurements of the curvature.
        training_seconds: time spent training, without probes.
    """

    last_step: int = -1
    steps: list[int] = field(default_factory=list)
    signal: list[float] = field(default_factory=list)
    signal_se: list[float] = field(default_factory=list)
    failed_steps: list[int] = field(default_factory=list)
    not_finite_steps: list[int] = field(default_factory=list)
    chains_dropped: int = 0
    skipped_steps: list[int] = field(default_factory=list)
    faults: dict[str, int] = field(default_factory=dict)
    faulty_steps: list[int] = field(default_factory=list)
    broken_steps: list[int] = field(default_factory=list)
    changes: list[dict[str, Any]] = field(default_factory=list)
    lost_samples: list[dict[str, int]] = field(default_factory=list)
    flags: dict[str, int] = field(default_factory=dict)
    flagged_steps: list[int] = field(default_factory=list)
    probe_seconds: float = 0.0
    last_probe_seconds: float | None = None
    chain_seconds: float = 0.0
    curvature_seconds: float = 0.0
    training_seconds: float = 0.0

    def add(self, step: int, result: xr.Dataset | None, *, chains_dropped: int, not_finite: bool = False) -> None:
        """Adds a probe.

        Args:
            step: training step.
            result: its data set; None if all its chains failed.
            chains_dropped: chains that failed.
            not_finite: True if losses were not finite at the training weights, so that no chain could run.
        """
        self.chains_dropped += chains_dropped
        if result is None:
            self.failed_steps.append(step)
            self.not_finite_steps += [step] if not_finite else []
            return
        self.steps.append(step)
        self.chain_seconds += float(result["seconds"]) if "seconds" in result else 0.0
        self.signal.append(float(result["signal"]))
        self.signal_se.append(float(result["signal_se"]))
        names = result.attrs["flags"]
        if names:
            self.flagged_steps.append(step)
        for name in names:
            self.flags[name] = self.flags.get(name, 0) + 1

    def add_fault(self, kind: str, step: int) -> int:
        """Counts an error; returns the number of errors of its kind."""
        self.faults[kind] = self.faults.get(kind, 0) + 1
        if step not in self.faulty_steps:
            self.faulty_steps.append(step)
        return self.faults[kind]

    def add_lost(self, samples: Iterable[int], step: int) -> None:
        """Adds observed samples that are left out from a step on."""
        self.lost_samples += [{"sample": int(sample), "step": step} for sample in samples]

    @property
    def num_attempts(self) -> int:
        """Number of started probes, which the schedule of controls counts."""
        return len({*self.steps, *self.failed_steps, *self.broken_steps})

    def add_probe_time(self, seconds: float, *, finished: bool) -> None:
        """Adds the time of a probe; if finished, it predicts the cost of the next."""
        self.probe_seconds += seconds
        if finished:
            self.last_probe_seconds = seconds

    @property
    def time_words(self) -> str:
        """Time spent in probes, and its parts, which add up to it."""
        parts = [round(self.chain_seconds, 1), round(self.curvature_seconds, 1)]
        rest = max(0.0, round(self.probe_seconds, 1) - sum(parts))
        return (
            f"{sum(parts) + rest:.1f} s ({parts[0]:.1f} s for the probes themselves, {parts[1]:.1f} s to measure the "
            f"curvature, {rest:.1f} s to time a step, to repeat, to write and to draw)"
        )

    @property
    def num_due(self) -> int:
        """Number of probes that were kept or lost all their chains; skipped ones and other errors do not count."""
        return len(self.steps) + len(self.failed_steps)

    @property
    def overhead(self) -> float | None:
        """Probe seconds over training seconds; None before any training."""
        return self.probe_seconds / self.training_seconds if self.training_seconds > 0 else None

    def windows(self, *, min_prominence: float = MIN_PROMINENCE) -> list[Window]:
        """Returns the transitions in the signal. Probes without a reference have no signal and are omitted.

        Args:
            min_prominence: see :func:`~stagewise.phases.offline.find_windows`.
        """
        values = np.asarray(self.signal, dtype=np.float64)
        known = np.isfinite(values)
        steps, errors = np.asarray(self.steps)[known], np.asarray(self.signal_se, dtype=np.float64)[known]
        return find_windows(steps, values[known], errors, min_prominence=min_prominence)

    def why_no_window(self, *, min_prominence: float = MIN_PROMINENCE) -> str | None:
        """Returns the reason for finding no transition; None if there is one.

        Args:
            min_prominence: see :func:`~stagewise.phases.offline.find_windows`.
        """
        return why_no_window(self.steps, self.signal, self.signal_se, min_prominence=min_prominence)

    def state_dict(self) -> dict[str, Any]:
        """Returns the state as plain Python."""
        return asdict(self)

    @classmethod
    def from_state_dict(cls, state: Mapping[str, Any]) -> "Record":
        """Loads what :meth:`state_dict` saved."""
        # Checkpoints of older versions lack these steps.
        return cls(**({"broken_steps": list(state.get("faulty_steps", ()))} | dict(state)))
