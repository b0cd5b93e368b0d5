"""Window ablation: influence in a window against the effect of changing an item's weight there."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from stagewise.experiments.toy.agreement import READINGS, window_influence
from stagewise.experiments.toy.config import ToyConfig
from stagewise.experiments.toy.figures.style import (
    RELATION_COLOURS,
    SMALL,
    at_relation,
    dots_of_seeds,
    label,
    new_figure,
    relations_of,
    say_range,
    shades,
)
from stagewise.experiments.toy.validation import SeedResult

READING_WORDS = {
    "window_end": "read at the window's end",
    "run_end": "read at the run's end",
    "maximum": "largest over the run",
}


def _values(results: Sequence[SeedResult], reading: str, length: int, weight: float) -> list[float]:
    return [result.figures.get(f"{reading}_r_{length}_weight_{weight:g}", np.nan) for result in results]


def _draw_correlations(axes: Axes, results: Sequence[SeedResult], config: ToyConfig, weight: float) -> None:
    lengths = config.retraining.window_lengths
    width = 0.8 / len(lengths)
    for place, reading in enumerate(READINGS):
        for number, (length, color) in enumerate(zip(lengths, shades(len(lengths)), strict=True)):
            at = place + (number - (len(lengths) - 1) / 2) * width
            values = _values(results, reading, length, weight)
            dots_of_seeds(axes, at, values, color=color, width=0.4 * width)
            if place == 0:
                axes.plot([], [], "o", color=color, markersize=4, label=f"{length:,} steps")
    axes.set_xticks(range(len(READINGS)), ["window's\nend", "run's\nend", "largest"])
    axes.set_xlim(-0.55, len(READINGS) - 0.45)
    low, high = axes.get_ylim()
    axes.set_ylim(min(low, 0.0) - 0.04, max(high, 1.0) + 0.02)
    axes.axhline(0, color="#999999", linewidth=0.6, zorder=0)
    axes.grid(axis="y", color="#DDDDDD", linewidth=0.6)


def _scatter(axes: Axes, result: SeedResult, config: ToyConfig, weight: float, reading: str) -> None:
    length = config.retraining.window_lengths[0]
    bif = window_influence(result.chains, result.exact).sel(window_length=length)
    effect = result.exact[reading].sel(window_weight=weight, window_length=length)
    # Nearest relations last: they are the fewest.
    for relation in reversed(relations_of(result)):
        axes.plot(
            at_relation(bif, config, relation).ravel(),
            at_relation(effect, config, relation).ravel(),
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


def _draw_row(row: Sequence[Axes], results: Sequence[SeedResult], config: ToyConfig, weight: float) -> None:
    length = config.retraining.window_lengths[0]
    _draw_correlations(row[0], results, config, weight)
    label(row[0], title=f"weight {weight:g}: r with BIF,\n{len(results)} seeds", x="effect read at", y="Pearson r")
    for axes, reading in zip(row[1:], READINGS, strict=True):
        _scatter(axes, results[0], config, weight, reading)
        r = say_range(_values(results[:1], reading, length, weight))
        label(
            axes,
            title=f"weight {weight:g}, {READING_WORDS[reading]}\nr = {r}",
            x="BIF in the window (nats²)",
            y="effect (nats per unit of weight)" if axes is row[1] else "",
        )


def windows(results: Sequence[SeedResult], config: ToyConfig) -> Figure:
    """Correlations of BIF in a window with the window's effect, for all seeds, and the points behind them.

    Args:
        results: one for each seed.
        config: of the experiment.
    """
    weights = config.retraining.window_weights
    length = config.retraining.window_lengths[0]
    title = (
        f"An item's weight changed within a window; scatter plots: windows of {length:,} steps, "
        f"seed {results[0].seed}\npairs of different items; negative = helpful on both axes"
    )
    figure = new_figure(10.4, 0.9 + 3.0 * len(weights), title)
    grid = figure.subplots(len(weights), 1 + len(READINGS), squeeze=False)
    for row, weight in zip(grid, weights, strict=True):
        _draw_row(row, results, config, weight)
    handles, words = (found[::-1] for found in grid[0][1].get_legend_handles_labels())
    dots, lengths = grid[0][0].get_legend_handles_labels()
    figure.legend(
        [*dots, *handles],
        [*(f"windows of {it}" for it in lengths), *words],
        fontsize=SMALL,
        loc="outside lower center",
        ncols=len(lengths) + len(words),
        frameon=False,
    )
    return figure
