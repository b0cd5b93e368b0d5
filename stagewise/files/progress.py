"""Progress of long work, shown only on a terminal; loops of less than two seconds show none."""

import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

from tqdm import tqdm

T = TypeVar("T")

_PATIENCE = 2.0
"""Seconds before progress is shown."""


def followed(things: Sequence[T], words: str) -> Iterable[T]:
    """Iterates over things and shows progress on standard error.

    Args:
        things: items of the loop.
        words: description of the work, such as ``reading probes``.
    """
    return tqdm(things, desc=f"stagewise: {words}", delay=_PATIENCE, disable=None, leave=False, file=sys.stderr)


class Stages:
    """Progress line on standard error that names the present one of a few stages."""

    def __init__(self, num: int) -> None:
        """Prepares the line.

        Args:
            num: number of stages.
        """
        layout = "stagewise: {desc} ... ({n_fmt} of {total_fmt} done, {elapsed})"
        self._bar = tqdm(total=num, desc="begins", bar_format=layout, disable=None, leave=False, file=sys.stderr)
        self._begun = False

    def begin(self, words: str) -> None:
        """Ends the previous stage and starts the next one.

        Args:
            words: description of the stage, such as ``drawing figures``.
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
    """Context with stages whose line is cleared at the end, even after an error.

    Args:
        num: number of stages.
    """
    line = Stages(num)
    try:
        yield line
    finally:
        line.close()
