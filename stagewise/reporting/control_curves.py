"""Figure of influence and its loss-free control."""

import numpy as np
import xarray as xr
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from stagewise.errors import InputError
from stagewise.reporting.influence_curves import set_step_axis
from stagewise.reporting.style import NORMAL, SMALL, label, mark_sides, new_figure
from stagewise.reporting.token_axis import horizontal_label, mark_tokens
from stagewise.runs.control import control_factor, controlled_probes
from stagewise.runs.curves import curve_pairs
from stagewise.runs.equilibrium import settled_probes

_COLUMNS = 3
_PROBE, _CONTROL = "#0072B2", "#E69F00"


def control_curves(run: xr.Dataset, *, confidence: float = 0.95) -> Figure:
    """Draws influence within each probe alone and that of its control, a panel for each pair of groups.

    Both have Student's intervals over the chains that both kept. Probes out of equilibrium are open and have none. A
    black dot under the curve marks where the two differ, chain by chain.

    Args:
        run: as :func:`~stagewise.runs.open.open_run` returns it.
        confidence: of the intervals and of the difference, 0 to 1.

    Raises:
        InputError: no probe has a control.
    """
    chosen = controlled_probes(run)
    if chosen is None:
        raise InputError(
            "got a run without loss-free controls of two chains; expected some; set probe.control_every to a number"
        )
    pairs = curve_pairs(run)
    steps = chosen["step"].values
    own = chosen.drop_vars("reference_equilibrated", errors="ignore")  # a control has no part in the reference
    settled, factor = settled_probes(own), control_factor(chosen, confidence)
    columns = min(_COLUMNS, len(pairs))
    rows = -(-len(pairs) // columns)
    title = (
        "Influence within each probe, and without the loss (nbeta 0) from the same noise: negative = helpful\n"
        f"bars: {100 * confidence:g} % intervals over chains; black dots: the two differ, chain by chain"
    )
    figure = new_figure(max(8.4, 3.5 * columns), 1.2 + 2.3 * rows, title)
    panels = figure.subplots(rows, columns, sharex=True, squeeze=False)
    for place, (axes, (name, other)) in enumerate(zip(panels.flat, pairs, strict=False)):
        at = chosen.sel(group=name, group_j=other)
        looks = (("control_probe_bif", _PROBE, "o", "-", 3), ("control_group_bif", _CONTROL, "D", "--", 4))
        for variable, color, mark, dashes, layer in looks:
            value, half = at[variable].values, factor * at[f"{variable}_se"].values
            axes.plot(steps, value, color=color, linestyle=dashes, linewidth=1.1, zorder=layer - 1)
            for chosen_steps, face in ((settled, color), (~settled, "white")):
                marks = {"marker": mark, "markersize": 4, "markerfacecolor": face, "markeredgecolor": color}
                axes.plot(steps[chosen_steps], value[chosen_steps], linestyle="", zorder=layer, **marks)
            half = np.where(settled, np.nan_to_num(half), 0.0)
            axes.vlines(steps, value - half, value + half, color=color, linewidth=1.4, alpha=0.6, zorder=layer)
        sure = settled & (np.abs(at["control_difference"].values) > factor * at["control_difference_se"].values)
        pair = name if name == other else f"{name} ~ {other}"
        label(axes, title=pair, y="BIF (nats²)" if place % columns == 0 else "")
        axes.ticklabel_format(axis="y", style="sci", scilimits=(-2, 3))
        mark_sides(axes)
        axes.plot(
            steps[sure], np.full(sure.sum(), 0.02), "k.", markersize=5, transform=axes.get_xaxis_transform(), zorder=5
        )
        bottom = place + columns >= len(pairs)
        axes.tick_params(labelbottom=bottom)
        axes.set_xlabel(horizontal_label(run) if bottom else "", fontsize=NORMAL)
    set_step_axis(panels.flat[0], steps)
    mark_tokens(panels.flat[0], run)
    for axes in panels.flat[len(pairs) :]:
        axes.set_visible(False)
    handles = [
        Line2D([], [], color=_PROBE, marker="o", markersize=4, label="chains of the probe"),
        Line2D([], [], color=_CONTROL, marker="D", markersize=4, linestyle="--", label="without the loss"),
    ]
    if not settled.all():
        handles.append(
            Line2D(
                [],
                [],
                color=_PROBE,
                marker="o",
                markerfacecolor="white",
                linestyle="",
                markersize=4,
                label="open: out of equilibrium, no interval",
            )
        )
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles), fontsize=SMALL)
    return figure
