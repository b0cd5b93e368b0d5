"""Local learning coefficient (LLC) from the draws of a probe, of all losses and of groups, with errors.

lambda_hat = nbeta (E[L(w)] - L(w*)), L the mean loss and E the mean over the draws: a pure number (nbeta times nats).
Burn-in draws never count, since they are not recorded. It is half the number of directions that the loss constrains:
d/2 for a quadratic in d dimensions, d/4 for a quartic, less if weights can move without changing the model's function.

*Data-refined*: L is the mean loss of a group. *Weight-refined*: chains move only one component of a model, see
:mod:`stagewise.lm.components`. Nothing else changes.

**The localized share.** The localization g constrains directions too. In a quadratic with curvatures lam_k each
contributes s_k / 2, s_k = nbeta lam_k / (nbeta lam_k + g): unless g is far below nbeta lam_k, the value reflects g and
not the loss. A learning coefficient should not depend on nbeta; how much this one does can be estimated from the draws:

    d log lambda_hat / d log nbeta = 1 - nbeta Var(L) / E[L - L(w*)]

for any loss and any localization (differentiate E[L] under exp(-nbeta L - (g/2) |w - w*|^2)). In the quadratic the
share is 1 - sum s_k^2 / sum s_k, the mean of 1 - s_k weighted by the contribution of each direction. lambda_hat is then
s/2 for (sum s_k)^2 / sum s_k^2 directions, s = 1 - share, and ``lambda_hat / (1 - share)`` is half their number. For a
loss that is any power of |w - w*|, without localization, the share is 0. For a group it is
1 - nbeta Cov(L_group, L) / E[L_group - L_group(w*)]. It needs no further runs. Read it with its error, since it is
based on a variance.

**Away from a minimum** the gradient at w* pulls chains downhill: lambda_hat is shifted by the slope and may be
negative. It is reported nevertheless. The share is shifted too, and NaN unless lambda_hat is above 0. A share far
outside of 0 to 1 (:data:`SHARE_BOUNDS`) is stored, but reports show none, and ``llc_note`` says so. With ``drift:
tilted`` the target has no slope, but L still has: the coefficient is that of the curvature, and the share is too low by
the slope's part of Var(L).

**Assumptions.** The identity for the share needs L to be the loss of the chains: if the observed set is not the
sampling set, it holds as far as the two agree. Chains that have not reached equilibrium, e.g. those started at w*
without burn-in, underestimate both.

Source: lambda_hat: Lau, Furman, Wang, Murfet, Wei 2023, arXiv 2308.12108, definition 1; data- and weight-refined: Wang,
Hoogland, van Wingerden, Furman, Murfet 2024, arXiv 2410.02984; chains: Hitchcock and Hoogland, arXiv 2507.21449. The
share is derived here; nbeta^2 Var(L) is the heat capacity of the ensemble.
"""

from dataclasses import dataclass

import numpy as np
import torch
import xarray as xr
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from stagewise.checks.bounds import checked, float_array
from stagewise.errors import InputError
from stagewise.influence.group_draws import GroupDraws, Reducer
from stagewise.influence.groups import Groups
from stagewise.influence.uncertainty import jackknife_error, mean_error

Array = NDArray[np.float64]

LOCALIZED_LIMIT = 0.5
"""Localized share above which the coefficient reflects the localization more than the loss."""

SHARE_BOUNDS = (-0.2, 1.2)
"""Range of meaningful localized shares. Others exceed 0 to 1 by more than noise: the loss slopes at the weights, or the
chains are out of equilibrium."""

_UNITS = {"units": "1"}
_OF = "local learning coefficient, nbeta (E[L] - L(w*))"


