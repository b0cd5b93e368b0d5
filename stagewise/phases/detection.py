"""Windows of a finished run in each of its signals, with evidence: significance, samples, two-phase reading."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from difflib import get_close_matches

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from stagewise.errors import InputError, require
from stagewise.phases.offline import MIN_PROMINENCE, find_windows
from stagewise.phases.online_detector import DetectorConfig, Direction, OnlineDetector
from stagewise.phases.signal import Kind, Signal
from stagewise.phases.signal_table import mean_losses
from stagewise.phases.two_phase import TwoPhaseReading, two_phase
from stagewise.phases.window import CriticalSample, Window

Array = NDArray[np.float64]


def detect(
    run: xr.Dataset,
    table: xr.Dataset,
    *,
    signals: Iterable[str] | None = None,
    min_prominence: float = MIN_PROMINENCE,
    online: DetectorConfig | None = None,
    num_critical: int = 5,
) -> list[Window]:
    """Finds the windows of a run, offline and, if requested, as the online detector would have found them live.

    Args:
        run: as :func:`~stagewise.runs.open.open_run` returns it.
        table: signals of the run, see :func:`~stagewise.phases.signal_table.signal_table`.
        signals: names of the signals to search; if None, ``between`` and the baseline ``losses_alone`` offline, and all
            signals online. Learning coefficients have stages instead of offline windows, see
            :func:`~stagewise.phases.stage_boundaries.stage_boundaries`.
        min_prominence: of the offline detector, see :func:`~stagewise.phases.offline.find_windows`.
        online: settings of the online detector, whose direction is replaced by that of each signal. None omits it.
        num_critical: number of critical samples.

    Returns:
        Windows by method, signal and start.

    Raises:
        InputError: a signal missing from the table, or a negative number of samples.
    """
    require(num_critical >= 0, "num_critical", num_critical, "0 or more", "5 are usual")
    present = [str(name) for name in table["signal"].values]
    chosen = None if signals is None else list(dict.fromkeys(signals))
    for name in chosen or ():
        if name not in present:
            raise InputError(f"got signal {name!r}; expected one of {present}; {_nearest(name, present)}")
    means = mean_losses(run)
    names = [str(kind) for kind in (Kind.between, Kind.losses_alone)] if chosen is None else chosen
    found = [
        window
        for name in names
        if Signal.parse(name).kind is not Kind.llc
        for window in _offline(table.sel(signal=name), min_prominence)
    ]
    if online is not None:
        for name in present if chosen is None else chosen:
            found += _online(table.sel(signal=name), online)
    return [_with_evidence(window, run, means, num_critical) for window in found]


def _nearest(name: str, present: Sequence[str]) -> str:
    near = get_close_matches(name, present, n=1)
    return f"did you mean {near[0]!r}?" if near else "name signals of this run"


def _with_evidence(window: Window, run: xr.Dataset, means: Array, num_critical: int) -> Window:
    steps, reading = _read(run, means, window.start, window.end)
    return replace(window, critical=critical_samples(run, window.peak, num_critical), steps=steps, reading=reading)


def critical_samples(run: xr.Dataset, step: int, count: int) -> tuple[CriticalSample, ...]:
    """Returns the samples with the largest absolute shift at a probe, largest first.

    Args:
        run: with ``shift`` and ``shift_se``, nats.
        step: training step of the probe.
        count: largest number of samples.
    """
    probe = run.sel(step=step)
    shift, error = probe["shift"].values, probe["shift_se"].values
    numbers = probe["sample"].values if "sample" in probe.coords else np.arange(len(shift))
    order = np.argsort(-np.abs(shift), kind="stable")
    order = order[np.isfinite(shift[order])][:count]
    return tuple(CriticalSample(int(numbers[at]), float(shift[at]), float(error[at])) for at in order)


def _offline(row: xr.Dataset, min_prominence: float) -> list[Window]:
    """Finds the peaks of a rising signal, or the troughs of a falling one."""
    side = -1 if row["direction"].item() == Direction.falling else 1
    steps, values, errors = row["step"].values, row["value"].values, row["error"].values
    known = np.isfinite(values)
    place = {int(step): at for at, step in enumerate(steps)}
    found = []
    for window in find_windows(steps[known], side * values[known], errors[known], min_prominence=min_prominence):
        at = place[window.peak]
        significance = window.height / float(errors[at]) if errors[at] > 0 else None
        found.append(_named(replace(window, significance=significance, height=side * window.height), row))
    return found


def _online(row: xr.Dataset, config: DetectorConfig) -> list[Window]:
    """Returns the windows that the online detector opens when it sees the probes one by one."""
    detector = OnlineDetector(replace(config, direction=Direction(row["direction"].item())))
    for step, value, error in zip(row["step"].values, row["value"].values, row["error"].values, strict=True):
        detector.update(int(step), float(value), float(error))
    return [_named(window, row) for window in detector.windows]


def _named(window: Window, row: xr.Dataset) -> Window:
    value = float(row["value"].sel(step=window.peak))
    return replace(window, value=value, signal=str(row["signal"].item()), units=str(row["units"].item()))


def _read(run: xr.Dataset, means: Array, start: int, end: int | None) -> tuple[tuple[int, ...], TwoPhaseReading | None]:
    """Returns the probes of a closed window and its two-phase reading; nothing for an open or too short window.

    The reading runs from the last probe at or before the start to the first at or after the end: offline, both may lie
    between probes.
    """
    steps = run["step"].values
    if end is None:
        return (), None
    first = max(int(np.searchsorted(steps, start, side="right")) - 1, 0)
    inside = slice(first, int(np.searchsorted(steps, end)) + 1)
    means = means[inside]
    means = means[:, np.isfinite(means).all(axis=0)]  # samples dropped during the window have no further losses
    if len(steps[inside]) < 3 or np.array_equal(means[0], means[-1]):
        return (), None
    return tuple(int(step) for step in steps[inside]), two_phase(means)
