"""Times at which influence turns from helpful to harmful."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from stagewise.reporting.style import SMALL, label, new_figure, step_axis
from stagewise.studies.toy.config import ToyConfig
from stagewise.studies.toy.figures.style import METHOD_LOOKS, TRUE_TRANSITION, count_seeds, method_name, relations_of
from stagewise.studies.toy.stages import CHAINS, METHODS, PairFlips
from stagewise.studies.toy.validation import SeedResult


def _spread(count: int) -> np.ndarray:
    """Returns offsets within a column, so that pairs do not hide each other."""
    return np.linspace(-0.36, 0.36, count) if count > 1 else np.zeros(1)


def _draw_column(axes: Axes, place: int, pairs: Sequence[PairFlips], method: str) -> None:
    """Draws the flips of all pairs of all seeds, in the order of seeds and pairs, and how many there are."""
    found = [
        (place + offset, pair.from_helpful)
        for offset, pair in zip(_spread(len(pairs)), pairs, strict=True)
        if pair.from_helpful is not None
    ]
    color = METHOD_LOOKS[method]["color"]
    if method == CHAINS:
        for x, flip in found:
            axes.vlines(x, flip.earliest, flip.latest, color=color, linewidth=0.9, alpha=0.45)
    axes.plot(
        [x for x, _ in found],
        [flip.step for _, flip in found],
        "o",
        color=color,
        markersize=3.6,
        alpha=0.75,
        markeredgewidth=0,
    )
    axes.text(
        place,
        1.01,
        f"{len(found)}/{len(pairs)}",
        transform=axes.get_xaxis_transform(),
        ha="center",
        va="bottom",
        fontsize=SMALL,
    )


def _shown_steps(results: Sequence[SeedResult]) -> tuple[float, float]:
    """Returns limits from before the first flip or transition to after the last."""
    found = [flip.from_helpful for result in results for flip in result.flips if flip.from_helpful is not None]
    true = [step for result in results for step in result.exact.attrs["transitions"]]
    first = min([flip.earliest for flip in found] + true)
    last = max([flip.latest for flip in found] + true)
    return max(0.85 * first, 1.0), 1.15 * last


def flips(results: Sequence[SeedResult], config: ToyConfig) -> Figure:
    """Draws the first flip from helpful to harmful of each pair, by method and relation; all seeds.

    Args:
        results: one for each seed.
        config: of the experiment.
    """
    relations = relations_of(config)
    title = (
        f"First flip of influence from helpful to harmful, {count_seeds(results)}\n"
        "bars: probes between which a flip from chains lies; dashed: true transitions; above: pairs that flip / all"
    )
    figure = new_figure(10, 5.6, title)
    grid = figure.subplots(1, len(relations), sharey=True, squeeze=False)[0]
    for axes, relation in zip(grid, relations, strict=True):
        for place, method in enumerate(METHODS):
            pairs = [
                flip
                for result in results
                for flip in result.flips
                if (flip.method, flip.relation) == (method, relation)
            ]
            _draw_column(axes, place, pairs, method)
        for step in {step for result in results for step in result.exact.attrs["transitions"]}:
            axes.axhline(step, alpha=0.6, **TRUE_TRANSITION)
        axes.set_xticks(
            range(len(METHODS)), [method_name(method, config) for method in METHODS], rotation=30, ha="right"
        )
        axes.set_xlim(-0.6, len(METHODS) - 0.4)
        label(axes, title=f"{relation} pairs\n", y="training step" if axes is grid[0] else "")
    step_axis(grid[0], *_shown_steps(results), vertical=True)
    return figure
