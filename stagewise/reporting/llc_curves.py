"""Curves of the local learning coefficient over a run, with intervals over chains, and their description."""

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from stagewise.checks.counted import counted
from stagewise.influence.llc import LOCALIZED_LIMIT, SHARE_BOUNDS, readable_share
from stagewise.phases.stage_boundaries import boundaries_above_zero, stage_boundaries
from stagewise.reporting.influence_curves import set_step_axis
from stagewise.reporting.stage_boundaries import boundary_markdown, not_shown_lines
from stagewise.reporting.style import NORMAL, label, new_figure
from stagewise.reporting.token_axis import horizontal_label, mark_tokens
from stagewise.runs.llc_table import llc_table

_COLUMNS = 3
_MOST_GROUPS = 11
_CURVE, _LOCALIZED = "#0072B2", "#D55E00"


def llc_curves(run: xr.Dataset, *, confidence: float = 0.95) -> Figure:
    """Draws learning coefficients over training: of all losses, then of each group, a panel each.

    The band is Student's interval from the error over chains; there is none where the chains have not reached
    equilibrium. Points are open where the localized share is above 0.5: the height there is mostly due to the
    localization. The first eleven groups are shown.

    Args:
        run: as :func:`~stagewise.runs.open.open_run` returns it.
        confidence: of the band, 0 to 1.

    Raises:
        InputError: the run has no learning coefficient, or a confidence out of range.
    """
    table = llc_table(run, confidence=confidence).isel(group=slice(0, 1 + _MOST_GROUPS))
    steps = table["step"].values
    names = [str(name) for name in table["group"].values]
    columns = min(_COLUMNS, len(names))
    rows = -(-len(names) // columns)
    title = (
        "Local learning coefficient over training\n"
        f"band: {100 * confidence:g} % interval over chains; open points: mostly due to the localization"
    )
    figure = new_figure(max(8.4, 3.5 * columns), 0.9 + 2.3 * rows, title)
    panels = figure.subplots(rows, columns, sharex=True, squeeze=False)
    for place, (axes, name) in enumerate(zip(panels.flat, names, strict=False)):
        _draw(axes, table.isel(group=place))
        label(axes, title=name, y="LLC" if place % columns == 0 else "")
        bottom = place + columns >= len(names)
        axes.tick_params(labelbottom=bottom)
        axes.set_xlabel(horizontal_label(run) if bottom else "", fontsize=NORMAL)
    set_step_axis(panels.flat[0], steps)
    mark_tokens(panels.flat[0], run)
    for axes in panels.flat[len(names) :]:
        axes.set_visible(False)
    return figure


def _draw(axes: Axes, curve: xr.Dataset) -> None:
    steps, values = curve["step"].values, curve["value"].values
    localized = curve["localized_share"].values > LOCALIZED_LIMIT
    axes.plot(steps, values, color=_CURVE, linewidth=1.4, zorder=3)
    axes.plot(steps[~localized], values[~localized], "o", color=_CURVE, markersize=3, zorder=4)
    axes.plot(
        steps[localized], values[localized], "o", color=_LOCALIZED, markerfacecolor="white", markersize=3.4, zorder=4
    )
    axes.fill_between(steps, curve["low"].values, curve["high"].values, color=_CURVE, alpha=0.2, linewidth=0, zorder=2)
    axes.axhline(0, color="#333333", linewidth=0.8, zorder=1)


def llc_words(run: xr.Dataset, *, chance: float = 0.05) -> str:
    """Describes the learning coefficients of a run and their limitations, as Markdown.

    Args:
        run: as :func:`~stagewise.runs.open.open_run` returns it.
        chance: probability with which noise alone makes a stage boundary in a curve.
    """
    values, errors, shares = (run[name].values for name in ("llc", "llc_se", "llc_localized_share"))
    steps, known = run["step"].values, np.isfinite(values)
    first, last = (np.flatnonzero(known)[place] for place in (0, -1))
    about = run["llc"].attrs
    settings = ", ".join(f"{name} {about[name]:g}" for name in ("nbeta", "localization", "lr") if name in about)
    lines = [
        "lambda_hat = nbeta (E[L] - L(w*)), a pure number, L the mean loss of all or of a group. "
        f"Chains: {about.get('chains', 'those of influence')} ({settings}).",
        f"All losses: {values[first]:.3g} ± {errors[first]:.2g} at step {steps[first]:,}, {values[last]:.3g} ± "
        f"{errors[last]:.2g} at step {steps[last]:,} (standard errors over chains).",
        _localized_line(shares, known),
    ]
    below = int((values[known] <= 0).sum())
    if below:
        lines.append(
            f"At {below} of {counted(known.sum(), 'probe')} it is not above 0: the loss slopes at the weights and "
            "chains go on training; read changes, not heights, there."
        )
    if len(steps) >= 3:
        split = boundaries_above_zero(run, stage_boundaries(run, chance=chance))
        if split.shown:
            lines += [
                "**Stage boundaries**, where d llc / d log t changes sign beyond its errors:",
                boundary_markdown(split.shown),
            ]
        lines += not_shown_lines(split)
    return "\n\n".join(lines)


def _localized_line(shares: np.ndarray, known: np.ndarray) -> str:
    values = readable_share(shares)
    readable = np.isfinite(values)
    outside = int((np.isfinite(shares) & ~readable).sum())
    low, high = SHARE_BOUNDS
    none = (
        f" No share at {outside} of {counted(known.sum(), 'probe')} (outside of {low:g} to {high:g}): there the loss "
        "slopes at the weights, or chains are out of equilibrium."
        if outside
        else ""
    )
    if not readable.any():
        return f"Localized share: not known.{none}"
    dominated = int((values[readable] > LOCALIZED_LIMIT).sum())
    line = f"Localized share (d log llc / d log nbeta, 0 = none): median {np.median(values[readable]):.2g}"
    if not dominated:
        return f"{line}; at no probe above {LOCALIZED_LIMIT:g}.{none}"
    return (
        f"{line}; above {LOCALIZED_LIMIT:g} at {dominated} of {counted(known.sum(), 'probe')}: **the height there is "
        "mostly due to the localization**. Separate settings help: raise `probe.llc.nbeta`, or lower "
        "`probe.llc.localization`."
        f"{none}"
    )
