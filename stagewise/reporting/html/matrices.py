"""Matrices of influence over training, with a slider over steps."""

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from stagewise.errors import InputError
from stagewise.influence.stored_matrices import sample_matrix
from stagewise.reporting.html.blocks import Slider
from stagewise.reporting.html.pictures import cell_colours, matrix_address

_MOST_STEPS = 40
_MOST_CELLS = 6000
"""Maximal number of cells of all tables together."""

_MOST_NAMES = 20
_LARGEST = 1_500_000
"""Maximal number of characters of all pictures together."""


def group_matrices(run: xr.Dataset) -> Slider | None:
    """Returns the influence of groups on each other, within part, a table for each step; None if there is none.

    Args:
        run: as :func:`stagewise.runs.open.open_run` returns it.
    """
    names = [str(name) for name in run["group"].values] if "group_bif" in run else []
    if not 2 <= len(names) <= _MOST_NAMES:
        return None
    places = _places(run.sizes["step"], min(_MOST_STEPS, _MOST_CELLS // len(names) ** 2))
    values = run["group_bif"].sel(part="within").isel(step=places).transpose("step", "group", "group_j").values
    limit = float(np.nanmax(np.abs(values), initial=0.0)) or 1.0
    cells = tuple(
        tuple(tuple((_number(item), *cell_colours(item, limit)) for item in row) for row in matrix) for matrix in values
    )
    return Slider(
        "groups",
        "Influence of each group (row) on each other one (column), within phases, nats²",
        tuple(int(step) for step in run["step"].values[places]),
        f"±{limit:.2g} nats²",
        rows=tuple(names),
        values=cells,
    )


def sample_matrices(run: xr.Dataset) -> Slider | None:
    """Returns the influence of samples on each other, within part, a picture for each step; None if not stored.

    Args:
        run: as :func:`stagewise.runs.open.open_run` returns it.
    """
    try:
        stored = sample_matrix(run, "within")
    except InputError:
        return None
    size = stored.sizes["sample"]
    if size < 2:
        return None
    places = _places(run.sizes["step"], _MOST_STEPS)
    chosen = stored.isel(step=places).transpose("step", "sample", "sample_j").values
    off_diagonal = np.abs(chosen[:, ~np.eye(size, dtype=bool)])
    limit = float(np.nanpercentile(off_diagonal, 99)) if np.isfinite(off_diagonal).any() else 0.0
    order, borders, words = _by_group(run, size)
    chosen = chosen[:, order][:, :, order]
    pictures = [matrix_address(matrix, limit or 1.0) for matrix in chosen]
    every = max(1, -(-sum(map(len, pictures)) // _LARGEST))
    kept = sorted({len(places) - 1 - at for at in range(0, len(places), every)})
    return Slider(
        "samples",
        f"Influence of {size} samples (rows) on each other (columns), {words}, within phases",
        tuple(int(run["step"].values[places[at]]) for at in kept),
        f"±{limit:.2g} nats², the 99th percentile off the diagonal over all of these steps",
        pictures=tuple(pictures[at] for at in kept),
        borders=borders,
    )


def _by_group(run: xr.Dataset, size: int) -> tuple[NDArray[np.int64], tuple[float, ...], str]:
    """Returns the order of samples by first group, borders between groups as shares of a side, and a description."""
    if "in_group" not in run.coords:
        return np.arange(size), (), "in the order of the observed set"
    members = run["in_group"].transpose("group", "sample").values.astype(bool)
    first = np.where(members.any(axis=0), members.argmax(axis=0), len(members))
    names = [*map(str, run["group"].values), "in no group"]
    held = [(names[place], int((first == place).sum())) for place in range(len(names)) if (first == place).any()]
    ends = np.cumsum([count for _, count in held])[:-1]
    listed = ", ".join(f"{name} ({count})" for name, count in held)
    words = f"sorted by their first group, in the order {listed}, with lines between groups"
    return np.argsort(first, kind="stable"), tuple((ends / size).tolist()), words


def _places(probes: int, most: int) -> list[int]:
    """Returns the positions of at most ``most`` evenly spaced probes, including the first and the last."""
    places = np.linspace(0, probes - 1, max(1, min(probes, most))).round().astype(int)
    return [*dict.fromkeys(places.tolist())] if most > 1 else [probes - 1]


def _number(value: float) -> str:
    return "-" if not np.isfinite(value) else f"{value:.1e}".replace("e-0", "e-").replace("e+0", "e")
