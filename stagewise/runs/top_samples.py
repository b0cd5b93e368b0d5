"""Most helpful and most harmful samples, and pairs of samples, at a probe."""

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from stagewise.errors import InputError, require
from stagewise.influence.chain_counts import interval_factor
from stagewise.influence.sign import SIGN, UNITS
from stagewise.influence.split import PARTS
from stagewise.influence.stored_matrices import sample_matrix

SIDES = ("helpful", "harmful")
_AXES = ("side", "rank")


def top_samples(
    run: xr.Dataset,
    step: int,
    count: int = 10,
    *,
    on: int | None = None,
    part: str = "within",
    confidence: float = 0.95,
) -> xr.Dataset:
    """Returns pairs of samples with the most negative and the most positive influence, from the stored matrices.

    These are extremes of many pairs, each far noisier than a group: some are due to chance. See their intervals, and
    groups first.

    Args:
        run: as :func:`stagewise.runs.open.open_run` returns it.
        step: training step of a probe.
        count: pairs of each sign, at most.
        on: one sample, by its position in the observed set: only influence on its loss. All pairs if None, each once
            (influence is symmetric). A sample with itself is left out.
        part: ``within``, ``drift``, ``between`` or ``total``; all but within need ``probe.sample_matrices: all``.
        confidence: of Student's interval, 0 to 1.

    Returns:
        Over ``side`` (helpful, harmful) and ``rank`` (0 = the most extreme): ``sample`` and ``sample_j``, positions in
        the observed set, -1 if there are fewer pairs; ``value`` (nats^2, negative = helpful), ``se``, ``low``,
        ``high`` (nats^2; NaN with one chain, the ends out of equilibrium too).

    Raises:
        InputError: no probe at that step, unknown sample, a count below 1, or a part that is unknown or not stored.
    """
    probe = _probe(run, step, count)
    value, error = (sample_matrix(probe, part, error=error).values[0].astype(np.float64) for error in (False, True))
    size = len(value)
    require(on is None or 0 <= on < size, "on", on, f"a sample from 0 to {size - 1}", "leave it out for all pairs")
    if on is None:
        rows, columns = np.triu_indices(size, k=1)
    else:
        rows = np.delete(np.arange(size), on)
        columns = np.full(len(rows), on)
    chosen = _extremes(value[rows, columns], count)
    sample, sample_j = (np.where(chosen < 0, -1, of[chosen]) for of in (rows, columns))
    found = _ranked(probe, chosen, value[rows, columns], error[rows, columns], part, confidence)
    return found.assign(
        {
            "sample": (_AXES, sample, {"long_name": "whose weight", "units": "1"}),
            "sample_j": (_AXES, sample_j, {"long_name": "whose loss", "units": "1"}),
        }
    )


def leading_samples(
    run: xr.Dataset, step: int, count: int = 10, *, part: str = "within", confidence: float = 0.95
) -> xr.Dataset:
    """Returns the samples with the most negative and the most positive influence on the mean loss of all others.

    Args:
        run: as :func:`stagewise.runs.open.open_run` returns it.
        step: training step of a probe.
        count: samples of each sign, at most.
        part: ``within``, ``drift``, ``between`` or ``total``.
        confidence: of Student's interval, 0 to 1.

    Returns:
        As :func:`top_samples`, without ``sample_j``.

    Raises:
        InputError: no probe at that step, a count below 1, an unknown part, or a run of an earlier version.
    """
    probe = _probe(run, step, count)
    require(part in PARTS, "part", repr(part), f"one of {', '.join(PARTS)}", "'within' is the default")
    if "sample_bif" not in run:
        raise InputError(
            "got a run without sample_bif; expected one of this version, opened with it; use top_samples for its pairs"
        )
    value, error = (probe[name].sel(part=part).values[0].astype(np.float64) for name in ("sample_bif", "sample_bif_se"))
    chosen = _extremes(value, count)
    found = _ranked(probe, chosen, value, error, part, confidence)
    return found.assign(sample=(_AXES, chosen, {"long_name": "whose weight", "units": "1"}))


def _probe(run: xr.Dataset, step: int, count: int) -> xr.Dataset:
    """Returns the probe of a step, with an axis of one step."""
    require(count >= 1, "count", count, "1 or more", "10 are usual")
    steps = run["step"].values
    if step not in steps:
        near = int(steps[np.argmin(np.abs(steps - step))])
        raise InputError(
            f"got step={step}; expected the step of a probe, of which there are {len(steps)} from {steps[0]} to "
            f"{steps[-1]}; {near} is the nearest"
        )
    return run.sel(step=[step])


def _extremes(values: NDArray[np.float64], count: int) -> NDArray[np.int64]:
    """Returns positions ``[side, rank]``: the most helpful first, the most harmful first; -1 where there are fewer."""
    order = np.argsort(values, kind="stable")
    chosen = np.full((2, count), -1)
    for side, (places, sign) in enumerate(((order, -1), (order[::-1], 1))):
        kept = places[sign * values[places] > 0][:count]
        chosen[side, : len(kept)] = kept
    return chosen


def _ranked(
    probe: xr.Dataset,
    chosen: NDArray[np.int64],
    values: NDArray[np.float64],
    errors: NDArray[np.float64],
    part: str,
    confidence: float,
) -> xr.Dataset:
    """Returns values, errors and intervals ``[side, rank]`` of the chosen positions."""
    value, error = (np.where(chosen < 0, np.nan, of[chosen]) for of in (values, errors))
    half = error * np.broadcast_to(interval_factor(probe, confidence).values, (1,))[0]
    end = f"end of the {100 * confidence:g} % interval"
    return xr.Dataset(
        {
            "value": (_AXES, value, {"long_name": "influence", "units": UNITS}),
            "se": (_AXES, error, {"long_name": "standard error over chains", "units": UNITS}),
            "low": (_AXES, value - half, {"long_name": f"lower {end}", "units": UNITS}),
            "high": (_AXES, value + half, {"long_name": f"upper {end}", "units": UNITS}),
        },
        coords={"side": ("side", np.array(SIDES, dtype=object)), "rank": np.arange(chosen.shape[1])},
        attrs={
            "step": int(probe["step"].values[0]),
            "part": part,
            "confidence": confidence,
            "sign": SIGN,
            "units": UNITS,
        },
    )
