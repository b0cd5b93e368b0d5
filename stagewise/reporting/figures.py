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
    off_diagonal = matrix[~np.eye(len(matrix), dtype=bool)]
    limit = float(np.percentile(np.abs(off_diagonal), 99)) if len(off_diagonal) else 0.0
    # Fixed places: a layout engine would draw everything twice.
    figure = Figure(figsize=(5.2, 4.4), dpi=90)
    axes = figure.add_axes((0.11, 0.11, 0.68, 0.8))
    image = axes.imshow(matrix, cmap="RdBu_r", vmin=-limit or -1.0, vmax=limit or 1.0, interpolation="nearest")
    axes.set(title=title, xlabel="sample j", ylabel="sample i")
    axes.title.set_fontsize(11)
    bar = figure.add_axes((0.82, 0.11, 0.04, 0.8))
    figure.colorbar(image, cax=bar, label=f"BIF ({unit}), negative = helpful", extend="both")
    return figure


def rasterize(figure: Figure) -> NDArray[np.uint8]:
    """A figure as pixels ``[height, width, 3]``."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()
