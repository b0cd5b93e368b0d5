"""Reading of JSON from other programs or earlier versions, with one-line errors."""

import json
import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from stagewise.errors import InputError

_MOST_DEPTH = 100
"""Largest depth: more than in any file of stagewise, and far below the limit of Python's own parsers."""


def read_json(
    path: str | Path,
    *,
    what: str,
    advice: str,
    kind: type[dict[str, Any]] | type[list[Any]] = dict,
    keys: Iterable[str] = (),
) -> Any:
    """Reads a JSON file.

    Args:
        path: of the file, in UTF-8.
        what: description of the expected file, for messages, such as ``the summary of a run``.
        advice: advice for the message.
        kind: type at the top level, ``dict`` or ``list``.
        keys: keys that a ``dict`` must have.

    Raises:
        InputError: the file cannot be read, is not JSON, holds ``NaN`` or ``Infinity``, is nested deeper than 100, or
            has another type at the top level; the message names the file and the place in it.
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
    """Parses a JSON text; as :func:`read_json`.

    Args:
        text: JSON.
        source: name of its source, for messages.
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
        raise refuse(f"which is not JSON (line {error.lineno}, column {error.colno}: {error.msg})") from error
    except RecursionError:
        raise refuse(f"which is nested deeper than {_MOST_DEPTH}") from None
    except ValueError as error:
        # An integer with more digits than Python converts.
        raise refuse("which has an integer with thousands of digits") from error
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
    """Describes a fault of plain data, and its place; without recursion, which deep nesting would break."""
    waiting: list[tuple[Any, str, int]] = [(content, "", 0)]
    while waiting:
        value, place, depth = waiting.pop()
        if depth > _MOST_DEPTH:
            return f"which is nested deeper than {_MOST_DEPTH}"
        if isinstance(value, float) and not math.isfinite(value):
            word = "NaN" if math.isnan(value) else "an infinite number"
            return f"which has {word} at {place.lstrip('.') or 'its top'}"
        if isinstance(value, dict):
            waiting += [(entry, f"{place}.{_short(key)}", depth + 1) for key, entry in value.items()]
        elif isinstance(value, list):
            waiting += [(entry, f"{place}[{number}]", depth + 1) for number, entry in enumerate(value)]
    return None


def _short(key: str) -> str:
    text = key if key.isprintable() else repr(key)[1:-1]
    return text if len(text) <= 40 else f"{text[:40]}..."
