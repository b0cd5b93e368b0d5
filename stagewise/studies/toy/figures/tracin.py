"""TracIn summed over training, and the share that cancels."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from stagewise.reporting.style import SMALL, label, new_figure
from stagewise.studies.toy.agreement import cancellation
from stagewise.studies.toy.config import ToyConfig
from stagewise.studies.toy.figures.style import (
    RELATION_COLOURS,
    at_relation,
    count_seeds,
    dots_of_seeds,
    mark_transitions,
    probed_axis,
    relations_of,
    share_axis,
)
from stagewise.studies.toy.validation import SeedResult


def _draw_sums(axes: Axes, result: SeedResult, config: ToyConfig) -> None:
    steps = result.chains["step"].values
    for relation in relations_of(config):
        pairs, color = at_relation(result.chains["tracin"], config, relation), RELATION_COLOURS[relation]
        axes.fill_between(steps, pairs.min(axis=1), pairs.max(axis=1), color=color, alpha=0.18, linewidth=0)
        axes.plot(steps, np.median(pairs, axis=1), color=color, linewidth=1.8, label=relation)
    axes.axhline(0, color="#333333", linewidth=0.8)
    mark_transitions(axes, result)
    axes.legend(fontsize=SMALL, loc="best", framealpha=0.7, edgecolor="none")


def tracin(results: Sequence[SeedResult], config: ToyConfig) -> Figure:
    """Draws TracIn of each relation over training, for the first seed, and |net| / gross at its end, for all.

    Args:
        results: one for each seed.
        config: of the experiment.
    """
    relations = relations_of(config)
    title = (
        f"TracIn, summed over training so far, seed {results[0].seed}; median and range over pairs\n"
        "as if each step were on one item alone; sign opposite to that of the other figures: positive = helpful"
    )
    figure = new_figure(10, 4.6, title)
    left, right = figure.subplots(1, 2, width_ratios=[2.4, 1])
    _draw_sums(left, results[0], config)
    label(left, y="cumulative TracIn (nats), positive = helpful")
    probed_axis(left, config)
    shares = [cancellation(result.chains).values for result in results]
    for place, relation in enumerate(relations):
        values = [float(np.median(share[config.hierarchy.relations == relation])) for share in shares]
        dots_of_seeds(right, place, values, color=RELATION_COLOURS[relation])
    right.set_xticks(range(len(relations)), relations)
    share_axis(right, len(relations))
    label(right, title=f"median pair, {count_seeds(results)}", y="|net| / gross at the end; 1: no cancellation")
    return figure
