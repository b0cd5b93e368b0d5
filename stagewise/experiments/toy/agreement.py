"""How far influence from chains, closed forms and retraining agree, for one seed."""

from itertools import pairwise

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from stagewise.experiments.toy.config import ToyConfig

Array = NDArray[np.float64]

SURE = 3.0
"""Standard errors beyond which an influence is told from zero."""

NEGLIGIBLE = 1e-3
"""Effects below this share of the run's largest have no sign to speak of."""


def off_diagonal(size: int) -> NDArray[np.bool_]:
    """``[item, item]``: pairs of different items. The diagonal dominates any pooled figure and says little."""
    return ~np.eye(size, dtype=bool)


def pooled_correlation(left: Array, right: Array, keep: NDArray[np.bool_] | None = None) -> float:
    """Pearson correlation over all entries off the diagonal of the last two axes.

    Args:
        left: ``[..., item, item]``, any unit.
        right: the same shape.
        keep: which entries count, the same shape; all if None.

    Returns:
        NaN where one of them does not vary.
    """
    chosen = np.broadcast_to(off_diagonal(left.shape[-1]), left.shape)
    chosen = chosen if keep is None else chosen & keep
    x, y = left[chosen], right[chosen]
    if len(x) < 2 or x.std() == 0 or y.std() == 0:
        return float("nan")
    return float(np.corrcoef(x, y)[0, 1])


def pooled_slope(left: Array, right: Array) -> float:
    """Least-squares slope, with an intercept, of ``left`` on ``right`` over all entries off the diagonal."""
    chosen = np.broadcast_to(off_diagonal(left.shape[-1]), left.shape)
    return float(np.polyfit(right[chosen], left[chosen], 1)[0])


def sign_agreement(left: Array, right: Array, keep: NDArray[np.bool_]) -> float:
    """Share of entries off the diagonal in which both have the same sign, among those kept; NaN if there is none."""
    chosen = off_diagonal(left.shape[-1]) & keep
    return float((np.sign(left) == np.sign(right))[chosen].mean()) if chosen.any() else float("nan")


def relative_error(value: Array, truth: Array) -> float:
    """Norm of the difference over the norm of the truth, off the diagonal."""
    chosen = np.broadcast_to(off_diagonal(truth.shape[-1]), truth.shape)
    return float(np.linalg.norm((value - truth)[chosen]) / np.linalg.norm(truth[chosen]))


def told_from_zero(curves: xr.Dataset) -> NDArray[np.bool_]:
    """``[step, item, item_j]``: influence from chains beyond :data:`SURE` standard errors."""
    return np.abs(curves["bif"].values) > SURE * curves["bif_se"].values


def _with_signs(name: str, bif: Array, effect: Array, sure: NDArray[np.bool_]) -> dict[str, float]:
    """Correlation over all pairs; signs of all, and of those that both methods tell from zero."""
    pairs = np.broadcast_to(off_diagonal(effect.shape[-1]), effect.shape)
    sizeable = np.abs(effect) > NEGLIGIBLE * np.abs(effect[pairs]).max()
    both = sure & sizeable
    return {
        f"{name}_r": pooled_correlation(bif, effect),
        f"{name}_sign": sign_agreement(bif, effect, both),
        f"{name}_sign_all": sign_agreement(bif, effect, np.ones_like(both)),
        f"{name}_share_compared": float(both[pairs].mean()),
    }


