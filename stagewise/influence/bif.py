"""Bayesian influence function (BIF) of one probe, minus a covariance of losses, split against a reference probe.

The sign is defined in :mod:`~stagewise.influence.sign`, the parts in :mod:`~stagewise.influence.split`.
"""

from collections.abc import Sequence

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from stagewise.influence.group_draws import GroupDraws
from stagewise.influence.group_influence import group_influence, sample_influence
from stagewise.influence.groups import Groups, Positions
from stagewise.influence.sign import SIGN, UNITS, unit
from stagewise.influence.split import PARTS, Centering
from stagewise.influence.uncertainty import length_error, mean_error

Array = NDArray[np.float64]

_SAMPLES = ("part", "sample", "sample_j")
_GROUP_AXES = ("part", "group", "group_j")
_SHIFT = {"sign": "negative = the loss fell since the reference", "units": "nats"}


def _names(names: Sequence[str]) -> NDArray[np.object_]:
    """Returns variable-length strings: fixed-width ones have no Zarr 3 specification."""
    return np.array(names, dtype=object)


def _missing(like: Array) -> Array:
    return np.full_like(like, np.nan)


def position_variables(grouped: dict[str, Array], positions: Positions) -> xr.Dataset:
    """Selects groups by bins from the :func:`~stagewise.influence.group_influence.group_influence` of joint groups."""
    first = len(positions.joint) - len(positions)
    named = {name.replace("group", "position"): value[:, :first, first:] for name, value in grouped.items()}
    return xr.Dataset(
        {name: (("part", "group", "position"), value, unit(name)) for name, value in named.items()},
        coords={
            "position": ("position", list(positions.edges[:-1])),
            "position_end": ("position", list(positions.edges[1:])),
        },
    )


def bif(
    current: GroupDraws,
    reference: GroupDraws | None,
    groups: Groups,
    *,
    positions: Positions | None = None,
    centering: Centering = Centering.pooled,
) -> xr.Dataset:
    """Computes influence over samples and groups, with its split, its errors and the change since the reference.

    Works on draws; for the influence in a module see :func:`stagewise.probes.one_checkpoint.bif`, the public
    ``stagewise.bif``.

    Args:
        current: draws at the current weights.
        reference: draws at the reference probe; only chains kept by both are used. Without a reference, or without a
            common chain, the probe is its own reference: between and its z-score are exactly zero.
        groups: groups to which the draws were reduced.
        positions: bins, if the draws were reduced to their joint groups.
        centering: see :class:`~stagewise.influence.split.Centering`.

    Returns:
        Data set with axes ``part`` (within, drift, between, total), ``sample``, ``sample_j``, ``group``, ``group_j``:

        - ``bif``, ``group_bif``: minus the covariance, nats^2; for groups, the mean over pairs in different samples.
          All variables over groups are NaN where two groups have no such pair, e.g. a group of one sample with itself.
        - ``bif_correlation``, ``group_bif_correlation``: every part divided by the total standard deviations.
        - ``group_bif_se`` (nats^2), ``group_bif_correlation_se`` (a pure number): jackknife standard errors over
          chains; NaN with too few chains. :func:`~stagewise.influence.uncertainty.t_interval` turns them into
          intervals, and documents what these cover.
        - ``bif_se``, ``bif_correlation_se``: the same for samples.
        - ``group_bif_z``: group_bif / group_bif_se, a pure number with the sign of influence; beyond about 2 a group
          influence differs from zero. With C = ``chains_common`` it follows Student's t with at best C - 1 degrees of
          freedom. NaN where the error is unknown, and if the chains of the probe or of its reference have not reached
          equilibrium (every part depends on the draws of both): errors over chains say nothing about a posterior that
          none of them has reached.
        - ``sample_bif``, ``sample_bif_se`` [part, sample], nats^2: influence of each sample on the mean loss of all
          others, and its jackknife standard error.
        - ``chains_common``: number of chains kept by both the probe and its reference, from which everything is
          computed; without a reference, those of the probe.
        - ``reference_equilibrated``: 1 if the chains of the reference have reached equilibrium, else 0; NaN without a
          reference or a check.
        - ``shift``, ``shift_se`` [sample]: mean loss now minus at the reference, nats; negative = learnt.
        - ``shift_norm_se``: standard error of the length of the shift, nats; NaN with one chain.
        - ``between_share``: trace of between over trace of total; noise alone gives about 1 / (2 effective draws).
        - ``flip_fraction``: share of pairs of different samples in which total and within differ in sign.
        - ``z_median``: median absolute shift / shift_se; NaN with one chain or out of equilibrium.
        - ``position_bif`` and related variables, only with positions: see
          :func:`~stagewise.influence.position_influence.position_influence`.

    Source: BIF, arXiv 2509.26544 and arXiv 2510.12071; the split is the law of total covariance.
    """
    if reference is not None:
        common = tuple(chain for chain in current.chains if chain in reference.chains)
        if common:
            current, reference = current.only(common), reference.only(common)
        else:
            reference = None
    past = None if reference is None else reference.samples
    sampled = sample_influence(current.samples, past, centering=centering)
    joint = groups if positions is None else positions.joint
    grouped = group_influence(
        current.groups, None if reference is None else reference.groups, joint, centering=centering
    )
    shifts = (current.samples - (current.samples if past is None else past)).mean(axis=1)
    shift = shifts.mean(axis=0)
    shift_se = None if reference is None else mean_error(shifts)
    reference_settled = None if reference is None else reference.equilibrated
    settled = current.equilibrated is not False and reference_settled is not False
    if not settled:
        grouped["group_bif_z"] = _missing(grouped["group_bif_z"])
    within, between, total = (sampled["bif"][PARTS.index(part)] for part in ("within", "between", "total"))
    off_diagonal = ~np.eye(len(total), dtype=bool)
    flips = np.sign(total) != np.sign(within)

    result = xr.Dataset(
        {
            **{name: (_SAMPLES[: value.ndim], value, unit(name)) for name, value in sampled.items()},
            **{
                name: (_GROUP_AXES, value[:, : len(groups), : len(groups)], unit(name))
                for name, value in grouped.items()
            },
            "shift": ("sample", shift, _SHIFT),
            "shift_se": ("sample", _missing(shift) if shift_se is None else shift_se, _SHIFT),
            "shift_norm_se": ((), np.nan if shift_se is None else length_error(shifts), _SHIFT),
            "between_share": float(np.trace(between) / np.trace(total)) if np.trace(total) < 0 else 0.0,
            "flip_fraction": float(flips[off_diagonal].mean()) if off_diagonal.any() else 0.0,
            "z_median": _median_z(shift, shift_se) if settled and shift_se is not None else np.nan,
            "chains_common": len(current.chains),
            "reference_equilibrated": np.nan if reference_settled is None else float(reference_settled),
        },
        coords={
            "part": ("part", _names(PARTS)),
            "group": ("group", _names(groups.names)),
            "group_j": ("group_j", _names(groups.names)),
        },
        attrs={
            "sign": SIGN,
            "units": UNITS,
            "centering": str(centering),
            "step": current.step,
            "reference_step": current.step if reference is None else reference.step,
        },
    )
    return result if positions is None else result.merge(position_variables(grouped, positions))


def _median_z(shift: Array, shift_se: Array) -> float:
    """Returns the median of the absolute z-scores, over samples whose error is not zero."""
    sure = shift_se > 0
    return float(np.median(np.abs(shift[sure] / shift_se[sure]))) if sure.any() else float("nan")
