"""Influence of one item on another by every method: one pair of each relation."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from stagewise.reporting.style import SMALL, label, mark_sides, new_figure
from stagewise.studies.toy.config import ToyConfig
from stagewise.studies.toy.figures.style import (
    CLOSED_FORM,
    GRADIENT_DOT,
    METHOD_LOOKS,
    mark_transitions,
    method_name,
    probed_axis,
)
from stagewise.studies.toy.stages import CHAINS, METHODS, method_curves
from stagewise.studies.toy.validation import SeedResult

Array = NDArray[np.float64]


def first_pairs(config: ToyConfig) -> list[tuple[int, int, str]]:
    """Returns the first pair of each relation that occurs, in tree order, nearest first: item, whose loss, relation."""
    pairs = config.hierarchy.pairs()
    wanted = [[pair for pair in pairs if pair[2] == relation] for relation in ("sibling", "cousin", "far")]
    return [found[0] for found in wanted if found]


def pair_curves(result: SeedResult, config: ToyConfig, item: int, other: int) -> dict[str, tuple[Array, Array]]:
    """Returns steps and influence of one item on another by each method, each over its own largest absolute value."""
    found = {}
    for method in METHODS:
        steps, values, _, _ = method_curves(result.chains, result.exact, method, horizon=config.retraining.horizon)
        found[method] = (steps, values[:, item, other])
    at = result.chains["step"].values
    found[CLOSED_FORM] = (at, result.exact["closed_form"].values[:, item, other])
    found[GRADIENT_DOT] = (at, -result.chains["graddot"].values[:, item, other])
    return {name: (steps, values / _largest(values)) for name, (steps, values) in found.items()}


def _largest(values: Array) -> float:
    return float(np.nanmax(np.abs(values))) or 1.0


def _draw_pair(axes: Axes, result: SeedResult, config: ToyConfig, item: int, other: int) -> None:
    for name, (steps, values) in pair_curves(result, config, item, other).items():
        axes.plot(
            steps, values, label=method_name(name, config), zorder=3 if name == CHAINS else 2, **METHOD_LOOKS[name]
        )
    bif, error = (result.chains[name].values[:, item, other] for name in ("bif", "bif_se"))
    low, high = ((bif + side * error) / _largest(bif) for side in (-2, 2))
    axes.fill_between(
        result.chains["step"].values, low, high, color="black", alpha=0.15, linewidth=0, label="± 2 standard errors"
    )
    unsettled = np.isnan(error)
    if unsettled.any():
        steps = result.chains["step"].values[unsettled]
        axes.plot(
            steps,
            bif[unsettled] / _largest(bif),
            "o",
            color="black",
            markerfacecolor="white",
            markersize=4,
            zorder=4,
            label="out of equilibrium: no errors, no signs",
        )
    mark_transitions(axes, result)
    # Shows the whole band, unless errors dwarf the curve.
    bottom, top = np.nanmin(low, initial=-1.05), np.nanmax(high, initial=1.05)
    axes.set_ylim(max(-1.8, bottom - 0.05), min(1.8, top + 0.05))
    mark_sides(axes)


def _draw_flips(axes: Axes, result: SeedResult, pair: tuple[str, str]) -> None:
    """Draws one row for each method: its first flip from helpful to harmful, between the probes that bound it."""
    for row, method in enumerate(METHODS):
        found = next(flip for flip in result.flips if flip.method == method and (flip.item, flip.item_j) == pair)
        flip, color = found.from_helpful, METHOD_LOOKS[method]["color"]
        if flip is not None:
            axes.hlines(row, flip.earliest, flip.latest, color=color, linewidth=2.2, alpha=0.6)
            axes.plot([flip.step], [row], "o", color=color, markersize=4)
    mark_transitions(axes, result)
    axes.set_ylim(len(METHODS) - 0.4, -0.6)
    axes.set_yticks([])
    axes.set_ylabel("flips", fontsize=SMALL, rotation=0, ha="right", va="center")


def showcase(results: Sequence[SeedResult], config: ToyConfig) -> Figure:
    """Draws influence by every method over training, for the first sibling, cousin and far pair; the first seed.

    Args:
        results: one for each seed.
        config: of the experiment.
    """
    result, pairs, items = results[0], first_pairs(config), config.hierarchy.items
    title = (
        f"Influence over training by each method, seed {result.seed}\n"
        "strips: first flip from helpful to harmful, and the probes that bound it"
    )
    figure = new_figure(10, 1.0 + 2.9 * len(pairs), title)
    grid = figure.subplots(2 * len(pairs), 1, sharex=True, squeeze=False, height_ratios=[4.2, 1] * len(pairs))[:, 0]
    for (item, other, relation), main, strip in zip(pairs, grid[::2], grid[1::2], strict=True):
        label(
            main,
            title=f"{items[item]} → {items[other]} ({relation}): weight of {items[item]}, loss of {items[other]}",
            y="influence over its\nlargest absolute value",
        )
        _draw_pair(main, result, config, item, other)
        label(strip)
        _draw_flips(strip, result, (items[item], items[other]))
        probed_axis(strip, config, words=strip is grid[-1])
    figure.legend(
        *grid[0].get_legend_handles_labels(), fontsize=SMALL, loc="outside lower center", ncols=5, frameon=False
    )
    return figure
