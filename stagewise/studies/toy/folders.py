"""Where the runs of the seeds are, and what may be replaced there."""

from collections.abc import Sequence
from pathlib import Path

from stagewise.errors import InputError
from stagewise.reporting.classes_page import CLASSES_NAME
from stagewise.runs.store import RUN_NAME, STORE_NAME, SUMMARY_NAME

CURVES_NAME = "curves.zarr"

_OURS = {STORE_NAME, SUMMARY_NAME, RUN_NAME, CLASSES_NAME, CURVES_NAME, "hparams.yaml"}
_EVENTS = "events.out.tfevents."


def seed_folder(output: Path, seed: int) -> Path:
    """Where a seed's run is: event files, ``influence.zarr``, ``summary.json``, ``classes.md``, ``curves.zarr``."""
    return output / f"seed-{seed}"


def check_free(output: Path, seeds: Sequence[int]) -> None:
    """Refuse to write where something else is.

    Args:
        output: folder of the experiment.
        seeds: of the runs.

    Raises:
        InputError: ``output`` is a file, or the folder of a seed holds what no run of this experiment writes.
    """
    if output.exists() and not output.is_dir():
        raise InputError(f"got output {output}, which is a file; expected a folder; choose another --output")
    for seed in seeds:
        folder = seed_folder(output, seed)
        if folder.exists() and not (folder.is_dir() and all(_is_ours(path) for path in folder.iterdir())):
            raise InputError(
                f"got {folder}, which holds more than a run of this experiment; expected a free folder; choose another "
                "--output"
            )


def _is_ours(path: Path) -> bool:
    return path.name in _OURS or path.name.startswith(_EVENTS)
