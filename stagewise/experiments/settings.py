"""Cells of one folder have one set of settings."""

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from stagewise.errors import InputError
from stagewise.reporting.files import write_json

SETTINGS_NAME = "settings.json"


def plain_settings(config: Any) -> dict[str, Any]:
    """A dataclass as JSON holds it, so that it compares with what was written."""
    return json.loads(json.dumps(asdict(config)))


def _differences(before: Any, now: Any, name: str = "") -> list[str]:
    if isinstance(before, dict) and isinstance(now, dict):
        names = dict.fromkeys([*before, *now])
        return [line for it in names for line in _differences(before.get(it), now.get(it), f"{name}.{it}".strip("."))]
    return [] if before == now else [f"{name} {now} (was {before})"]


def check_same_settings(output: Path, now: Mapping[str, Any]) -> None:
    """Refuse to add cells to those of other settings; the first time, write the settings.

    Args:
        output: folder of the cells.
        now: everything that a cell's result depends on, as :func:`plain_settings` has it.

    Raises:
        InputError: the folder holds cells of other settings, or settings that cannot be read.
    """
    path = output / SETTINGS_NAME
    if not path.is_file():
        write_json(path, dict(now))
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
            f"got {'; '.join(found)}, and cells of other settings in {output}; expected the same settings; "
            "choose another --output, or change them back"
        )
