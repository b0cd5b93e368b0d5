"""Check that all cells of a folder have the same settings."""

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from datetime import timedelta
from enum import Enum
from functools import partial
from pathlib import Path, PurePath
from typing import Any

import numpy as np
import torch

from stagewise.errors import InputError
from stagewise.files.json_input import read_json
from stagewise.files.writing import write_json

SETTINGS_NAME = "settings.json"


def plain_settings(config: Any) -> dict[str, Any]:
    """Returns a dataclass in JSON form, for comparison with written settings.

    Args:
        config: dataclass with any values that YAML and defaults produce. Members of enumerations are stored by name
            (by value if they are text or numbers themselves), paths as text, classes and functions by dotted name,
            other objects by class and attributes.
    """
    return json.loads(json.dumps(_plain(asdict(config))))


def _plain(value: Any) -> Any:
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):  # JSON has only finite numbers
        return value if math.isfinite(value) else str(value)
    if isinstance(value, Enum):
        return value.name
    if isinstance(value, PurePath | torch.dtype | torch.device | timedelta):
        return str(value)
    if isinstance(value, Mapping):
        return {str(_plain(key)): _plain(entry) for key, entry in value.items()}
    if isinstance(value, set | frozenset):
        return sorted((_plain(entry) for entry in value), key=repr)
    if isinstance(value, torch.Tensor | np.ndarray | np.generic):
        return _plain(value.tolist())
    if isinstance(value, Iterable) and hasattr(value, "__len__"):
        return [_plain(entry) for entry in value]
    if isinstance(value, partial):
        return {"function": _plain(value.func), "args": _plain(value.args), "keywords": _plain(value.keywords)}
    if hasattr(value, "__qualname__"):
        return f"{value.__module__}.{value.__qualname__}"
    if isinstance(value, torch.nn.Module):
        return {"class": _plain(type(value)), "text": repr(value)}
    # The text of an object may hold its address, which changes.
    return {"class": _plain(type(value)), **_plain(getattr(value, "__dict__", {}))}


def _differences(before: Any, now: Any, name: str = "") -> list[str]:
    if isinstance(before, dict) and isinstance(now, dict):
        names = dict.fromkeys([*before, *now])
        return [
            line for key in names for line in _differences(before.get(key), now.get(key), f"{name}.{key}".strip("."))
        ]
    return [] if before == now else [f"{name} {now} (was {before})"]


def check_same_settings(output: Path, now: Mapping[str, Any]) -> None:
    """Refuses to add cells to those with other settings; writes the settings the first time.

    Args:
        output: folder of the cells.
        now: everything on which a cell's result depends, in the form of :func:`plain_settings`.

    Raises:
        InputError: the folder has cells with other settings, or settings that cannot be read.
    """
    path = output / SETTINGS_NAME
    if not path.is_file():
        write_json(path, dict(now))
        return
    before = read_json(
        path, what="the settings of the cells beside it", advice="choose another --output, or delete the folder"
    )
    found = _differences(before, now)
    if found:
        raise InputError(
            f"got {'; '.join(found)}, and cells of other settings in {output}; expected the same settings; "
            "choose another --output, or change them back"
        )
