"""Several runs in one figure: overlaid seeds, one colour per arm."""

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from stagewise.reporting.influence_curves import set_step_axis
from stagewise.reporting.overview import COLOURS
from stagewise.reporting.short_names import short_name
from stagewise.reporting.style import NORMAL, SMALL, label, mark_sides
from stagewise.reporting.token_axis import horizontal_label, mark_tokens
from stagewise.runs.curves import influence_curve
from stagewise.runs.llc_table import has_llc, llc_settled
from stagewise.runs.strongest import strongest_pairs

_MOST_PAIRS, _MOST_GROUPS = 4, 4


class RunsOfArm(Protocol):
    """Runs shown in one colour."""

    @property
    def title(self) -> str:
        """Label in the legend."""

    @property
    def runs(self) -> Sequence[xr.Dataset]:
        """Data sets, with plain names of groups."""


def common_pairs(arms: Sequence[RunsOfArm], count: int = _MOST_PAIRS) -> list[tuple[str, str]]:
    """Returns the strongest pairs of groups that all runs have, by their best rank in any run.

    Args:
        arms: of the comparison.
        count: maximal number of pairs.
    """
    runs = [run for arm in arms for run in arm.runs]
    if any(not {"group_bif", "group_bif_se"} <= set(run) for run in runs):
        return []
    ranked = [strongest_pairs(run, run.sizes["group"] ** 2) for run in runs]
    ranked = [[(min(pair), max(pair)) for pair in order] for order in ranked]
    shared = set.intersection(*map(set, ranked))
    names = list(map(str, runs[0]["group"].values))
    order = sorted(shared, key=lambda pair: (min(ranking.index(pair) for ranking in ranked), pair))[:count]
    return [(one, two) if names.index(one) <= names.index(two) else (two, one) for one, two in order]


def runs_overview(arms: Sequence[RunsOfArm], *, width: float = 10.0) -> Figure:
    """Draws losses, influence of the strongest common pairs, learning coefficients and signals of several runs.

    Each run is a thin line, dashed where its chains are out of equilibrium. A thick line is the mean over the runs of
    an arm, at the steps where all of them have a probe. Panels for which a run lacks data are left out.

    Args:
        arms: runs by colour, one run or more each.
        width: of the figure, inches; below 7 panels are stacked.
    """
    runs = [run for arm in arms for run in arm.runs]
    panels: list[tuple[str, str, Callable[[xr.Dataset], tuple[Any, Any]]]] = []
    pairs = common_pairs(arms)
    for group in _common_groups(runs):
        panels.append((f"Loss of {short_name(group, 34)}", "nats", lambda run, group=group: _loss(run, group)))  # type: ignore[misc]
    for one, two in pairs:
        name = short_name(one, 30) if one == two else f"{short_name(one, 17)} ~ {short_name(two, 17)}"
        panels.append((f"Influence of {name}", "BIF (nats²)", lambda run, one=one, two=two: _influence(run, one, two)))  # type: ignore[misc]
    if all(has_llc(run) for run in runs):
        panels.append(("Local learning coefficient, all losses", "LLC", _llc))
    if all("signal" in run for run in runs):
        panels.append(("Signal", "nats", _signal))
    columns = 2 if width >= 7 and len(panels) > 1 else 1
    rows = max(1, -(-len(panels) // columns))
    figure = Figure(figsize=(width, 0.7 + 2.1 * rows), layout="constrained")
    places = figure.subplots(rows, columns, sharex=True, squeeze=False)
    for axes, (title, unit, read) in zip(places.flat, panels, strict=False):
        for colour, arm in zip(_colours(len(arms)), arms, strict=True):
            _draw(axes, [(run["step"].values, *read(run)) for run in arm.runs], colour)
        label(axes, y=unit)
        axes.set_title(title, fontsize=NORMAL, loc="left", fontweight="bold", color="#333333")
        if unit.startswith("BIF"):
            axes.ticklabel_format(axis="y", style="sci", scilimits=(-2, 3))
            axes.yaxis.get_offset_text().set_horizontalalignment("right")
            mark_sides(axes)
    for axes in places.flat[len(panels) :]:
        axes.set_visible(False)
    for place in range(len(panels)):
        bottom = place + columns >= len(panels)
        places.flat[place].tick_params(labelbottom=bottom)
        places.flat[place].set_xlabel(horizontal_label(*runs) if bottom else "", fontsize=NORMAL)
    set_step_axis(places.flat[0], np.unique(np.concatenate([run["step"].values for run in runs])))
    mark_tokens(places.flat[0], *runs)
    if len(arms) > 1:
        lines = [axes_line(colour) for colour in _colours(len(arms))]
        titles = [f"{short_name(arm.title, 48)} ({len(arm.runs)})" for arm in arms]
        figure.legend(
            lines, titles, loc="outside upper left", fontsize=SMALL, frameon=False, ncols=1 if width < 7 else 2
        )
    return figure


def axes_line(colour: str) -> Any:
    """Returns a line for a legend."""
    return Line2D([], [], color=colour, linewidth=2)


def _colours(count: int) -> list[str]:
    return [COLOURS[place % len(COLOURS)] for place in range(count)]


def _common_groups(runs: Sequence[xr.Dataset]) -> list[str]:
    if any("group_loss" not in run for run in runs):
        return []
    shared = set.intersection(*(set(map(str, run["group"].values)) for run in runs))
    return [name for name in map(str, runs[0]["group"].values) if name in shared][:_MOST_GROUPS]


def _loss(run: xr.Dataset, group: str) -> tuple[Any, Any]:
    values = run["group_loss"].sel(group=group).values
    return values, np.ones(values.shape, dtype=bool)


def _influence(run: xr.Dataset, one: str, two: str) -> tuple[Any, Any]:
    curve = influence_curve(run, one, two)
    return curve["value"].values, curve["equilibrated"].values


def _llc(run: xr.Dataset) -> tuple[Any, Any]:
    return run["llc"].values, llc_settled(run)


def _signal(run: xr.Dataset) -> tuple[Any, Any]:
    values = run["signal"].values
    return values, np.ones(values.shape, dtype=bool)


def _draw(axes: Axes, curves: Sequence[tuple[Any, Any, Any]], colour: str) -> None:
    alone = len(curves) == 1
    for steps, values, settled in curves:
        width = 1.5 if alone else 0.7
        if not settled.all():
            axes.plot(steps, values, color=colour, linewidth=0.7, linestyle=(0, (3, 2)), alpha=0.7)
        axes.plot(
            steps, np.where(settled, values, np.nan), color=colour, linewidth=width, alpha=1 if alone else 0.55,
            marker="o", markersize=2.2 if alone else 1.2,
        )  # fmt: skip
    if alone:
        return
    shared = sorted(set.intersection(*(set(steps.tolist()) for steps, _, _ in curves)))
    if len(shared) > 1:
        rows = [values[np.searchsorted(steps, shared)] for steps, values, _ in curves]
        axes.plot(shared, np.mean(rows, axis=0), color=colour, linewidth=2.2, zorder=3)
