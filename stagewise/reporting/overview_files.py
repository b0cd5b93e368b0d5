"""Overview of a run as a file in its folder and as an image in the loggers."""

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import xarray as xr
from matplotlib.image import imsave

from stagewise.errors import InputError
from stagewise.files.writing import whole_file
from stagewise.reporting import tags
from stagewise.reporting.loggers.writer import RunWriter
from stagewise.reporting.overview import overview
from stagewise.reporting.tensorboard import rasterize

OVERVIEW_NAME = "overview.png"
_DPI = 120


def write_overview(
    writers: Sequence[RunWriter], folder: Path, step: int, run: xr.Dataset, *, unfinished: bool = False
) -> Path | None:
    """Draws the overview of a run, saves it as ``overview.png`` and shows it in the loggers.

    Args:
        writers: of the run.
        folder: of the run.
        step: training step of the image.
        run: as :func:`~stagewise.runs.open.open_run` returns it.
        unfinished: True before the run has ended: scores of heads, read from event files, are then left out.

    Returns:
        Path of the file; None if there is nothing to draw.
    """
    if not unfinished:
        for writer in writers:
            writer.flush()  # scores are read from disk
    path = folder / OVERVIEW_NAME
    with suppress(InputError):
        figure = overview(run, scores=() if unfinished else None)
        figure.set_dpi(_DPI)
        image = rasterize(figure)  # once: the layout takes most of the time
        with whole_file(path) as aside:
            imsave(aside, image, format="png", dpi=_DPI)
        for writer in writers:
            writer.add_image(tags.OVERVIEW, image, global_step=step, dataformats="HWC")
        return path
    return None
