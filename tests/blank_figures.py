"""Figures of tests: made whole, and saved blank.

To place panels and draw letters takes most of the time of a report and of the end of a run. Tests that are about what
is seen are marked ``drawn``; a fixture that is shared draws within :func:`drawn`.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from matplotlib.figure import Figure

_DRAW = Figure.draw


def _nothing(figure, renderer):
    """Leaves the canvas as it is: a picture of the right size and format without anything on it."""
    figure.stale = False


def begin():
    """Makes figures blank."""
    Figure.draw = _nothing


def draw_again(monkeypatch):
    """Makes figures be drawn."""
    monkeypatch.setattr(Figure, "draw", _DRAW)


@contextmanager
def drawn() -> Iterator[None]:
    """Draws figures in a fixture that is shared by tests."""
    with pytest.MonkeyPatch.context() as patch:
        draw_again(patch)
        yield
