"""TensorBoard display of a run, as it proceeds and at its end."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import xarray as xr
from lightning.pytorch import Trainer
from lightning.pytorch.utilities import rank_zero_info

from stagewise.callbacks.fault_log import Faults
from stagewise.callbacks.hosts import is_a
from stagewise.callbacks.intervention_plan import policy_words
from stagewise.callbacks.logger_writers import writers
from stagewise.callbacks.run_state import RunSettings, RunState
from stagewise.callbacks.trainer_facts import max_steps
from stagewise.files.zarr_file import Content
from stagewise.influence.groups import Groups
from stagewise.probes.schedule import DEFAULT_EVERY_N_STEPS, ProbeSchedule
from stagewise.reporting import tags
from stagewise.reporting.chosen_scalars import choose_scalars, optional_scalars
from stagewise.reporting.hparams import flat_settings, write_hparams
from stagewise.reporting.overview_files import write_overview
from stagewise.reporting.run_card import run_card
from stagewise.reporting.summary import build_summary
from stagewise.reporting.tensorboard import (
    CURVES_SPACING,
    images_due,
    write_curves,
    write_layout,
    write_run_pictures,
    write_text,
)
from stagewise.runs.open import opened
from stagewise.runs.verdict import VARIABLES, judge
from stagewise.runs.words import with_plain_names
from stagewise.sampling.config import SGLDConfig

_OF_CURVES = (
    *VARIABLES, "group_loss", "graddot", "signal", "signal_se", "signal_threshold", "llc", "llc_se", "llc_chains",
    "llc_rhat", "llc_localized_share", "group_llc", "group_llc_se", "group_llc_localized_share",
)  # fmt: skip
"""Variables of a run needed for its verdict and the figures of its curves."""

_FEWEST = 4
"""Fewest probes with which curves are drawn during a run."""

_SCORES = ("prefix_matching", "previous_token", "icl_score", "loss_gap", "copying")


class Board:
    """Chooses the scalars of a run and keeps its charts, settings, card and figures up to date, on rank zero."""

    def __init__(self, trainer: Trainer, folder: Path, state: RunState, settings: RunSettings, faults: Faults) -> None:
        """Shows nothing yet.

        Args:
            trainer: its TensorBoard loggers show the run.
            folder: of the run.
            state: of the run; stores the choice of scalars.
            settings: of the probes.
            faults: collects errors of loggers.
        """
        self._faults = faults
        self._trainer, self._folder, self._state, self._settings = trainer, folder, state, settings
        self._groups: Groups | None = None
        self._optional: frozenset[str] = frozenset()
        self._laid_out = False
        # Variables of earlier probes for the card: each file is read once, not at every update.
        self._read: dict[int, Content] = {}

    def begin(self, groups: Groups) -> None:
        """Stores the groups of the run.

        Args:
            groups: over the observed set.
        """
        self._groups, self._optional = groups, optional_scalars(groups.names)

    def choose(self, probe: xr.Dataset) -> None:
        """Chooses the scalars at the first probe of a run, and lays out the charts at the first probe of a fit.

        Args:
            probe: data set of the probe.
        """
        if self._state.scalars is None:
            self._state.scalars = choose_scalars(probe, reserved=self._reserved())
        if not self._laid_out and self._groups is not None:
            self._laid_out = True
            control = self._settings.probe.control_every is not None
            write_layout(
                writers(self._trainer, self._faults), self._groups, control=control, scalars=self._state.scalars
            )
            self._write_hparams(int(probe.attrs["step"]))

    def shown(self, values: Mapping[str, float]) -> dict[str, float]:
        """Selects the values to log; all values are stored and can be monitored.

        Args:
            values: by tag.
        """
        kept = self._state.scalars
        if kept is None:
            return dict(values)
        return {tag: value for tag, value in values.items() if tag not in self._optional or tag in kept}

    def update(self, step: int) -> None:
        """Updates the card at the first probe, then card and figures whenever the step has grown by a quarter.

        Args:
            step: of the probe just written.
        """
        steps = self._state.record.steps
        if not images_due(steps[-2] if len(steps) > 1 else None, step, spacing=CURVES_SPACING):
            return
        found = writers(self._trainer, self._faults)
        if not found:
            return
        run = opened(self._folder, self._read, variables=_OF_CURVES)
        write_text(found, tags.RUN_SUMMARY, run_card(self._summary(run), self._folder, unfinished=True), step)
        if self._settings.probe.draw_matrices and len(steps) >= _FEWEST:
            named = with_plain_names(run)
            write_overview(found, self._folder, step, named, unfinished=True)
            write_curves(found, named, only_influence=True)

    def _summary(self, run: xr.Dataset) -> dict[str, Any]:
        record, probe = self._state.record, self._settings.probe
        windows = len(record.windows(min_prominence=probe.min_prominence))
        return build_summary(
            record,
            config=self._state.watch.config,
            probe=probe,
            max_overhead=self._settings.schedule.max_overhead,
            component=self._settings.component,
            verdict=judge(
                run,
                windows=windows,
                thresholds=probe.thresholds,
                flags=record.flags,
                stability=self._state.stability,
            ),
            complete=False,
            findings=self._state.watch.findings,
        )

    def finish(self, summary: Mapping[str, Any], step: int) -> None:
        """Writes the card of the finished run.

        Args:
            summary: of the run.
            step: at which the run ended.
        """
        write_text(
            writers(self._trainer, self._faults),
            tags.RUN_SUMMARY,
            run_card(summary, self._folder, unfinished=False),
            step,
        )

    def draw(self, run: xr.Dataset, step: int) -> None:
        """Draws the finished run: overview, curves and class maps.

        Args:
            run: with its summary.
            step: at which the run ended.
        """
        found, named = writers(self._trainer, self._faults), with_plain_names(run)
        write_overview(found, self._folder, step, named)
        write_run_pictures(found, named)

    def _reserved(self) -> int:
        """Counts the tags logged by other callbacks of the run; for an intervention without a plan, one per group."""
        scores = 0 if self._callback("InductionCallback") is None else len(_SCORES)
        intervention = self._callback("InterventionCallback")
        if intervention is None:
            return scores
        names = (
            self._groups.names if intervention.plan is None and self._groups is not None else intervention.plan.names
        )
        return scores + 1 + len(names)

    def _callback(self, name: str) -> Any:
        """Returns the callback of a class or its subclass by name; None if there is none."""
        callbacks: list[Any] = self._trainer.callbacks  # type: ignore[attr-defined]
        return next(
            (callback for callback in callbacks if name in [kind.__name__ for kind in type(callback).__mro__]), None
        )

    def _write_hparams(self, step: int) -> None:
        """Writes settings and outcomes, unless Lightning has logged its own, which TensorBoard would show instead."""
        loggers: list[Any] = [item for item in self._trainer.loggers if is_a(item, "TensorBoardLogger")]
        taken = [item for item in loggers if item.hparams and getattr(item, "_default_hp_metric", False)]
        if taken:
            rank_zero_info(
                "stagewise: TensorBoard's HPARAMS tab shows the hyperparameters that Lightning logged with hp_metric; "
                "create TensorBoardLogger with default_hp_metric=False to add the settings and outcomes of probes"
            )
        for logger in loggers:
            if logger not in taken:
                write_hparams([logger.experiment], self._hparams(logger.hparams), self._outcomes(), step)

    def _hparams(self, given: Mapping[str, Any]) -> dict[str, float | str]:
        """Returns the settings of the run, with the hyperparameters that its module gave to the logger.

        TensorBoard sorts them by name and shows the first five, so the names of the most important ones sort first.
        """
        seed = os.environ.get("PL_GLOBAL_SEED")
        probe, arm = self._settings.probe, self._callback("InterventionCallback")
        sampler = {field.name: getattr(self._state.watch.config, field.name) for field in fields(SGLDConfig)}
        own: dict[str, Any] = {
            "arm": None if arm is None else arm_words(arm),
            "global_seed": int(seed) if seed and seed.isdecimal() else seed,
            **{name: sampler.pop(name) for name in ("localization", "lr", "nbeta")},
            "schedule": schedule_words(self._settings.schedule),
            "sgld": sampler | {"component": self._settings.component},
            "split": {"centering": str(probe.centering), "reference_ratio": probe.reference_ratio},
            "training": {name: item for name, item in given.items() if not name.startswith("_")},
        }
        own["training"]["max_steps"] = max_steps(self._trainer)
        return flat_settings(own)

    def _outcomes(self) -> list[str]:
        names: Sequence[str] = () if self._groups is None else self._groups.names
        losses = [tags.group_loss(name) for name in names]
        kept = self._state.scalars or []
        watched = self._callback("InductionCallback") is not None
        scores = [tags.induction("prefix_matching"), tags.induction("loss_gap")] if watched else []
        own = [tags.NUM_WINDOWS, tags.FIRST_PEAK, tags.FLAGGED_SHARE]
        return own + scores + [tag for tag in losses if tag in kept]


def arm_words(intervention: Any) -> str:
    """Describes an intervention, beginning with what distinguishes arms, since table cells show only the start.

    Args:
        intervention: the ``InterventionCallback`` of a run.
    """
    weights = getattr(intervention.policy, "weights", None)
    if isinstance(weights, Mapping):
        policy = ", ".join(f"{name} {weight:g}" for name, weight in weights.items())
    else:
        policy = policy_words(intervention.policy)
    return f"{policy} by {intervention.mechanism} in {intervention.windows}"


def schedule_words(schedule: ProbeSchedule) -> str:
    """Describes the times of probes in a few words.

    Args:
        schedule: of the run.
    """
    if schedule.log_spaced is not None:
        spaced = schedule.log_spaced
        return f"{spaced.num} log-spaced, {spaced.first} to {spaced.last}"
    steps = schedule.listed_steps
    if steps is not None:
        return f"at {len(steps)} steps, {steps[0]} to {steps[-1]}"
    return f"every {schedule.every_n_steps or DEFAULT_EVERY_N_STEPS} steps"
