"""What a cell's result depends on."""

from pathlib import Path
from typing import Any

from stagewise.jobs.settings import check_same_settings, plain_settings
from stagewise.studies.intervention.config import InterventionConfig

_FREE = ("seeds", "output", "num_workers", "backend", "arms", "sweep")
"""Settings that say which cells there are and where they run, not what a cell is."""

_FREE_WEIGHTS = ("mechanisms",)


def cell_settings(config: InterventionConfig) -> dict[str, Any]:
    """Everything that a cell's result depends on, as plain data."""
    content = {name: value for name, value in plain_settings(config).items() if name not in _FREE}
    content["weights"] = {name: value for name, value in content["weights"].items() if name not in _FREE_WEIGHTS}
    return content


def check_settings(config: InterventionConfig) -> None:
    """Refuse to add cells to those of other settings; the first time, write the settings.

    Args:
        config: of the experiment.

    Raises:
        InputError: the folder holds cells of other settings, or settings that cannot be read.
    """
    check_same_settings(Path(config.output), cell_settings(config))
