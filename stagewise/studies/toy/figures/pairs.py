"""Pairs of items by their relation: colours, choice of entries, scatter plots."""

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from numpy.typing import NDArray

from stagewise.studies.toy.config import ToyConfig

Array = NDArray[np.float64]

RELATION_COLOURS = {"sibling": "#0072B2", "cousin": "#D55E00", "far": "#009E73"}


def relations_of(config: ToyConfig) -> list[str]:
    """Relations that occur between different items, nearest first."""
    return [relation for relation in RELATION_COLOURS if (config.hierarchy.relations == relation).any()]


def at_relation(curves: xr.DataArray, config: ToyConfig, relation: str) -> Array:
    """``[..., pair]``: the entries ``[..., item, item_j]`` whose items are so related, both orders of each pair."""
    return np.asarray(curves.values[..., config.hierarchy.relations == relation])


def scatter_pairs(axes: Axes, x: xr.DataArray, y: xr.DataArray, config: ToyConfig) -> None:
    """One dot for each pair of different items at each probe or window, coloured by relation.

    Args:
        axes: to draw on.
        x: ``[..., item, item_j]``.
        y: the same shape.
        config: of the experiment.
    """
    # Nearest relations last: they are the fewest.
    for relation in reversed(relations_of(config)):
        axes.plot(
            at_relation(x, config, relation).ravel(),
            at_relation(y, config, relation).ravel(),
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
