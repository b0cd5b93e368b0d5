"""Influence from chains against influence by other means."""

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from stagewise.reporting.style import SMALL, label, new_figure
from stagewise.studies.toy.config import ToyConfig
from stagewise.studies.toy.figures.style import (
    count_seeds,
    dots_of_seeds,
    method_name,
    say_range,
    scatter_pairs,
    share_axis,
    values_of,
)
from stagewise.studies.toy.stages import METHODS
from stagewise.studies.toy.validation import SeedResult

PANELS = {
    "local Gaussian": "sgld_gaussian_r",
    "horizon": "horizon_loo_r",
    "unrolled": "unrolled_r",
    "full leave-one-out": "full_loo_r",
}
"""Methods compared with chains, and the name of the correlation in ``validation.json``."""


def _scatter(axes: Axes, result: SeedResult, config: ToyConfig, method: str) -> None:
    bif, other = result.chains["bif"], result.exact[METHODS[method]]
    if method == "local Gaussian":
        bif = bif[:: config.retraining.gaussian_every]
    if method == "horizon":
        other = other.sel(horizon=config.retraining.horizon)
    scatter_pairs(axes, other, bif, config)
    label(
        axes,
        title=f"{method_name(method, config)}\nr = {say_range(values_of([result], PANELS[method]))}",
        x=f"influence ({'nats²' if method == 'local Gaussian' else 'nats per unit of weight'})",
        y="BIF from chains (nats²)",
    )


def _draw_horizons(axes: Axes, results: Sequence[SeedResult], config: ToyConfig) -> None:
    horizons = config.retraining.horizons
    for place, horizon in enumerate(horizons):
        dots_of_seeds(axes, place, values_of(results, f"horizon_{horizon}_r"), color="#CC3D8F")
    # Equal spacing: a log axis would crowd the bars of similar horizons.
    axes.set_xticks(range(len(horizons)), [f"{horizon:,}" for horizon in horizons])
    share_axis(axes, len(horizons))
    label(axes, title=f"r with a drop for a horizon, {count_seeds(results)}", x="horizon (steps)", y="Pearson r")


def _draw_summary(axes: Axes, results: Sequence[SeedResult], config: ToyConfig) -> None:
    """Draws the correlations of the scatter plots, and that with the gradient dot product, for every seed."""
    names = {method_name(method, config): name for method, name in PANELS.items()}
    names["minus gradient\ndot product"] = "graddot_r"
    for place, name in enumerate(names.values()):
        dots_of_seeds(axes, place, values_of(results, name), color="#333333")
    axes.set_xticks(range(len(names)), list(names), rotation=30, ha="right")
    share_axis(axes, len(names))
    label(axes, title=f"r with each method, {count_seeds(results)}", y="Pearson r")


def agreement(results: Sequence[SeedResult], config: ToyConfig) -> Figure:
    """Draws influence from chains against four other methods, for the first seed, and the correlations, for all.

    Args:
        results: one for each seed.
        config: of the experiment.
    """
    title = (
        f"Influence from chains against other methods, seed {results[0].seed}\n"
        "all probes and pairs of different items; negative = helpful on both axes"
    )
    figure = new_figure(10, 6.6, title)
    grid = figure.subplots(2, 3).ravel()
    for axes, method in zip(grid, PANELS, strict=False):
        _scatter(axes, results[0], config, method)
    _draw_horizons(grid[4], results, config)
    _draw_summary(grid[5], results, config)
    handles, words = grid[0].get_legend_handles_labels()
    grid[0].legend(
        handles[::-1], words[::-1], fontsize=SMALL, loc="upper left", markerscale=2.2, frameon=False, handletextpad=0.1
    )
    return figure
