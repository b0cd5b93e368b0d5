"""Heat maps of the influence of classes on each other, at some steps of a run."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import xarray as xr
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from stagewise.errors import InputError, require
from stagewise.influence.chain_counts import interval_factor
from stagewise.reporting.style import NORMAL, SMALL, label, new_figure

_COLUMNS = 4
_MOST_MAPS = 8


def chosen_steps(run: xr.Dataset, steps: Sequence[int] | None = None) -> list[int]:
    """Returns the steps of the maps: those requested, or at most eight, evenly over the probes, with first and last.

    Raises:
        InputError: a step without a probe.
    """
    probed = [int(step) for step in run["step"].values]
    if steps is None:
        places = np.linspace(0, len(probed) - 1, min(_MOST_MAPS, len(probed))).round().astype(int)
        return [probed[place] for place in dict.fromkeys(places.tolist())]
    missing = [step for step in steps if step not in probed]
    if missing or not len(steps):
        raise InputError(
            f"got steps {list(steps)}; expected steps of probes, of which there are {len(probed)} from {probed[0]} to "
            f"{probed[-1]}; take some of run['step']"
        )
    return [int(step) for step in steps]


def class_maps(
    run: xr.Dataset,
    *,
    steps: Sequence[int] | None = None,
    part: str = "within",
    limit: float | None = None,
    confidence: float = 0.95,
) -> Figure:
    """Draws the influence of each class on each other one, a map for each step, all with one symmetric scale.

    Blue is negative = helpful, red is positive = harmful, white is zero, grey where two classes have no pair of losses
    in different samples. A dot marks significant influence by the interval over chains.

    Args:
        run: as :func:`~stagewise.runs.open.open_run` returns it.
        steps: of the maps; at most eight, evenly over the probes, if None.
        part: ``within``, ``drift``, ``between`` or ``total``.
        limit: value of the full colours, nats^2; the largest absolute value of all maps if None. Give one to compare
            figures with each other, or where one class hides the others.
        confidence: of Student's interval behind the dots.

    Raises:
        InputError: a step without a probe, no such part, no group influence, or a setting out of range.
    """
    if "group_bif" not in run or "step" not in run.dims:
        raise InputError("got a data set that is not a run with group_bif; expected what open_run returns")
    parts = [str(name) for name in run["part"].values]
    require(part in parts, "part", repr(part), f"one of {', '.join(parts)}", "'within' is the default")
    require(limit is None or limit > 0, "limit", limit, "nats^2 above 0", "leave it out for the largest value")
    at = chosen_steps(run, steps)
    chosen = run.sel(step=at, part=part)
    values = chosen["group_bif"].transpose("step", "group", "group_j").values
    half = (chosen["group_bif_se"] * interval_factor(chosen, confidence)).transpose("step", "group", "group_j").values
    # NaN where the error is unknown: not significant.
    sure = np.abs(values) > np.where(np.isnan(half), np.inf, half)
    bound = limit or float(np.nanmax(np.abs(values), initial=0.0)) or 1.0
    names = [str(name) for name in run["group"].values]

    columns = min(_COLUMNS, len(at))
    rows = -(-len(at) // columns)
    side = max(1.9, 0.34 * len(names))
    title = (
        f"Influence of classes on each other, {part} part: blue = negative = helpful, red = harmful\n"
        f"dot: differs from zero at {100 * confidence:g} %; colours end at ±{bound:.2g} nats²"
    )
    words = 0.085 * max(map(len, names))
    figure = new_figure(max(7.2, 1.4 + words + columns * (side + 0.2)), 0.9 + words + rows * (side + 0.45), title)
    panels = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
    image: Any = None
    for place, (axes, step) in enumerate(zip(panels.flat, at, strict=False)):
        image = _draw_map(axes, values[place], sure[place], bound)
        label(axes, title=f"step {step:,}")
        axes.set_yticks(range(len(names)), names, fontsize=SMALL)
        axes.set_xticks(range(len(names)), names, fontsize=SMALL, rotation=60, ha="right", rotation_mode="anchor")
        # The panel below may be missing.
        axes.tick_params(labelbottom=place + columns >= len(at), labelleft=place % columns == 0)
    for axes in panels.flat[len(at) :]:
        axes.set_visible(False)
    beyond = bool((np.abs(values) > bound).any())
    bar = figure.colorbar(image, ax=panels, shrink=0.9, extend="both" if beyond else "neither")
    bar.ax.ticklabel_format(axis="y", style="sci", scilimits=(-2, 3))
    bar.set_label("BIF (nats²), negative = helpful", fontsize=NORMAL)
    bar.ax.tick_params(labelsize=SMALL)
    bar.ax.yaxis.get_offset_text().set_fontsize(SMALL)
    return figure


def _draw_map(axes: Axes, values: NDArray[np.float64], sure: NDArray[np.bool_], bound: float) -> Any:
    colours = colormaps["RdBu_r"].with_extremes(bad="#BBBBBB")
    image = axes.imshow(np.ma.masked_invalid(values), cmap=colours, vmin=-bound, vmax=bound, interpolation="nearest")
    rows, columns = np.nonzero(sure)
    axes.scatter(columns, rows, s=9, color="#000000", linewidths=0.6, edgecolors="#FFFFFF", zorder=3)
    return image
