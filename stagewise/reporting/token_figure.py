"""Text coloured by the influence of its tokens on one of them, as a figure for TensorBoard."""

import textwrap
from collections.abc import Sequence
from functools import cache
from itertools import groupby
from typing import Any

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import ListedColormap, Normalize
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties, findfont, get_font
from matplotlib.patches import Rectangle

from stagewise.errors import InputError, require
from stagewise.reporting.style import LARGE, NORMAL, SMALL
from stagewise.reporting.token_influence import VISIBLE, TokenInfluence, background, is_dark, visible
from stagewise.reporting.token_lines import Excerpt, Piece, excerpts

_DPI = 100
_CELL, _LINE, _MARGIN = 8, 18, 16
"""Width of a character, height of a line, and margin, pixels."""
_LETTERS = 9.36
"""Font size, points: 13 pixels, at which a character of the font is as wide as a cell."""
_MONO, _SANS = "DejaVu Sans Mono", "DejaVu Sans"
"""Fonts bundled with matplotlib, so that every machine draws the same."""
_LACKING, _POINTER = "□", "▶"
_BLACK, _GREY = "#111111", "#999999"
_LONGEST_QUERY = 24
_HEAD_LINE, _BAR_HEIGHT = 19, 62


def token_figure(
    influence: TokenInfluence,
    *,
    title: str = "Token influence",
    samples: Sequence[int] | None = None,
    columns: int = 100,
    lines: int = 120,
) -> Figure:
    """Draws the texts, each token on its colour; the query is outlined.

    Colours, their limit and white space are those of :func:`stagewise.reporting.token_html.token_html`: blue = negative
    = helpful, red = positive = harmful, white = zero, grey letters where a token has no loss. Characters missing in the
    font are boxes.

    Args:
        influence: influence to show.
        title: of the figure, e.g. the step of the probe.
        samples: texts to show, in this order; all, that of the query first, if None.
        columns: characters in a line.
        lines: maximal number of lines of all texts with their headings. The figure says what it leaves out; the text of
            the query, if it does not fit, is cut around the query.

    Raises:
        InputError: an unknown sample, or a size out of range.
    """
    require(64 <= columns <= 400, "columns", columns, "64 to 400", "100 suit code")
    require(10 <= lines <= 1000, "lines", lines, "10 to 1000", "choose samples where more have no room")
    chosen = influence.shown_samples(samples)
    shown = excerpts(influence, chosen, columns=columns, room=lines)
    heading = textwrap.wrap(title, int(0.75 * columns)) or [""]
    words = [line for paragraph in _words(influence) for line in textwrap.wrap(paragraph, int(1.1 * columns))]
    note = textwrap.wrap(_left_out(shown, len(chosen)), columns)
    top = _MARGIN + _HEAD_LINE * (len(heading) + len(words)) + _BAR_HEIGHT
    width = 2 * _MARGIN + columns * _CELL
    height = top + _LINE * sum(2 + len(row.lines) for row in shown) + _LINE * len(note) + _MARGIN

    figure = Figure(figsize=(width / _DPI, height / _DPI), dpi=_DPI)
    # Data are pixels from the upper left.
    axes = figure.add_axes((0, 0, 1, 1), xlim=(0, width), ylim=(height, 0))
    axes.set_axis_off()
    y = _MARGIN
    for line, weight, size in [(text, "bold", LARGE) for text in heading] + [
        (text, "normal", NORMAL) for text in words
    ]:
        y += _HEAD_LINE
        _write(axes, _MARGIN, y - 5, line, family=_SANS, fontsize=size, fontweight=weight)
    _draw_bar(figure, influence, y + 16, width, height)
    y = top
    for excerpt in shown:
        y += _LINE
        _write(axes, _MARGIN, y, _heading(influence, excerpt), family=_SANS, fontsize=NORMAL, fontweight="bold")
        y += 6
        for pieces in excerpt.lines:
            for piece in pieces:
                _draw_piece(axes, influence, excerpt.sample, piece, y)
            y += _LINE
        y += _LINE - 6
    for line in note:
        y += _LINE
        _write(axes, _MARGIN, y, line, family=_SANS, fontsize=NORMAL, style="italic")
    return figure


def token_map(
    run: xr.Dataset,
    tokens: Sequence[Sequence[str]],
    query: tuple[int, int],
    *,
    step: int | None = None,
    part: str = "within",
    limit: float | None = None,
) -> Figure:
    """Draws the texts that a run observed by token (``probe.token_samples``), coloured by influence on one token.

    Args:
        run: opened with ``trace=True``, which loads the influence between tokens.
        tokens: decoded tokens of each text in the order of ``run["chosen"]``; as many as it has losses, or one more.
        query: position of a text in that order, and of a token in it.
        step: of the probe; the last one if None.
        part: ``within``, ``drift`` or ``total``.
        limit: of the colours, see :meth:`~stagewise.reporting.token_influence.TokenInfluence.of`.

    Raises:
        InputError: no influence between tokens, no probe at that step, no such part, or tokens that do not fit.
    """
    if "token_bif" not in run or "step" not in run.dims:
        raise InputError(
            "got a run without influence between tokens; expected token_bif; open it with trace=True, or set "
            "probe.token_samples and train again"
        )
    steps, parts = [int(at) for at in run["step"].values], [str(name) for name in run["token_part"].values]
    at = steps[-1] if step is None else step
    require(at in steps, "step", at, f"a probe, from {steps[0]} to {steps[-1]}", "take one of run['step']")
    require(part in parts, "part", repr(part), f"one of {', '.join(parts)}", "'within' is the default")
    values = run["token_bif"].sel(step=at, token_part=part).rename(chosen="sample", chosen_j="sample_j")
    influence = TokenInfluence.of(values, tokens, query, limit=limit)
    return token_figure(influence, title=f"Token influence at step {at:,}, {part} part")


