"""Groups over spans of training as a table and in words: which groups matter when."""

from dataclasses import dataclass

import numpy as np
import xarray as xr

from stagewise.influence.few_samples import few_samples_words
from stagewise.runs.common_mode import common_mode_of_groups
from stagewise.runs.time_spans import SpanMean, influence_by_span

SPANS_TITLE = "Which groups matter when"

BESIDE_SIGN_CHANGES = (
    f"*{SPANS_TITLE}* has means over spans of these probes, which resolve more: a group may have a sure sign there and "
    "none here, where each probe of a whole curve is tested. A sign that stands there only holds for the span as a "
    "whole, and not for a single probe."
)
"""Sentence that links tests of whole curves, probe by probe, with means over spans, where both are shown."""


@dataclass(frozen=True)
class SpansTable:
    """Influence over spans as text.

    Attributes:
        rows: a head and a row for each pair; empty where no probe has a valid error.
        words: sentences on who helps or harms whom, on groups of few samples and on the common mode, if any.
        note: instructions to read the table; empty without one.
    """

    rows: tuple[tuple[str, ...], ...]
    words: tuple[str, ...]
    note: str

    def markdown(self) -> str:
        """Returns table, words and note as Markdown."""
        lines = [f"| {' | '.join(row)} |" for row in self.rows]
        table = ["\n".join([lines[0], f"|{'---|' * len(self.rows[0])}", *lines[1:]])] if lines else []
        return "\n\n".join([*table, *self.words, *([self.note] if self.note else [])])


def spans_table(run: xr.Dataset) -> SpansTable | None:
    """Returns the pairs of groups to read first over a few spans of steps; None without group influence.

    Args:
        run: as :func:`stagewise.runs.open.open_run` returns it, with plain names of groups.
    """
    if not {"group_bif", "group_bif_se"} <= set(run):
        return None
    found = influence_by_span(run)
    common = common_mode_of_groups(run)
    few = _few_samples(run)
    words = (found.words(), *([] if few is None else [few]), *([] if common is None else [common.words()]))
    if not found.pairs:
        return SpansTable((), words, "")
    head = ("pair", *(f"{span.words} ({len(span.places)})" for span in found.spans))
    rows = [
        (
            pair.group if pair.group == pair.group_j else f"{pair.group} ~ {pair.group_j}",
            *(span_cell(mean) for mean in pair.means),
        )
        for pair in found.pairs
    ]
    every = len(run["group"]) * (len(run["group"]) + 1) // 2
    left_out = f" {len(found.pairs)} of {every} pairs." if every > len(found.pairs) else ""
    bounds = "bounded by the transition windows" if found.windows else "with equally many probes"
    note = (
        f"Mean influence within phases, nats², over the probes in equilibrium (their number in brackets) of spans "
        f"{bounds}, ± half of the {100 * found.confidence:g} % interval over chains. Pairs that are sure in some span "
        f"come first, two groups before a group with itself.{left_out} Probes share noise, so the error of a mean is "
        "taken as large as that of one probe. Noise alone gives one cell in "
        f"{1 / (1 - found.confidence):.0f} a sign at most; changes are tested for all pairs together. "
        "*Sign changes* tests whole curves, probe by probe, and leaves more unresolved than these means do."
    )
    return SpansTable((head, *rows), words, note)


def _few_samples(run: xr.Dataset) -> str | None:
    """Names groups with losses in few samples, where the run knows which samples are in them."""
    if "in_group" not in run.coords:
        return None
    inside = run["in_group"].transpose("group", "sample").values.astype(bool).sum(axis=1)
    words = few_samples_words(dict(zip(map(str, run["group"].values), inside.tolist(), strict=True)))
    return None if words is None else f"**Few samples**: {words}."


def span_cell(mean: SpanMean) -> str:
    """Formats a mean: side, value and half of the interval.

    Args:
        mean: of a pair over a span.
    """
    if not np.isfinite(mean.value):
        return "-"
    return f"{mean.side} {mean.value:+.1e} ± {mean.half:.1e}"
