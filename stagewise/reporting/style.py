"""Common style of figures: sizes, axes of training steps, and the line between helpful and harmful."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

SMALL, NORMAL, LARGE = 8.5, 9.5, 11.0
"""Font sizes, points."""

_STRIP = 0.12
"""Room for a word above and below the curves, as a share of their range."""


@dataclass(frozen=True)
class SettledCurve:
    """Curve of a panel, all arrays ``[step]``.

    Attributes:
        steps: training steps.
        values: of the curve.
        band: lower and upper ends.
        settled: True in equilibrium.
        colour: of the curve.
    """

    steps: Any
    values: Any
    band: tuple[Any, Any]
    settled: Any
    colour: Any


def new_figure(width: float, height: float, title: str) -> Figure:
    """Returns a figure with automatic layout.

    Args:
        width: inches.
        height: inches.
        title: above all panels.
    """
    figure = Figure(figsize=(width, height), layout="constrained")
    figure.suptitle(title, fontsize=LARGE)
    return figure


def label(axes: Axes, *, title: str = "", x: str = "", y: str = "") -> None:
    """Sets the title and labels of a panel, in legible sizes."""
    axes.set_title(title, fontsize=NORMAL)
    axes.set_xlabel(x, fontsize=NORMAL)
    axes.set_ylabel(y, fontsize=NORMAL)
    axes.tick_params(labelsize=SMALL)
    for axis in (axes.xaxis, axes.yaxis):
        axis.get_offset_text().set_fontsize(SMALL)
    axes.spines[["top", "right"]].set_visible(False)


def round_steps(first: float, last: float) -> list[int]:
    """Returns ticks of a logarithmic axis: 1, 2 and 5 times powers of ten; more if fewer than three of them fit."""
    powers = range(int(np.log10(last)) + 1)
    found: list[int] = []
    for digits in ((10, 20, 50), (10, 15, 20, 30, 40, 50, 70), range(10, 100)):
        steps = sorted({digit * 10**power // 10 for power in powers for digit in digits} - {0})
        found = [step for step in steps if first <= step <= last]
        if len(found) >= 3:
            break
    return found or [round(first), round(last)]


def step_axis(axes: Axes, first: float, last: float, *, vertical: bool = False) -> None:
    """Makes an axis one of training steps on a log scale, with ticks such as 500 and 1,000."""
    axis = axes.yaxis if vertical else axes.xaxis
    if vertical:
        axes.set_yscale("log")
        axes.set_ylim(first, last)
    else:
        axes.set_xscale("log")
        axes.set_xlim(first, last)
    axis.set_major_locator(FixedLocator(round_steps(first, last)))
    axis.set_major_formatter(FuncFormatter(lambda step, _: f"{step:,.0f}"))
    axis.set_minor_locator(NullLocator())


def fit_to_settled(axes: Axes, curves: Sequence[SettledCurve]) -> None:
    """Fits the vertical range to the values and bands in equilibrium, and cuts off the others with a triangle.

    The range is unchanged if all others are within, or if no value is in equilibrium. Call this before
    :func:`mark_sides`.

    Args:
        axes: with the curves drawn.
        curves: all curves of the panel.
    """
    kept = [np.concatenate([part[curve.settled] for part in (curve.values, *curve.band)]) for curve in curves]
    inside = np.concatenate([*kept, np.zeros(1)])
    inside = inside[np.isfinite(inside)]
    known = any(np.isfinite(curve.values[curve.settled]).any() for curve in curves)
    low, high = inside.min(), inside.max()
    low, high = low - 0.08 * (high - low), high + 0.08 * (high - low)
    every = np.concatenate([curve.values for curve in curves]) if curves else inside
    beyond = np.isfinite(every) & ((every < low) | (every > high))
    if not known or not high > low or not beyond.any():
        return
    axes.set_ylim(low, high)
    for curve in curves:
        for out, place, mark in ((curve.values > high, 0.86, "^"), (curve.values < low, 0.14, "v")):
            if not out.any():
                continue
            axes.plot(
                curve.steps[out], np.full(out.sum(), place), mark, color=curve.colour, markersize=5, zorder=5,
                markerfacecolor="white", transform=axes.get_xaxis_transform(), label="_cut off",
            )  # fmt: skip


def mark_sides(axes: Axes) -> None:
    """Draws the zero line, words on either side of it, and a light shade where influence is helpful."""
    low, high = axes.get_ylim()
    low, high = min(low, -0.02 * abs(high)), max(high, 0.02 * abs(low))
    # Strips for the words, so that they cover no curve.
    low, high = low - _STRIP * (high - low), high + _STRIP * (high - low)
    axes.axhspan(low, 0, color="#EAF3EA", zorder=0, linewidth=0)
    axes.axhline(0, color="#333333", linewidth=0.8, zorder=1)
    axes.set_ylim(low, high)
    for place, edge, words in ((0.98, "top", "harmful"), (0.03, "bottom", "helpful")):
        axes.text(
            0.008,
            place,
            words,
            transform=axes.transAxes,
            va=edge,
            fontsize=SMALL,
            color="#666666",
            style="italic",
            bbox={"facecolor": "white", "alpha": 0.6, "linewidth": 0, "pad": 1},
        )


def shades(count: int) -> list[Any]:
    """Returns ``count`` colours from dark to light."""
    return [colormaps["viridis"](place) for place in np.linspace(0, 0.86, count)]
