"""Overview figure of a run: losses, scores, influence, learning coefficient, signal, windows and verdict."""

import colorsys
import textwrap
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import FuncFormatter

from stagewise.checks.counted import counted
from stagewise.errors import InputError, require
from stagewise.influence.chain_counts import chain_counts, interval_factor
from stagewise.influence.llc import LOCALIZED_LIMIT, readable_share
from stagewise.reporting.influence_curves import open_marks_words, set_step_axis
from stagewise.reporting.scores import INDUCING, NAMES, Score, copying_of_induction_heads, read_scores
from stagewise.reporting.short_names import LONGEST, short_names
from stagewise.reporting.style import LARGE, NORMAL, SMALL, SettledCurve, fit_to_settled, label, mark_sides
from stagewise.reporting.token_axis import horizontal_label, mark_tokens
from stagewise.reporting.verdict_line import help_line, verdict_line
from stagewise.runs.curves import influence_curve
from stagewise.runs.equilibrium import settled_probes
from stagewise.runs.llc_table import ALL_LOSSES, has_llc, llc_table
from stagewise.runs.run_windows import no_window_words, run_windows
from stagewise.runs.strongest import strongest_pairs

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#7A5195", "#8C6D31")
"""The first six are distinguishable with colour-vision deficiency (Okabe and Ito); then two more."""

_DARK, _FAINT, _WINDOW = "#333333", "#B8B8B8", "#F0C330"
_HATCHED: dict[str, Any] = {"facecolor": "none", "edgecolor": _WINDOW, "hatch": "///"}
"""Style of windows whose peak is out of equilibrium."""

_MOST_NAMED = 6
"""Maximal number of group curves that fit the legend next to a panel."""

_RAISED = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")

_NARROW = 7.0
"""Width in inches below which legends are above the panels, not next to them."""

_HEAD_SCORES = ("prefix_matching", "previous_token", "copying")
_SCORE_WORDS = {name: name.replace("_", " ") for name in NAMES} | {"copying": f"copying (prefix ≥ {INDUCING:g})"}


