"""Rise of a group's influence on itself: end of its plateau, peak and decline."""

from dataclasses import dataclass

import numpy as np
import xarray as xr
from numpy.typing import ArrayLike, NDArray
from scipy.special import stdtrit

from stagewise.errors import InputError, require
from stagewise.phases.stage_boundaries import LEVEL, StageBoundary, Turn, find_boundaries
from stagewise.runs.curves import flip_degrees, influence_curve, usable_probes

Array = NDArray[np.float64]

_LEAVING = 0.25
"""Share of the way from plateau to peak at which a curve has left its plateau, as for the scores of heads."""

_FEWEST = 5


@dataclass(frozen=True)
class Place:
    """Training step with its 95 % interval.

    Attributes:
        step: measured; between probes it is interpolated.
        earliest: lower end of the interval.
        latest: upper end.
    """

    step: float
    earliest: float
    latest: float

    @property
    def words(self) -> str:
        """Step and interval."""
        return f"{self.step:,.0f} [{self.earliest:,.0f}, {self.latest:,.0f}]"


@dataclass(frozen=True)
class Rise:
    """Course of a curve that is negative where it is large, such as helpful influence.

    Attributes:
        plateau: lower quartile in size of the values before the peak, in the unit of the curve.
        value: at the peak.
        peak: where the curve is lowest; the interval is at least from the probe before to the probe after it.
        leaves: where it last passes a quarter of the way from plateau to peak; None unless ``sure``.
        limit: absolute difference of plateau and peak beyond which the rise is sure at these errors.
        sure: True if they differ by more, allowing for the choice of the lowest of all probes as the peak.
        decline: turn at the peak; None if the curve does not come back beyond its errors.
        last: value at the last probe.
    """

    plateau: float
    value: float
    peak: Place
    leaves: Place | None
    limit: float
    sure: bool
    decline: StageBoundary | None
    last: float


def find_rise(
    steps: ArrayLike,
    values: ArrayLike,
    errors: ArrayLike,
    *,
    degrees: float,
    chance: float = 0.05,
    num_resamples: int = 1000,
    seed: int = 0,
) -> Rise | None:
    """Finds plateau, onset, peak and decline of a curve that falls from its plateau.

    Intervals are quantiles over ``num_resamples`` curves with Student's noise of the errors' size added to the measured
    one, in each of which plateau, peak and onset are found again. The noise is assumed independent between probes;
    with common random numbers it is partly shared, and intervals are wider than they could be.

    Args:
        steps: ``[probe]``, increasing, 0 or more.
        values: ``[probe]``, any unit; probes that are not finite are left out.
        errors: ``[probe]``, standard errors; probes with NaN are left out.
        degrees: degrees of freedom of the errors, chains - 1 for errors over chains.
        chance: probability that noise alone makes the rise sure, and that it makes a decline.
        num_resamples: number of curves, 100 or more.
        seed: of the noise.

    Returns:
        None with fewer than five probes, or where the curve is lowest at the first one.

    Raises:
        InputError: lengths differ, steps do not increase, a negative error, or a setting out of range.

    Source: the parametric bootstrap, Efron 1985; Student 1908; Bonferroni 1936 (over probes).
    """
    at, value, error = (np.asarray(given, dtype=np.float64) for given in (steps, values, errors))
    # Refuses invalid curves.
    turns = find_boundaries(at, value, error, degrees=degrees, chance=chance, num_resamples=num_resamples, seed=seed)
    known = np.isfinite(value) & np.isfinite(error)
    at, size, error = at[known], -value[known], error[known]
    place = int(np.argmax(size)) if len(at) else 0
    if len(at) < _FEWEST or place == 0:
        return None
    noise = np.random.default_rng(seed).standard_t(degrees, (num_resamples, len(at)))
    found = np.array([_landmarks(at, curve) for curve in (size, *(size + error * noise))])
    low, high = np.nanquantile(found[1:], [(1 - LEVEL) / 2, (1 + LEVEL) / 2], axis=0)
    plateau = _plateau(size, place)
    before = error[:place]
    limit = float(stdtrit(degrees, 1 - chance / len(at))) * float(np.hypot(error[place], np.median(before)))
    sure = bool(size[place] - plateau > limit)
    beside = at[max(place - 1, 0)], at[min(place + 1, len(at) - 1)]
    peak = Place(at[place], min(low[0], beside[0]), max(high[0], beside[1]))
    leaves = Place(found[0, 1], min(low[1], found[0, 1]), max(high[1], found[0, 1])) if sure else None
    declines = [turn for turn in turns if turn.kind is Turn.minimum and turn.step == int(at[place])]
    return Rise(
        plateau=-plateau,
        value=-float(size[place]),
        peak=peak,
        leaves=leaves,
        limit=limit,
        sure=sure,
        decline=declines[0] if declines else None,
        last=-float(size[-1]),
    )


def _plateau(size: Array, peak: int) -> float:
    return float(np.quantile(size[:peak], 0.25))


def _landmarks(at: Array, size: Array) -> tuple[float, float]:
    """Returns the steps of the peak and of the last passage through a quarter of the way; NaN if it peaks first."""
    place = int(np.argmax(size))
    if place == 0:
        return at[0], np.nan
    plateau = _plateau(size, place)
    level = plateau + _LEAVING * (size[place] - plateau)
    below = np.flatnonzero(size[:place] <= level)
    first = int(below[-1])
    share = (level - size[first]) / (size[first + 1] - size[first])
    # Linear in the logarithm of the step; 1 + step, for the initial weights.
    left, right = np.log1p(at[first]), np.log1p(at[first + 1])
    return at[place], float(np.expm1(left + share * (right - left)))


def influence_rises(run: xr.Dataset, *, chance: float = 0.05) -> dict[str, Rise]:
    """Returns the rises of the groups' influence on themselves, within phases; negative = helpful, nats^2.

    Probes out of equilibrium are left out.

    Args:
        run: as :func:`stagewise.runs.open.open_run` returns it, with group influence.
        chance: see :func:`find_rise`.

    Returns:
        Group to rise; groups for which :func:`find_rise` returns None are left out.

    Raises:
        InputError: no group influence, or ``chance`` out of range.
    """
    require(0 < chance < 1, "chance", chance, "a probability in (0, 1)", "0.05 is usual")
    if "group_bif" not in run or "step" not in run.dims:
        raise InputError("got a data set that is not a run with group_bif; expected what open_run returns")
    degrees = flip_degrees(run)
    if degrees is None:
        return {}
    usable = usable_probes(run)
    found = {}
    for group in map(str, run["group"].values):
        curve = influence_curve(run, group, group).isel(step=usable)
        rise = find_rise(
            curve["step"].values, curve["value"].values, curve["se"].values, degrees=degrees, chance=chance
        )
        if rise is not None:
            found[group] = rise
    return found