@dataclass(frozen=True)
class Coefficients:
    """Learning coefficients of some losses, pure numbers, ``[curve]`` each.

    Attributes:
        value: lambda_hat.
        error: standard error over chains, from chain means; NaN with one chain. For intervals, use Student's t with one
            degree of freedom less than chains, see :func:`~stagewise.influence.uncertainty.t_interval`.
        localized_share: d log value / d log nbeta, see the module; NaN unless the value is above 0.
        localized_share_error: its jackknife standard error over chains; NaN with one chain, or if a subset of the
            chains has no share.
    """

    value: Array
    error: Array
    localized_share: Array
    localized_share_error: Array


@checked
def learning_coefficients(losses: Array, anchor: Array, *, nbeta: float) -> Coefficients:
    """Estimates coefficients of mean losses from their draws.

    Args:
        losses: ``[chain, draw, curve]``, nats; the first curve is L, the mean loss.
        anchor: ``[curve]``, the same at w*, nats.
        nbeta: of the chains; at 0, the negative control, coefficients are 0 and localized shares 1.

    Raises:
        InputError: shapes that do not fit, or no chain.
    """
    losses, anchor = float_array("losses", losses), float_array("anchor", anchor)
    if losses.ndim != 3 or not losses.shape[0] or anchor.shape != losses.shape[2:]:
        raise InputError(
            f"got losses {list(losses.shape)} and losses at w* {list(anchor.shape)}; expected [chain, draw, curve] of "
            "one chain or more, and [curve]"
        )
    rises = losses - anchor
    by_chain = nbeta * rises.mean(axis=1)
    value = by_chain.mean(axis=0)
    unknown = np.full(value.shape, np.nan)
    error = mean_error(by_chain)

    def share(chains: list[int]) -> Array:
        return _localized_share(rises[chains], nbeta)

    share_error = jackknife_error(share, len(rises))
    return Coefficients(
        value=value,
        error=unknown if error is None else error,
        localized_share=share(list(range(len(rises)))),
        localized_share_error=unknown if share_error is None else share_error,
    )


def readable_share(share: ArrayLike) -> Array:
    """Returns localized shares fit to be shown: NaN outside of :data:`SHARE_BOUNDS`.

    Args:
        share: of any shape; NaN where unknown.
    """
    values = np.asarray(share, dtype=np.float64)
    low, high = SHARE_BOUNDS
    return np.where((values >= low) & (values <= high), values, np.nan)


def _localized_share(rises: Array, nbeta: float) -> Array:
    """Returns ``[curve]``: 1 - nbeta Cov(curve, first curve) / mean, of ``[chain, draw, curve]``."""
    means = rises.mean(axis=1)
    mean = means.mean(axis=0)
    centred = rises - mean
    covariance = (centred * centred[..., :1]).mean(axis=(0, 1))
    if len(means) > 1:
        # The pooled covariance lacks that of the overall mean: correlated draws count for fewer.
        covariance = covariance + ((means - mean) * (means[:, :1] - mean[0])).mean(axis=0) / (len(means) - 1)
    share = np.full(mean.shape, np.nan)
    np.divide(nbeta * covariance, mean, out=share, where=mean > 0)
    return 1 - share


class MeanLosses:
    """Reducer of losses to L and the mean loss of each group, for chains that measure only the LLC."""

    def __init__(self, groups: Groups) -> None:
        """Prepares means over all losses and over each of ``groups``."""
        self._sums = Reducer(groups)
        self._counts = torch.tensor(loss_counts(groups), dtype=torch.float64)

    def __call__(self, losses: Tensor) -> Tensor:
        """Returns means ``[..., 1 + group]``, nats, float64, of ``[..., sample(, token)]``, zero where masked."""
        sums = self._sums(losses).sum(dim=-1)
        return sums / self._counts.to(sums.device)


def loss_counts(groups: Groups) -> Array:
    """Returns the number of all losses and of those in each group, ``[1 + group]``."""
    return np.array([groups.present.sum(), *groups.counts.sum(axis=1)], dtype=np.float64)