def overview(
    run: xr.Dataset,
    *,
    scores: Sequence[Score] | None = None,
    num_pairs: int = 4,
    confidence: float = 0.95,
    width: float = 10.0,
    title: str | None = None,
) -> Figure:
    """Draws the main results of a run on one page; panels without data are left out.

    Panels: losses of the groups at the training weights; scores of heads; influence of the strongest pairs of groups
    within phases, negative = helpful, with Student's intervals over chains; the learning coefficient with its interval;
    the signal with its interval. Windows are shaded in all panels, and hatched if their peak is out of equilibrium.

    Where chains are out of equilibrium, curves are dashed with open marks, without a band; beyond the range of the
    curves in equilibrium they are cut off, with a triangle. Marks of a learning coefficient are open where its height
    is mostly due to the localization. A group has the colour of its position among the groups, in all panels and runs;
    a pair of two groups has both colours.

    Args:
        run: as :func:`stagewise.runs.open.open_run` returns it.
        scores: of heads; those next to the run's store if None, see :func:`~stagewise.reporting.scores.read_scores`.
        num_pairs: maximal number of pairs of groups whose influence is shown.
        confidence: of the bands, 0 to 1.
        width: of the figure, inches; below 7 legends are above the panels.
        title: of the figure; the number and the steps of the probes if None.

    Raises:
        InputError: a data set without steps, probes or anything to show, or a setting out of range.
    """
    require(4 <= width <= 40, "width", width, "4 to 40 inches", "10 is usual, 5 for a phone")
    require(1 <= num_pairs <= len(COLOURS), "num_pairs", num_pairs, f"1 to {len(COLOURS)}", "4 are usual")
    require(0 < confidence < 1, "confidence", confidence, "a probability in (0, 1)", "0.95 is usual")
    if "step" not in run.dims:
        raise InputError("got a data set without an axis of steps; expected a run; pass what open_run returns")
    require(run.sizes["step"] > 0, "probes", 0, "one or more", "select steps that have a probe")
    pairs = strongest_pairs(run, num_pairs, confidence=confidence) if {"group_bif", "group_bif_se"} <= set(run) else []
    colours = _group_colours(run, pairs)
    found = copying_of_induction_heads(_beside(run) if scores is None else scores)
    first, last = run["step"].values[[0, -1]]
    windows = [window for window in run_windows(run) if first <= window["peak"] <= last]
    settled = set(run["step"].values[settled_probes(run)].tolist())
    panels: list[Callable[[Axes], None]] = []
    if "group_loss" in run:
        panels.append(lambda axes: _losses(axes, run, colours))
    if found:
        panels.append(lambda axes: _scores(axes, found))
    if pairs:
        panels.append(lambda axes: _influence(axes, run, pairs, colours, confidence))
    if has_llc(run):
        panels.append(lambda axes: _llc(axes, run, colours, confidence))
    if "signal" in run:
        panels.append(lambda axes: _signal(axes, run, windows, settled, confidence))
    if not panels:
        raise InputError(
            "got a run without losses, influence, learning coefficient or signal; expected one of them; open the run "
            "whole, without variables=..."
        )
    narrow = width < _NARROW
    figure = Figure(
        figsize=(width, 1.35 + (2.35 if narrow else 1.75) * len(panels)),
        layout=ConstrainedLayoutEngine(h_pad=0.05, hspace=0.03),
    )
    head = figure.suptitle(
        _head(run, title, windows, width), fontsize=LARGE if not narrow else NORMAL, x=0.01, ha="left", linespacing=1.5
    )
    head.set_parse_math(False)  # may hold text of users
    rows = figure.subplots(len(panels), 1, sharex=True, squeeze=False)[:, 0]
    for axes, draw in zip(rows, panels, strict=True):
        draw(axes)
        _shade(axes, windows, settled)
        _legend(axes, narrow, width)
        axes.tick_params(labelbottom=axes is rows[-1])
    rows[-1].set_xlabel(horizontal_label(run), fontsize=NORMAL)
    set_step_axis(rows[0], run["step"].values)
    mark_tokens(rows[0], run)
    if len(run["step"]) == 1 and not found:
        rows[0].set_xticks(run["step"].values)
    foot = _foot(run, width)
    if foot:
        figure.supxlabel(foot, fontsize=SMALL, x=0.01, ha="left", color="#555555").set_parse_math(False)
    return figure


def _beside(run: xr.Dataset) -> list[Score]:
    source = run.encoding.get("source")
    return [] if source is None else read_scores(Path(source).parent)


def _head(run: xr.Dataset, title: str | None, windows: Sequence[Mapping[str, Any]], width: float) -> str:
    steps = run["step"].values
    count = f"step {steps[0]:,}"
    if len(steps) > 1:
        count = f"{counted(len(steps), 'probe')}, steps {steps[0]:,} to {steps[-1]:,}"
    if windows:
        found = "windows at " if len(windows) > 1 else "a window at "
        found += ", ".join(f"{window['start']:,} to {window['end']:,}" for window in windows[:4])
        found += f" and {len(windows) - 4} more" if len(windows) > 4 else ""
    else:
        why = no_window_words(run)
        found = "no window was found" if why is None else f"no window was found: {why.partition(';')[0]}"
    lines = [f"{title}: {count}; {found}" if title else f"{count}; {found}", verdict_line(run)]
    return "\n".join(textwrap.fill(line, _letters(width)) for line in lines if line)


def _foot(run: xr.Dataset, width: float) -> str:
    why = open_marks_words(run)
    lines = [help_line(run), "" if why is None else f"Dashed curves with open marks: {why}."]
    if has_llc(run) and _localized(run).any():
        lines.append(
            "Open marks of the learning coefficient on a solid curve: its height there is mostly that of the "
            "localization (the chains' pull to the weights), not of the loss."
        )
    return "\n".join(textwrap.fill(line, round(1.15 * _letters(width))) for line in lines if line)


