"""Regular expressions from users: errors name the wrong place, and searches have a time limit.

With a pattern such as ``(a+)+$`` the time of a search doubles with each letter, and Python's own ``re`` cannot be
interrupted. The package ``regex`` supports the same syntax, and can be.
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
"""Time limit for all strings together. Some 100,000 tokens take a tenth of a second with an ordinary pattern."""


def compiled(pattern: object, *, name: str = "pattern", expected: str, advice: str) -> "regex.Pattern[str]":
    """Compiles a pattern.

    Args:
        pattern: pattern from the user.
        name: of the setting, for messages.
        expected: description of what it should be, such as ``a regular expression``.
        advice: advice for the message.

    Raises:
        InputError: not text, not a regular expression (the message names the place), or unreasonably long or deep.
    """
    if not isinstance(pattern, str) or len(pattern) > _LONGEST:
        length = f" of {len(pattern):,} characters" if isinstance(pattern, str) else ""
        raise InputError(f"got {name}={shown(pattern)}{length}; expected {expected}; {advice}")
    # Counted repeats are expanded on compilation: {1000000} twice fills the memory before any search.
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
    """Returns True for each string in which a pattern is found.

    Args:
        pattern: from :func:`compiled`.
        strings: strings to search.
        seconds: time limit for all strings together.

    Raises:
        InputError: the search took longer, which happens if a pattern can match a text in very many ways.
    """
    end = time.monotonic() + seconds
    return [_limited(pattern, text, end, seconds, whole=False) is not None for text in strings]


def whole_match(pattern: "regex.Pattern[str]", text: str, *, seconds: float = 1.0) -> "regex.Match[str] | None":
    """Returns the match of a pattern with a whole text; None if it does not match.

    Args:
        pattern: from :func:`compiled`.
        text: text to match.
        seconds: time limit.

    Raises:
        InputError: the match took longer.
    """
    return _limited(pattern, text, time.monotonic() + seconds, seconds, whole=True)


def _limited(
    pattern: "regex.Pattern[str]", text: str, end: float, seconds: float, *, whole: bool
) -> "regex.Match[str] | None":
    look = pattern.fullmatch if whole else pattern.search
    try:
        # A minimum, since a busy machine may have used up the time.
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
