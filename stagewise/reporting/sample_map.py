"""Influence of samples on each other, as a heat map."""

import numpy as np
import xarray as xr
from matplotlib.figure import Figure
from numpy.typing import NDArray

from stagewise.errors import require
from stagewise.influence.sign import UNITS
from stagewise.influence.stored_matrices import sample_matrix


def sample_map(run: xr.Dataset, *, step: int | None = None, part: str = "within") -> Figure:
    """Draws the influence of samples on each other at one probe, as a heat map; see :func:`matrix_figure`.

    Args:
        run: as :func:`stagewise.runs.open.open_run` returns it, with its sample matrices.
        step: of the probe; the last one if None.
        part: ``within``, ``drift``, ``between`` or ``total``; all but within need ``probe.sample_matrices: all``.

    Raises:
        InputError: no probe at that step, an unknown part, or one that is not stored.
    """
    steps = [int(at) for at in run["step"].values]
    at = steps[-1] if step is None else step
    require(at in steps, "step", at, f"a probe, from {steps[0]} to {steps[-1]}", "take one of run['step']")
    matrix = sample_matrix(run, part).sel(step=at).values.astype(np.float64)
    return matrix_figure(matrix, f"{part}, step {at:,}", UNITS)


def matrix_figure(matrix: NDArray[np.float64], title: str, unit: str) -> Figure:
    """Draws a heat map of influence between samples, diverging around white, with symmetric limits.

    Limits are the 99th percentile of the absolute values off the diagonal, so that the diagonal does not wash out the
    rest.

    Args:
        matrix: ``[sample, sample]``; negative (blue) = helpful.
        title: of the figure.
        unit: of the entries.
    """
    # Fixed positions: a layout engine would draw everything twice.
    figure = Figure(figsize=(5.2, 4.4), dpi=90)
    axes = figure.add_axes((0.11, 0.11, 0.68, 0.8))
    image = axes.imshow(matrix, cmap="RdBu_r", interpolation="nearest")
    axes.set(xlabel="sample j", ylabel="sample i")
    bar = figure.add_axes((0.82, 0.11, 0.04, 0.8))
    figure.colorbar(image, cax=bar, label=f"BIF ({unit}), negative = helpful", extend="both")
    show_matrix(figure, matrix, title)
    return figure


def show_matrix(figure: Figure, matrix: NDArray[np.float64], title: str) -> None:
    """Replaces the matrix of a heat map by one of the same size, in less than half the time of a new figure.

    Args:
        figure: of :func:`matrix_figure`.
        matrix: ``[sample, sample]``; negative (blue) = helpful.
        title: of the figure.
    """
    off_diagonal = matrix[~np.eye(len(matrix), dtype=bool)]
    limit = float(np.percentile(np.abs(off_diagonal), 99)) if len(off_diagonal) else 0.0
    axes = figure.axes[0]
    (image,) = axes.get_images()
    image.set_data(matrix)
    image.set_clim(-limit or -1.0, limit or 1.0)
    axes.set_title(title, fontsize=11)
