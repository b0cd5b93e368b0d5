"""Cells of one folder have one set of settings."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from stagewise.errors import InputError
from stagewise.experiments.intervention.config import InterventionConfig
from stagewise.reporting.files import write_json

SETTINGS_NAME = "settings.json"

_FREE = ("seeds", "output", "num_workers", "backend", "arms", "sweep")
"""Settings that say which cells there are and where they run, not what a cell is."""

_FREE_WEIGHTS = ("mechanisms",)


def cell_settings(config: InterventionConfig) -> dict[str, Any]:
    """Everything that a cell's result depends on, as plain data."""
    # As JSON holds it, so that it compares with what was written.
    everything = json.loads(json.dumps(asdict(config)))
    content = {name: value for name, value in everything.items() if name not in _FREE}
    content["weights"] = {name: value for name, value in content["weights"].items() if name not in _FREE_WEIGHTS}
    return content


def _differences(before: Any, now: Any, name: str = "") -> list[str]:
    if isinstance(before, dict) and isinstance(now, dict):
        names = dict.fromkeys([*before, *now])
        return [line for it in names for line in _differences(before.get(it), now.get(it), f"{name}.{it}".strip("."))]
    return [] if before == now else [f"{name} {now} (was {before})"]


def check_settings(config: InterventionConfig) -> None:
    """Refuse to add cells to those of other settings; the first time, write the settings.

    Args:
        config: of the experiment.

    Raises:
        InputError: the folder holds cells of other settings, or settings that cannot be read.
    """
    path = Path(config.output) / SETTINGS_NAME
    now = cell_settings(config)
    if not path.is_file():
        write_json(path, now)
        return
    try:
        before = json.loads(path.read_text())
    except ValueError as error:
        raise InputError(
            f"got {path}, which is no JSON ({error}); expected the settings of the cells beside it; choose another "
            "--output, or delete the folder"
        ) from error
    found = _differences(before, now)
    if found:
        raise InputError(
            f"got {'; '.join(found)}, and cells of other settings in {config.output}; expected the same settings; "
            "choose another --output, or change them back"
        )
