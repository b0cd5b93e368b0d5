"""All figures of the intervention experiment, as PNG."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from stagewise.reporting.style import label, new_figure
from stagewise.studies.intervention.cell import Cell
from stagewise.studies.intervention.results import Summary, by_arm, early_score, thresholds
from stagewise.studies.intervention.table import say_share

_MARKS = {"onset": "#009E73", "t25": "#E69F00", "t50": "#CC79A7"}


def _mark_words(found: Summary) -> dict[str, str]:
    score, _ = thresholds(found)
    by = found["settings"]["weights"]["onset"].get("by", "influence")
    scores = {"t25": early_score(score), "t50": score}
    return {"onset": f"{by} onset", **{name: f"score {say_share(value)}" for name, value in scores.items()}}


def sweep_figure(found: Summary) -> Figure | None:
    """Draws steps saved against window start, one panel per mechanism; returns None without a sweep."""
    sweeps = {how: sweep for how, sweep in found["sweep"].items() if len(sweep) >= 2}
    if not sweeps:
        return None
    figure = new_figure(8.2, 0.8 + 3.4 * len(sweeps), "When a window helps")
    for axes, (how, sweep) in zip(figure.subplots(len(sweeps), squeeze=False)[:, 0], sweeps.items(), strict=True):
        starts = [entry["start"] for entry in sweep]
        for seed in map(str, found["seeds"]):
            points = [
                (s, entry["acceleration"]["per_seed"].get(seed, np.nan)) for s, entry in zip(starts, sweep, strict=True)
            ]
            axes.plot(*zip(*points, strict=True), color="#56B4E9", linewidth=0.7, alpha=0.8)
        ends = [[entry["acceleration"][end] for entry in sweep] for end in ("low", "high")]
        low, high = ([np.nan if value is None else value for value in row] for row in ends)
        axes.fill_between(starts, low, high, color="#0072B2", alpha=0.25, linewidth=0, label="95 % t interval")
        axes.plot(starts, [entry["acceleration"]["mean"] for entry in sweep], "o-", color="#0072B2", label="mean")
        for name, words in _mark_words(found).items():
            color = _MARKS[name]
            steps = [window[name] for window in found["windows"].values() if window[name] is not None]
            if steps:
                axes.axvspan(min(steps), max(steps), color=color, alpha=0.15, linewidth=0)
                axes.axvline(float(np.median(steps)), color=color, linestyle="--", label=f"{words}: median, range")
        axes.axhline(0, color="#333333", linewidth=0.8)
        label(axes, title=how, x="window start, training step", y="steps saved (thin: seeds)")
        axes.legend(fontsize=8, frameon=False, loc="center left", bbox_to_anchor=(1, 0.5))
    return figure


_COLORS = {"none": "#000000", "inside": "#D55E00", "earliest": "#0072B2", "after": "#009E73", "live": "#CC79A7"}
_COLORS |= {"far_before": "#0072B2", "random": "#999999"}
_RIVALS = {"far_before": "earliest", "random": "live"}
"""Arms drawn only in the absence of the other one: more than five curves cannot be distinguished."""


def curves_figure(found: Summary, cells: Sequence[Cell]) -> Figure | None:
    """Draws scores of a few arms, windows shaded, for the first four seeds; returns None if no cell has a curve."""
    grouped = by_arm(cells)
    seeds = [seed for seed in found["seeds"] if seed in grouped["none"] and grouped["none"][seed].curve][:4]
    if not seeds:
        return None
    rows = (len(seeds) + 1) // 2
    columns = min(2, len(seeds))
    figure = new_figure(9, 0.9 + 2.6 * rows, "The head over training; shaded: windows of the arm in that colour")
    panels = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False).ravel()
    for axes, seed in zip(panels, seeds, strict=False):
        for name, color in _COLORS.items():
            if _RIVALS.get(name) in grouped:
                continue
            cell = grouped.get(name, {}).get(seed)
            if cell is None or cell.curve is None:
                continue
            for start, end in cell.windows:
                axes.axvspan(start, end, color=color, alpha=0.12, linewidth=0)
            axes.plot(cell.curve.steps, cell.curve.prefix_matching, color=color, linewidth=1.4, label=name)
        axes.tick_params(labelbottom=True)
        axes.axhline(thresholds(found)[0], color="#999999", linewidth=0.7, linestyle=":")
        label(axes, title=f"seed {seed}", x="training step", y="prefix score")
    for axes in panels[len(seeds) :]:
        axes.set_visible(False)
    panels[0].legend(fontsize=8, frameon=False)
    return figure


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
    """Draws steps saved by every arm; returns None without any."""
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
    """Draws the rise of the loss without the best head, and the background loss, arm minus none; None without any."""
    arms = {name: arm for name, arm in found["arms"].items() if arm["head_rise"] is not None}
    if not arms:
        return None
    background = found["settings"]["weights"].get("background", "background")
    figure = new_figure(9, 1.6 + 0.32 * len(arms), "At the end of the run, arm minus none")
    left, right = figure.subplots(1, 2, sharey=True)
    _rows(left, {name: arm["head_rise"] for name, arm in arms.items()})
    _rows(right, {name: arm["background_loss"] for name, arm in arms.items()})
    label(left, x="nats; positive = matters more", title="loss rise without the head")
    label(right, x="nats per token; positive = worse", title=f"loss of {background}")
    return figure


def write_figures(folder: Path, found: Summary, cells: Sequence[Cell]) -> list[str]:
    """Writes the figures for which there are cells; returns their names without ending.

    Args:
        folder: created if missing.
        found: see :func:`~stagewise.studies.intervention.results.summarize`.
        cells: finished cells.
    """
    folder.mkdir(parents=True, exist_ok=True)
    figures: dict[str, Figure | None] = {
        "acceleration": acceleration_figure(found),
        "sweep": sweep_figure(found),
        "curves": curves_figure(found, cells),
        "costs": costs_figure(found),
    }
    for name, figure in figures.items():
        if figure is not None:
            figure.savefig(folder / f"{name}.png", dpi=110)
    return [name for name, figure in figures.items() if figure is not None]