def agreement(chains: xr.Dataset, exact: xr.Dataset, config: ToyConfig) -> dict[str, float]:
    """Figures of agreement, by the names they have in ``validation.json``; pairs of different items only.

    Args:
        chains: see :func:`~stagewise.experiments.toy.chain_curves.chain_curves`.
        exact: see :func:`~stagewise.experiments.toy.exact_curves.exact_curves`.
        config: of the experiment.
    """
    bif, sure = chains["bif"].values, told_from_zero(chains)
    gaussian = exact["gaussian"].values
    at_gaussian = bif[:: config.retraining.gaussian_every]
    figures = {
        "closed_form_error_aligned": float(exact["mode_error_aligned"].max()),
        "closed_form_error_gaussian": float(exact["mode_error"].max()),
        "closed_form_influence_r": pooled_correlation(exact["closed_form"].values, exact["unrolled"].values),
        "sgld_gaussian_r": pooled_correlation(at_gaussian, gaussian),
        "sgld_gaussian_slope": pooled_slope(at_gaussian, gaussian),
        "tangent_error": relative_error(exact["unrolled"].values, exact["small_change"].values),
        "tangent_full_drop_r": pooled_correlation(exact["unrolled"].values, exact["leave_one_out"].values),
        "unrolled_r": pooled_correlation(bif, exact["unrolled"].values),
        "graddot_r": pooled_correlation(bif, -np.nan_to_num(chains["graddot"].values)),
    }
    horizons = exact["horizon_effect"]
    for horizon in config.retraining.horizons:
        effect = horizons.sel(horizon=horizon).values
        figures[f"horizon_{horizon}_r"] = pooled_correlation(bif, effect)
    figures |= _with_signs("horizon_loo", bif, horizons.sel(horizon=config.retraining.horizon).values, sure)
    figures |= _with_signs("full_loo", bif, exact["leave_one_out"].values, sure)
    return figures


def window_means(steps: Array, bif: Array, start: float, end: float) -> Array:
    """``[item, item]``: mean over the training steps of a window of influence between probes, interpolated linearly."""
    inside = (steps > start) & (steps < end)
    ends = np.stack([_at(steps, bif, start), _at(steps, bif, end)])
    knots = np.concatenate([[start], steps[inside], [end]])
    values = np.concatenate([ends[:1], bif[inside], ends[1:]])
    return np.asarray(np.trapezoid(values, knots, axis=0) / (end - start))


def _at(steps: Array, bif: Array, step: float) -> Array:
    """Linear interpolation between the two probes around a step; the nearest probe beyond the ends."""
    place = np.interp(step, steps, np.arange(len(steps)))
    low = int(np.floor(place))
    high = min(low + 1, len(steps) - 1)
    return np.asarray(bif[low] + (place - low) * (bif[high] - bif[low]))


READINGS = ("window_end", "run_end", "maximum")
"""When the effect of a window is read."""


def window_influence(chains: xr.Dataset, exact: xr.Dataset) -> xr.DataArray:
    """BIF in each window, ``[window_length, window_start, item, item_j]``, nats^2, negative = helpful."""
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
    """Correlation of BIF in a window with the effect of the window, for each weight, length and reading.

    ``<reading>_r`` are those of the shortest windows in which the item is dropped; the others are
    ``<reading>_r_<length>_weight_<weight>``.
    """
    influence = window_influence(chains, exact)
    figures = {}
    weights, lengths = exact["window_weight"].values, exact["window_length"].values
    for reading in READINGS:
        for weight in weights:
            for length in lengths:
                effect = exact[reading].sel(window_weight=weight, window_length=length).values
                r = pooled_correlation(influence.sel(window_length=length).values, effect)
                figures[f"{reading}_r_{length}_weight_{weight:g}"] = r
        figures[f"{reading}_r"] = figures[f"{reading}_r_{lengths[0]}_weight_{weights[0]:g}"]
    return figures


def cancellation(chains: xr.Dataset) -> xr.DataArray:
    """|net| / gross of TracIn over the run for each pair, ``[item, item_j]``: 1 if it never changes its sign."""
    total = np.nan_to_num(chains["tracin"].values)
    gross = np.abs(total[0]) + sum((np.abs(after - before) for before, after in pairwise(total)), np.zeros(()))
    share = np.full(gross.shape, np.nan)
    np.divide(np.abs(total[-1]), gross, out=share, where=gross > 0)
    return xr.DataArray(share, dims=("item", "item_j"))
