"""Figures and matrices as ``data:`` URLs."""

import base64
from io import BytesIO

import numpy as np
from matplotlib import colormaps
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image

from stagewise.reporting.html.blocks import Picture

_LARGEST_SVG = 400_000
"""Bytes beyond which a figure is stored as pixels."""

_DPI = 120
_MOST_PIXELS = 256
"""Maximal pixels on each side of a matrix; larger matrices are averaged over blocks."""

_COLOURS = colormaps["RdBu_r"]


def picture(figure: Figure, about: str, *, narrow: Figure | None = None, chart: bool = True) -> Picture:
    """Returns a figure for a report, as SVG if that is small, else as PNG.

    Args:
        figure: figure to show.
        about: alternative text.
        narrow: the same figure for a phone.
        chart: False for colours with a meaning, such as those of heat maps.
    """
    return Picture(_address(figure), about, "" if narrow is None else _address(narrow), chart)


def _address(figure: Figure) -> str:
    drawn = BytesIO()
    # Without a date and the URL of its program.
    figure.savefig(drawn, format="svg", metadata={"Date": None, "Creator": None})
    if drawn.tell() <= _LARGEST_SVG:
        return _encoded(drawn.getvalue(), "svg+xml")
    drawn = BytesIO()
    figure.savefig(drawn, format="png", dpi=_DPI)
    return _encoded(drawn.getvalue(), "png")


def _encoded(content: bytes, kind: str) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"


def matrix_address(matrix: NDArray[np.float64], limit: float) -> str:
    """Returns a matrix as a picture, one pixel per entry: blue = negative, red = positive, white = zero, grey = NaN.

    Args:
        matrix: ``[row, column]``; averaged over blocks if larger than 256 on a side.
        limit: of the colours, on both sides of zero.
    """
    small = _blocks(np.asarray(matrix, dtype=np.float64))
    share = np.clip(np.nan_to_num(small) / limit, -1, 1) / 2 + 0.5
    levels = np.rint(share * 254).astype(np.uint8)
    levels[~np.isfinite(small)] = 255
    image = Image.fromarray(levels)
    palette = [round(255 * part) for level in range(255) for part in _COLOURS(level / 254)[:3]]
    image.putpalette([*palette, 170, 170, 170])
    drawn = BytesIO()
    image.save(drawn, format="png", optimize=True)
    return _encoded(drawn.getvalue(), "png")


def _blocks(matrix: NDArray[np.float64]) -> NDArray[np.float64]:
    side = -(-max(matrix.shape) // _MOST_PIXELS)
    if side == 1:
        return matrix
    starts = [np.arange(0, size, side) for size in matrix.shape]
    known = np.isfinite(matrix)
    total, count = (
        np.add.reduceat(np.add.reduceat(item, starts[0], axis=0), starts[1], axis=1)
        for item in (np.where(known, matrix, 0.0), known.astype(np.float64))
    )
    return np.divide(total, count, out=np.full(total.shape, np.nan), where=count > 0)


def cell_colours(value: float, limit: float) -> tuple[str, str]:
    """Returns the background and the legible text colour of a cell, as HTML colours.

    Args:
        value: shown; NaN is grey.
        limit: of the colours, on both sides of zero.
    """
    if not np.isfinite(value):
        return "#aaaaaa", "#111111"
    red, green, blue = (round(255 * part) for part in _COLOURS(float(np.clip(value / limit, -1, 1)) / 2 + 0.5)[:3])
    dark = 0.3 * red + 0.59 * green + 0.11 * blue < 130
    return f"#{red:02x}{green:02x}{blue:02x}", "#ffffff" if dark else "#111111"