def _letters(width: float) -> int:
    """Returns the number of characters of the head that fit in a line."""
    return round((11.5 if width >= _NARROW else 12.5) * width)


def group_colour(place: int) -> str | tuple[float, float, float]:
    """Returns the colour of a group by its position among the groups of a run.

    Args:
        place: from 0; beyond the eighth, hues advance by the golden section.
    """
    return COLOURS[place] if place < len(COLOURS) else colorsys.hls_to_rgb((0.1 + 0.618 * place) % 1, 0.4, 0.6)


def _group_colours(run: xr.Dataset, pairs: Sequence[tuple[str, str]]) -> dict[str, Any]:
    """Returns the colour of each group, those of the strongest pairs first."""
    groups = [str(name) for name in run["group"].values] if "group" in run.coords else []
    order = dict.fromkeys([*(name for pair in pairs for name in pair), *groups])
    return {name: group_colour(groups.index(name)) for name in order}


def _line(
    axes: Axes, steps: Any, values: Any, good: Any, colour: Any, name: str | None, *, filled: Any = None,
    other: Any = None,
) -> None:  # fmt: skip
    """Draws a curve with marks at its probes: dashed with open marks unless ``good``; open marks unless ``filled``.

    With ``other``, the line alternates between two colours.
    """
    filled = good if filled is None else good & filled
    settled = np.where(good, values, np.nan)
    style: dict[str, Any] = {"color": colour, "zorder": 3}
    if not good.all():
        axes.plot(steps, values, linewidth=0.9, linestyle=(0, (3, 2)), color=colour, zorder=2.5)
    striped = {} if other is None else {"linestyle": (0, (4, 4)), "gapcolor": other}
    axes.plot(steps, settled, linewidth=1.5 if other is None else 2.0, label=name, **style, **striped)
    axes.plot(steps[filled], values[filled], "o", markersize=3.0, **style)
    axes.plot(
        steps[~filled], values[~filled], "o", markersize=3.8, markerfacecolor="white", markeredgewidth=0.9, **style
    )


def _band(axes: Axes, steps: Any, low: Any, high: Any, colour: str) -> None:
    known = np.isfinite(low) & np.isfinite(high)
    axes.fill_between(steps, low, high, where=known, color=colour, alpha=0.18, linewidth=0, zorder=2)
    # Between two probes without an interval a band has no width.
    alone = known & ~np.concatenate([[False], known[:-1]]) & ~np.concatenate([known[1:], [False]])
    axes.vlines(steps[alone], low[alone], high[alone], color=colour, alpha=0.3, linewidth=3, zorder=2)


def _pair_name(group: str, group_j: str) -> str:
    """Returns the name of a pair from short names, on two lines if they are long."""
    together = f"{group} ~ {group_j}"
    return together if len(together) <= LONGEST + 3 else f"{group}\n~ {group_j}"


def _losses(axes: Axes, run: xr.Dataset, colours: Mapping[str, Any]) -> None:
    steps = run["step"].values
    losses = run["group_loss"].transpose("group", "step").values
    names = [str(name) for name in run["group"].values]
    short = short_names(names)
    rest = 0
    own = dict(list(colours.items())[:_MOST_NAMED])
    for name, values in zip(names, losses, strict=True):
        colour = own.get(name)
        if not np.isfinite(values).any():
            continue
        if colour is None:
            rest += 1
            axes.plot(steps, values, color=_FAINT, linewidth=0.8, zorder=1.5)
        else:
            axes.plot(
                steps, values, color=colour, linewidth=1.5, marker="o", markersize=2.4, label=short[name], zorder=3
            )
    if rest:
        axes.plot([], [], color=_FAINT, linewidth=0.8, label=f"{rest} more groups")
    label(axes, y="nats")
    _name(axes, "Loss at the training weights")


