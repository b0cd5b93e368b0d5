"""Prefix-matching score over training, a panel a seed."""

from collections.abc import Sequence

from matplotlib.figure import Figure

from stagewise.reporting.style import label, new_figure
from stagewise.studies.intervention.cell import Cell
from stagewise.studies.intervention.results import Summary, by_arm

_COLORS = {"none": "#000000", "inside": "#D55E00", "earliest": "#0072B2", "after": "#009E73", "live": "#CC79A7"}


def curves_figure(found: Summary, cells: Sequence[Cell]) -> Figure | None:
    """Scores of a few arms, windows shaded, for the first four seeds; None where no cell has a curve."""
    grouped = by_arm(cells)
    seeds = [seed for seed in found["seeds"] if seed in grouped["none"] and grouped["none"][seed].curve][:4]
    if not seeds:
        return None
    rows = (len(seeds) + 1) // 2
    columns = min(2, len(seeds))
    figure = new_figure(9, 0.9 + 2.6 * rows, "The head over training; shaded: windows of the arm in that colour")
    panels = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False).ravel()
    for axes, seed in zip(panels, seeds, strict=False):
        for name, color in _COLORS.items():
            cell = grouped.get(name, {}).get(seed)
            if cell is None or cell.curve is None:
                continue
            for start, end in cell.windows:
                axes.axvspan(start, end, color=color, alpha=0.12, linewidth=0)
            axes.plot(cell.curve.steps, cell.curve.prefix_matching, color=color, linewidth=1.4, label=name)
        axes.tick_params(labelbottom=True)
        axes.axhline(0.5, color="#999999", linewidth=0.7, linestyle=":")
        label(axes, title=f"seed {seed}", x="training step", y="prefix score")
    for axes in panels[len(seeds) :]:
        axes.set_visible(False)
    panels[0].legend(fontsize=8, frameon=False)
    return figure
