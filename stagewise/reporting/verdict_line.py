"""Verdict of a run in one line."""

import textwrap
from collections.abc import Mapping
from typing import Any

import xarray as xr

from stagewise.errors import InputError
from stagewise.runs.verdict import verdict_record

MARKS = {"yes": "●", "partly": "◐", "no": "○", "not known": "?"}
"""Symbols of the answers."""

_TITLES = {"positions": "positions", "signs": "signs", "heights": "heights", "landscape": "beyond gradients"}


def known_verdict(run: xr.Dataset) -> Mapping[str, Any] | None:
    """Returns :func:`~stagewise.runs.verdict.verdict_record`; None if the run lacks its data.

    Args:
        run: as :func:`stagewise.runs.open.open_run` returns it.
    """
    try:
        return verdict_record(run)
    except InputError:
        return None


def verdict_line(run: xr.Dataset) -> str:
    """Returns the answers to the four questions of the verdict; empty if none is known.

    Args:
        run: as :func:`stagewise.runs.open.open_run` returns it.
    """
    found = known_verdict(run)
    if found is None:
        return ""
    answers = {title: str(found[name].get("answer", "not known")) for name, title in _TITLES.items()}
    line = "   ".join(_together(f"{MARKS.get(answer, '?')} {title}: {answer}") for title, answer in answers.items())
    return f"Can be read off:   {line}"


def _together(words: str) -> str:
    """Joins words by non-breaking spaces."""
    return words.replace(" ", "\u00a0")


def help_line(run: xr.Dataset, longest: int = 150) -> str:
    """Returns the most helpful change; empty if none is needed or known.

    Args:
        run: as :func:`stagewise.runs.open.open_run` returns it.
        longest: maximal number of characters.
    """
    best = (known_verdict(run) or {}).get("best")
    words = best.get("words") if isinstance(best, dict) else None
    return "" if not words else textwrap.shorten(f"What would help most: {words}", longest, placeholder=" …")
