"""Separation of the items' hidden representations, and peaks of harmful influence across each branch."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from stagewise.reporting.style import SMALL, label, new_figure, shades, step_axis
from stagewise.studies.toy.config import ToyConfig
from stagewise.studies.toy.figures.style import count_seeds, say_range
from stagewise.studies.toy.validation import SeedResult
from stagewise.toy.hierarchy import Hierarchy

BRANCH_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#8C6D31", "#6A3D9A")
_NEAR = (0.3, 0.14)
"""Distance of ends, in units of the longest path, below which items share a label; else labels would overlap."""
_MOST_NAMES = 12
"""Maximal number of items with labels: more would overlap, so that only the legend names their branches."""


def nearest_branch(hierarchy: Hierarchy) -> list[str]:
    """Returns, for each item, the lowest node above it whose children separate."""
    found = [""] * len(hierarchy.items)
    # In tree order: lower nodes come after those above them.
    for branch in hierarchy.branches():
        for items in branch.children:
            for item in items:
                found[item] = branch.name
    return found


def near_groups(places: NDArray[np.float64], reach: Sequence[float]) -> list[list[int]]:
    """Groups points ``[item, 2]`` within ``reach``, in both directions, of the group's first point."""
    groups: list[list[int]] = []
    for item, place in enumerate(places):
        near = (group for group in groups if (np.abs(places[group[0]] - place) <= reach).all())
        group = next(near, None)
        if group is None:
            groups.append([item])
        else:
            group.append(item)
    return groups


def _names(items: Sequence[str]) -> str:
    """Returns names, two per line."""
    return ",\n".join(", ".join(items[at : at + 2]) for at in range(0, len(items), 2))


def _draw_paths(axes: Axes, result: SeedResult, hierarchy: Hierarchy, second: int) -> None:
    paths = result.exact["representation"].values[..., [0, second]]
    branches = nearest_branch(hierarchy)
    names = list(dict.fromkeys(branches))
    palette = BRANCH_COLOURS if len(names) <= len(BRANCH_COLOURS) else shades(len(names))
    colours = dict(zip(names, palette, strict=False))
    for item, branch in enumerate(branches):
        color, first = colours[branch], branches.index(branch) == item
        axes.plot(*paths[:, item].T, color=color, linewidth=1.3, alpha=0.85, label=branch if first else None)
        axes.plot(*paths[-1, item], "o", color=color, markersize=5)
    axes.plot(*paths[0].T, "s", color="white", markeredgecolor="#333333", markersize=4, zorder=4, linestyle="none")
    reach = np.abs(paths).max() or 1.0
    axes.set_xlim(-1.5 * reach, 1.5 * reach)
    axes.set_ylim(-1.5 * reach, 1.5 * reach)
    groups = near_groups(paths[-1], [share * reach for share in _NEAR])
    for group in groups if len(hierarchy.items) <= _MOST_NAMES else []:
        x, y = paths[-1, group].mean(axis=0)
        axes.annotate(
            _names([hierarchy.items[item] for item in group]),
            (x, y),
            xytext=(0, 8 if y >= 0 else -8),
            textcoords="offset points",
            ha="center",
            va="bottom" if y >= 0 else "top",
            fontsize=SMALL,
        )
    label(axes, title=f"dimensions 1 and {second + 1}", x="dimension 1", y=f"dimension {second + 1}")
    axes.set_aspect("equal", adjustable="box")


def _draw_times(axes: Axes, results: Sequence[SeedResult], hierarchy: Hierarchy) -> None:
    """Draws the peak of harm against branching, one colour per number of items below a node."""
    sizes = {branch.name: sum(len(items) for items in branch.children) for branch in hierarchy.branches()}
    kinds = sorted(set(sizes.values()), reverse=True)
    nodes = [branch for result in results for branch in result.branches]
    times = [
        (branch.branch, branch.branching_step, branch.peak_step) for branch in nodes if branch.peak_step is not None
    ]
    times = [time for time in times if np.isfinite(time[1])]
    for kind, color in zip(kinds, shades(len(kinds)), strict=True):
        own = [(x, y) for branch, x, y in times if sizes[branch] == kind]
        axes.plot(
            [x for x, _ in own],
            [y for _, y in own],
            "o",
            color=color,
            markersize=5,
            alpha=0.75,
            markeredgewidth=0,
            label=f"{kind} items below",
        )
    steps = [step for _, *pair in times for step in pair] or [100.0, 1000.0]
    low, high = 0.85 * min(steps), 1.18 * max(steps)
    axes.plot([low, high], [low, high], color="#777777", linewidth=0.9, linestyle=(0, (4, 2)), label="y = x")
    ratio = say_range([peak / branching for _, branching, peak in times])
    title = f"peak of harm over branching,\n{len(times)} of {len(nodes)} nodes: {ratio}"
    label(axes, title=title, x="step of branching", y="step of most harmful influence across")
    step_axis(axes, low, high)
    step_axis(axes, low, high, vertical=True)
    axes.set_aspect("equal", adjustable="box")
    axes.legend(fontsize=SMALL, loc="best", framealpha=0.7, edgecolor="none", handletextpad=0.4)


def representations(results: Sequence[SeedResult], config: ToyConfig) -> Figure:
    """Draws paths of the items in three dimensions, for the first seed, and times of branching, for all.

    Args:
        results: one for each seed.
        config: of the experiment.
    """
    title = (
        f"Hidden representations, scaled to three dimensions, seed {results[0].seed}; squares: first probe, dots: end\n"
        f"right: each node of the tree, {count_seeds(results)}"
    )
    figure = new_figure(10, 4.4, title)
    left, middle, right = figure.subplots(1, 3)
    for axes, second in ((left, 1), (middle, 2)):
        _draw_paths(axes, results[0], config.hierarchy, second)
    _draw_times(right, results, config.hierarchy)
    handles, words = left.get_legend_handles_labels()
    figure.legend(handles, words, fontsize=SMALL, loc="outside lower left", ncols=8, frameon=False)
    return figure
