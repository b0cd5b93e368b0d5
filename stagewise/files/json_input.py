"""JSON that others wrote, or an earlier version: read whole and plain, or refused in one line."""

import json
import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from stagewise.errors import InputError

_MOST_DEPTH = 100
"""Deeper than any file that is written here, and far from where Python's own readers give up."""


def read_json(
    path: str | Path,
    *,
    what: str,
    advice: str,
    kind: type[dict[str, Any]] | type[list[Any]] = dict,
    keys: Iterable[str] = (),
) -> Any:
    """The content of a JSON file.

    Args:
        path: of the file, in UTF-8.
        what: it should be, for messages, such as ``the summary of a run``.
        advice: what to do where it is something else.
        kind: what stands at the top, ``dict`` or ``list``.
        keys: what a ``dict`` must have.

    Raises:
        InputError: the file cannot be read, is no JSON, holds ``NaN`` or ``Infinity``, is nested deeper than 100, or
            has something else at the top; with the file and the place in it.
    """
    try:
        text = Path(path).read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise InputError(f"got {path}, which cannot be read ({error.strerror}); expected {what}; {advice}") from error
    except UnicodeDecodeError as error:
        raise InputError(
            f"got {path}, which is not UTF-8 at byte {error.start}; expected {what}, as JSON; {advice}"
        ) from error
    except ValueError as error:
        raise InputError(f"got path {str(path)!r} ({error}); expected {what}; {advice}") from error
    return parse_json(text, source=str(path), what=what, advice=advice, kind=kind, keys=keys)


def parse_json(
    text: str,
    *,
    source: str,
    what: str,
    advice: str,
    kind: type[dict[str, Any]] | type[list[Any]] = dict,
    keys: Iterable[str] = (),
) -> Any:
    """The content of a JSON text; as :func:`read_json`.

    Args:
        text: the whole of it.
        source: where it is from, for messages.
        what: as in :func:`read_json`.
        advice: as in :func:`read_json`.
        kind: as in :func:`read_json`.
        keys: as in :func:`read_json`.

    Raises:
        InputError: as :func:`read_json`.
    """

    def refuse(why: str) -> InputError:
        return InputError(f"got {source}, {why}; expected {what}; {advice}")

    try:
        content = json.loads(text)
    except json.JSONDecodeError as error:
        raise refuse(f"which is no JSON (line {error.lineno}, column {error.colno}: {error.msg})") from error
    except RecursionError:
        raise refuse(f"which is nested deeper than {_MOST_DEPTH}") from None
    except ValueError as error:
        # A whole number of more digits than Python converts.
        raise refuse("which has a whole number of thousands of digits") from error
    fault = _fault(content)
    if fault is not None:
        raise refuse(fault)
    if not isinstance(content, kind):
        wanted = "a mapping ({...})" if kind is dict else "a list ([...])"
        raise refuse(f"which holds {_name(content)} at its top, not {wanted}")
    missing = [key for key in keys if key not in content]
    if missing:
        raise refuse(f"which has no {', '.join(map(repr, missing))}")
    return content


def _name(content: Any) -> str:
    named = {dict: "a mapping", list: "a list", str: "text", bool: "true or false", type(None): "null"}
    return named.get(type(content), "a number")


def _fault(content: Any) -> str | None:
    """What makes plain data unusable, and where; without recursion, since the data may be nested to break it."""
    waiting: list[tuple[Any, str, int]] = [(content, "", 0)]
    while waiting:
        value, place, depth = waiting.pop()
        if depth > _MOST_DEPTH:
            return f"which is nested deeper than {_MOST_DEPTH}"
        if isinstance(value, float) and not math.isfinite(value):
            word = "NaN" if math.isnan(value) else "an infinite number"
            return f"which has {word} at {place.lstrip('.') or 'its top'}"
        if isinstance(value, dict):
            waiting += [(it, f"{place}.{_short(key)}", depth + 1) for key, it in value.items()]
        elif isinstance(value, list):
            waiting += [(it, f"{place}[{number}]", depth + 1) for number, it in enumerate(value)]
    return None


def _short(key: str) -> str:
    text = key if key.isprintable() else repr(key)[1:-1]
    return text if len(text) <= 40 else f"{text[:40]}..."
