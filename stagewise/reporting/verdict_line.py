"""The verdict of a run in one line."""

import textwrap
from typing import Any

import xarray as xr

from stagewise.errors import InputError
from stagewise.runs.run_windows import run_windows
from stagewise.runs.summary_file import summary_of
from stagewise.runs.verdict import judge

MARKS = {"yes": "●", "partly": "◐", "no": "○", "not known": "?"}
"""Of the answers."""

_TITLES = {"positions": "positions", "signs": "signs", "heights": "heights", "landscape": "beyond gradients"}


def verdict_record(run: xr.Dataset) -> dict[str, Any] | None:
    """The verdict as plain data: that of the run's summary, or judged now; None where the run does not tell enough.

    Args:
        run: as :func:`stagewise.runs.open.open_run` returns it.

    Returns:
        As :meth:`stagewise.runs.verdict.Verdict.record`.
    """
    written = summary_of(run).get("verdict")
    if isinstance(written, dict) and all(isinstance(written.get(name), dict) for name in _TITLES):
        return written
    try:
        return judge(run, windows=len(run_windows(run))).record()
    except InputError:
        return None


def verdict_line(run: xr.Dataset) -> str:
    """Returns what can be read off: the answers to the four questions of the verdict; empty where none is known.

    Args:
        run: as :func:`stagewise.runs.open.open_run` returns it.
    """
    found = verdict_record(run)
    if found is None:
        return ""
    answers = {title: str(found[name].get("answer", "not known")) for name, title in _TITLES.items()}
    told = "   ".join(_together(f"{MARKS.get(answer, '?')} {title}: {answer}") for title, answer in answers.items())
    return f"Can be read off:   {told}"


def _together(words: str) -> str:
    """Words that no line break parts."""
    return words.replace(" ", "\u00a0")


def help_line(run: xr.Dataset, longest: int = 150) -> str:
    """Returns what would help most; empty where nothing is needed or known.

    Args:
        run: as :func:`stagewise.runs.open.open_run` returns it.
        longest: characters.
    """
    best = (verdict_record(run) or {}).get("best")
    words = best.get("words") if isinstance(best, dict) else None
    return "" if not words else textwrap.shorten(f"What would help most: {words}", longest, placeholder=" …")
