"""Acceleration against the start of the window."""

import numpy as np
from matplotlib.figure import Figure

from stagewise.reporting.style import label, new_figure
from stagewise.studies.intervention.results import Summary

_MARKS = {"onset": ("#009E73", "influence onset"), "t25": ("#E69F00", "score .25"), "t50": ("#CC79A7", "score .5")}


def sweep_figure(found: Summary) -> Figure | None:
    """Steps saved against window start, a panel a mechanism; None without a sweep."""
    sweeps = {how: sweep for how, sweep in found["sweep"].items() if len(sweep) >= 2}
    if not sweeps:
        return None
    figure = new_figure(8.2, 0.8 + 3.4 * len(sweeps), "When a window helps")
    for axes, (how, sweep) in zip(figure.subplots(len(sweeps), squeeze=False)[:, 0], sweeps.items(), strict=True):
        starts = [it["start"] for it in sweep]
        for seed in map(str, found["seeds"]):
            points = [
                (s, it["acceleration"]["per_seed"].get(seed, np.nan)) for s, it in zip(starts, sweep, strict=True)
            ]
            axes.plot(*zip(*points, strict=True), color="#56B4E9", linewidth=0.7, alpha=0.8)
        ends = [[it["acceleration"][end] for it in sweep] for end in ("low", "high")]
        low, high = ([np.nan if value is None else value for value in row] for row in ends)
        axes.fill_between(starts, low, high, color="#0072B2", alpha=0.25, linewidth=0, label="95 % t interval")
        axes.plot(starts, [it["acceleration"]["mean"] for it in sweep], "o-", color="#0072B2", label="mean")
        for name, (color, words) in _MARKS.items():
            steps = [it[name] for it in found["windows"].values() if it[name] is not None]
            if steps:
                axes.axvspan(min(steps), max(steps), color=color, alpha=0.15, linewidth=0)
                axes.axvline(float(np.median(steps)), color=color, linestyle="--", label=f"{words}: median, range")
        axes.axhline(0, color="#333333", linewidth=0.8)
        label(axes, title=how, x="window start, training step", y="steps saved (thin: seeds)")
        axes.legend(fontsize=8, frameon=False, loc="center left", bbox_to_anchor=(1, 0.5))
    return figure
