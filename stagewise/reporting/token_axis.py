"""Training tokens on the horizontal axis of figures, for sweeps with ``axis: tokens``."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.ticker import FixedFormatter, FixedLocator, MaxNLocator, NullLocator

from stagewise.runs.summary_file import summary_of

_UNITS = ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "k"))
_FEW = 3


def run_tokens(run: xr.Dataset) -> tuple[np.ndarray, np.ndarray] | None:
    """Returns training steps and tokens seen at each, ``[checkpoint]``; None if a run is shown by its steps.

    That is also the case if its summary lacks the tokens.

    Args:
        run: as :func:`~stagewise.runs.open.open_run` returns it; a sweep with ``axis: tokens`` stores both in its
            summary.
    """
    sweep: Any = summary_of(run).get("sweep")
    if not isinstance(sweep, dict) or sweep.get("axis") != "tokens":
        return None
    try:
        steps, tokens = np.array(sweep["steps"], dtype=float), np.array(sweep["step_tokens"], dtype=float)
    except (KeyError, TypeError, ValueError):
        return None
    whole = steps.shape == tokens.shape and steps.ndim == 1 and np.isfinite(tokens).all()
    return (steps, tokens) if whole else None


def shared_tokens(runs: Sequence[xr.Dataset]) -> tuple[np.ndarray, np.ndarray] | None:
    """Returns training steps and tokens of runs that are shown together, e.g. of branches of a suite that forks.

    None where one of them is shown by its steps, or a step is of other tokens in another run.

    Args:
        runs: one or more.
    """
    merged: dict[float, float] = {}
    for run in runs:
        known = run_tokens(run)
        if known is None:
            return None
        for step, tokens in zip(*map(np.ndarray.tolist, known), strict=True):
            if merged.setdefault(step, tokens) != tokens:
                return None
    steps = np.array(sorted(merged))
    tokens = np.array([merged[step] for step in steps.tolist()])
    return None if np.any(np.diff(tokens) < 0) else (steps, tokens)


def horizontal_label(*runs: xr.Dataset) -> str:
    """Returns the label of the horizontal axis of one run or several: training steps, or tokens."""
    return "training step" if shared_tokens(runs) is None else "training tokens"


def mark_tokens(axes: Axes, *runs: xr.Dataset) -> None:
    """Puts round numbers of tokens in place of steps under an axis of steps, which keeps its scale and its limits.

    Between two checkpoints tokens are interpolated. Nothing is done to runs that are shown by their steps.

    Args:
        axes: whose horizontal axis is of steps, its scale set.
        *runs: that are shown.
    """
    known = shared_tokens(runs)
    if known is None:
        return
    steps, tokens = known
    logarithmic = axes.get_xscale() != "linear"
    ticks = _ticks(tokens, logarithmic=logarithmic)
    axes.xaxis.set_major_locator(FixedLocator(np.interp(ticks, tokens, steps).tolist()))
    axes.xaxis.set_major_formatter(FixedFormatter([token_words(tick) for tick in ticks]))
    axes.xaxis.set_minor_locator(NullLocator())


def _ticks(tokens: np.ndarray, *, logarithmic: bool) -> list[float]:
    """Returns round numbers from the first to the last; these two themselves if there are fewer than two."""
    first, last = float(tokens[0]), float(tokens[-1])
    if logarithmic and last > 0:
        low = float(tokens[tokens > 0][0])  # a logarithm has no place for 0
        tens = [10.0**power for power in range(int(np.log10(low)), int(np.log10(last)) + 1)]
        inside = [tick for tick in tens if low <= tick <= last]
        if len(inside) < _FEW:
            inside = [tick * by for tick in tens for by in (1, 2, 5) if low <= tick * by <= last]
        inside = [0.0, *inside] if first == 0 else inside
    else:
        inside = [float(tick) for tick in MaxNLocator(6).tick_values(first, last) if first <= tick <= last]
    return inside if len(inside) > 1 else sorted({first, last})


def token_words(tokens: float) -> str:
    """Returns a number of tokens in words: ``84B``, ``1.5T``."""
    for unit, name in _UNITS:
        if tokens >= unit:
            return f"{tokens / unit:.3g}{name}"
    return f"{tokens:.0f}"
