"""Course of the influence of groups in words, compared with scores of heads and losses alone."""

from collections.abc import Sequence
from itertools import islice

import numpy as np
import xarray as xr

from stagewise.phases.detection import detect
from stagewise.phases.offline import MIN_PROMINENCE
from stagewise.phases.signal import Kind
from stagewise.phases.signal_table import signal_table
from stagewise.reporting.scores import Score
from stagewise.runs.rises import Rise, influence_rises
from stagewise.runs.summary_file import summary_of

_SCORES = ("prefix_matching", "previous_token")
_MOST_WINDOWS = 3


def rises_markdown(run: xr.Dataset, scores: Sequence[Score], *, chance: float = 0.05) -> str | None:
    """Returns a paragraph and a table: each group's rise, with intervals, and the timing by scores and losses alone.

    Args:
        run: as :func:`stagewise.runs.open.open_run` returns it, with group influence.
        scores: of its heads.
        chance: probability that noise alone makes a rise or a decline sure.

    Returns:
        None if no group has a rise.
    """
    found = influence_rises(run, chance=chance)
    if not found:
        return None
    intro = (
        "**Course of the influence of each group on itself** (within, nats², negative = helpful). It has left its "
        "plateau at a quarter of the way to its peak; *unresolved* where the two differ by less than its errors "
        "resolve, which is told; it declines where it comes back beyond its errors. 95 % intervals of steps are from "
        "the errors over chains of this run."
    )
    header = "| group | plateau | leaves it | peak at | value there | at the end | declines |"
    lines = [header, "|---|---|---|---|---|---|---|"]
    lines += [_row(group, rise) for group, rise in found.items()]
    return "\n\n".join([intro, "\n".join(lines), *_beside(run, scores)])


def _row(group: str, rise: Rise) -> str:
    leaves = f"unresolved: takes {rise.limit:.1e}" if rise.leaves is None else rise.leaves.words
    turn = rise.decline
    declines = "not beyond its errors" if turn is None else f"yes, {turn.significance:.1f} errors"
    if not rise.sure:
        declines = "-"
    return (
        f"| {group} | {rise.plateau:+.1e} | {leaves} | {rise.peak.words} | {rise.value:+.1e} | {rise.last:+.1e} | "
        f"{declines} |"
    )


def _beside(run: xr.Dataset, scores: Sequence[Score]) -> list[str]:
    """Describes the timing without chains: scores of heads, and windows in losses alone."""
    parts = []
    for score in scores:
        rise = score.rise()
        if score.name in _SCORES and rise is not None:
            top = int(np.argmax(score.values))
            parts.append(
                f"{score.name} goes from a quarter to three quarters of its way in steps {rise[0]:,} to {rise[1]:,}, "
                f"and is highest at {int(score.steps[top]):,}"
            )
    parts.append(_losses_alone(run))
    return [f"**Beside it**: {'; '.join(filter(None, parts))}."] if any(parts) else []


def _losses_alone(run: xr.Dataset) -> str:
    if not {"anchor_loss", "shift", "shift_se", "signal"} <= set(run) or "reference_step" not in run.coords:
        return ""
    least = float(summary_of(run).get("min_prominence", MIN_PROMINENCE))
    name = str(Kind.losses_alone)
    windows = detect(run, signal_table(run), signals=[name], min_prominence=least, num_critical=0)
    if not windows:
        return "losses alone show no window"
    largest = islice(sorted(windows, key=lambda window: -window.value), _MOST_WINDOWS)
    spans = [
        f"{item.start:,} to {item.end:,} (peak {item.peak:,})" for item in sorted(largest, key=lambda item: item.peak)
    ]
    return f"losses alone, without chains, have windows at steps {', '.join(spans)}"
