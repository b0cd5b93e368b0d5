"""Groups over spans of training in a report: which groups matter when."""

import xarray as xr

from stagewise.reporting.html.blocks import Block, Section, Text, table_of
from stagewise.reporting.spans_table import SPANS_TITLE, spans_table


def spans_section(run: xr.Dataset) -> Section:
    """Returns the section on the pairs to read first over a few spans of steps; empty without group influence.

    Args:
        run: as :func:`stagewise.runs.open.open_run` returns it.
    """
    found = spans_table(run)
    if found is None:
        return Section("spans", SPANS_TITLE)
    blocks: list[Block] = [table_of(found.rows)] if found.rows else []
    blocks += [Text(words) for words in found.words]
    blocks += [Text(found.note, quiet=True)] if found.note else []
    return Section("spans", SPANS_TITLE, tuple(blocks))
