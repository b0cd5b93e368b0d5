"""Stability of a run's chains: probes that lost them all, and findings on the sampler's settings."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import xarray as xr

from stagewise.checks.counted import counted
from stagewise.runs.summary_file import summary_of

_TOO_LARGE = ("unstable", "biased")
_TOO_WEAK = ("improper", "thin")


@dataclass(frozen=True)
class Stability:
    """Probes that lost all their chains, and what was found about the settings.

    Attributes:
        lost: training steps of the probes that lost all their chains.
        not_finite: those among them whose losses are not finite at the training weights: the model's fault.
        findings: ``name``, ``step``, ``setting``, ``value`` (to set), ``now`` and ``text`` of each, as
            :meth:`stagewise.calibration.findings.Finding.record` has them, and ``since``, the first step where it was
            found.
    """

    lost: tuple[int, ...] = ()
    not_finite: tuple[int, ...] = ()
    findings: tuple[Mapping[str, Any], ...] = ()

    @classmethod
    def of(cls, summary: Mapping[str, Any]) -> "Stability":
        """Reads the content of a ``summary.json``, which may be empty or of an earlier version."""
        return cls(
            tuple(summary.get("failed_steps", ())),
            tuple(summary.get("not_finite_steps", ())),
            tuple(summary.get("settings_findings", ())),
        )

    @property
    def of_chains(self) -> tuple[int, ...]:
        """Steps of the probes that were lost by the sampler, not by the model."""
        return tuple(step for step in self.lost if step not in self.not_finite)

    @property
    def lr(self) -> Mapping[str, Any] | None:
        """Finding that lr is too large, or None; beyond the limit of stability first."""
        return self._first(_TOO_LARGE)

    @property
    def unstable(self) -> bool:
        """True if lr is beyond the limit of stability."""
        return self._first(_TOO_LARGE[:1]) is not None

    @property
    def localization(self) -> Mapping[str, Any] | None:
        """Finding that localization is too weak, or None."""
        return self._first(_TOO_WEAK)

    @property
    def cause(self) -> str:
        """Reason why chains were lost, as far as findings show it."""
        lr, localization = self.lr, self.localization
        if lr is not None:
            return f"lr {lr['now']:.2g} is too large for the curvature there"
        if localization is not None:
            return f"localization {localization['now']:.2g} is too weak for the curvature there"
        return "chains diverged"

    @property
    def words(self) -> str | None:
        """Lost probes, their steps and the cause; None if there are none."""
        parts = []
        if self.of_chains:
            parts.append(f"{lost_words(self.of_chains)} lost all {_their(self.of_chains)}: {self.cause}")
        if self.not_finite:
            parts.append(f"{lost_words(self.not_finite)} left out: losses are not finite at the training weights")
        return "; ".join(parts) or None

    def _first(self, names: Sequence[str]) -> Mapping[str, Any] | None:
        usable = [finding for finding in self.findings if finding.get("value") is not None]
        return next((finding for name in names for finding in usable if finding["name"] == name), None)


def _their(steps: Sequence[int]) -> str:
    return "its chains" if len(steps) == 1 else "their chains"


def lost_words(steps: Sequence[int]) -> str:
    """Describes probes by number and steps.

    Args:
        steps: training steps, one or more.
    """
    if len(steps) == 1:
        return f"1 probe, step {steps[0]:,},"
    return f"{counted(len(steps), 'probe')}, steps {steps[0]:,} to {steps[-1]:,},"


def lr_words(run: xr.Dataset) -> str | None:
    """Describes how the step size was lowered over a run; None if it was not, or is not recorded by probe.

    Args:
        run: as :func:`~stagewise.runs.open.open_run` returns it.
    """
    if "lr" not in run:
        return None
    steps, sizes = run["step"].values, run["lr"].values
    turns = [place for place in range(1, len(steps)) if sizes[place] != sizes[place - 1]]
    if not turns:
        return None
    course = [f"{sizes[0]:.2g} at first", *(f"{sizes[place]:.2g} from step {steps[place]:,} on" for place in turns)]
    return f"The step size lr was lowered as the curvature grew: {', '.join(course)}; the posterior is the same"


def stability_of(run: xr.Dataset | None) -> Stability:
    """Returns the stability recorded in the summary of a run; empty without one.

    Args:
        run: as :func:`~stagewise.runs.open.open_run` returns it.

    Raises:
        InputError: the summary is invalid.
    """
    return Stability() if run is None else Stability.of(summary_of(run))
