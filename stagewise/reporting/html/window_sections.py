"""Windows in a report: their steps, and the groups and samples that moved in them."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import xarray as xr

from stagewise.checks.group_names import markdown_text
from stagewise.phases.detection import critical_samples
from stagewise.reporting.html.blocks import Block, Heading, Items, Section, Table, Text
from stagewise.runs.moving_groups import Move, moves
from stagewise.runs.run_windows import no_window_words, run_windows
from stagewise.runs.sample_names import SampleNames
from stagewise.runs.strongest import strongest_pairs

_MOST_WINDOWS, _MOST_GROUPS, _NUM_CRITICAL = 8, 10, 5


def windows_section(run: xr.Dataset) -> Section:
    """Returns the section on the windows of the between part; if there are none, on the reason.

    Args:
        run: as :func:`stagewise.runs.open.open_run` returns it.
    """
    found = run_windows(run)
    blocks: list[Block] = []
    if not found:
        why = no_window_words(run)
        blocks.append(
            Text(f"**No transition window was found** in the between part{'' if why is None else f': {why}'}.")
        )
    for window in found[:_MOST_WINDOWS]:
        blocks += _window(run, window)
    if len(found) > _MOST_WINDOWS:
        blocks.append(Text(f"{len(found) - _MOST_WINDOWS} later windows are in `summary.json`."))
    return Section("windows", "Transition windows, and what moved in them", tuple(blocks))


def _window(run: xr.Dataset, window: Mapping[str, Any]) -> list[Block]:
    start, peak, end = (int(window[name]) for name in ("start", "peak", "end"))
    blocks: list[Block] = [
        Heading(f"Steps {start:,} to {end:,}, peak at {peak:,}"),
        Text(f"Signal at the peak: {float(window['value']):.3g} nats."),
    ]
    groups = _groups(run, start, end)
    blocks += groups
    samples = _samples(run, peak)
    if samples:
        blocks += [
            Text(
                "Samples whose loss moved farthest at the peak, since the reference probe (negative = learnt; the "
                "first sample of the observed set is 0):"
            ),
            Items(tuple(samples)),
        ]
    return blocks


def _groups(run: xr.Dataset, start: int, end: int) -> list[Block]:
    if "group" not in run.dims:
        return []
    steps = run["step"].values
    before = max(int(np.searchsorted(steps, start, side="right")) - 1, 0)
    after = min(int(np.searchsorted(steps, end)), len(steps) - 1)
    moved = {move.group: move for move in moves(run, start, end)} if "group_bif" in run else {}
    names = [*moved, *(str(name) for name in run["group"].values if str(name) not in moved)]
    if "group_bif" in run and not moved:
        order = [one for one, two in strongest_pairs(run, len(names) ** 2) if one == two]
        names.sort(key=lambda name: order.index(name) if name in order else len(order))
    rows = []
    for name in names[:_MOST_GROUPS]:
        losses = "-"
        if "group_loss" in run:
            first, last = run["group_loss"].sel(group=name).values[[before, after]]
            losses = f"{first:.3g} → {last:.3g} ({last - first:+.2g})"
        rows.append((name, losses, *_influence(moved.get(name))))
    span = f"steps {steps[before]:,} to {steps[after]:,}"
    head = ("group", f"loss, nats, {span}", "influence on itself, nats²", "z of the change", "significant")
    blocks: list[Block] = [Table(head, tuple(rows))]
    if len(names) > _MOST_GROUPS:
        blocks.append(Text(f"{len(names) - _MOST_GROUPS} more groups moved less.", quiet=True))
    if "group_bif" in run and not moved:
        blocks.append(
            Text(
                "Changes of influence are not known: a probe beside the window is missing, has a single chain or is "
                "out of equilibrium.",
                quiet=True,
            )
        )
    return blocks


def _influence(move: Move | None) -> tuple[str, str, str]:
    if move is None:
        return "-", "-", "-"
    return f"{move.before:+.2e} → {move.after:+.2e}", f"{move.z:+.1f}", "yes" if move.sure else "no"


def _samples(run: xr.Dataset, peak: int) -> list[str]:
    steps = run["step"].values.tolist()
    if not {"shift", "shift_se"} <= set(run) or peak not in steps:
        return []
    found, names = [], SampleNames(run)
    for critical_sample in critical_samples(run, peak, _NUM_CRITICAL):
        error = f" ± {critical_sample.shift_se:.2g}" if np.isfinite(critical_sample.shift_se) else ""
        found.append(f"{markdown_text(names(critical_sample.sample))}: {critical_sample.shift:+.3g}{error} nats")
    return found
