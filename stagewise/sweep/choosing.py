"""Choice of checkpoints along a training run: all, a number of them on a logarithmic grid, or a list of steps."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from stagewise.errors import InputError

ALL_STEPS = "all"
_LOG = re.compile(r"log:(\d{1,6})")
_SHOWN = 12
_FINEST = 20
"""Finest grid to try, in multiples of the requested number: near its start several points share a checkpoint."""


@dataclass(frozen=True)
class Chosen:
    """Training steps of a sweep.

    Attributes:
        steps: increasing, at least one.
        missing: listed steps without a checkpoint.
    """

    steps: tuple[int, ...]
    missing: tuple[int, ...] = ()

    @property
    def words(self) -> str:
        """Description of the missing steps; empty without any."""
        if not self.missing:
            return ""
        return (
            f"no checkpoint of step{'s' if len(self.missing) > 1 else ''} {listed(self.missing)}; going on with the "
            f"{len(self.steps)} found"
        )


def check_steps(steps: Sequence[int] | str | None) -> None:
    """Refuses an invalid choice of steps in words.

    Raises:
        InputError: neither ``all`` nor ``log:<number>`` with a number of 2 or more.
    """
    if isinstance(steps, str) and steps != ALL_STEPS and _number(steps) < 2:
        raise InputError(
            f"got steps={steps!r}; expected all, log:<number of checkpoints>, or a list; e.g. --steps log:24, or "
            '--steps "[1,2,4,8]"'
        )


def _number(words: str) -> int:
    found = _LOG.fullmatch(words)
    return int(found[1]) if found else 0


def choose(there: Sequence[int], asked: Sequence[int] | str | None) -> Chosen:
    """Returns the training steps of a sweep.

    Args:
        there: steps of the checkpoints, increasing, at least one.
        asked: steps; ``log:24`` for at most 24, evenly spaced on a logarithmic axis as far as checkpoints allow, with
            the first (step 0, if present) and the last; ``all`` or None for all.

    Raises:
        InputError: none of the listed steps has a checkpoint.
    """
    if asked is None or asked == ALL_STEPS:
        return Chosen(tuple(there))
    if isinstance(asked, str):
        check_steps(asked)
        return Chosen(_logarithmic(there, _number(asked)))
    missing = tuple(sorted(set(asked) - set(there)))
    left = tuple(sorted(set(asked) & set(there)))
    if not left:
        raise InputError(
            f"got steps {listed(missing)}, of which there is no checkpoint; expected some of {listed(there)}; correct "
            "steps, or take log:24 or all"
        )
    return Chosen(left, missing)


def _logarithmic(there: Sequence[int], number: int) -> tuple[int, ...]:
    """Returns the checkpoints nearest to the finest even grid that selects at most ``number`` of them."""
    if len(there) <= number:
        return tuple(there)
    start = [step for step in there if step == 0]
    steps = np.array([step for step in there if step > 0])
    wanted, found = number - len(start), [int(steps[-1])]
    for points in range(wanted, _FINEST * wanted + 1):
        grid = np.geomspace(steps[0], steps[-1], points) if points > 1 else steps[-1:]
        nearest = np.abs(np.log(steps)[None] - np.log(grid)[:, None]).argmin(axis=1)
        tried = np.unique(steps[nearest])
        if len(tried) > wanted:
            break
        found = tried.tolist()
    return (*start, *found)


def listed(steps: Sequence[int]) -> str:
    """Lists steps in words, cut if there are many."""
    return ", ".join(map(str, steps[:_SHOWN])) + (", ..." if len(steps) > _SHOWN else "")
