"""The README's picture, from a run of the demo.

python benchmarks/demo_figure.py runs/induction/version_0 benchmarks/demo.png
"""

import argparse
import json
from pathlib import Path

import numpy as np
import xarray as xr
from induction_seeds import PREFIX, passes, read
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import stagewise
from stagewise.influence.chain_counts import equilibrated_probes, interval_factor

INDUCTION, BACKGROUND, BOTH = "#d55e00", "#0072b2", "#009e73"
PAIRS = {
    ("induction", "induction"): INDUCTION,
    ("induction", "background"): BOTH,
    ("background", "background"): BACKGROUND,
}


def draw_influence(axes: Axes, run: xr.Dataset) -> None:
    """Within part with 95 % intervals over chains, open where out of equilibrium; crosses: the loss-free control."""
    steps, settled = run["step"].values, equilibrated_probes(run).values
    factor = interval_factor(run).values
    for (group, other), colour in PAIRS.items():
        value = 1e3 * run["group_bif"].sel(part="within", group=group, group_j=other).values
        half = 1e3 * factor * run["group_bif_se"].sel(part="within", group=group, group_j=other).values
        axes.plot(steps, value, color=colour, label=f"{group} ~ {other}")
        axes.plot(steps[settled], value[settled], ".", color=colour)
        axes.plot(steps[~settled], value[~settled], "o", color=colour, markerfacecolor="white", markersize=4)
        axes.fill_between(steps, value - half, value + half, color=colour, alpha=0.18, linewidth=0)
        if "control_group_bif" in run:
            control = 1e3 * run["control_group_bif"].sel(group=group, group_j=other).values
            axes.plot(steps, control, "x", color=colour, markersize=5)
    axes.axhline(0, color="grey", linewidth=0.6)
    axes.set(ylabel="BIF, within (10$^{-3}$ nats$^2$)\nnegative = helpful")
    axes.legend(loc="lower left", fontsize=8)


def draw(folder: Path) -> Figure:
    events = EventAccumulator(str(folder), size_guidance={"scalars": 0})
    events.Reload()
    prefix_steps, prefix = read(events, PREFIX)
    t50 = passes(prefix_steps, prefix, 0.5)
    run = stagewise.open_run(folder)
    summary = json.loads(run.attrs["summary"])
    steps = run["step"].values
    sgld = summary["sgld"]

    figure = Figure(figsize=(8.4, 7.2), dpi=110, layout="constrained")
    top, middle, bottom = figure.subplots(3, 1, sharex=True)
    top.plot(prefix_steps, prefix, color="black", label="prefix-matching score of the best head")
    top.set(ylabel="score, 0 to 1", ylim=(0, 1))
    loss = top.twinx()
    for name, colour in (("induction", INDUCTION), ("background", BACKGROUND)):
        loss.plot(steps, run["group_loss"].sel(group=name), color=colour, label=f"loss of {name} tokens")
    loss.set(ylabel="loss (nats per token)", ylim=(0, None))
    lines = top.get_lines() + loss.get_lines()
    top.legend(lines, [line.get_label() for line in lines], loc="lower left", bbox_to_anchor=(0.01, 0.14), fontsize=8)
    draw_influence(middle, run)
    middle.set_title(
        f"{sgld['num_chains']} chains x {sgld['num_draws']} draws at each of {len(steps)} probes; bands: 95 % over "
        "chains; crosses: without the loss",
        fontsize=9,
    )
    signal, error = run["signal"].values, run["signal_se"].values
    bottom.plot(steps, signal, color="black", marker=".", label="square root of the between-norm")
    bottom.fill_between(steps, signal - error, signal + error, color="black", alpha=0.15, linewidth=0)
    bottom.set(ylabel="signal (nats)", xlabel="training step", ylim=(0, None))
    for row, window in enumerate(summary["transitions"]):
        label = "detected window" if row == 0 else None
        bottom.axvspan(window["start"], window["end"], color="#009e73", alpha=0.25, label=label)
    bottom.legend(loc="upper left", fontsize=8)
    for axes in (top, middle, bottom):
        axes.axvline(t50 or np.nan, color="grey", linestyle="--", linewidth=0.8)
    if t50 is not None:
        top.annotate(f"score passes .5 at step {t50:.0f}", (t50, 0.96), xytext=(6, 0), textcoords="offset points",
                     fontsize=8, va="top")  # fmt: skip
    figure.suptitle("A small GPT-NeoX forms an induction head", fontsize=11)
    return figure


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("output", type=Path)
    arguments = parser.parse_args()
    figure = draw(arguments.run)
    FigureCanvasAgg(figure).print_png(arguments.output)


if __name__ == "__main__":
    main()
