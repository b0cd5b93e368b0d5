"""Agreement of influence from chains, closed forms and retraining, for one seed."""

from itertools import pairwise

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from stagewise.phases.flips import sure_limit
from stagewise.studies.toy.config import ToyConfig

Array = NDArray[np.float64]

SURE = 3.0
"""Standard errors beyond which an influence differs from zero; more for few chains."""

NEGLIGIBLE = 1e-3
"""Share of the run's largest effect below which effects have no meaningful sign."""


def off_diagonal(size: int) -> NDArray[np.bool_]:
    """Returns ``[item, item]``: pairs of different items. The diagonal dominates any pooled figure and says little."""
    return ~np.eye(size, dtype=bool)


def pooled_correlation(left: Array, right: Array) -> float:
    """Returns the Pearson correlation over all entries off the diagonal of the last two axes.

    Args:
        left: ``[..., item, item]``, any unit.
        right: the same shape.

    Returns:
        NaN if one of them does not vary.
    """
    chosen = np.broadcast_to(off_diagonal(left.shape[-1]), left.shape)
    return _correlation(left[chosen], right[chosen])


def _correlation(x: Array, y: Array) -> float:
    if len(x) < 2 or x.std() == 0 or y.std() == 0:
        return float("nan")
    return float(np.corrcoef(x, y)[0, 1])


def residual_correlation(left: Array, right: Array, relations: NDArray[np.str_]) -> float:
    """Returns the correlation after subtracting the mean of each relation at each step.

    On a balanced tree the pairs of one relation are replicates of each other: a pooled correlation is that of a few
    mean curves. This one is that of single pairs.

    Args:
        left: ``[step, item, item]``.
        right: the same shape.
        relations: ``[item, item]``, names.
    """
    rests = []
    for values in (left, right):
        parts = [values[:, relations == name] for name in np.unique(relations[off_diagonal(len(relations))])]
        rests.append(np.concatenate([(part - part.mean(axis=1, keepdims=True)).ravel() for part in parts]))
    return _correlation(*rests)


def pooled_slope(left: Array, right: Array) -> float:
    """Returns the least-squares slope, with an intercept, of ``left`` on ``right`` over entries off the diagonal."""
    chosen = np.broadcast_to(off_diagonal(left.shape[-1]), left.shape)
    return float(np.polyfit(right[chosen], left[chosen], 1)[0])


def sign_agreement(left: Array, right: Array, keep: NDArray[np.bool_]) -> float:
    """Returns the share of entries off the diagonal with equal signs, among those kept; NaN if there is none."""
    chosen = off_diagonal(left.shape[-1]) & keep
    return float((np.sign(left) == np.sign(right))[chosen].mean()) if chosen.any() else float("nan")


def relative_error(value: Array, truth: Array) -> float:
    """Returns the norm of the difference over the norm of the truth, off the diagonal."""
    chosen = np.broadcast_to(off_diagonal(truth.shape[-1]), truth.shape)
    return float(np.linalg.norm((value - truth)[chosen]) / np.linalg.norm(truth[chosen]))


def told_from_zero(curves: xr.Dataset) -> NDArray[np.bool_]:
    """Returns ``[step, item, item_j]``: influence from chains beyond :data:`SURE` standard errors, by Student's t."""
    limit = sure_limit(SURE, curves.attrs["num_chains"] - 1)
    return np.abs(curves["bif"].values) > limit * curves["bif_se"].values


def _with_signs(name: str, bif: Array, effect: Array, sure: NDArray[np.bool_]) -> dict[str, float]:
    """Returns the correlation over all pairs; signs of all, and of those that are significant by both methods."""
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
    """Returns figures of agreement, by the names they have in ``validation.json``; pairs of different items only.

    Args:
        chains: see :func:`~stagewise.studies.toy.chain_curves.chain_curves`.
        exact: see :func:`~stagewise.studies.toy.exact_curves.exact_curves`.
        config: of the experiment.
    """
    bif, sure = chains["bif"].values, told_from_zero(chains)
    gradients = -np.nan_to_num(chains["graddot"].values)
    full, unrolled = exact["leave_one_out"].values, exact["unrolled"].values
    retraining = config.retraining
    at_gaussian = bif[:: retraining.gaussian_every]
    figures = {
        "closed_form_error_aligned": float(exact["mode_error_aligned"].max()),
        "closed_form_error_gaussian": float(exact["mode_error"].max()),
        "closed_form_influence_r": pooled_correlation(exact["closed_form"].values, unrolled),
        "sgld_gaussian_r": pooled_correlation(at_gaussian, exact["gaussian"].values),
        "sgld_gaussian_slope": pooled_slope(at_gaussian, exact["gaussian"].values),
        "tangent_error": relative_error(unrolled, exact["small_change"].values),
        "tangent_full_drop_r": pooled_correlation(unrolled, full),
        "unrolled_r": pooled_correlation(bif, unrolled),
        "graddot_r": pooled_correlation(bif, gradients),
        "graddot_full_loo_r": pooled_correlation(gradients, full),
    }
    for horizon in retraining.horizons:
        effect = exact["horizon_effect"].sel(horizon=horizon).values
        figures[f"horizon_{horizon}_r"] = pooled_correlation(bif, effect)
        figures[f"graddot_horizon_{horizon}_r"] = pooled_correlation(gradients, effect)
    near = exact["horizon_effect"].sel(horizon=retraining.horizon).values
    everything = np.ones_like(sure)
    # At strong localization BIF is -graddot / localization; D steps of lr / n change a loss by D lr / n graddot.
    localization = config.influence.sgld.require_resolved().localization
    first_order = bif.shape[-1] / (localization * config.network.lr * retraining.horizon)
    figures |= _with_signs("horizon_loo", bif, near, sure)
    figures |= {
        "horizon_loo_slope": pooled_slope(bif, near) / first_order,
        "horizon_loo_pair_r": residual_correlation(bif, near, config.hierarchy.relations),
        "graddot_horizon_loo_r": pooled_correlation(gradients, near),
        "graddot_horizon_loo_sign_all": sign_agreement(gradients, near, everything),
        "graddot_horizon_loo_pair_r": residual_correlation(gradients, near, config.hierarchy.relations),
    }
    figures |= _with_signs("full_loo", bif, full, sure)
    return figures


def cancellation(chains: xr.Dataset) -> xr.DataArray:
    """Returns |net| / gross of TracIn over the run, ``[item, item_j]``: 1 if it never changes its sign."""
    total = np.nan_to_num(chains["tracin"].values)
    gross = np.abs(total[0]) + sum((np.abs(after - before) for before, after in pairwise(total)), np.zeros(()))
    share = np.full(gross.shape, np.nan)
    np.divide(np.abs(total[-1]), gross, out=share, where=gross > 0)
    return xr.DataArray(share, dims=("item", "item_j"))
