"""Shared parts of the toy's figures: colours, axes, panels of pairs, curves over seeds."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from numpy.typing import NDArray

from stagewise.reporting.style import NORMAL, step_axis
from stagewise.studies.toy.config import ToyConfig
from stagewise.studies.toy.stages import CHAINS
from stagewise.studies.toy.validation import SeedResult

CLOSED_FORM, GRADIENT_DOT = "closed form", "minus gradient dot product"
METHOD_LOOKS: dict[str, dict[str, Any]] = {
    CHAINS: {"color": "#000000", "linewidth": 1.8},
    "local Gaussian": {"color": "#E69F00", "linewidth": 1.6, "linestyle": (0, (5, 1.5))},
    "horizon": {"color": "#CC3D8F", "linewidth": 1.4},
    "unrolled": {"color": "#0072B2", "linewidth": 1.4},
    "full leave-one-out": {"color": "#8C6D31", "linewidth": 1.4},
    CLOSED_FORM: {"color": "#56B4E9", "linewidth": 1.4, "linestyle": (0, (4, 2))},
    GRADIENT_DOT: {"color": "#7A7A7A", "linewidth": 1.6, "linestyle": (0, (1, 1.2))},
}
TRUE_TRANSITION: dict[str, Any] = {"color": "#555555", "linewidth": 0.8, "linestyle": (0, (2, 2)), "zorder": 0.5}


def method_name(method: str, config: ToyConfig) -> str:
    """Returns a method of :data:`~stagewise.studies.toy.stages.METHODS` in words; its horizon in steps."""
    return f"drop for {config.retraining.horizon:,} steps" if method == "horizon" else method


def probed_axis(axes: Axes, config: ToyConfig, *, words: bool = True) -> None:
    """Sets the step axis from the first probe to the end of training."""
    step_axis(axes, config.probed_steps[0], config.network.num_steps)
    if words:
        axes.set_xlabel("training step", fontsize=NORMAL)


def mark_transitions(axes: Axes, result: SeedResult) -> None:
    """Draws thin vertical lines where the loss of each group of equal modes falls fastest; the first has a label."""
    for number, step in enumerate(result.exact.attrs["transitions"]):
        axes.axvline(step, label="true transition" if number == 0 else None, **TRUE_TRANSITION)


Array = NDArray[np.float64]

RELATION_COLOURS = {"sibling": "#0072B2", "cousin": "#D55E00", "far": "#009E73"}


def relations_of(config: ToyConfig) -> list[str]:
    """Returns relations that occur between different items, nearest first."""
    return [relation for relation in RELATION_COLOURS if (config.hierarchy.relations == relation).any()]


def at_relation(curves: xr.DataArray, config: ToyConfig, relation: str) -> Array:
    """Returns the entries of ``[..., item, item_j]`` with a relation, ``[..., pair]``, both orders of each pair."""
    return np.asarray(curves.values[..., config.hierarchy.relations == relation])


def scatter_pairs(axes: Axes, x: xr.DataArray, y: xr.DataArray, config: ToyConfig) -> None:
    """Draws one dot for each pair of different items at each probe or window, coloured by relation.

    Args:
        axes: to draw on.
        x: ``[..., item, item_j]``.
        y: the same shape.
        config: of the experiment.
    """
    # Nearest relations last: they are the fewest.
    for relation in reversed(relations_of(config)):
        axes.plot(
            at_relation(x, config, relation).ravel(),
            at_relation(y, config, relation).ravel(),
            "o",
            markersize=2.6,
            alpha=0.45,
            markeredgewidth=0,
            color=RELATION_COLOURS[relation],
            label=relation,
        )
    axes.axhline(0, color="#999999", linewidth=0.6, zorder=0)
    axes.axvline(0, color="#999999", linewidth=0.6, zorder=0)
    axes.ticklabel_format(style="sci", scilimits=(-3, 4))


def values_of(results: Sequence[SeedResult], name: str) -> list[float]:
    """Returns a figure of ``validation.json`` for each seed, NaN where it is not defined."""
    return [result.figures.get(name, np.nan) for result in results]


def count_seeds(results: Sequence[SeedResult]) -> str:
    """Formats the number of seeds, as ``1 seed`` or ``3 seeds``."""
    return f"{len(results)} seed{'s' if len(results) != 1 else ''}"


def say_range(values: Sequence[float]) -> str:
    """Formats median and range over seeds, as ``0.98 (0.97 to 0.99)``; ``none`` if defined for no seed."""
    known = [value for value in values if np.isfinite(value)]
    if not known:
        return "none"
    middle, low, high = (f"{value:.2f}" for value in (np.median(known), min(known), max(known)))
    return middle if low == high else f"{middle} ({low} to {high})"


def dots_of_seeds(axes: Axes, place: float, values: Sequence[float], *, color: Any, width: float = 0.22) -> None:
    """Draws a dot for each seed around ``place`` on the x axis and a bar at their median; nothing if none is finite."""
    known = np.array([value for value in values if np.isfinite(value)])
    if len(known) == 0:
        return
    spread = np.linspace(-0.5, 0.5, len(known)) * width if len(known) > 1 else np.zeros(1)
    axes.plot(place + spread, known, "o", color=color, markersize=4, alpha=0.8, markeredgewidth=0)
    axes.hlines(float(np.median(known)), place - width, place + width, color=color, linewidth=1.8)


def share_axis(axes: Axes, columns: int) -> None:
    """Sets a y axis that shows 0 to 1 at least, with lines across, and room for the columns."""
    axes.set_xlim(-0.6, columns - 0.4)
    values = [value for line in axes.lines for value in np.asarray(line.get_ydata(), dtype=float)]
    low, high = min([0.0, *values]), max([1.0, *values])
    axes.set_ylim(low - (0.04 if low < 0 else 0.0), high + 0.03)
    axes.axhline(0, color="#999999", linewidth=0.6, zorder=0)
    axes.grid(axis="y", color="#DDDDDD", linewidth=0.6)
