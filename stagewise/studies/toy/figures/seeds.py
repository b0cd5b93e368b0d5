"""Values over seeds: in words, as dots, and the axis of correlations."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from stagewise.studies.toy.validation import SeedResult


def values_of(results: Sequence[SeedResult], name: str) -> list[float]:
    """A figure of ``validation.json`` for each seed, NaN where it is not defined."""
    return [result.figures.get(name, np.nan) for result in results]


def count_seeds(results: Sequence[SeedResult]) -> str:
    """``1 seed``, ``3 seeds``."""
    return f"{len(results)} seed{'s' if len(results) != 1 else ''}"


def say_range(values: Sequence[float]) -> str:
    """``0.98 (0.97 to 0.99)``: median and range over seeds; ``none`` where the figure is not defined for any."""
    known = [value for value in values if np.isfinite(value)]
    if not known:
        return "none"
    middle, low, high = (f"{value:.2f}" for value in (np.median(known), min(known), max(known)))
    return middle if low == high else f"{middle} ({low} to {high})"


def dots_of_seeds(axes: Axes, place: float, values: Sequence[float], *, color: Any, width: float = 0.22) -> None:
    """A dot for each seed around ``place`` on the x axis and a bar at their median; nothing where none is finite."""
    known = np.array([value for value in values if np.isfinite(value)])
    if len(known) == 0:
        return
    spread = np.linspace(-0.5, 0.5, len(known)) * width if len(known) > 1 else np.zeros(1)
    axes.plot(place + spread, known, "o", color=color, markersize=4, alpha=0.8, markeredgewidth=0)
    axes.hlines(float(np.median(known)), place - width, place + width, color=color, linewidth=1.8)


def share_axis(axes: Axes, columns: int) -> None:
    """A y axis that shows 0 to 1 at least, with lines across, and room for so many columns."""
    axes.set_xlim(-0.6, columns - 0.4)
    values = [value for line in axes.lines for value in np.asarray(line.get_ydata(), dtype=float)]
    low, high = min([0.0, *values]), max([1.0, *values])
    axes.set_ylim(low - (0.04 if low < 0 else 0.0), high + 0.03)
    axes.axhline(0, color="#999999", linewidth=0.6, zorder=0)
    axes.grid(axis="y", color="#DDDDDD", linewidth=0.6)
