"""Windows of a finished run on each of its signals, with what they rest on: significance, samples, two phases."""

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from enum import StrEnum

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from stagewise.errors import InputError, require
from stagewise.phases.offline import MIN_PROMINENCE, find_windows
from stagewise.phases.online import DetectorConfig, Direction, OnlineDetector
from stagewise.phases.signal_table import BETWEEN, LOSSES, is_llc, mean_losses
from stagewise.phases.two_phase import TwoPhaseReading, two_phase

Array = NDArray[np.float64]


class Method(StrEnum):
    """How a window was found: looking back over the whole run, or one probe at a time."""

    offline = "offline"
    online = "online"


@dataclass(frozen=True)
class CriticalSample:
    """A sample whose loss moved far at the peak of a window.

    Attributes:
        sample: its position in the observed set.
        shift: mean loss at the peak less that at its reference probe, nats; negative = learnt.
        shift_se: standard error, nats; NaN where unknown.
    """

    sample: int
    shift: float
    shift_se: float


@dataclass(frozen=True)
class FoundWindow:
    """A window in one signal of a run.

    Attributes:
        method: how it was found.
        signal: name in the table of signals.
        units: of the signal.
        start: training step; offline where half of the prominence is reached, online where the detector opened it.
        peak: training step of the largest signal.
        end: training step; online that of the probe that closed it, None where the run ended before.
        value: the signal at its peak.
        height: offline the prominence, online the distance from the plateau; negative where a signal falls.
        significance: size of the height in standard errors: offline that of the probe at the peak, online that of
            the probe and its plateau. NaN where no error is known.
        critical: samples with the largest absolute shift at the peak, largest first.
        steps: training steps of the probes of the two-phase reading: those of the window, and where it starts or ends
            between probes the next one outside.
        reading: of the closed window; None with fewer than three probes.
    """

    method: Method
    signal: str
    units: str
    start: int
    peak: int
    end: int | None
    value: float
    height: float
    significance: float
    critical: tuple[CriticalSample, ...]
    steps: tuple[int, ...]
    reading: TwoPhaseReading | None


def detect(
    run: xr.Dataset,
    table: xr.Dataset,
    *,
    signals: Iterable[str] | None = None,
    min_prominence: float = MIN_PROMINENCE,
    online: DetectorConfig | None = None,
    num_critical: int = 5,
) -> list[FoundWindow]:
    """Find the windows of a run, offline and, if asked for, as the online detector would have found them live.

    Args:
        run: as :func:`stagewise.runs.store.open_run` returns it.
        table: of its signals, see :func:`~stagewise.phases.signal_table.signal_table`.
        signals: names of those to look at; if None, offline between and the baseline of losses alone, online all.
            Learning coefficients have no offline windows, but stages, see
            :func:`~stagewise.phases.stage_boundaries.stage_boundaries`.
        min_prominence: of the offline detector, see :func:`~stagewise.phases.offline.find_windows`.
        online: settings of the online detector; its direction is that of each signal. None leaves it out.
        num_critical: so many critical samples.

    Returns:
        Windows by method, signal and start.

    Raises:
        InputError: a signal that the table does not have, or a negative number of samples.
    """
    require(num_critical >= 0, "num_critical", num_critical, "0 or more", "5 are usual")
    present = [str(name) for name in table["signal"].values]
    chosen = None if signals is None else list(dict.fromkeys(signals))
    for name in chosen or ():
        if name not in present:
            raise InputError(f"got signal {name!r}; expected one of {present}; name signals of this run")
    means = mean_losses(run)
    found = []
    for method, names in (
        (Method.offline, [BETWEEN, LOSSES] if chosen is None else chosen),
        (Method.online, [] if online is None else present if chosen is None else chosen),
    ):
        for name in names:
            if method is Method.offline and is_llc(name):
                continue
            row = table.sel(signal=name)
            if method is Method.offline:
                spans = _offline(row, min_prominence)
            else:
                spans = _online(row, online or DetectorConfig())
            for start, peak, end, height, significance in spans:
                inside, reading = _read(run, means, start, end)
                found.append(
                    FoundWindow(
                        method=method,
                        signal=name,
                        units=str(row["units"].item()),
                        start=start,
                        peak=peak,
                        end=end,
                        value=float(row["value"].sel(step=peak)),
                        height=height,
                        significance=significance,
                        critical=critical_samples(run, peak, num_critical),
                        steps=inside,
                        reading=reading,
                    )
                )
    return found


def critical_samples(run: xr.Dataset, step: int, count: int) -> tuple[CriticalSample, ...]:
    """Samples with the largest absolute shift at a probe, largest first.

    Args:
        run: with ``shift`` and ``shift_se``, nats.
        step: training step of the probe.
        count: so many, at most.
    """
    probe = run.sel(step=step)
    shift, error = probe["shift"].values, probe["shift_se"].values
    numbers = probe["sample"].values if "sample" in probe.coords else np.arange(len(shift))
    order = np.argsort(-np.abs(shift), kind="stable")
    order = order[np.isfinite(shift[order])][:count]
    return tuple(CriticalSample(int(numbers[at]), float(shift[at]), float(error[at])) for at in order)


_Span = tuple[int, int, int | None, float, float]


def _offline(row: xr.Dataset, min_prominence: float) -> list[_Span]:
    """Start, peak, end, height and significance of the peaks of one signal."""
    side = -1 if row["direction"].item() == Direction.falling else 1
    steps, values, errors = row["step"].values, row["value"].values, row["error"].values
    known = np.isfinite(values)
    place = {int(step): at for at, step in enumerate(steps)}
    windows = find_windows(steps[known], side * values[known], errors[known], min_prominence=min_prominence)
    spans: list[_Span] = []
    for window in windows:
        error = float(errors[place[window.peak]])
        significance = window.prominence / error if error > 0 else math.nan
        spans.append((window.start, window.peak, window.end, side * window.prominence, significance))
    return spans


def _online(row: xr.Dataset, config: DetectorConfig) -> list[_Span]:
    """The same of the windows that the online detector opens, probe by probe."""
    detector = OnlineDetector(replace(config, direction=Direction(row["direction"].item())))
    for step, value, error in zip(row["step"].values, row["value"].values, row["error"].values, strict=True):
        detector.update(int(step), float(value), float(error))
    return [(it.start, it.peak_step, it.end, it.height, abs(it.z)) for it in detector.windows]


def _read(run: xr.Dataset, means: Array, start: int, end: int | None) -> tuple[tuple[int, ...], TwoPhaseReading | None]:
    """Two-phase reading of a closed window.

    It goes from the last probe at or before its start to the first at or after its end: offline both may lie between.
    """
    steps = run["step"].values
    if end is None:
        return (), None
    first = max(int(np.searchsorted(steps, start, side="right")) - 1, 0)
    inside = slice(first, int(np.searchsorted(steps, end)) + 1)
    means = means[inside]
    means = means[:, np.isfinite(means).all(axis=0)]  # samples that are left out on the way have no loss any more
    if len(steps[inside]) < 3 or np.array_equal(means[0], means[-1]):
        return (), None
    return tuple(int(step) for step in steps[inside]), two_phase(means)
