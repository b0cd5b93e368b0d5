"""One row an arm: a dot for each seed, the mean and its interval."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from stagewise.reporting.style import label, new_figure
from stagewise.studies.intervention.results import Summary


def _rows(axes: Axes, values: Mapping[str, Mapping[str, Any] | None]) -> None:
    for place, found in enumerate(values.values()):
        if found is None:
            continue
        dots = list(found["per_seed"].values())
        spread = np.linspace(-0.22, 0.22, len(dots)) if len(dots) > 1 else np.zeros(1)
        axes.plot(dots, place + spread, "o", color="#56B4E9", markersize=4, markeredgewidth=0)
        if found["low"] is not None:
            axes.hlines(place, found["low"], found["high"], color="#000000", linewidth=2)
        axes.plot([found["mean"]], [place], "D", color="#D55E00", markersize=6)
    axes.axvline(0, color="#333333", linewidth=0.8, zorder=0)
    axes.set_yticks(range(len(values)), list(values))
    axes.set_ylim(len(values) - 0.5, -0.5)
    axes.grid(axis="x", color="#DDDDDD", linewidth=0.6)


def acceleration_figure(found: Summary) -> Figure | None:
    """Steps saved by every arm; None without any."""
    values = {
        name + (" (at most)" if arm["censored"] else ""): arm["acceleration"]
        for name, arm in found["arms"].items()
        if arm["acceleration"] is not None
    }
    if not values:
        return None
    figure = new_figure(8.2, 1.6 + 0.32 * len(values), "How much earlier the head forms")
    axes = figure.subplots()
    _rows(axes, values)
    label(axes, x="training steps saved against none; dots: seeds, diamond: mean, bar: 95 % t interval")
    return figure


def costs_figure(found: Summary) -> Figure | None:
    """What the loss rises by without the best head, and the background loss, arm minus none; None without any."""
    arms = {name: arm for name, arm in found["arms"].items() if arm["head_rise"] is not None}
    if not arms:
        return None
    figure = new_figure(9, 1.6 + 0.32 * len(arms), "At the end of the run, arm minus none")
    left, right = figure.subplots(1, 2, sharey=True)
    _rows(left, {name: arm["head_rise"] for name, arm in arms.items()})
    _rows(right, {name: arm["background_loss"] for name, arm in arms.items()})
    label(left, x="nats; positive = bears more", title="loss rise without the head")
    label(right, x="nats per token; positive = worse", title="background loss")
    return figure