def _scores(axes: Axes, scores: Sequence[Score]) -> None:
    heads = [score for score in scores if score.name in _HEAD_SCORES] or list(scores)
    shades = ("#222222", "#7F7F7F", "#B89A4B", "#5E8AA8", "#A05D8C")
    shown = heads[: len(shades)]
    for score, colour in zip(shown, shades, strict=False):
        axes.plot(score.steps, score.values, color=colour, linewidth=1.4, label=_SCORE_WORDS[score.name], zorder=3)
    label(axes, y="best head" if heads[0].name in _HEAD_SCORES else "nats")
    rest = "" if len(shown) == len(heads) else f"; {len(shown)} of {len(heads)} curves"
    _name(axes, f"Scores of heads{rest}")


def _influence(
    axes: Axes,
    run: xr.Dataset,
    pairs: Sequence[tuple[str, str]],
    colours: Mapping[str, Any],
    confidence: float,
) -> None:
    short = short_names(map(str, run["group"].values))
    drawn = []
    for group, group_j in pairs:
        curve = influence_curve(run, group, group_j, confidence=confidence)
        name = short[group] if group == group_j else _pair_name(short[group], short[group_j])
        colour, other = colours[group], None if group == group_j else colours[group_j]
        steps, good, band = (
            curve["step"].values,
            curve["equilibrated"].values,
            (curve["low"].values, curve["high"].values),
        )
        _line(axes, steps, curve["value"].values, good, colour, name, other=other)
        _band(axes, steps, *band, colour)
        drawn.append(SettledCurve(steps, curve["value"].values, band, good, colour))
    fit_to_settled(axes, drawn)
    mark_sides(axes)
    power = int(np.floor(np.log10(max(map(abs, axes.get_ylim())))))
    power = 0 if -2 <= power <= 2 else power
    # In the label: above the panel, the power of ten would overlap the legend.
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value / 10.0**power:.3g}"))
    label(axes, y=f"BIF (10{str(power).translate(_RAISED)} nats²)" if power else "BIF (nats²)")
    chains = chain_counts(run).values
    few = "" if np.nanmax(chains) > 1 else "; one chain: no interval"
    every = len(strongest_pairs(run, run.sizes["group"] ** 2))
    kept = f"; {len(pairs)} of {every} curves: the strongest" if every > len(pairs) else ""
    _name(axes, f"Influence within phases, negative = helpful, {100 * confidence:g} % intervals{few}{kept}")


def _llc(axes: Axes, run: xr.Dataset, colours: Mapping[str, Any], confidence: float) -> None:
    table = llc_table(run, confidence=confidence)
    steps, settled = table["step"].values, table["equilibrated"].values
    short = short_names(map(str, run["group"].values)) if "group" in run.dims else {}
    shown = {ALL_LOSSES: _DARK} | dict(list(colours.items())[:_MOST_NAMED])
    drawn = []
    for name, colour in shown.items():
        if name not in table["group"].values.tolist():
            continue
        curve = table.sel(group=name)
        values, localized = curve["value"].values, curve["localized_share"].values > LOCALIZED_LIMIT
        if np.isfinite(values).any():
            _line(axes, steps, values, settled, colour, short.get(name, name), filled=~localized)
            band = (curve["low"].values, curve["high"].values)
            _band(axes, steps, *band, colour)
            drawn.append(SettledCurve(steps, values, band, settled, colour))
    fit_to_settled(axes, drawn)
    axes.axhline(0, color=_DARK, linewidth=0.8, zorder=1)
    label(axes, y="LLC")
    localized_words = "; open: mostly the localization's" if _localized(run).any() else ""
    _name(axes, f"Local learning coefficient{localized_words}")


