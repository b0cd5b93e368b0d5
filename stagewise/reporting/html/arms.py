"""Arms of a comparison: runs that differ only in their seeds."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import xarray as xr
import yaml

from stagewise.reporting.html.repeating import number, settings_of
from stagewise.runs.summary_file import summary_of

_SEEDS = ("seed", "seed_everything")
_OF_MACHINE = (
    "trainer.logger",
    "trainer.default_root_dir",
    "ckpt_path",
    "config",
    "trainer.callbacks",
    "trainer.devices",
)
"""Settings of folders, devices and callbacks, which do not separate arms."""


@dataclass(frozen=True)
class Arm:
    """Runs with the same settings.

    Attributes:
        title: settings in which it differs from the other arms.
        names: of its runs.
        folders: of its runs.
        runs: their data sets.
        seeds: of each run, as text; None if unknown.
        differing: settings in which the arms differ, by name.
    """

    title: str
    names: tuple[str, ...]
    folders: tuple[Path, ...]
    runs: tuple[xr.Dataset, ...]
    seeds: tuple[str | None, ...]
    differing: Mapping[str, Any] = field(default_factory=dict)


def find_arms(runs: Sequence[tuple[Path, xr.Dataset]]) -> list[Arm]:
    """Sorts runs into arms by their settings: those of ``config.yaml``, if present, and of the probes.

    Args:
        runs: folder and data set of each.

    Returns:
        In the order of their first runs.
    """
    names = _names([folder for folder, _ in runs])
    known = [_all_settings(folder, run) for folder, run in runs]
    seeds = [{name: value for name, value in item.items() if _is_seed(name)} for item in known]
    settings = [{name: value for name, value in item.items() if not _is_seed(name)} for item in known]
    every = dict.fromkeys(name for setting in settings for name in setting)
    differing = [name for name in every if len({repr(setting.get(name)) for setting in settings}) > 1]
    places: dict[str, list[int]] = {}
    for place, item in enumerate(settings):
        places.setdefault(repr([item.get(name) for name in differing]), []).append(place)
    arms = []
    for place, rows in enumerate(places.values(), start=1):
        own = {name: settings[rows[0]].get(name, "-") for name in differing}
        arms.append(
            Arm(
                _title(own, place, len(places)),
                tuple(names[row] for row in rows),
                tuple(runs[row][0] for row in rows),
                tuple(runs[row][1] for row in rows),
                tuple(_seed_words(seeds[row]) for row in rows),
                own,
            )
        )
    return arms


def _names(folders: Sequence[Path]) -> list[str]:
    """Returns the names of folders without their common parents."""
    given = [os.path.abspath(folder) for folder in folders]
    above = os.path.commonpath([os.path.dirname(item) for item in given])
    found = [os.path.relpath(item, above).replace(os.sep, "/") for item in given]
    return [name if found.count(name) == 1 else f"{name} ({place})" for place, name in enumerate(found, start=1)]


def _all_settings(folder: Path, run: xr.Dataset) -> dict[str, Any]:
    try:
        content = yaml.safe_load((folder / "config.yaml").read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError):
        content = None
    flat = _flat(content) if isinstance(content, Mapping) else {}
    of_probes = {name: value for name, value in settings_of(run).items() if name != "moved_weights"}
    # The probes have numbers where the file has auto.
    left_out = (*_OF_MACHINE, *(f"influence.{name}" for name in of_probes))
    settings = {name: value for name, value in flat.items() if not name.startswith(left_out)} | of_probes
    sweep = summary_of(run).get("sweep")
    # Forks of a suite differ only in this, and are not seeds of one run.
    branch = sweep.get("branch") if isinstance(sweep, Mapping) else None
    return settings if branch is None else settings | {"branch": branch}


def _flat(content: Any, prefix: str = "") -> dict[str, Any]:
    if not isinstance(content, Mapping) or not content:
        return {prefix: content}
    found: dict[str, Any] = {}
    for name, value in content.items():
        found |= _flat(value, f"{prefix}.{name}" if prefix else str(name))
    return found


def _is_seed(name: str) -> bool:
    return name.rpartition(".")[2] in _SEEDS


def _seed_words(seeds: Mapping[str, Any]) -> str | None:
    return ", ".join(f"{name} {value}" for name, value in seeds.items()) or None


def _title(own: Mapping[str, Any], place: int, arms: int) -> str:
    if arms == 1:
        return "all runs"
    named = ", ".join(f"{'.'.join(name.split('.')[-2:])} {number(value)}" for name, value in list(own.items())[:2])
    return named if len(named) <= 48 and named else f"arm {place}"
