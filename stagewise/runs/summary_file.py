"""Checked reading of the ``summary.json`` of a run, with one-line errors."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import xarray as xr

from stagewise.checks.bounds import check_value
from stagewise.files.json_input import parse_json, read_json

_WHAT = "the summary of a run, which ends with it"
_ADVICE = "delete it, and the run opens as one that has not ended"

_SHAPES: Mapping[str, Any] = {
    "probes": int,
    "probes_flagged": int,
    "flags": Mapping[str, int],
    "transitions": list[Mapping[str, Any]],
    "min_prominence": float,
    "thresholds": Mapping[str, float | None],
    "component": str | None,
    "verdict": Mapping[str, Any] | None,
    "no_window": str | None,
    "failed_steps": list[int],
    "not_finite_steps": list[int],
    "settings_findings": list[Mapping[str, Any]],
}
_OF_TRANSITIONS = {"start": int, "peak": int, "end": int, "value": float}
_TOGETHER = ("flags", "probes_flagged", "probes")


def summary_text(path: Path) -> str:
    """Returns the text of a ``summary.json`` after checking it.

    Raises:
        InputError: it is invalid; the message names the place in it.
    """
    content = read_json(path, what=_WHAT, advice=_ADVICE)
    _check(content, str(path))
    return path.read_text(encoding="utf-8-sig")


def summary_of(run: xr.Dataset) -> dict[str, Any]:
    """Returns the summary that a run was opened with; empty if it has none.

    Raises:
        InputError: it is invalid; the message names the place in it.
    """
    text = run.attrs.get("summary")
    if text is None:
        return {}
    source = "the attribute summary of a run"
    content: dict[str, Any] = parse_json(str(text), source=source, what=_WHAT, advice=_ADVICE)
    _check(content, source)
    return content


def _check(content: Mapping[str, Any], source: str) -> None:
    for name, shape in _SHAPES.items():
        if name in content:
            check_value(f"{name} of {source}", content[name], shape, advice=_ADVICE)
    if "flags" in content:
        for name in _TOGETHER:
            check_value(f"{name} of {source}", content.get(name), _SHAPES[name], advice=_ADVICE)
    for number, row in enumerate(content.get("transitions", [])):
        for name, shape in _OF_TRANSITIONS.items():
            check_value(f"transitions[{number}].{name} of {source}", row.get(name), shape, advice=_ADVICE)
    if content.get("verdict") is not None:
        check_value(f"verdict.text of {source}", content["verdict"].get("text"), str, advice=_ADVICE)
