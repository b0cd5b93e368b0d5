"""Windows of a finished run as plain data and as a table."""

import math
from collections.abc import Sequence
from typing import Any

from stagewise.phases.window import Method, Window

_HEADER = ("detector", "signal", "start", "peak", "end", "height", "significance", "off segment", "critical samples")

_NUM_LEFT = 2
"""Number of leading text columns, left-aligned like the last column."""


def _finite(value: float | None) -> float | None:
    """Replaces numbers that are not finite, which JSON cannot represent, by None."""
    return value if value is not None and math.isfinite(value) else None


def transition(window: Window, signal: str) -> dict[str, Any]:
    """Returns one window as listed in ``summary.json``, from which interventions can be placed.

    Args:
        window: found offline.
        signal: name of the signal that shows it.
    """
    return {
        "start": window.start,
        "peak": window.peak,
        "end": window.end,
        "signal": signal,
        "prominence": window.prominence,
        "value": window.value,
    }


def window_record(window: Window) -> dict[str, Any]:
    """Returns one window for JSON; None for unknown numbers and for the ``end`` of an open window.

    Args:
        window: from :func:`~stagewise.phases.detection.detect`.
    """
    reading = window.reading
    return {
        "detector": str(window.method),
        "signal": window.signal,
        "units": window.units,
        "start": window.start,
        "peak": window.peak,
        "end": window.end,
        "value": window.value,
        "height": window.height,
        "significance": _finite(window.significance),
        "critical_samples": [
            {"sample": sample.sample, "shift": sample.shift, "shift_se": _finite(sample.shift_se)}
            for sample in window.critical
        ],
        "two_phase": None
        if reading is None
        else {
            "steps": list(window.steps),
            "pi": reading.pi.tolist(),
            "residual": reading.residual.tolist(),
            "length": reading.length,
        },
    }


def transitions(found: Sequence[Window]) -> list[dict[str, Any]]:
    """Returns the offline windows of the first signal, as listed in ``summary.json``.

    Args:
        found: windows in the order of :func:`~stagewise.phases.detection.detect`.
    """
    offline = [window for window in found if window.method is Method.offline]
    return [transition(window, str(window.signal)) for window in offline if window.signal == offline[0].signal]


def window_table(found: Sequence[Window]) -> str:
    """Returns windows as lines of text, columns aligned.

    Args:
        found: at least one window.
    """
    rows = [_HEADER, *(_cells(window) for window in found)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(_HEADER))]
    lines = []
    for row in rows:
        cells = [
            cell.ljust(width) if column < _NUM_LEFT or column == len(_HEADER) - 1 else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)


def _cells(window: Window) -> tuple[str, ...]:
    significance = _finite(window.significance)
    return (
        str(window.method),
        str(window.signal),
        str(window.start),
        str(window.peak),
        "open" if window.end is None else str(window.end),
        f"{window.height:.3g} {window.units}".removesuffix(" 1"),
        "-" if significance is None else f"{significance:.1f}",
        "-" if window.reading is None else f"{window.reading.residual.max():.2f}",
        ", ".join(f"{sample.sample} ({sample.shift:+.3g})" for sample in window.critical) or "-",
    )
