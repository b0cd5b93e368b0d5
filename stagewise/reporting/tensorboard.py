"""Output to loggers beyond scalars: matrices, figures, text, and TensorBoard's chart layout."""

import math
import re
from collections.abc import Collection, Iterable, Sequence

import numpy as np
import xarray as xr
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray

from stagewise.influence.groups import Groups
from stagewise.influence.split import PARTS
from stagewise.reporting import tags
from stagewise.reporting.class_maps import class_maps
from stagewise.reporting.gradient_curves import gradient_curves, has_gradients
from stagewise.reporting.influence_curves import influence_curves
from stagewise.reporting.llc_curves import llc_curves
from stagewise.reporting.loggers.writer import RunWriter
from stagewise.reporting.sample_map import matrix_figure, show_matrix
from stagewise.reporting.token_figure import token_figure
from stagewise.reporting.token_influence import TokenInfluence, token_markdown
from stagewise.runs.curves import curve_pairs
from stagewise.runs.llc_table import has_llc


def rasterize(figure: Figure) -> NDArray[np.uint8]:
    """Returns a figure as pixels ``[height, width, 3]``."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def _exactly(tag: str) -> str:
    """Anchors a tag at both ends, since custom scalars match tags by prefix of a regular expression."""
    return f"^{re.escape(tag)}$"


def write_layout(
    writers: Iterable[RunWriter],
    groups: Groups,
    *,
    control: bool = False,
    scalars: Collection[str] | None = None,
) -> None:
    """Writes the charts of the custom-scalars page.

    First the within part, where signs flip: of all pairs of groups together, then of each pair with losses in different
    samples. Then all parts of each pair, since between is often so large that it hides the others. Last the signal, the
    losses and the learning coefficients.

    Args:
        writers: of the run.
        groups: over the observed set.
        control: True if the run has loss-free controls, which the charts of pairs then include.
        scalars: tags of groups and pairs that are logged, see
            :func:`~stagewise.reporting.chosen_scalars.choose_scalars`; all if None. Charts have no other lines.
    """

    def lines(*wanted: str) -> list[str]:
        return [_exactly(tag) for tag in dict.fromkeys(wanted) if scalars is None or tag in scalars]

    pairs = [(groups.names[row], groups.names[column]) for row, column in np.argwhere(np.triu(groups.has_pairs))]
    within = {pair: lines(tags.influence("within", *pair)) for pair in pairs}
    with_control = {pair: own + (lines(tags.control(*pair)) if control and own else []) for pair, own in within.items()}
    parts = {pair: lines(*(tags.influence(part, *pair) for part in PARTS)) for pair in pairs}
    together = [tag for own in within.values() for tag in own]
    charts = {
        "influence within phases": {
            "BIF within, all pairs (nats^2, negative = helpful)": together,
            **{
                f"BIF within, {name} ~ {other} (nats^2, negative = helpful)": chart
                for (name, other), chart in with_control.items()
            },
        },
        "influence, all parts": {
            f"BIF {name} ~ {other} (nats^2, negative = helpful)": chart
            for (name, other), chart in parts.items()
            if len(chart) > 1
        },
        "transitions": {
            "signal, and the noise that was subtracted from it (nats)": [
                _exactly(tags.SIGNAL),
                _exactly(tags.THRESHOLD),
            ],
            "loss of each group (nats)": lines(*map(tags.group_loss, groups.names)),
            "local learning coefficient, all and each group": list(
                dict.fromkeys([_exactly(tags.LLC_ALL), *lines(*map(tags.llc, groups.names))])
            ),
        },
    }
    layout = {
        category: {title: ["Multiline", chart] for title, chart in inside.items() if chart}
        for category, inside in charts.items()
    }
    for writer in writers:
        writer.add_custom_scalars({category: inside for category, inside in layout.items() if inside})


_SPACING = 1.05
"""Least factor, approximately, between the training steps of images: TensorBoard shows ten of a run."""

CURVES_SPACING = 1.25
"""The same for images of a whole run, each of which contains the previous ones."""


def images_due(previous: int | None, step: int, *, spacing: float = _SPACING) -> bool:
    """Returns True if a probe is to be drawn: always if probes are 5 % apart or more, else at that spacing.

    Args:
        previous: training step of the probe before it; None for the first.
        step: of the probe.
        spacing: factor between the training steps of images, above 1.
    """
    return previous is None or _interval(previous, spacing) < _interval(step, spacing)


def _interval(step: int, spacing: float) -> int:
    return math.floor(math.log(step) / math.log(spacing)) if step > 0 else -1


def write_matrices(writers: Sequence[RunWriter], probe: xr.Dataset) -> None:
    """Writes images of the BIF between samples, in the fixed order of the observed set."""
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
    """Writes images of a whole run, at its last step: class maps, and the curves of :func:`write_curves`.

    Args:
        writers: of the run.
        run: as :func:`stagewise.runs.open.open_run` returns it.
        part: ``within``, ``drift``, ``between`` or ``total``.
    """
    if writers:
        _write_figure(writers, tags.class_maps(part), class_maps(run, part=part), run)
        write_curves(writers, run, part=part)


def write_curves(
    writers: Sequence[RunWriter], run: xr.Dataset, *, part: str = "within", only_influence: bool = False
) -> None:
    """Writes images of the curves of a run so far, at its last step, unsmoothed and with intervals.

    They show influence of at most nine pairs of groups, see :func:`~stagewise.runs.curves.curve_pairs`; the same with
    minus the gradient dot product, if the run has it; and the learning coefficients. TensorBoard's own charts smooth
    peaks away and leave outliers out of their scale.

    Args:
        writers: of the run.
        run: as :func:`stagewise.runs.open.open_run` returns it.
        part: ``within``, ``drift``, ``between`` or ``total``.
        only_influence: True leaves out all but influence, as during a run: an image takes a third of a second.
    """
    if not writers:
        return
    pairs = curve_pairs(run, part)
    if pairs:
        _write_figure(writers, tags.curves(part), influence_curves(run, pairs, part=part), run)
    if only_influence:
        return
    if pairs and part == "within" and has_gradients(run):
        _write_figure(writers, tags.GRADIENT_CURVES, gradient_curves(run, pairs), run)
    if has_llc(run):
        _write_figure(writers, tags.LLC_CURVES, llc_curves(run), run)


def _write_figure(writers: Sequence[RunWriter], tag: str, figure: Figure, run: xr.Dataset) -> None:
    image = rasterize(figure)
    for writer in writers:
        writer.add_image(tag, image, global_step=int(run["step"].values[-1]), dataformats="HWC")


def write_token_influence(
    writers: Sequence[RunWriter], influence: TokenInfluence, step: int, *, title: str | None = None
) -> None:
    """Logs the tokens that influence one token most: the coloured text as an image, and a table under the Text tab.

    Args:
        writers: of the run.
        influence: influence to show.
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
    """Writes Markdown under the Text tab."""
    for writer in writers:
        writer.add_text(tag, text, global_step=step)
