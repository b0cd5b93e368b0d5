"""Curves of group influence and gradient dot product over a run, both with negative = helpful."""

from collections.abc import Sequence

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from stagewise.errors import InputError
from stagewise.reporting.influence_curves import set_step_axis
from stagewise.reporting.style import NORMAL, SMALL, label, mark_sides, new_figure
from stagewise.reporting.token_axis import horizontal_label, mark_tokens
from stagewise.runs.curves import curve_pairs, influence_curve, refuse_unknown_groups

_COLUMNS = 3
_INFLUENCE, _GRADIENT = "#0072B2", "#E69F00"


def has_gradients(run: xr.Dataset) -> bool:
    """Returns True if a run measured both influence and gradient dot products."""
    return {"graddot", "group_bif"} <= set(run) and bool(np.isfinite(run["graddot"].values).any())


def gradient_curves(
    run: xr.Dataset, pairs: Sequence[tuple[str, str]] | None = None, *, confidence: float = 0.95
) -> Figure:
    """Draws influence within phases and *minus* the gradient dot product, a panel for each pair of groups.

    The gradient dot product is stored with positive = helpful (``graddot``). Its sign is reversed here for comparison:
    negative = helpful in both. Influence has the left axis (nats^2), the gradient dot product the right one (nats^2 per
    squared weight); their zeros are level. Where the two differ in shape or sign, influence says more than gradients
    do.

    Args:
        run: as :func:`stagewise.runs.open.open_run` returns it.
        pairs: of groups; those of :func:`~stagewise.runs.curves.curve_pairs` if None.
        confidence: of the band of influence, 0 to 1.

    Raises:
        InputError: no gradient dot product, no such group, no pair, or a confidence out of range.
    """
    if not has_gradients(run) or "step" not in run.dims:
        raise InputError(
            "got a data set that is not a run with graddot and group_bif; expected what open_run returns; leave "
            "probe.gradient_dot on and train again"
        )
    chosen = curve_pairs(run) if pairs is None else list(pairs)
    if not chosen:
        raise InputError("got no pair of groups; expected one or more; leave pairs out for those of the run")
    refuse_unknown_groups(run, (name for pair in chosen for name in pair))
    columns = min(_COLUMNS, len(chosen))
    rows = -(-len(chosen) // columns)
    title = (
        "Influence within phases (blue, left axes) and minus the gradient dot product (orange, right axes):\n"
        f"negative = helpful in both; band: {100 * confidence:g} % interval over chains"
    )
    figure = new_figure(max(8.4, 3.9 * columns), 0.9 + 2.3 * rows, title)
    panels = figure.subplots(rows, columns, sharex=True, squeeze=False)
    steps = run["step"].values
    for place, (axes, (name, other)) in enumerate(zip(panels.flat, chosen, strict=False)):
        _draw_influence(axes, influence_curve(run, name, other, confidence=confidence))
        last = place % columns == columns - 1 or place == len(chosen) - 1
        _draw_gradient(axes, steps, -run["graddot"].sel(group=name, group_j=other).values, named=last)
        label(
            axes, title=name if name == other else f"{name} ~ {other}", y="BIF (nats²)" if place % columns == 0 else ""
        )
        bottom = place + columns >= len(chosen)
        axes.tick_params(labelbottom=bottom)
        axes.set_xlabel(horizontal_label(run) if bottom else "", fontsize=NORMAL)
    set_step_axis(panels.flat[0], steps)
    mark_tokens(panels.flat[0], run)
    for axes in panels.flat[len(chosen) :]:
        axes.set_visible(False)
    return figure


def _draw_influence(axes: Axes, curve: xr.Dataset) -> None:
    steps, values, settled = (curve[name].values for name in ("step", "value", "equilibrated"))
    axes.plot(steps, values, color=_INFLUENCE, linewidth=0.9, linestyle=(0, (3, 2)), zorder=2.5)
    axes.plot(steps, np.where(settled, values, np.nan), "o-", color=_INFLUENCE, linewidth=1.4, markersize=2.6, zorder=3)
    axes.fill_between(
        steps, curve["low"].values, curve["high"].values, color=_INFLUENCE, alpha=0.2, linewidth=0, zorder=2
    )
    _centre(axes)
    axes.ticklabel_format(axis="y", style="sci", scilimits=(-2, 3))
    mark_sides(axes)


def _draw_gradient(axes: Axes, steps: np.ndarray, values: np.ndarray, *, named: bool) -> None:
    other = axes.twinx()
    other.plot(steps, values, color=_GRADIENT, linewidth=1.2, marker="o", markersize=2.2)
    _centre(other)
    other.ticklabel_format(axis="y", style="sci", scilimits=(-2, 3))
    other.tick_params(labelsize=SMALL, colors="#8A6100")
    other.yaxis.get_offset_text().set_fontsize(SMALL)
    other.spines[["top", "left"]].set_visible(False)
    if named:
        other.set_ylabel("- gradient dot product\n(nats² / weight²)", fontsize=SMALL, color="#8A6100")


def _centre(axes: Axes) -> None:
    """Puts zero in the middle, so that it is level on both sides."""
    most = max(map(abs, axes.get_ylim()))
    axes.set_ylim(-most, most)