def _localized(run: xr.Dataset) -> np.ndarray:
    """Marks learning coefficients that are mostly due to the localization."""
    shares = [run[name].values.ravel() for name in ("llc_localized_share", "group_llc_localized_share") if name in run]
    return readable_share(np.concatenate([np.zeros(0), *shares])) > LOCALIZED_LIMIT


def _signal(
    axes: Axes, run: xr.Dataset, windows: Sequence[Mapping[str, Any]], settled: Collection[int], confidence: float
) -> None:
    steps, values = run["step"].values, run["signal"].values
    known = np.isfinite(values)
    if "signal_se" in run:
        error = run["signal_se"].values
        half = interval_factor(run, confidence).values * error
        _line(axes, steps, values, np.isfinite(error) | ~known, _DARK, "signal")
        _band(axes, steps, np.maximum(values - half, 0), values + half, _DARK)
    else:
        _line(axes, steps, values, np.ones_like(known), _DARK, "signal")
    if "signal_threshold" in run:
        axes.plot(steps, run["signal_threshold"].values, color=_FAINT, linewidth=1.0, label="noise level (subtracted)")
    if any(window["peak"] in settled for window in windows):
        axes.fill_between([], [], [], color=_WINDOW, alpha=0.35, linewidth=0, label="window")
    if any(window["peak"] not in settled for window in windows):
        axes.fill_between([], [], [], **_HATCHED, linewidth=0, label="window, its peak\nout of equilibrium")
    for window in windows:
        axes.annotate(
            f"{window['peak']:,}", (window["peak"], window["value"]), xytext=(0, 4), textcoords="offset points",
            ha="center", fontsize=SMALL, zorder=4,
        )  # fmt: skip
    top = np.nanmax(values, initial=0.0)
    if top > 0:
        axes.set_ylim(0, 1.25 * max(top, *(window["value"] for window in windows), 0))
    label(axes, y="nats")
    if not known.any():
        axes.text(0.5, 0.5, "no probe has a reference yet", transform=axes.transAxes, ha="center", fontsize=SMALL)
    _name(axes, "Signal: change of the losses since the reference probe")


def _name(axes: Axes, words: str) -> None:
    axes.set_title(words, fontsize=NORMAL, loc="left", fontweight="bold", color=_DARK)


def _shade(axes: Axes, windows: Sequence[Mapping[str, Any]], settled: Collection[int]) -> None:
    for window in windows:
        style: dict[str, Any] = {"color": _WINDOW, "alpha": 0.25} if window["peak"] in settled else _HATCHED
        axes.axvspan(window["start"], window["end"], linewidth=0, zorder=0.5, **style)
        axes.axvline(window["peak"], color=to_rgba(_DARK, 0.45), linewidth=0.8, linestyle=":", zorder=1)


def _legend(axes: Axes, narrow: bool, width: float) -> None:
    handles, names = axes.get_legend_handles_labels()
    if not narrow:
        if handles:
            axes.legend(loc="upper left", bbox_to_anchor=(1.005, 1.03), fontsize=SMALL, frameon=False, handlelength=1.4)
        return
    title = textwrap.fill(axes.get_title(loc="left"), round(10.5 * width))
    longest = max((len(part) for name in names for part in name.split("\n")), default=0)
    columns = max(1, int(13.5 * width / (longest + 7)))
    rows = sum(max(name.count("\n") + 1 for name in names[at : at + columns]) for at in range(0, len(names), columns))
    axes.set_title(
        title, fontsize=NORMAL, loc="left", fontweight="bold", color=_DARK, pad=4 + 10.5 * rows + (8 if rows else 0)
    )
    if handles:
        axes.legend(
            loc="lower left", bbox_to_anchor=(-0.01, 1.0), ncols=columns, fontsize=7.5, frameon=False, borderpad=0.1,
            handlelength=1.2, columnspacing=1.0, labelspacing=0.25,
        )  # fmt: skip
