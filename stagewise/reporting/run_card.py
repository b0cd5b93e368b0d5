"""Text card of a run under TensorBoard's *Text* tab, from its first probe on."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from stagewise.reporting.summary import summary_markdown

_CHARTS = (
    "**Charts**: images have every value, with intervals: `00_overview`, then `01_curves/`. In charts set *Smoothing* "
    "to 0, which else lowers and delays peaks, and untick *Ignore outliers in chart scaling*, which else cuts them. "
    "`influence/...`: negative = helpful; `baseline/graddot` and `baseline/tracin`: positive = helpful. *Custom "
    "scalars* has curves that belong together in one chart."
)


def run_card(summary: Mapping[str, Any], folder: Path, *, unfinished: bool) -> str:
    """Returns the card of a run: its progress, the verdict so far, its settings, and the place of its files.

    Args:
        summary: see :func:`~stagewise.reporting.summary.build_summary`.
        folder: of the run.
        unfinished: True while training continues, so that everything is provisional.
    """
    steps = summary["probe_steps"]
    lines = []
    if unfinished:
        probes = f"{len(steps)} probe{'' if len(steps) == 1 else 's'}" if steps else "no probe"
        last = f", the last at step {steps[-1]:,}" if steps else ""
        lines += [f"**Training goes on**: {probes} so far{last}. What follows is as of now; this card is renewed.", ""]
    lines += [
        summary_markdown(summary),
        "",
        f"**Files**: `{folder}`: `influence.zarr` (every probe: `stagewise.open_run`), `summary.json` (at the end), "
        "`overview.png`; `stagewise report` makes a page of them.",
        "",
        _CHARTS,
    ]
    return "\n".join(lines)
