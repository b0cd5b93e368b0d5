"""Transition windows of a run, from its summary or computed, and the reason if there are none."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import xarray as xr

from stagewise.phases.no_window import why_no_window
from stagewise.phases.offline import MIN_PROMINENCE, find_windows
from stagewise.runs.summary_file import summary_of


def run_windows(run: xr.Dataset) -> list[dict[str, Any]]:
    """Returns the windows of the between part, from the summary if the run has ended, otherwise computed.

    Args:
        run: as :func:`stagewise.runs.open.open_run` returns it.

    Returns:
        ``start``, ``peak``, ``end`` (training steps) and ``value`` (nats) of each, in order.
    """
    summary = summary_of(run)
    if "transitions" in summary:
        return list(summary["transitions"])
    if "signal" not in run:
        return []
    steps, values, errors = _signal(run)
    known = np.isfinite(values)
    found = find_windows(steps[known], values[known], errors[known], min_prominence=_prominence(summary))
    return [{"start": window.start, "peak": window.peak, "end": window.end, "value": window.value} for window in found]


def no_window_words(run: xr.Dataset) -> str | None:
    """Returns the reason why the between part has no window, see :func:`~stagewise.phases.no_window.why_no_window`.

    Args:
        run: as :func:`stagewise.runs.open.open_run` returns it.

    Returns:
        None if there is one, or the run has no signal.
    """
    if "signal" not in run:
        return None
    return why_no_window(*_signal(run), min_prominence=_prominence(summary_of(run)))


def _signal(run: xr.Dataset) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    errors = run["signal_se"].values if "signal_se" in run else np.full(run.sizes["step"], np.nan)
    return run["step"].values, run["signal"].values, errors


def _prominence(summary: Mapping[str, Any]) -> float:
    return float(summary.get("min_prominence", MIN_PROMINENCE))
