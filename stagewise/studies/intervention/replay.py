"""Replay of the online detector on each signal of the undisturbed runs: on influence, and on losses alone."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from stagewise.phases.online_detector import DetectorConfig, Direction, OnlineDetector
from stagewise.phases.signal import Kind, Signal
from stagewise.phases.signal_table import signal_table
from stagewise.runs.open import open_run
from stagewise.runs.probe_files import STORE_NAME
from stagewise.studies.intervention.arms import Arm
from stagewise.studies.intervention.cell import Cell
from stagewise.studies.intervention.config import InterventionConfig
from stagewise.studies.intervention.training import run_folder


def replayed_signals(config: InterventionConfig) -> list[str]:
    """Returns the signal of the arm ``live`` first, then others, for comparison."""
    group, against = config.weights.observed_group, config.weights.onset.against
    others = [
        Signal(Kind.contrast, (group, against)),
        Signal(Kind.group_loss, (group,)),
        Signal(Kind.losses_alone),
        Signal(Kind.between),
        Signal(Kind.total, (group, group)),
        Signal(Kind.within, (group, group)),
    ]
    return list(dict.fromkeys([config.live.signal, *(signal.name for signal in others)]))


def first_window(table: xr.Dataset, signal: str, detector: DetectorConfig, *, start: int | None = None) -> int | None:
    """Returns the training step at which the online detector opens its first window on a signal; None for none.

    Args:
        table: of the signals of a run.
        signal: one of them.
        detector: settings; the direction is that of the signal.
        start: training step before which probes are ignored; None to use all.
    """
    row = table.sel(signal=signal)
    if start is not None:
        row = row.sel(step=row["step"] >= start)
    online = OnlineDetector(replace(detector, direction=Direction(row["direction"].item())))
    for step, value, error in zip(row["step"].values, row["value"].values, row["error"].values, strict=True):
        online.update(int(step), float(value), float(error))
    return online.windows[0].start if online.windows else None


def detector_table(config: InterventionConfig, cells: Sequence[Cell], *, early_score: float) -> dict[str, Any]:
    """Returns the first window that the online detector of the arm ``live`` opens on each signal, seed by seed.

    Args:
        config: of the experiment; the undisturbed runs are read from its output.
        cells: finished cells.
        early_score: prefix score before which a window should open.

    Returns:
        For each signal ``first_window`` by seed, and counts over the ``n`` seeds that reach both scores:
        ``opened_before_t25`` of those where it opened before ``early_score``, and ``none_before_half_t50`` of those
        where it did not open before half of the way to the head. Empty without any run.
    """
    signals = [Signal.parse(name) for name in replayed_signals(config)]
    contrasts = [(signal.groups[0], signal.groups[1]) for signal in signals if signal.kind is Kind.contrast]
    runs: dict[int, tuple[Cell, xr.Dataset]] = {}
    for cell in cells:
        folder = run_folder(Path(config.output), cell.seed, str(Arm.none))
        if cell.arm == Arm.none and cell.curve is not None and (folder / STORE_NAME).exists():
            runs[cell.seed] = cell, signal_table(open_run(folder), contrasts=contrasts)
    found: dict[str, Any] = {}
    for signal in replayed_signals(config) if runs else ():
        starts = {
            seed: first_window(table, signal, config.live.detector, start=all_known(table, replayed_signals(config)))
            for seed, (_, table) in runs.items()
            if signal in table["signal"].values
        }
        curves = {seed: runs[seed][0].curve for seed in starts}
        t25 = {seed: curve.step_at_score(early_score) for seed, curve in curves.items() if curve is not None}
        t50 = {seed: curve.score_step for seed, curve in curves.items() if curve is not None}
        both = [seed for seed in starts if t25[seed] is not None and t50[seed] is not None]
        found[signal] = {
            "first_window": {str(seed): start for seed, start in starts.items()},
            "opened_before_t25": sum(_before(starts[seed], t25[seed]) for seed in both),
            "none_before_half_t50": sum(not _before(starts[seed], (t50[seed] or np.nan) / 2) for seed in both),
            "n": len(both),
        }
    return found


def all_known(table: xr.Dataset, signals: Sequence[str]) -> int:
    """Returns the step of the first probe at which every signal is known: changes since a reference come later.

    Args:
        table: of the signals of a run.
        signals: names; those missing in the table are ignored.
    """
    present = [name for name in signals if name in table["signal"].values]
    known = np.isfinite(table["value"].sel(signal=present).values).all(axis=0)
    return int(table["step"].values[int(np.argmax(known))])


def _before(start: int | None, step: float | None) -> bool:
    return start is not None and step is not None and start < step