def mean_losses_of(features: GroupDraws, groups: Groups) -> Array:
    """Returns L and the mean loss of each group at each draw, ``[chain, draw, 1 + group]``, nats.

    Args:
        features: draws reduced to the groups, possibly followed by others.
        groups: the groups.
    """
    counts = groups.counts
    own = features.groups[:, :, : counts.size].reshape(*features.groups.shape[:2], *counts.shape)
    sums = np.concatenate([features.samples.sum(axis=-1, keepdims=True), own.sum(axis=-1)], axis=-1)
    return sums / loss_counts(groups)


def llc(losses: Array, anchor: Array, groups: Groups, *, nbeta: float) -> xr.Dataset:
    """Estimates the learning coefficients of a probe and returns them as a data set.

    Args:
        losses: ``[chain, draw, 1 + group]``, nats: L and the mean loss of each group, see :func:`mean_losses_of`.
        anchor: ``[1 + group]``, the same at w*, nats.
        groups: over the observed set.
        nbeta: of the chains.

    Returns:
        Pure numbers, see the module: ``llc``, ``llc_se``, ``llc_localized_share``, ``llc_localized_share_se``; the same
        for groups, ``group_llc`` [group] and so on; ``llc_chains``, the number of chains; and ``llc_localized``, 1
        where the localized share of all losses is above .5, else 0.

    Raises:
        InputError: as :func:`learning_coefficients` does.
    """
    found = learning_coefficients(losses, anchor, nbeta=nbeta)
    columns = {
        "": (found.value, _OF),
        "_se": (found.error, f"standard error over chains of the {_OF}"),
        "_localized_share": (found.localized_share, "localized share d log llc / d log nbeta"),
        "_localized_share_se": (found.localized_share_error, "jackknife error over chains of the localized share"),
    }
    variables: dict[str, tuple] = {}
    for suffix, (values, name) in columns.items():
        variables[f"llc{suffix}"] = ((), float(values[0]), {"long_name": name, **_UNITS})
        variables[f"group_llc{suffix}"] = ("group", values[1:], {"long_name": f"{name}, of each group", **_UNITS})
    words = {"long_name": f"1 where the localized share is above {LOCALIZED_LIMIT:g}", **_UNITS}
    variables["llc_localized"] = ((), int(readable_share(found.localized_share[0]) > LOCALIZED_LIMIT), words)
    variables["llc_chains"] = ((), len(losses), {"long_name": "chains behind the learning coefficient", **_UNITS})
    return xr.Dataset(variables, coords={"group": ("group", np.array(groups.names, dtype=object))})


def llc_remarks(found: xr.Dataset, *, nbeta: float) -> list[str]:
    """Lists reasons not to read the coefficient as that of the loss.

    Args:
        found: return value of :func:`llc`.
        nbeta: of the chains; the negative control has no remark.
    """
    value, share = float(found["llc"]), float(found["llc_localized_share"])
    if nbeta == 0:
        return []
    if not np.isfinite(value):
        return ["got losses that are not finite; expected finite ones; lower lr"]
    if value <= 0:
        return [
            f"got a learning coefficient of {value:.3g}, not above 0: the loss slopes at these weights and the chains "
            "continue training; read only its changes, or set drift to tilted, or raise localization"
        ]
    if np.isfinite(share) and np.isnan(readable_share(share)):
        return [
            f"got no localized share ({share:.2g}, outside of {SHARE_BOUNDS[0]:g} to {SHARE_BOUNDS[1]:g}): the loss "
            "slopes at these weights, or the chains are out of equilibrium, so that the variance of the loss says "
            "nothing about it; set drift to tilted, or raise localization"
        ]
    if share > LOCALIZED_LIMIT:
        return [
            f"got a localized share of {share:.2g}; expected at most {LOCALIZED_LIMIT:g}: the learning coefficient is "
            "mainly the localization's; raise probe.llc.nbeta or lower probe.llc.localization (above nbeta times the "
            "most negative curvature)"
        ]
    return []
