"""Most helpful and most harmful samples of a run as text in its loggers: in TensorBoard under the Text tab."""

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from stagewise.errors import InputError
from stagewise.reporting import tags
from stagewise.reporting.loggers.writer import RunWriter
from stagewise.reporting.sample_tables import NEEDED, sample_tables
from stagewise.reporting.tensorboard import write_text
from stagewise.runs.open import open_run
from stagewise.runs.words import with_plain_names


def write_sample_text(writers: Sequence[RunWriter], folder: Path, step: int) -> None:
    """Tells of the samples of the last probe in equilibrium; nothing where there is none, or none that can be read.

    Args:
        writers: of the run.
        folder: of the run, with its store.
        step: training step of the text.
    """
    if not writers:
        return
    with suppress(InputError):
        found = sample_tables(with_plain_names(open_run(folder, variables=NEEDED)))
        if found is not None:
            write_text(writers, tags.SAMPLES, found.markdown(), step)
