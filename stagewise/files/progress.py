"""Progress of long work, on a terminal: nothing is written into files, and nothing about a loop of two seconds."""

import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

from tqdm import tqdm

T = TypeVar("T")

_PATIENCE = 2.0
"""Seconds that nobody wonders about."""


def followed(things: Sequence[T], words: str) -> Iterable[T]:
    """Passes things on, and shows on standard error how many have been taken.

    Args:
        things: to go through.
        words: for the work, such as ``reading probes``.
    """
    return tqdm(things, desc=f"stagewise: {words}", delay=_PATIENCE, disable=None, leave=False, file=sys.stderr)


class Stages:
    """Work of a few named stages, of which the present one is shown on standard error."""

    def __init__(self, num: int) -> None:
        """Nothing is shown before the first stage.

        Args:
            num: of the stages.
        """
        layout = "stagewise: {desc} ... ({n_fmt} of {total_fmt} done, {elapsed})"
        self._bar = tqdm(total=num, desc="begins", bar_format=layout, disable=None, leave=False, file=sys.stderr)
        self._begun = False

    def begin(self, words: str) -> None:
        """Ends the stage before and names the next one.

        Args:
            words: such as ``drawing figures``.
        """
        if self._begun:
            self._bar.update()
        self._begun = True
        self._bar.set_description_str(words)

    def close(self) -> None:
        """Clears the line."""
        self._bar.close()


@contextmanager
def stages(num: int) -> Iterator[Stages]:
    """Stages whose line is cleared at the end, also after an error.

    Args:
        num: of the stages.
    """
    line = Stages(num)
    try:
        yield line
    finally:
        line.close()
