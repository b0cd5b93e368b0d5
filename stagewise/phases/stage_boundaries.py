"""Boundaries between stages: significant turns of a curve over training, such as the learning coefficient."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
import xarray as xr
from numpy.typing import ArrayLike, NDArray
from scipy.special import stdtrit

from stagewise.errors import InputError, require
from stagewise.phases.signal import Kind, Signal

Array = NDArray[np.float64]

LEVEL = 0.95
"""Level of the intervals."""

_POOLED = 5
"""Number of neighbouring probes over which variances are averaged: errors over a few chains are noisy."""

_MOST_SCORES = 2**18
"""Limit of scores held at once."""


class Turn(StrEnum):
    """Kinds of turns of a curve."""

    maximum = "maximum"
    minimum = "minimum"


@dataclass(frozen=True)
class StageBoundary:
    """Probe at which a curve turns significantly: its slope, over the step or its logarithm, changes sign.

    Attributes:
        kind: from rising to falling (maximum), or from falling to rising (minimum).
        step: training step of the extreme value.
        earliest: training step of the lower end of the 95 % interval; at the latest the probe before ``step``, since
            the slope changes between probes.
        latest: training step of the upper end; at the earliest the probe after ``step``.
        value: of the curve at the extreme, in its unit.
        significance: smaller of the curve's movements towards the boundary and away from it, in standard errors of the
            difference.
    """

    kind: Turn
    step: int
    earliest: int
    latest: int
    value: float
    significance: float


def find_boundaries(
    steps: ArrayLike,
    values: ArrayLike,
    errors: ArrayLike,
    *,
    degrees: float | None = None,
    chance: float = 0.05,
    num_resamples: int = 1000,
    seed: int = 0,
) -> list[StageBoundary]:
    """Finds where a curve turns, and between which steps.

    The curve is followed from its start: a rise has ended once the curve has fallen below its highest point by more
    than a limit of standard errors of the difference; a fall likewise. The first movement does not begin at a boundary,
    nor does the last end at one. The limit comes from ``num_resamples`` curves of pure noise around a constant, with
    the same errors: they exceed it on both sides of some point with probability ``chance``. A curve without a turn thus
    shows one with at most that probability (a curve with a trend more rarely).

    The interval of a boundary is that of the place of the extreme, between the neighbouring boundaries, in
    ``num_resamples`` curves with noise of the size of the errors added to the measured curve.

    Noise is assumed to be independent between probes. With common random numbers (the default of the chains) it is
    partly shared and differences are more certain than assumed: fewer boundaries are found than possible, and intervals
    are wider.

    Args:
        steps: ``[probe]``, increasing.
        values: ``[probe]``, any unit; probes that are not finite are ignored.
        errors: ``[probe]``, standard errors; probes with NaN are ignored.
        degrees: degrees of freedom of the errors, chains - 1 for errors over chains; None treats the errors as known.
        chance: probability of any boundary in a curve without one, in (0, 1).
        num_resamples: number of curves for the limit and for the intervals.
        seed: of the noise.

    Returns:
        The boundaries in order, alternating maxima and minima; none with fewer than three probes.

    Raises:
        InputError: lengths differ, steps do not increase, a negative error, or a setting out of range.

    Source: the parametric bootstrap, Efron 1985.
    """
    at, value, error = (np.asarray(given, dtype=np.float64) for given in (steps, values, errors))
    if at.ndim != 1 or not at.shape == value.shape == error.shape or (np.diff(at) <= 0).any():
        raise InputError(
            f"got steps {list(at.shape)}, values {list(value.shape)} and errors {list(error.shape)}; expected equal "
            "lengths, and steps that increase"
        )
    require(not (error < 0).any(), "errors", float(np.nanmin(error, initial=0.0)), "0 or more", "NaN is for unknown")
    require(degrees is None or degrees > 0, "degrees", degrees, "more than 0, or None", "chains - 1 is usual")
    require(0 < chance < 1, "chance", chance, "a probability in (0, 1)", "0.05 is usual")
    require(num_resamples >= 100, "num_resamples", num_resamples, "100 or more", "1000 is usual")
    known = np.isfinite(value) & np.isfinite(error)
    if known.sum() < 3:
        return []
    at, value, error = at[known], value[known], _pooled(error[known])
    generator = np.random.default_rng(seed)
    limit = _noise_limit(error, degrees, chance, num_resamples, generator)
    turns = _turns(value, error, limit)
    noise = generator.standard_normal((num_resamples, len(at)))
    if degrees is not None:
        noise = generator.standard_t(degrees, (num_resamples, len(at)))
    curves = value + error * noise
    edges = [0, *(place for place, _ in turns), len(at) - 1]
    found = []
    for row, (place, side) in enumerate(turns):
        first, last = edges[row], edges[row + 2]
        places = first + np.argmax(side * curves[:, first : last + 1], axis=1)
        low, high = np.quantile(places, [(1 - LEVEL) / 2, (1 + LEVEL) / 2], method="inverted_cdf")
        moved = side * _scores(value, error)[place]
        found.append(
            StageBoundary(
                kind=Turn.maximum if side > 0 else Turn.minimum,
                step=int(at[place]),
                earliest=int(at[max(min(int(low), place) - 1, 0)]),
                latest=int(at[min(max(int(high), place) + 1, len(at) - 1)]),
                value=float(value[place]),
                significance=float(min(moved[first:place].max(), moved[place + 1 : last + 1].max())),
            )
        )
    return found


def stage_boundaries(
    run: xr.Dataset, signals: Iterable[str] | None = None, *, chance: float = 0.05, seed: int = 0
) -> dict[str, list[StageBoundary]]:
    """Finds the boundaries in the learning coefficients of a run, by signal.

    Degrees of freedom are those of the probe with the fewest chains; probes with a single chain are ignored.

    Args:
        run: as :func:`~stagewise.runs.open.open_run` returns it.
        signals: ``llc`` and ``llc/<group>``; all of them if None.
        chance: see :func:`find_boundaries`.
        seed: of the noise, the same for each signal.

    Raises:
        InputError: as :func:`find_boundaries`, or the run lacks a learning coefficient of ``signals``.
    """
    groups = [(), *((str(name),) for name in run["group"].values)] if "llc" in run else []
    curves = {signal.name: signal for signal in (Signal(Kind.llc, group) for group in groups)}
    found = {}
    for name in dict.fromkeys(curves if signals is None else signals):
        require(name in curves, "signal", repr(name), f"one of {list(curves)}", "measure it with probe.llc.enabled")
        chains = run["llc_chains"].values
        usable = chains >= 2
        degrees = float(chains[usable].min()) - 1 if usable.any() else None
        value, error = curves[name].read(run)
        steps = run["step"].values[usable]
        found[name] = find_boundaries(steps, value[usable], error[usable], degrees=degrees, chance=chance, seed=seed)
    return found


@dataclass(frozen=True)
class ShownBoundaries:
    """Boundaries of learning coefficients, divided into valid and withheld ones.

    If the interval of a coefficient is not above zero, the loss may slope at the weights and chains may go on training:
    the curve then does not measure complexity.

    Attributes:
        shown: by signal, boundaries at which the coefficient is above zero; without the signals in ``left_out``.
        withheld: by signal, the other boundaries of these signals, if any.
        left_out: signals that are not above zero at more than half of their probes, with the number of these probes and
            the number of probes where the coefficient is known.
    """

    shown: dict[str, list[StageBoundary]]
    withheld: dict[str, list[StageBoundary]]
    left_out: dict[str, tuple[int, int]]


def boundaries_above_zero(run: xr.Dataset, found: Mapping[str, Sequence[StageBoundary]]) -> ShownBoundaries:
    """Withholds boundaries at which the 95 % interval (Student's t) of the coefficient is not above zero.

    With a single chain, or without an error, the value itself decides.

    Args:
        run: as :func:`~stagewise.runs.open.open_run` returns it.
        found: return value of :func:`stage_boundaries`.
    """
    shown: dict[str, list[StageBoundary]] = {}
    withheld: dict[str, list[StageBoundary]] = {}
    left_out: dict[str, tuple[int, int]] = {}
    groups = [str(group) for group in run["group"].values]
    degrees = np.asarray(run["llc_chains"].values - 1.0 if "llc_chains" in run else np.zeros(run.sizes["step"]))
    factor = stdtrit(np.where(degrees > 0, degrees, np.nan), (1 + LEVEL) / 2)
    for name, boundaries in found.items():
        values, errors = Signal.parse(name, groups).read(run)
        known, low = np.isfinite(values), values - np.nan_to_num(factor * errors)
        below = int((low[known] <= 0).sum())
        if 2 * below > known.sum():
            left_out[name] = (below, int(known.sum()))
            continue
        sure = set(run["step"].values[low > 0].tolist())
        shown[name] = [boundary for boundary in boundaries if boundary.step in sure]
        unsure = [boundary for boundary in boundaries if boundary.step not in sure]
        withheld |= {name: unsure} if unsure else {}
    return ShownBoundaries(shown, withheld, left_out)


def _pooled(errors: Array) -> Array:
    """Averages the variances of errors ``[..., probe]`` over neighbouring probes, fewer at the ends."""
    window = np.ones(min(_POOLED, 2 * ((errors.shape[-1] - 1) // 2) + 1))
    counts = np.convolve(np.ones(errors.shape[-1]), window, mode="same")
    sums = np.apply_along_axis(np.convolve, -1, errors**2, window, mode="same")
    return np.sqrt(sums / counts)


def _scores(value: Array, error: Array) -> Array:
    """Returns ``[..., probe, probe]``: height of the first probe above the second, in standard errors; 0 if equal."""
    difference = value[..., :, None] - value[..., None, :]
    scale = np.hypot(error[..., :, None], error[..., None, :])
    scores = np.copysign(np.inf, difference)
    np.divide(difference, scale, out=scores, where=scale > 0)
    scores[difference == 0] = 0.0
    return scores


def _noise_limit(
    error: Array, degrees: float | None, chance: float, count: int, generator: np.random.Generator
) -> float:
    """Returns the score that noise around a constant exceeds on both sides of a point with probability ``chance``."""
    size = len(error)
    values = error * generator.standard_normal((count, size))
    errors = np.broadcast_to(error, values.shape)
    if degrees is not None:
        errors = _pooled(error * np.sqrt(generator.chisquare(degrees, (count, size)) / degrees))
    largest = np.zeros(count)
    before = np.tri(size, k=-1, dtype=bool)
    together = max(1, _MOST_SCORES // size**2)
    for first in range(0, count, together):
        rows = slice(first, first + together)
        scores = _scores(values[rows], errors[rows])
        for side in (scores, -scores):
            left = np.where(before, side, -np.inf).max(axis=-1)
            right = np.where(before.T, side, -np.inf).max(axis=-1)
            largest[rows] = np.maximum(largest[rows], np.minimum(left, right).max(axis=-1))
    return float(np.quantile(largest, 1 - chance, method="higher"))


def _turns(value: Array, error: Array, limit: float) -> list[tuple[int, int]]:
    """Returns the place and side (1 for a maximum, -1 for a minimum) of each significant turn, in order."""
    scores = _scores(value, error)
    turns: list[tuple[int, int]] = []
    start, way = 0, 0
    for place in range(1, len(value)):
        leg = np.arange(start, place)
        for side in (1, -1):
            far = leg[side * scores[leg, place] > limit]
            if way == -side or not len(far):
                continue
            extreme = int(far[np.argmax(side * value[far])])
            if way == side:
                turns.append((extreme, side))
            start, way = extreme, -side
            break
    return turns
