"""Most helpful and most harmful samples of a run as text in its loggers, for TensorBoard's Text tab."""

from collections.abc import Sequence
from contextlib import suppress

import xarray as xr

from stagewise.errors import InputError
from stagewise.reporting import tags
from stagewise.reporting.loggers.writer import RunWriter
from stagewise.reporting.sample_tables import sample_tables
from stagewise.reporting.tensorboard import write_text
from stagewise.runs.words import with_plain_names


def write_sample_text(writers: Sequence[RunWriter], run: xr.Dataset, step: int) -> None:
    """Writes the samples of the last probe in equilibrium, if there is one and influence between samples is stored.

    Args:
        writers: of the run.
        run: as :func:`~stagewise.runs.open.open_run` returns it, or with
            :data:`~stagewise.reporting.sample_tables.NEEDED` of it.
        step: training step of the text.
    """
    if not writers:
        return
    with suppress(InputError):
        found = sample_tables(with_plain_names(run))
        if found is not None:
            write_text(writers, tags.SAMPLES, found.markdown(), step)
