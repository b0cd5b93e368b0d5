"""Parts of the split over training, and the windows found in signals."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from stagewise.reporting.style import NORMAL, SMALL, label, new_figure
from stagewise.studies.toy.agreement import off_diagonal
from stagewise.studies.toy.config import ToyConfig
from stagewise.studies.toy.figures.style import count_seeds, mark_transitions, probed_axis, say_range
from stagewise.studies.toy.stages import BETWEEN, LOSSES, NORM, signals
from stagewise.studies.toy.validation import SeedResult

PART_COLOURS = {"within": "#0072B2", "drift": "#999999", "between": "#D55E00", "total": "#000000"}
SIGNAL_COLOURS = {BETWEEN: "#D55E00", LOSSES: "#8C6D31", NORM: "#0072B2"}
_WORDS = {
    BETWEEN: "between, square root of its norm (chains)",
    LOSSES: "losses alone (no chains)",
    NORM: "norm of the BIF (chains)",
}


def _draw_parts(axes: Axes, result: SeedResult) -> None:
    parts = result.chains["parts"]
    steps, compared = parts["step"].values, result.chains["reference_step"].values < parts["step"].values
    for name, color in PART_COLOURS.items():
        matrices = parts.sel(part=name).values
        norm = np.linalg.norm(matrices[:, off_diagonal(matrices.shape[-1])], axis=1)
        # Without a reference the between part is zero, which a log axis cannot show.
        known = (norm > 0) & (compared if name in ("between", "total") else True)
        wide = name == "total"
        axes.plot(
            steps,
            np.where(known, norm, np.nan),
            color=color,
            label=name,
            linewidth=3.2 if wide else 1.6,
            alpha=0.3 if wide else 1.0,
        )
    axes.set_yscale("log")
    chains = parts.sel(part=["within", "drift"]).values
    smallest = np.linalg.norm(chains[:, :, off_diagonal(chains.shape[-1])], axis=-1)
    smallest = smallest[smallest > 0]
    if len(smallest):
        # Differences of losses fall to nothing at the end of training: cut them off, and leave room for the legend.
        axes.set_ylim(bottom=smallest.min() / 40)
    mark_transitions(axes, result)


def _draw_signal(axes: Axes, results: Sequence[SeedResult], number: int) -> None:
    """Draws the signal of the first seed and its windows, with the match of all seeds' windows to the truth."""
    detection = results[0].detections[number]
    name, color = detection.signal, SIGNAL_COLOURS[detection.signal]
    values = signals(results[0].chains, results[0].exact)[name]
    axes.plot(results[0].chains["step"].values, values / (np.nanmax(np.abs(values)) or 1.0), color=color, linewidth=1.6)
    for window in detection.windows:
        assert window.end is not None  # found after the run
        axes.axvspan(window.start, window.end, color=color, alpha=0.16, linewidth=0)
        axes.axvline(window.peak, color=color, linewidth=0.9, alpha=0.8)
    mark_transitions(axes, results[0])
    matches = [result.detections[number].match for result in results]
    label(
        axes,
        title=f"{_WORDS[name]}: precision {say_range([match.precision for match in matches])}, "
        f"recall {say_range([match.recall for match in matches])}",
    )
    axes.set_ylim(-0.04, 1.08)
    axes.set_yticks([0, 0.5, 1])


def transitions(results: Sequence[SeedResult], config: ToyConfig) -> Figure:
    """Draws norms of the parts of the split, and three signals with the windows found in them; the first seed.

    Args:
        results: one for each seed.
        config: of the experiment.
    """
    result = results[0]
    title = (
        f"Parts of the influence and windows of transitions, seed {result.seed}\n"
        f"shaded: windows found, line: their peak; precision and recall: median (range) over {count_seeds(results)}"
    )
    figure = new_figure(10, 8.4, title)
    top, *bottom = figure.subplots(4, 1, sharex=True, height_ratios=[2, 1, 1, 1])
    _draw_parts(top, result)
    label(
        top,
        title="norm of each part off the diagonal; reference: the latest probe at or before "
        f"step / {config.influence.probe.reference_ratio:g}",
        y="Frobenius norm (nats²)",
    )
    top.legend(fontsize=SMALL, ncols=len(PART_COLOURS) + 1, framealpha=0.9, edgecolor="none", loc="lower center")
    for number, axes in enumerate(bottom):
        _draw_signal(axes, results, number)
    bottom[1].set_ylabel("signal over its largest", fontsize=NORMAL)
    for axes in (top, *bottom):
        probed_axis(axes, config, words=axes is bottom[-1])
    return figure
