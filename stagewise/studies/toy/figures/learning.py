"""Modes of the data, learned one after the other."""

from collections.abc import Sequence

from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from stagewise.reporting.style import SMALL, label, new_figure, shades
from stagewise.studies.toy.config import ToyConfig
from stagewise.studies.toy.figures.style import TRUE_TRANSITION, mark_transitions, probed_axis
from stagewise.studies.toy.validation import SeedResult


def _words(group: Sequence[int], strength: float) -> str:
    first, last = group[0] + 1, group[-1] + 1
    return f"mode {first}, s = {strength:.2f}" if first == last else f"modes {first} to {last}, s = {strength:.2f}"


def learning(results: Sequence[SeedResult], config: ToyConfig) -> Figure:
    """Draws the strength of each mode over training, as learned and in closed form; the first seed.

    Args:
        results: one for each seed.
        config: of the experiment.
    """
    result = results[0]
    curves = result.exact.sel(training_step=slice(config.probed_steps[0], None))
    steps = curves["training_step"].values
    figure = new_figure(9.5, 4.6, f"Mode strengths over training, seed {result.seed}")
    axes = figure.subplots()
    groups = config.hierarchy.modes().groups
    handles = []
    for group, color in zip(groups, shades(len(groups)), strict=True):
        modes = list(group)
        # The closed form is on top: where they agree, the learned curve shows between its dashes.
        axes.plot(steps, curves["mode_strength"].values[:, modes], color=color, linewidth=2.6, alpha=0.55)
        axes.plot(
            steps, curves["mode_strength_closed"].values[:, modes], color=color, linewidth=1.1, linestyle=(0, (4, 2))
        )
        strength = float(curves["mode_limit"].values[modes[0]])
        handles.append(Line2D([], [], color=color, linewidth=2.6, label=_words(group, strength)))
    mark_transitions(axes, result)
    handles += [
        Line2D([], [], color="#333333", linewidth=2.6, alpha=0.55, label="learned, Gaussian start"),
        Line2D([], [], color="#333333", linewidth=1.1, linestyle=(0, (4, 2)), label="closed form, same start"),
        Line2D([], [], label="true transition: its loss falls fastest", **TRUE_TRANSITION),
    ]
    label(axes, y="mode strength a(t), its limit is s")
    probed_axis(axes, config)
    axes.legend(handles=handles, fontsize=SMALL, loc="upper left", ncols=1 + len(handles) // 12, frameon=False)
    return figure
