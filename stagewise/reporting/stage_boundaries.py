"""Boundaries between stages as plain data and as tables."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from stagewise.checks.counted import counted
from stagewise.phases.stage_boundaries import LEVEL, ShownBoundaries, StageBoundary

_PERCENT = f"{100 * LEVEL:g} %"
_HEADER = ("signal", "turns at", "kind", f"{_PERCENT} interval", "value", "significance")


def boundary_records(found: Mapping[str, Sequence[StageBoundary]]) -> list[dict[str, Any]]:
    """Returns boundaries for JSON; None for a significance that is not finite.

    Args:
        found: by signal, from :func:`~stagewise.phases.stage_boundaries.stage_boundaries`.
    """
    return [
        {
            "signal": signal,
            "kind": str(boundary.kind),
            "step": boundary.step,
            "earliest": boundary.earliest,
            "latest": boundary.latest,
            "value": boundary.value,
            "significance": boundary.significance if math.isfinite(boundary.significance) else None,
        }
        for signal, boundaries in found.items()
        for boundary in boundaries
    ]


def boundary_rows(found: Mapping[str, Sequence[StageBoundary]]) -> list[tuple[str, ...]]:
    """Returns the header and cells of a table, as text.

    Args:
        found: by signal.
    """
    cells = [
        (
            signal,
            f"{boundary.step:,}",
            str(boundary.kind),
            f"{boundary.earliest:,} to {boundary.latest:,}",
            f"{boundary.value:.3g}",
            f"{boundary.significance:.1f}",
        )
        for signal, boundaries in found.items()
        for boundary in boundaries
    ]
    return [_HEADER, *cells]


def boundary_table(found: Mapping[str, Sequence[StageBoundary]]) -> str:
    """Returns boundaries as lines of text, columns aligned; a sentence if there are none.

    Args:
        found: by signal.
    """
    rows = boundary_rows(found)
    if len(rows) == 1:
        return f"No stage boundary was found in {', '.join(found)}: no turn beyond its errors."
    widths = [max(len(row[column]) for row in rows) for column in range(len(_HEADER))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )


def not_shown_lines(split: ShownBoundaries) -> list[str]:
    """Lists the boundaries that are not shown, with the reasons; empty if all are shown.

    Args:
        split: of :func:`~stagewise.phases.stage_boundaries.boundaries_above_zero`.
    """
    lines, left_out = [], split.left_out
    if split.withheld:
        listed = ", ".join(
            f"{name} at step {boundary.step:,} ({boundary.kind})"
            for name, boundaries in split.withheld.items()
            for boundary in boundaries
        )
        lines.append(f"Not shown, since the coefficient there is not above 0 by its {_PERCENT} interval: {listed}.")
    if not left_out:
        return lines
    listed = ", ".join(f"{name} ({below} of {counted(known, 'probe')})" for name, (below, known) in left_out.items())
    words = f"No stage boundary is shown for coefficients that are mostly not above 0 by their {_PERCENT} intervals"
    return [*lines, f"{words}: {listed}."]


def boundary_markdown(found: Mapping[str, Sequence[StageBoundary]]) -> str:
    """Returns boundaries as a Markdown table; a sentence if there are none.

    Args:
        found: by signal.
    """
    rows = boundary_rows(found)
    if len(rows) == 1:
        return boundary_table(found)
    lines = [f"| {' | '.join(row)} |" for row in rows]
    return "\n".join([lines[0], f"|{'---|' * len(_HEADER)}", *lines[1:]])
