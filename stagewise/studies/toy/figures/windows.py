"""Window ablation: influence in a window compared with the effect of changing an item's weight there."""

from collections.abc import Sequence

import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from stagewise.reporting.style import SMALL, label, new_figure, shades
from stagewise.studies.toy.ablation import READINGS, window_influence
from stagewise.studies.toy.config import ToyConfig
from stagewise.studies.toy.figures.style import (
    RELATION_COLOURS,
    count_seeds,
    dots_of_seeds,
    relations_of,
    say_range,
    scatter_pairs,
    share_axis,
    values_of,
)
from stagewise.studies.toy.validation import SeedResult

READING_WORDS = {
    "window_end": "at the window's end",
    "run_end": "at the run's end",
    "maximum": "largest over the run",
}


def _name(reading: str, length: int, weight: float) -> str:
    return f"{reading}_r_{length}_weight_{weight:g}"


def _draw_correlations(axes: Axes, results: Sequence[SeedResult], config: ToyConfig, weight: float) -> None:
    lengths = config.retraining.window_lengths
    width = 0.8 / len(lengths)
    for place, reading in enumerate(READINGS):
        for number, (length, color) in enumerate(zip(lengths, shades(len(lengths)), strict=True)):
            at = place + (number - (len(lengths) - 1) / 2) * width
            values = values_of(results, _name(reading, length, weight))
            dots_of_seeds(axes, at, values, color=color, width=0.4 * width)
    axes.set_xticks(range(len(READINGS)), ["window's\nend", "run's\nend", "largest"])
    share_axis(axes, len(READINGS))
    title = f"weight {weight:g},\n{count_seeds(results)}"
    label(axes, title=title, x="effect read at", y="r of effect and BIF")


def _draw_row(
    row: Sequence[Axes], results: Sequence[SeedResult], config: ToyConfig, bif: xr.DataArray, weight: float
) -> None:
    _draw_correlations(row[0], results, config, weight)
    length = config.retraining.window_lengths[0]
    for axes, reading in zip(row[1:], READINGS, strict=True):
        effect = results[0].exact[reading].sel(window_weight=weight, window_length=length)
        scatter_pairs(axes, bif, effect, config)
        r = say_range(values_of(results[:1], _name(reading, length, weight)))
        label(
            axes,
            title=f"{READING_WORDS[reading]}\nr = {r}",
            x="BIF (nats²)",
            y=f"effect of weight {weight:g}\n(nats per unit of weight)" if axes is row[1] else "",
        )


def _handles(config: ToyConfig) -> list[Line2D]:
    lengths, relations = config.retraining.window_lengths, relations_of(config)
    colours = dict(zip((f"windows of {length:,} steps" for length in lengths), shades(len(lengths)), strict=True))
    colours |= {relation: RELATION_COLOURS[relation] for relation in relations}
    return [
        Line2D([], [], color=color, linestyle="none", marker="o", markersize=4, label=words)
        for words, color in colours.items()
    ]


def windows(results: Sequence[SeedResult], config: ToyConfig) -> Figure:
    """Draws correlations of BIF in a window with the window's effect, for all seeds, and the points behind them.

    Args:
        results: one for each seed.
        config: of the experiment.
    """
    weights, length = config.retraining.window_weights, config.retraining.window_lengths[0]
    title = (
        "An item's weight changed within a window, against mean BIF in it; pairs of different items\n"
        f"scatter plots: windows of {length:,} steps, seed {results[0].seed}; negative = helpful on both axes"
    )
    figure = new_figure(10, 0.9 + 3.0 * len(weights), title)
    grid = figure.subplots(len(weights), 1 + len(READINGS), squeeze=False)
    bif = window_influence(results[0].chains, results[0].exact).sel(window_length=length)
    for row, weight in zip(grid, weights, strict=True):
        _draw_row(row, results, config, bif, weight)
    figure.legend(handles=_handles(config), fontsize=SMALL, loc="outside lower center", ncols=6, frameon=False)
    return figure
