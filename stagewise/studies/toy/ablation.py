"""Windows in which an item's weight is changed, compared with influence in the window, for one seed."""

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from stagewise.studies.toy.agreement import off_diagonal, pooled_correlation

Array = NDArray[np.float64]


def window_means(steps: Array, bif: Array, start: float, end: float) -> Array:
    """Returns the mean influence over a window, ``[item, item]``, interpolated linearly between probes."""
    inside = (steps > start) & (steps < end)
    ends = np.stack([_at(steps, bif, start), _at(steps, bif, end)])
    knots = np.concatenate([[start], steps[inside], [end]])
    values = np.concatenate([ends[:1], bif[inside], ends[1:]])
    return np.asarray(np.trapezoid(values, knots, axis=0) / (end - start))


def _at(steps: Array, bif: Array, step: float) -> Array:
    """Returns the linear interpolation between the two probes around a step; the nearest probe beyond the ends."""
    place = np.interp(step, steps, np.arange(len(steps)))
    low = int(np.floor(place))
    high = min(low + 1, len(steps) - 1)
    return np.asarray(bif[low] + (place - low) * (bif[high] - bif[low]))


READINGS = ("window_end", "run_end", "maximum")
"""Readings of the effect of a window."""


def window_influence(chains: xr.Dataset, exact: xr.Dataset) -> xr.DataArray:
    """Returns the BIF in each window, ``[window_length, window_start, item, item_j]``, nats^2, negative = helpful."""
    steps = chains["step"].values.astype(np.float64)
    found = [
        [window_means(steps, chains["bif"].values, start, start + length) for start in exact["window_start"].values]
        for length in exact["window_length"].values
    ]
    axes = ("window_length", "window_start", "item", "item_j")
    return xr.DataArray(
        np.array(found), dims=axes, coords={name: exact[name] for name in ("window_length", "window_start")}
    )


def window_agreement(chains: xr.Dataset, exact: xr.Dataset) -> dict[str, float]:
    """Returns the correlation of BIF in a window with the effect of the window, for each weight, length and reading.

    ``<reading>_r`` are those of the shortest windows and the first weight; the others are
    ``<reading>_r_<length>_weight_<weight>``. ``run_end_size`` and ``maximum_size`` are the norms of those readings over
    that at the window's end: the size of the remaining effect.
    """
    influence = window_influence(chains, exact)
    figures = {}
    weights, lengths = exact["window_weight"].values, exact["window_length"].values
    sizes = {}
    for reading in READINGS:
        for weight in weights:
            for length in lengths:
                effect = exact[reading].sel(window_weight=weight, window_length=length).values
                r = pooled_correlation(influence.sel(window_length=length).values, effect)
                figures[f"{reading}_r_{length}_weight_{weight:g}"] = r
        figures[f"{reading}_r"] = figures[f"{reading}_r_{lengths[0]}_weight_{weights[0]:g}"]
        shortest = exact[reading].sel(window_weight=weights[0], window_length=lengths[0]).values
        sizes[reading] = np.linalg.norm(shortest[:, off_diagonal(shortest.shape[-1])])
    gradients = chains.assign(bif=(chains["graddot"].dims, -np.nan_to_num(chains["graddot"].values)))
    effect = exact["window_end"].sel(window_weight=weights[0], window_length=lengths[0]).values
    in_window = window_influence(gradients, exact).sel(window_length=lengths[0]).values
    figures["graddot_window_end_r"] = pooled_correlation(in_window, effect)
    figures |= {f"{reading}_size": float(sizes[reading] / sizes["window_end"]) for reading in READINGS[1:]}
    if len(lengths) > 1:
        figures["window_end_r_longest"] = figures[f"window_end_r_{lengths[-1]}_weight_{weights[0]:g}"]
    if len(weights) > 1:
        figures["window_end_r_other_weight"] = figures[f"window_end_r_{lengths[0]}_weight_{weights[1]:g}"]
    return figures
