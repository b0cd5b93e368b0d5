"""Groups over spans of training in a report: which groups matter when."""

import numpy as np
import xarray as xr

from stagewise.reporting.html.blocks import Block, Section, Text, table_of
from stagewise.runs.common_mode import common_mode_of_groups
from stagewise.runs.time_spans import SpanMean, influence_by_span


def spans_section(run: xr.Dataset) -> Section:
    """The strongest pairs of groups over a few spans of steps, and a sentence; empty without group influence.

    Args:
        run: as :func:`stagewise.runs.open.open_run` returns it.
    """
    title = "Which groups matter when"
    if not {"group_bif", "group_bif_se"} <= set(run):
        return Section("spans", title)
    found = influence_by_span(run)
    blocks: list[Block] = []
    if found.pairs:
        head = ("pair", *(f"{span.words} ({len(span.places)})" for span in found.spans))
        rows = [
            (
                pair.group if pair.group == pair.group_j else f"{pair.group} ~ {pair.group_j}",
                *(span_cell(mean) for mean in pair.means),
            )
            for pair in found.pairs
        ]
        blocks.append(table_of([head, *rows]))
    blocks.append(Text(found.words()))
    common = common_mode_of_groups(run)
    if common is not None:
        blocks.append(Text(common.words()))
    if found.pairs:
        every = len(run["group"]) * (len(run["group"]) + 1) // 2
        left_out = f" The {len(found.pairs)} strongest of {every} pairs." if every > len(found.pairs) else ""
        bounds = "bounded by the transition windows" if found.windows else "with equally many probes"
        blocks.append(
            Text(
                f"Mean influence within phases, nats², over the probes in equilibrium (their number in brackets) of "
                f"spans {bounds}, ± half of the {100 * found.confidence:g} % interval over chains. Probes share noise, "
                "so the error of a mean is taken as large as that of one probe. Noise alone gives one cell in "
                f"{1 / (1 - found.confidence):.0f} a sign at most; changes are tested for all pairs together. "
                "Sign changes tests whole curves, probe by probe, and leaves more unresolved than these means do."
                f"{left_out}",
                quiet=True,
            )
        )
    return Section("spans", title, tuple(blocks))


def span_cell(mean: SpanMean) -> str:
    """A mean as text: side, value and half of the interval.

    Args:
        mean: of a pair over a span.
    """
    if not np.isfinite(mean.value):
        return "-"
    return f"{mean.side} {mean.value:+.1e} ± {mean.half:.1e}"
