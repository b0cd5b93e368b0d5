"""Loggers beyond scalars: matrices, pictures, text, and TensorBoard's chart layout."""

import math
import re
from collections.abc import Iterable, Sequence

import numpy as np
import xarray as xr
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray

from stagewise.influence.groups import Groups
from stagewise.influence.split import PARTS
from stagewise.reporting import tags
from stagewise.reporting.class_maps import class_maps
from stagewise.reporting.influence_curves import influence_curves
from stagewise.reporting.llc_curves import llc_curves
from stagewise.reporting.loggers.writer import RunWriter
from stagewise.reporting.sample_map import matrix_figure, show_matrix
from stagewise.reporting.token_figure import token_figure
from stagewise.reporting.token_influence import TokenInfluence, token_markdown
from stagewise.runs.learning_coefficients import has_llc


def rasterize(figure: Figure) -> NDArray[np.uint8]:
    """Returns a figure as pixels ``[height, width, 3]``."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def _exactly(tag: str) -> str:
    """Custom scalars match tags by regular expression prefix: anchor both ends."""
    return f"^{re.escape(tag)}$"


def write_layout(writers: Iterable[RunWriter], groups: Groups, *, control: bool = False) -> None:
    """Charts of the custom-scalars page.

    The within part first, where signs flip: of all pairs of groups together, then of each two that have pairs of losses
    in different samples. Then all parts of each two: between is often so large that it hides the others. Last the
    signal, the losses and the learning coefficients.

    Args:
        writers: of the run.
        groups: over the observed set.
        control: whether the run has loss-free controls, which then stand in the charts of two groups.
    """
    pairs = [(groups.names[row], groups.names[column]) for row, column in np.argwhere(np.triu(groups.has_pairs))]
    within = {(name, other): _exactly(tags.influence("within", name, other)) for name, other in pairs}
    layout = {
        "influence within phases": {
            "BIF within, all pairs (nats^2, negative = helpful)": ["Multiline", list(within.values())]
        }
        | {
            f"BIF within, {name} ~ {other} (nats^2, negative = helpful)": [
                "Multiline",
                [tag, *([_exactly(tags.control(name, other))] if control else [])],
            ]
            for (name, other), tag in within.items()
        },
        "influence, all parts": {
            f"BIF {name} ~ {other} (nats^2, negative = helpful)": [
                "Multiline",
                [_exactly(tags.influence(part, name, other)) for part in PARTS],
            ]
            for name, other in pairs
        },
        "transitions": {
            "signal, and the noise that was subtracted from it (nats)": [
                "Multiline",
                [_exactly(tags.SIGNAL), _exactly(tags.THRESHOLD)],
            ],
            "loss of each group (nats)": ["Multiline", [_exactly(tags.group_loss(name)) for name in groups.names]],
            "local learning coefficient, all and each group": [
                "Multiline",
                [_exactly(tag) for tag in dict.fromkeys([tags.LLC_ALL, *map(tags.llc, groups.names)])],
            ],
        },
    }
    for writer in writers:
        writer.add_custom_scalars(layout)


_SPACING = 1.05
"""Images are at least about this factor apart in training steps: TensorBoard shows ten of a run."""


def images_due(previous: int | None, step: int) -> bool:
    """True if a probe is drawn: always where probes are 5 % apart or more, and at that spacing where they are closer.

    Args:
        previous: training step of the probe before it; None for the first.
        step: of the probe.
    """
    return previous is None or _interval(previous) < _interval(step)


def _interval(step: int) -> int:
    return math.floor(math.log(step) / math.log(_SPACING)) if step > 0 else -1


def write_matrices(writers: Sequence[RunWriter], probe: xr.Dataset) -> None:
    """Images of the BIF between samples, in the fixed order of the observed set."""
    if not writers:
        return
    step = int(probe.attrs["step"])
    has_reference = probe.attrs["reference_step"] != step
    figure = None
    for part in tags.MATRIX_PARTS:
        if part != "within" and not has_reference:
            continue
        title = f"{part}, step {step}" + (f" against {probe.attrs['reference_step']}" if has_reference else "")
        matrix = probe["bif"].values[PARTS.index(part)]
        if figure is None:
            figure = matrix_figure(matrix, title, "nats^2")
        else:
            show_matrix(figure, matrix, title)
        image = rasterize(figure)
        for writer in writers:
            writer.add_image(tags.matrix(part), image, global_step=step, dataformats="HWC")


def write_run_pictures(writers: Sequence[RunWriter], run: xr.Dataset, *, part: str = "within") -> None:
    """Images of a whole run, at its last step: class maps, and curves of influence and LLC with their intervals.

    Args:
        writers: of the run.
        run: as :func:`stagewise.runs.store.open_run` returns it.
        part: ``within``, ``drift``, ``between`` or ``total``.
    """
    if not writers:
        return
    step = int(run["step"].values[-1])
    figures = [
        (tags.class_maps(part), class_maps(run, part=part)),
        (tags.curves(part), influence_curves(run, part=part)),
    ]
    if has_llc(run):
        figures.append((tags.LLC_CURVES, llc_curves(run)))
    for tag, figure in figures:
        image = rasterize(figure)
        for writer in writers:
            writer.add_image(tag, image, global_step=step, dataformats="HWC")


def write_token_influence(
    writers: Sequence[RunWriter], influence: TokenInfluence, step: int, *, title: str | None = None
) -> None:
    """Logs the tokens that influence one token most: the coloured text as an image, and a table under the Text tab.

    Args:
        writers: of the run.
        influence: what is shown.
        step: of the probe.
        title: of the image; the step if None.
    """
    if not writers:
        return
    write_text(writers, tags.TOKENS, token_markdown(influence), step)
    image = rasterize(token_figure(influence, title=title or f"Token influence at step {step:,}"))
    for writer in writers:
        writer.add_image(tags.TOKEN_COLOURS, image, global_step=step, dataformats="HWC")


def write_text(writers: Iterable[RunWriter], tag: str, text: str, step: int) -> None:
    """Markdown under the Text tab."""
    for writer in writers:
        writer.add_text(tag, text, global_step=step)
