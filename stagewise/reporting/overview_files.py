"""The overview of a run where people look first: as a file in its folder, and in the loggers."""

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from stagewise.errors import InputError
from stagewise.files.writing import whole_file
from stagewise.reporting import tags
from stagewise.reporting.loggers.writer import RunWriter
from stagewise.reporting.overview import overview
from stagewise.reporting.tensorboard import rasterize
from stagewise.runs.open import open_run
from stagewise.runs.words import with_plain_names

OVERVIEW_NAME = "overview.png"


def write_overview(writers: Sequence[RunWriter], folder: Path, step: int) -> Path | None:
    """Draw the overview of a run, save it as ``overview.png`` and show it in the loggers.

    Args:
        writers: of the run.
        folder: of the run, with its store; its summary, if it is to be used, is written.
        step: training step of the image.

    Returns:
        Path of the file; None where no probe can be read.
    """
    for writer in writers:
        writer.flush()  # scores are read from what is on disk
    path = folder / OVERVIEW_NAME
    with suppress(InputError):
        figure = overview(with_plain_names(open_run(folder)))
        with whole_file(path) as aside:
            figure.savefig(aside, dpi=120, format="png")
        if writers:
            image = rasterize(figure)
            for writer in writers:
                writer.add_image(tags.OVERVIEW, image, global_step=step, dataformats="HWC")
        return path
    return None
