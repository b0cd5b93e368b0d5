"""Figures, drawn without a display."""

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray


def matrix_figure(matrix: NDArray[np.float64], title: str, unit: str) -> Figure:
    """A heat map of influence between samples, diverging around white, its symmetric limits on the colour bar.

    Limits are the 99th percentile of the absolute values off the diagonal, so that the diagonal does not wash out the
    rest.

    Args:
        matrix: ``[sample, sample]``; negative (blue) = helpful.
        title: what it shows.
        unit: of the entries.
    """
    # Fixed places: a layout engine would draw everything twice.
    figure = Figure(figsize=(5.2, 4.4), dpi=90)
    axes = figure.add_axes((0.11, 0.11, 0.68, 0.8))
    image = axes.imshow(matrix, cmap="RdBu_r", interpolation="nearest")
    axes.set(xlabel="sample j", ylabel="sample i")
    bar = figure.add_axes((0.82, 0.11, 0.04, 0.8))
    figure.colorbar(image, cax=bar, label=f"BIF ({unit}), negative = helpful", extend="both")
    show_matrix(figure, matrix, title)
    return figure


def show_matrix(figure: Figure, matrix: NDArray[np.float64], title: str) -> None:
    """Put another matrix of the same size into a heat map, in less than half the time that a new one takes.

    Args:
        figure: of :func:`matrix_figure`.
        matrix: ``[sample, sample]``; negative (blue) = helpful.
        title: what it shows.
    """
    off_diagonal = matrix[~np.eye(len(matrix), dtype=bool)]
    limit = float(np.percentile(np.abs(off_diagonal), 99)) if len(off_diagonal) else 0.0
    axes = figure.axes[0]
    (image,) = axes.get_images()
    image.set_data(matrix)
    image.set_clim(-limit or -1.0, limit or 1.0)
    axes.set_title(title, fontsize=11)


def rasterize(figure: Figure) -> NDArray[np.uint8]:
    """A figure as pixels ``[height, width, 3]``."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()
