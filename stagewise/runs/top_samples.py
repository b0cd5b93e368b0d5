"""Most helpful and the most harmful pairs of samples at a probe."""

import numpy as np
import xarray as xr

from stagewise.errors import InputError, require
from stagewise.influence.chain_counts import interval_factor
from stagewise.influence.sign import SIGN, UNITS
from stagewise.influence.stored_matrices import sample_matrix

SIDES = ("helpful", "harmful")


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
    require(count >= 1, "count", count, "1 or more", "10 are usual")
    steps = run["step"].values
    if step not in steps:
        near = int(steps[np.argmin(np.abs(steps - step))])
        raise InputError(
            f"got step={step}; expected the step of a probe, of which there are {len(steps)} from {steps[0]} to "
            f"{steps[-1]}; {near} is the nearest"
        )
    probe = run.sel(step=[step])
    value, error = (sample_matrix(probe, part, error=error).values[0].astype(np.float64) for error in (False, True))
    size = len(value)
    require(on is None or 0 <= on < size, "on", on, f"a sample from 0 to {size - 1}", "leave it out for all pairs")
    if on is None:
        rows, columns = np.triu_indices(size, k=1)
    else:
        rows = np.delete(np.arange(size), on)
        columns = np.full(len(rows), on)
    order = np.argsort(value[rows, columns], kind="stable")
    # Shape [side, rank]: the most helpful first, the most harmful first.
    chosen = np.full((2, count), -1)
    for side, (places, sign) in enumerate(((order, -1), (order[::-1], 1))):
        kept = places[sign * value[rows, columns][places] > 0][:count]
        chosen[side, : len(kept)] = kept
    missing = chosen < 0
    sample, sample_j = (np.where(missing, -1, of[chosen]) for of in (rows, columns))
    values, error_of = (np.where(missing, np.nan, of[rows[chosen], columns[chosen]]) for of in (value, error))
    half = error_of * np.broadcast_to(interval_factor(probe, confidence).values, (1,))[0]
    end = f"end of the {100 * confidence:g} % interval"
    axes = ("side", "rank")
    return xr.Dataset(
        {
            "sample": (axes, sample, {"long_name": "whose weight", "units": "1"}),
            "sample_j": (axes, sample_j, {"long_name": "whose loss", "units": "1"}),
            "value": (axes, values, {"long_name": "influence", "units": UNITS}),
            "se": (axes, error_of, {"long_name": "standard error over chains", "units": UNITS}),
            "low": (axes, values - half, {"long_name": f"lower {end}", "units": UNITS}),
            "high": (axes, values + half, {"long_name": f"upper {end}", "units": UNITS}),
        },
        coords={"side": ("side", np.array(SIDES, dtype=object)), "rank": np.arange(count)},
        attrs={"step": int(step), "part": part, "confidence": confidence, "sign": SIGN, "units": UNITS},
    )
