"""Cell of a sweep, one component at one checkpoint, as stored on disk."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
import xarray as xr

from stagewise.errors import InputError
from stagewise.files.json_input import read_json
from stagewise.files.writing import whole_folder, write_json
from stagewise.influence.group_draws import GroupDraws
from stagewise.probes.assembly import Measured

_FOLDER = "cells"
_CELL, _FEATURES, _OWN = "cell.json", "features.npz", "own.zarr"


@dataclass(frozen=True)
class Cell:
    """Results of the chains of one component at one checkpoint.

    Attributes:
        step: training step.
        component: its name.
        measured: draws and diagnostics; None if every chain failed.
        dropped: failed chains by number, with the reason.
        seconds: wall-clock time.
    """

    step: int
    component: str
    measured: Measured | None
    dropped: Mapping[int, str]
    seconds: float


def cell_folder(output: Path, step: int, component: str) -> Path:
    """Returns the folder of a cell."""
    return output / _FOLDER / component / f"step{step}"


def is_finished(output: Path, step: int, component: str) -> bool:
    """Returns True if the cell exists."""
    return cell_folder(output, step, component).is_dir()


def components_of(output: Path) -> list[str]:
    """Returns components that have any cell, by name."""
    folder = output / _FOLDER
    return sorted(path.name for path in folder.iterdir() if path.is_dir()) if folder.is_dir() else []


def has_cells(output: Path) -> bool:
    """Returns True if there is any cell."""
    return any((output / _FOLDER).glob(f"*/step*/{_CELL}"))


def write_cell(output: Path, cell: Cell) -> Path:
    """Writes a finished cell atomically; returns its folder."""
    target = cell_folder(output, cell.step, cell.component)
    target.parent.mkdir(parents=True, exist_ok=True)
    with whole_folder(target) as folder:
        folder.mkdir()
        measured = cell.measured
        content = {
            "step": cell.step,
            "component": cell.component,
            "usable": None if measured is None else measured.usable,
            "dropped": {str(chain): why for chain, why in cell.dropped.items()},
            "seconds": cell.seconds,
        }
        write_json(folder / _CELL, content)
        if measured is not None:
            found = measured.features
            np.savez(folder / _FEATURES, chains=np.array(found.chains), samples=found.samples, groups=found.groups)
            measured.own.to_zarr(folder / _OWN, mode="w", consolidated=False)
    return target


def read_cell(output: Path, step: int, component: str) -> Cell:
    """Returns a finished cell.

    Raises:
        InputError: it was not written by :func:`write_cell`.
    """
    folder = cell_folder(output, step, component)
    try:
        content = read_json(folder / _CELL, what="a finished cell", advice="delete its folder")
        measured = None
        if content["usable"] is not None:
            with np.load(folder / _FEATURES) as kept:
                chains = tuple(int(chain) for chain in kept["chains"])
                features = GroupDraws(step, chains, kept["samples"], kept["groups"])
            own = xr.open_zarr(folder / _OWN, consolidated=False, chunks=None).load()
            if "equilibrated" in own:  # cells of earlier versions do not tell
                features = replace(features, equilibrated=bool(own["equilibrated"]))
            measured = Measured(features, own, usable=content["usable"])
        return Cell(
            step=content["step"],
            component=content["component"],
            measured=measured,
            dropped={int(chain): why for chain, why in content["dropped"].items()},
            seconds=content["seconds"],
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError, BadZipFile) as error:
        words = " ".join(str(error).split())[:200]
        raise InputError(
            f"got {folder}, which is no finished cell ({type(error).__name__}: {words}); expected one that this "
            "command wrote; delete it, and it is computed again"
        ) from error