def _words(influence: TokenInfluence) -> list[str]:
    query = visible(influence.tokens[influence.sample][influence.token])
    if len(query) > _LONGEST_QUERY:
        query = query[: _LONGEST_QUERY - 1] + "…"
    own = influence.values[influence.sample, influence.token]
    return [
        f"Influence of each token on the loss of token {influence.token} of sample {influence.sample}, “{query}”, "
        "which is outlined.",
        "Blue = negative = helpful: more weight on a token lowers the loss of the outlined one. Red = positive = "
        "harmful. White: zero. Grey letters: no loss.",
        f"Tokens beyond the limits below, which have their colours: {influence.num_beyond}; beside them the outlined "
        f"one, whose influence on itself is {own:.3g}. Influence within the outlined token's own text is of one "
        "sequence on itself: read the other texts.",
    ]


def _heading(influence: TokenInfluence, excerpt: Excerpt) -> str:
    words = f"sample {excerpt.sample}" + (
        f", with the outlined token ({_POINTER})" if excerpt.sample == influence.sample else ""
    )
    if excerpt.is_whole:
        return words
    return f"{words}: lines {excerpt.first + 1} to {excerpt.first + len(excerpt.lines)} of {excerpt.total}"


def _left_out(shown: Sequence[Excerpt], wanted: int) -> str:
    """Describes the texts and lines without room; empty if all are shown."""
    cut = [str(row.sample) for row in shown if not row.is_whole]
    more = wanted - len(shown)
    parts = [f"the other lines of sample {' and '.join(cut)}"] if cut else []
    parts += [f"{more} more sample{'s' if more > 1 else ''}"] if more else []
    return f"No room here, see the HTML page: {' and '.join(parts)}." if parts else ""


def _draw_bar(figure: Figure, influence: TokenInfluence, y: float, width: float, height: float) -> None:
    """Draws the colour bar, its top at ``y`` pixels from above."""
    left, long, high = _MARGIN + 64, min(260, width - 440), 14
    place = figure.add_axes((left / width, 1 - (y + high) / height, long / width, high / height))
    colours = ListedColormap([np.divide(background(share), 255) for share in np.linspace(-1, 1, 255)])
    limit = influence.limit
    bar = figure.colorbar(ScalarMappable(Normalize(-limit, limit), colours), cax=place, orientation="horizontal")
    bar.set_ticks([-limit, 0, limit], labels=[f"-{limit:.3g}", "0", f"+{limit:.3g}"])
    place.tick_params(labelsize=SMALL)
    for x, side, words in (
        (-0.03, "right", "helpful"),
        (1.03, "left", f"harmful      minus the {influence.measure}"),
    ):
        place.text(x, 0.5, words, transform=place.transAxes, ha=side, va="center", family=_SANS, fontsize=NORMAL)


def _draw_piece(axes: Axes, influence: TokenInfluence, sample: int, piece: Piece, y: float) -> None:
    """Draws colour, outline and letters of a piece, its top at ``y``."""
    value = influence.values[sample, piece.token]
    name = f"sample {sample}, token {piece.token}"
    left, width = _MARGIN + piece.column * _CELL, len(piece.text) * _CELL
    letters = _GREY
    if not np.isnan(value):
        colour = background(value / influence.limit)
        letters = "#FFFFFF" if is_dark(colour) else _BLACK
        face = tuple(level / 255 for level in colour)
        # A gap of a pixel separates neighbours.
        axes.add_patch(Rectangle((left, y + 1), width - 1, _LINE - 2, facecolor=face, linewidth=0, gid=name))
    if (sample, piece.token) == (influence.sample, influence.token):
        place, size = (left - 2, y - 1), (width + 3, _LINE + 2)
        axes.add_patch(Rectangle(place, *size, fill=False, edgecolor=_BLACK, linewidth=1.7, gid="query", zorder=2))
        _write(axes, 3, y + 13, _POINTER, family=_MONO, fontsize=_LETTERS)
    column = 0
    for is_sign, run in groupby(piece.text, key=lambda text: text in VISIBLE.values()):
        text = "".join(run)
        look = {"color": letters, "alpha": 0.5 if is_sign else 1.0, "gid": name}
        _write(axes, left + column * _CELL, y + 13, text, family=_MONO, fontsize=_LETTERS, **look)
        column += len(text)


def _write(axes: Axes, x: float, y: float, text: str, *, family: str, **look: Any) -> None:
    """Writes literal text with its baseline at ``y``: no math between dollar signs, no warnings of lacking glyphs."""
    glyphs = _glyphs(family)
    shown = "".join(char if ord(char) in glyphs else _LACKING for char in text)
    axes.text(x, y, shown, family=family, parse_math=False, usetex=False, **look)


@cache
def _glyphs(family: str) -> frozenset[int]:
    """Returns the code points of a font."""
    return frozenset(get_font(findfont(FontProperties(family=family))).get_charmap())
