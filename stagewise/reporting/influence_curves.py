"""Curves of group influence over a run, with intervals over chains and changes of sign."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator

from stagewise.checks.counted import counted
from stagewise.errors import InputError, require
from stagewise.influence.chain_counts import interval_factor
from stagewise.phases.flips import SignFlip, sure_limit
from stagewise.reporting.style import (
    NORMAL,
    SMALL,
    SettledCurve,
    fit_to_settled,
    label,
    mark_sides,
    new_figure,
    step_axis,
)
from stagewise.reporting.token_axis import horizontal_label, mark_tokens
from stagewise.runs.curves import curve_pairs, pairs_to_read, sure_flips
from stagewise.runs.equilibrium import settled_probes

_COLUMNS = 3
_LOG_RATIO = 50
"""Ratio of the last to the first nonzero step beyond which ever sparser probes get a logarithmic axis."""

_CURVE, _FLIP = "#0072B2", "#D55E00"
_OPEN: dict[str, Any] = {
    "color": _CURVE, "linewidth": 0.9, "linestyle": (0, (3, 2)), "marker": "o", "markersize": 3.6,
    "markerfacecolor": "white", "markeredgewidth": 0.8, "zorder": 2.8,
}  # fmt: skip
"""Style of a curve where its chains are out of equilibrium."""


def influence_curves(
    run: xr.Dataset,
    pairs: Sequence[tuple[str, str]] | None = None,
    *,
    part: str = "within",
    confidence: float = 0.95,
    min_z: float = 3.0,
) -> Figure:
    """Draws group influence over training, a panel for each pair of groups, negative = helpful.

    The band is Student's interval from the jackknife error over chains. Where the chains of a probe or of its reference
    have not reached equilibrium, the curve is dashed with open marks, without a band, and no sign change is based on
    it; the legend gives the reason. Such values beyond the range of the others are cut off, with a triangle at the
    edge. Where a curve surely changes its sign, see :func:`stagewise.phases.flips.find_flips`, a line marks the
    crossing, in a band from the last probe surely of the old sign to the first surely of the new one.

    Args:
        run: as :func:`~stagewise.runs.open.open_run` returns it.
        pairs: of groups; those of :func:`~stagewise.runs.curves.curve_pairs` if None.
        part: ``within``, ``drift``, ``between`` or ``total``.
        confidence: of the band, 0 to 1.
        min_z: standard errors beyond which a value is sure for a sign change, as if errors were known; for few chains
            the limit is raised to one that is exceeded as rarely.

    Raises:
        InputError: no such part or pair, no pair at all, no group influence, or a setting out of range.
    """
    if "group_bif" not in run or "step" not in run.dims:
        raise InputError("got a data set that is not a run with group_bif; expected what open_run returns")
    parts = [str(name) for name in run["part"].values]
    require(part in parts, "part", repr(part), f"one of {', '.join(parts)}", "'within' is the default")
    sure_limit(min_z)  # refuses before anything is drawn
    chosen = curve_pairs(run, part) if pairs is None else list(pairs)
    names = {str(name) for name in run["group"].values}
    unknown = [pair for pair in chosen if not set(pair) <= names]
    if unknown or not chosen:
        raise InputError(f"got pairs {unknown or chosen}; expected pairs of the groups {', '.join(sorted(names))}")
    steps = run["step"].values
    factor, settled = interval_factor(run, confidence).values, settled_probes(run)
    columns = min(_COLUMNS, len(chosen))
    rows = -(-len(chosen) // columns)
    title = (
        f"Group influence over training, {part} part: negative = helpful\n"
        f"band: {100 * confidence:g} % interval over chains; dashed: sure change of sign, between the probes shaded"
    )
    every = len(pairs_to_read(run, part)) if pairs is None else 0
    if every > len(chosen):
        title += f"\n{len(chosen)} of {every} curves: sure ones first, two groups before a group with itself"
    figure = new_figure(max(8.4, 3.5 * columns), 0.9 + 2.3 * rows, title)
    panels = figure.subplots(rows, columns, sharex=True, squeeze=False)
    for place, (axes, (name, other)) in enumerate(zip(panels.flat, chosen, strict=False)):
        curve = run[["group_bif", "group_bif_se"]].sel(part=part, group=name, group_j=other)
        values, errors = curve["group_bif"].values, curve["group_bif_se"].values
        _draw_curve(axes, steps, values, factor * errors, settled)
        pair = name if name == other else f"{name} ~ {other}"
        label(axes, title=pair, y="BIF (nats²)" if place % columns == 0 else "")
        axes.ticklabel_format(axis="y", style="sci", scilimits=(-2, 3))
        half = factor * errors
        fit_to_settled(axes, [SettledCurve(steps, values, (values - half, values + half), settled, _CURVE)])
        mark_sides(axes)
        for flip in sure_flips(run, name, other, part=part, min_z=min_z):
            _mark_flip(axes, flip)
        bottom = place + columns >= len(chosen)
        axes.tick_params(labelbottom=bottom)
        axes.set_xlabel(horizontal_label(run) if bottom else "", fontsize=NORMAL)
    set_step_axis(panels.flat[0], steps)
    mark_tokens(panels.flat[0], run)
    for axes in panels.flat[len(chosen) :]:
        axes.set_visible(False)
    why = open_marks_words(run)
    if why is not None:
        open_mark = Line2D([], [], **_OPEN)
        figure.legend([open_mark], [why], loc="outside lower center", fontsize=SMALL)
    return figure


def open_marks_words(run: xr.Dataset) -> str | None:
    """Explains dashed curves with open marks in plain words; None if all probes are in equilibrium.

    Args:
        run: as :func:`~stagewise.runs.open.open_run` returns it.
    """
    settled = settled_probes(run)
    if settled.all():
        return None
    own = run["equilibrated"].values != 0 if "equilibrated" in run else np.ones_like(settled)
    alone, by_reference = int((~own).sum()), int((own & ~settled).sum())
    why = [f"the chains of {alone} had not settled"] if alone else []
    why += [f"those of the reference probe of {by_reference} had not"] if by_reference else []
    out = f"{(~settled).sum()} of {counted(len(settled), 'probe')} out of equilibrium"
    return f"{out} ({'; '.join(why)}): no interval, no sign"


def _draw_curve(axes: Axes, steps: np.ndarray, values: np.ndarray, half: np.ndarray, settled: np.ndarray) -> None:
    """Draws one curve with its band; all arrays are ``[step]``."""
    known = np.where(settled, values, np.nan)
    if not settled.all():
        axes.plot(steps, values, **_OPEN)  # under the filled marks
    axes.plot(steps, known, color=_CURVE, linewidth=1.4, marker="o", markersize=2.6, zorder=3)
    half = np.where(settled, np.nan_to_num(half), np.nan)
    axes.fill_between(steps, values - half, values + half, color=_CURVE, alpha=0.2, linewidth=0, zorder=2)
    # Between two probes out of equilibrium a band has no width.
    alone = settled & ~np.concatenate([[False], settled[:-1]]) & ~np.concatenate([settled[1:], [False]])
    axes.vlines(steps[alone], (values - half)[alone], (values + half)[alone], color=_CURVE, alpha=0.3, linewidth=3)


def _mark_flip(axes: Axes, flip: SignFlip) -> None:
    axes.axvspan(flip.earliest, flip.latest, color=_FLIP, alpha=0.12, linewidth=0, zorder=0.6)
    axes.axvline(flip.step, color=_FLIP, linewidth=1.1, linestyle="--", zorder=2.5)
    axes.text(
        flip.step,
        0.97,
        f" {flip.step:,.0f}",
        transform=axes.get_xaxis_transform(),
        va="top",
        fontsize=SMALL,
        color=_FLIP,
    )


def set_step_axis(axes: Axes, steps: np.ndarray) -> None:
    """Sets a logarithmic axis if probes get sparser over decades, linear below the first nonzero step; else linear."""
    above = steps[steps > 0]
    sparser = len(above) >= 3 and above[-1] >= _LOG_RATIO * above[0] and np.diff(above)[-1] > 2 * np.diff(above)[0]
    if sparser and len(above) == len(steps):
        step_axis(axes, float(above[0]) / 1.05, float(above[-1]) * 1.05)
    elif sparser:
        # A logarithm has no place for step 0.
        axes.set_xscale("symlog", linthresh=float(above[0]), linscale=0.4)
        axes.set_xlim(0, float(above[-1]) * 1.05)
        axes.xaxis.set_major_locator(FixedLocator([0, *(10.0**power for power in range(int(np.log10(above[-1])) + 1))]))
        axes.xaxis.set_major_formatter(lambda step, _: f"{step:,.0f}")
    else:
        axes.xaxis.set_major_formatter(lambda step, _: f"{step:,.0f}")
