"""Regular expressions that a user wrote: refused with the place that is wrong, and never searched for without end.

A pattern such as ``(a+)+$`` takes time that doubles with each letter, and Python's own ``re`` cannot be stopped. The
package ``regex`` reads the same language, and can.
"""

import math
import re
import time
from collections.abc import Iterable

import regex

from stagewise.checks.bounds import shown
from stagewise.errors import InputError

_LONGEST = 10_000
_MOST_REPEATS = 100_000
_SECONDS = 10.0
"""For all strings together. Some 100,000 tokens take a tenth of a second with a usual pattern."""


def compiled(pattern: object, *, name: str = "pattern", expected: str, advice: str) -> "regex.Pattern[str]":
    """A pattern, ready to search with.

    Args:
        pattern: what the user wrote.
        name: of the setting, for messages.
        expected: what it should be, such as ``a regular expression``.
        advice: what to do.

    Raises:
        InputError: it is no text, no regular expression, or longer or deeper than anybody writes; with the place.
    """
    if not isinstance(pattern, str) or len(pattern) > _LONGEST:
        length = f" of {len(pattern):,} characters" if isinstance(pattern, str) else ""
        raise InputError(f"got {name}={shown(pattern)}{length}; expected {expected}; {advice}")
    # What a count repeats is laid out as often as it says: {1000000} twice fills the memory before any search.
    counts = [int(digits[:7]) for digits in re.findall(r"\{(\d+)", pattern)]
    if math.prod(counts) > _MOST_REPEATS:
        raise InputError(
            f"got {name}={shown(pattern)}, whose counts {counts[:5]} multiply to more than {_MOST_REPEATS:,}; expected "
            f"{expected}; write + or * for long repeats"
        )
    try:
        return regex.compile(pattern)
    except regex.error as error:
        place = "" if error.pos is None else f" at character {error.pos + 1}"
        raise InputError(f"got {name}={shown(pattern)} ({error.msg}{place}); expected {expected}; {advice}") from error
    except (RecursionError, OverflowError, MemoryError, ValueError, IndexError, KeyError) as error:
        why = f"{type(error).__name__}: too deep, or not understood"
        raise InputError(f"got {name}={shown(pattern)} ({why}); expected {expected}; {advice}") from error


def found_in(pattern: "regex.Pattern[str]", strings: Iterable[str], *, seconds: float = _SECONDS) -> list[bool]:
    """True, for each of some strings, if a pattern is found in it.

    Args:
        pattern: as of :func:`compiled`.
        strings: to search.
        seconds: for all of them together.

    Raises:
        InputError: it took longer, as patterns do that can match one text in very many ways.
    """
    end = time.monotonic() + seconds
    return [_limited(pattern, text, end, seconds, whole=False) is not None for text in strings]


def whole_match(pattern: "regex.Pattern[str]", text: str, *, seconds: float = 1.0) -> "regex.Match[str] | None":
    """The match of a pattern with the whole of a text.

    Args:
        pattern: as of :func:`compiled`.
        text: to match.
        seconds: that it may take.

    Raises:
        InputError: it took longer.
    """
    return _limited(pattern, text, time.monotonic() + seconds, seconds, whole=True)


def _limited(
    pattern: "regex.Pattern[str]", text: str, end: float, seconds: float, *, whole: bool
) -> "regex.Match[str] | None":
    look = pattern.fullmatch if whole else pattern.search
    try:
        # A little at the least: what is left may be nothing on a machine that was busy with something else.
        return look(text, timeout=max(end - time.monotonic(), 0.05))
    except TimeoutError:
        raise InputError(
            f"got pattern {shown(pattern.pattern)}, which was still searching {shown(text)} after {seconds:g} s; "
            "expected one that matches a text in few ways; leave out repeats within repeats, such as (a+)+"
        ) from None
    except MemoryError:
        raise InputError(
            f"got pattern {shown(pattern.pattern)}, for which {shown(text)} took all memory; expected one that matches "
            "a text in few ways; leave out repeats within repeats, such as (a+)+"
        ) from None
