"""The curves of a run: which pairs are shown, and where one surely changes its sign."""

import numpy as np
import xarray as xr

from stagewise.influence.chain_counts import chain_counts
from stagewise.phases.flips import SignFlip, find_flips
from stagewise.runs.equilibrium import settled_probes

_MOST_PAIRS = 9


def curve_pairs(run: xr.Dataset) -> list[tuple[str, str]]:
    """Pairs that are shown unless others are asked for: all, where they are at most nine, or each class with itself.

    Those without a pair of losses in different samples are left out.
    """
    names = [str(name) for name in run["group"].values]
    known = run["group_bif"].notnull().any([it for it in run["group_bif"].dims if it not in ("group", "group_j")])
    pairs = [(name, other) for place, name in enumerate(names) for other in names[place:]]
    pairs = [(name, other) for name, other in pairs if bool(known.sel(group=name, group_j=other))]
    return pairs if len(pairs) <= _MOST_PAIRS else [(name, other) for name, other in pairs if name == other]


def sure_flips(
    run: xr.Dataset, group: str, group_j: str, *, part: str = "within", min_z: float = 3.0
) -> list[SignFlip]:
    """Changes of sign of the influence of two classes of a run, by as many degrees of freedom as it has chains less 1.

    A probe that lost chains has fewer: the smallest number of the probes counts for all of them. Probes with a single
    chain, which have no error, are left out, and so are those out of equilibrium, see
    :func:`~stagewise.influence.chain_counts.equilibrated_probes`.

    Args:
        run: as :func:`stagewise.runs.store.open_run` returns it.
        group: one class.
        group_j: the other one.
        part: ``within``, ``drift``, ``between`` or ``total``.
        min_z: see :func:`stagewise.phases.flips.find_flips`.
    """
    degrees = flip_degrees(run)
    if degrees is None:
        return []
    usable = _usable(run)
    curve = run[["group_bif", "group_bif_se"]].sel(part=part, group=group, group_j=group_j).isel(step=usable)
    return find_flips(
        curve["step"].values, curve["group_bif"].values, curve["group_bif_se"].values, min_z=min_z, degrees=degrees
    )


def flip_degrees(run: xr.Dataset) -> float | None:
    """Degrees of freedom that :func:`sure_flips` goes by; None where no probe in equilibrium has two chains.

    Args:
        run: as :func:`stagewise.runs.store.open_run` returns it.
    """
    counts = np.broadcast_to(chain_counts(run).values, run["step"].shape)[_usable(run)]
    return float(counts.min()) - 1 if counts.size else None


def _usable(run: xr.Dataset) -> np.ndarray:
    """``[step]``: probes that have an error which means something."""
    return (np.broadcast_to(chain_counts(run).values, run["step"].shape) >= 2) & settled_probes(run)
