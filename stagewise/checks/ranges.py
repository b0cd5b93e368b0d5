"""Ranges of settings, declared once, in annotations: ``lr: Positive``, ``num_draws: Annotated[int, at_least(2)]``.

:func:`~stagewise.checks.bounds.settle_fields` and its like hold values against them. jsonargparse shows a range beside
the type in ``--help`` and reads values by the type alone, so that what is out of range is refused in one place and in
the same words from Python and from YAML. The markers of ``annotated_types`` would be taken over by pydantic wherever
that is installed, with its own words and its own idea of a number.
"""

import reprlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any

from stagewise.errors import require


@dataclass(frozen=True, repr=False)
class Limit:
    """A condition on a value beyond its type.

    Attributes:
        words: that follow the words for the type in an error, such as ``>= 1``; shown in ``--help``.
        holds: tells of a value of the type whether it is within the limit.
        advice: what to do about one that is not; the default of the setting if None.
    """

    words: str
    holds: Callable[[Any], bool] = field(compare=False)
    advice: str | None = None

    def __repr__(self) -> str:
        return self.words


def at_least(low: float, advice: str | None = None) -> Limit:
    """Numbers of ``low`` or more; ``advice`` as of :class:`Limit`."""
    return Limit(f">= {low:g}", lambda value: value >= low, advice)


def more_than(low: float, advice: str | None = None) -> Limit:
    """Numbers above ``low``; ``advice`` as of :class:`Limit`."""
    return Limit(f"> {low:g}", lambda value: value > low, advice)


def within(
    low: float, high: float, advice: str | None = None, *, with_low: bool = True, with_high: bool = True
) -> Limit:
    """Numbers from ``low`` to ``high``.

    Args:
        low: least number.
        high: largest number.
        advice: as of :class:`Limit`.
        with_low: False leaves ``low`` itself out.
        with_high: False leaves ``high`` itself out.
    """

    def holds(value: float) -> bool:
        above = value >= low if with_low else value > low
        return above and (value <= high if with_high else value < high)

    # f"{10**15:g}" would be 1e+15.
    ends = [f"{end:,}" if isinstance(end, int) else f"{end:g}" for end in (low, high)]
    return Limit(f"in {'[' if with_low else '('}{', '.join(ends)}{']' if with_high else ')'}", holds, advice)


def fraction(advice: str | None = None) -> Limit:
    """Numbers above 0 and below 1; ``advice`` as of :class:`Limit`."""
    return within(0, 1, advice, with_low=False, with_high=False)


Positive = Annotated[float, more_than(0)]
NonNegative = Annotated[float, at_least(0)]
PositiveInt = Annotated[int, at_least(1)]
NonNegativeInt = Annotated[int, at_least(0)]
Fraction = Annotated[float, fraction()]
"""A number above 0 and below 1."""

Name = Annotated[str, Limit("that is not empty", bool)]
"""Text of one character or more."""


def check_distinct(name: str, values: Sequence[Any], advice: str, *, expected: str = "one or more, each once") -> None:
    """Refuse a list that is empty, or in which a value comes twice.

    Args:
        name: of the setting, for messages.
        values: hashable.
        advice: what to do.
        expected: words for the list.

    Raises:
        InputError: as said.
    """
    require(0 < len(values) == len(set(values)), name, reprlib.repr(values), expected, advice)
