"""Onset and peak of the influence of a group, in an undisturbed run."""

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from stagewise.errors import InputError

Array = NDArray[np.float64]


def influence_of(run: xr.Dataset, group: str, part: str) -> Array:
    """Returns a group's influence on itself at each probe, ``[step]``, nats^2; negative = helpful.

    Args:
        run: as :func:`~stagewise.runs.open.open_run` returns it.
        group: of the run.
        part: ``within``, ``drift``, ``between`` or ``total``.

    Raises:
        InputError: the run has no such group.
    """
    names = [str(name) for name in run["group"].values]
    if group not in names:
        raise InputError(f"got group {group!r}; expected one of {names}; name a group of the observed samples")
    return np.asarray(run["group_bif"].sel(part=part, group=group, group_j=group).values, dtype=np.float64)


def peak_step(run: xr.Dataset, group: str, part: str) -> int | None:
    """Returns the step of the probe at which a group's influence on itself is most helpful; None if unknown.

    Args:
        run: as :func:`~stagewise.runs.open.open_run` returns it.
        group: of the run.
        part: of the influence.
    """
    size = -influence_of(run, group, part)
    return int(run["step"].values[np.nanargmax(size)]) if np.isfinite(size).any() else None


def onset_step(run: xr.Dataset, group: str, against: str, *, part: str, ratio: float) -> int | None:
    """Returns the start of the unbroken series of probes, up to the peak, with influence above another group's.

    It is determined afterwards from the whole run: it defines a window for an experiment, and is not a detector.

    Args:
        run: as :func:`~stagewise.runs.open.open_run` returns it.
        group: whose influence on itself rises.
        against: group to compare with, by the absolute value of its influence on itself.
        part: of the influence of both.
        ratio: multiple of the other influence that the group's must exceed.

    Returns:
        Training step of the first probe of that series; None if not even the peak exceeds it. If this is the first
        probe of the run, the onset may be earlier.
    """
    peak = peak_step(run, group, part)
    if peak is None:
        return None
    steps = run["step"].values
    exceeds = -influence_of(run, group, part) > ratio * np.abs(influence_of(run, against, part))
    place = int(np.searchsorted(steps, peak))
    if not exceeds[place]:
        return None
    while place > 0 and exceeds[place - 1]:
        place -= 1
    return int(steps[place])
