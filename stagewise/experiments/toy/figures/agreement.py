"""Influence from chains against influence by other means."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

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
)
from stagewise.experiments.toy.stages import METHODS
from stagewise.experiments.toy.validation import SeedResult

PANELS = {
    "local Gaussian": "sgld_gaussian_r",
    "horizon": "horizon_loo_r",
    "unrolled": "unrolled_r",
    "full leave-one-out": "full_loo_r",
}
"""Methods that chains are compared with, and the name of the correlation in ``validation.json``."""


def _values(results: Sequence[SeedResult], name: str) -> list[float]:
    return [result.figures.get(name, np.nan) for result in results]


def _scatter(axes: Axes, result: SeedResult, config: ToyConfig, method: str) -> None:
    bif, other = result.chains["bif"], result.exact[METHODS[method]]
    if method == "local Gaussian":
        bif = bif[:: config.retraining.gaussian_every]
    if method == "horizon":
        other = other.sel(horizon=config.retraining.horizon)
    # Nearest relations last: they are the fewest.
    for relation in reversed(relations_of(result)):
        axes.plot(
            at_relation(other, config, relation).ravel(),
            at_relation(bif, config, relation).ravel(),
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


def _draw_horizons(axes: Axes, results: Sequence[SeedResult], config: ToyConfig) -> None:
    horizons = config.retraining.horizons
    values = [_values(results, f"horizon_{horizon}_r") for horizon in horizons]
    for place, column in enumerate(values):
        dots_of_seeds(axes, place, column, color="#CC3D8F")
    # Places, not lengths: a log axis would crowd the bars of near lengths.
    axes.set_xticks(range(len(horizons)), [f"{horizon:,}" for horizon in horizons])
    axes.set_xlim(-0.6, len(horizons) - 0.4)
    low, high = axes.get_ylim()
    axes.set_ylim(min(low, 0.0), max(high, 1.0))
    axes.grid(axis="y", color="#DDDDDD", linewidth=0.6)
    label(axes, title=f"r with a drop for a horizon, {len(results)} seeds", x="horizon (steps)", y="Pearson r")


def agreement(results: Sequence[SeedResult], config: ToyConfig) -> Figure:
    """Influence from chains against four other methods, for the first seed, and against horizons, for all.

    Args:
        results: one for each seed.
        config: of the experiment.
    """
    result = results[0]
    title = (
        f"Influence from chains against other methods, seed {result.seed}\n"
        "all probes and pairs of different items; negative = helpful on both axes"
    )
    figure = new_figure(10, 6.6, title)
    grid = figure.subplots(2, 3).ravel()
    horizon = config.retraining.horizon
    names = {"horizon": f"item dropped for {horizon} steps", "unrolled": "unrolled to the end of the run"}
    for axes, (method, figure_name) in zip(grid, PANELS.items(), strict=False):
        _scatter(axes, result, config, method)
        unit = "nats²" if method == "local Gaussian" else "nats per unit of weight"
        label(
            axes,
            title=f"{names.get(method, method)}\nr = {say_range(_values(results[:1], figure_name))}",
            x=f"influence ({unit})",
            y="BIF from chains (nats²)",
        )
    _draw_horizons(grid[4], results, config)
    _draw_summary(grid[5], results, config)
    handles, words = grid[0].get_legend_handles_labels()
    grid[0].legend(
        handles[::-1], words[::-1], fontsize=SMALL, loc="upper left", markerscale=2.2, frameon=False, handletextpad=0.1
    )
    return figure


def _draw_summary(axes: Axes, results: Sequence[SeedResult], config: ToyConfig) -> None:
    """The correlations of the scatter plots, and that with the gradient dot product, for every seed."""
    names = [*PANELS.items(), ("minus gradient\ndot product", "graddot_r")]
    for place, (_, name) in enumerate(names):
        dots_of_seeds(axes, place, _values(results, name), color="#333333")
    words = {"horizon": f"drop for {config.retraining.horizon} steps"}
    axes.set_xticks(range(len(names)), [words.get(it, it) for it, _ in names], rotation=30, ha="right")
    axes.set_xlim(-0.6, len(names) - 0.4)
    low, high = axes.get_ylim()
    axes.set_ylim(min(low, 0.0), max(high, 1.0))
    axes.grid(axis="y", color="#DDDDDD", linewidth=0.6)
    label(axes, title=f"r with each method, {len(results)} seeds", y="Pearson r")
