"""Samples in a report: the most helpful and the most harmful ones, and pairs of them."""

import xarray as xr

from stagewise.reporting.html.blocks import Block, Heading, Section, Text, table_of
from stagewise.reporting.sample_tables import sample_tables


def samples_section(run: xr.Dataset) -> Section:
    """Returns the section on extreme samples and pairs, with intervals; empty if no probe allows a ranking.

    Args:
        run: as :func:`stagewise.runs.open.open_run` returns it.
    """
    found = sample_tables(run)
    title = "Most helpful and most harmful samples"
    if found is None:
        return Section("samples", title)
    blocks: list[Block] = [Text(words) for words in (found.words, *found.notes)]
    for words, rows in (("Samples", found.samples), ("Pairs of samples", found.pairs)):
        if rows:
            blocks += [Heading(words), table_of(rows)]
    return Section("samples", title, tuple(blocks))
