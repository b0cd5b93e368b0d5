"""Ranges of settings, declared once, in annotations: ``lr: Positive``, ``num_draws: Annotated[int, at_least(2)]``.

:func:`~stagewise.checks.bounds.settle_fields` and similar functions check values against them. jsonargparse shows a
range after the type in ``--help`` but parses values by the type alone. Values out of range are thus refused in one
place, with the same message from Python and from YAML. Markers of ``annotated_types`` would be handled by pydantic, if
installed, with its own messages and its own conversions of numbers.
"""

import reprlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any

from stagewise.errors import require


@dataclass(frozen=True, repr=False)
class Limit:
    """Condition on a value beyond its type.

    Attributes:
        words: description that follows the type in errors and in ``--help``, such as ``>= 1``.
        holds: returns True if a value of the type is within the limit.
        advice: advice for values outside of it; names the default of the setting if None.
    """

    words: str
    holds: Callable[[Any], bool] = field(compare=False)
    advice: str | None = None

    def __repr__(self) -> str:
        return self.words


def at_least(low: float, advice: str | None = None) -> Limit:
    """Returns the limit to numbers of ``low`` or more; ``advice`` as in :class:`Limit`."""
    return Limit(f">= {low:g}", lambda value: value >= low, advice)


def more_than(low: float, advice: str | None = None) -> Limit:
    """Returns the limit to numbers above ``low``; ``advice`` as in :class:`Limit`."""
    return Limit(f"> {low:g}", lambda value: value > low, advice)


def within(
    low: float, high: float, advice: str | None = None, *, with_low: bool = True, with_high: bool = True
) -> Limit:
    """Returns the limit to numbers from ``low`` to ``high``.

    Args:
        low: smallest number.
        high: largest number.
        advice: as in :class:`Limit`.
        with_low: False excludes ``low`` itself.
        with_high: False excludes ``high`` itself.
    """

    def holds(value: float) -> bool:
        above = value >= low if with_low else value > low
        return above and (value <= high if with_high else value < high)

    # f"{10**15:g}" would be 1e+15.
    ends = [f"{end:,}" if isinstance(end, int) else f"{end:g}" for end in (low, high)]
    return Limit(f"in {'[' if with_low else '('}{', '.join(ends)}{']' if with_high else ')'}", holds, advice)


def fraction(advice: str | None = None) -> Limit:
    """Returns the limit to numbers above 0 and below 1; ``advice`` as in :class:`Limit`."""
    return within(0, 1, advice, with_low=False, with_high=False)


Positive = Annotated[float, more_than(0)]
NonNegative = Annotated[float, at_least(0)]
PositiveInt = Annotated[int, at_least(1)]
NonNegativeInt = Annotated[int, at_least(0)]
Fraction = Annotated[float, fraction()]
"""Number above 0 and below 1."""

Name = Annotated[str, Limit("that is not empty", bool)]
"""Text of one character or more."""


def check_distinct(name: str, values: Sequence[Any], advice: str, *, expected: str = "one or more, each once") -> None:
    """Refuses a list that is empty or contains a value twice.

    Args:
        name: of the setting, for messages.
        values: hashable values.
        advice: advice for the message.
        expected: description of the expected list.

    Raises:
        InputError: the list is empty, or a value occurs twice.
    """
    require(0 < len(values) == len(set(values)), name, reprlib.repr(values), expected, advice)
