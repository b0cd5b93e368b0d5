"""Scalars of one probe, by tag."""

import math
from collections.abc import Iterator

import numpy as np
import xarray as xr

from stagewise.influence.llc import readable_share
from stagewise.influence.split import PARTS
from stagewise.reporting import tags

_SCALARS = {
    "between_share": tags.BETWEEN_SHARE,
    "flip_fraction": tags.FLIP_FRACTION,
    "z_median": tags.Z_MEDIAN,
    "rhat_max": tags.RHAT_MAX,
    "ess_min": tags.ESS_MIN,
    "chain_drift": tags.DRIFT,
    "loss_rise": tags.LOSS_RISE,
    "rhat_groups": tags.RHAT_GROUPS,
    "ess_groups": tags.ESS_GROUPS,
    "mcse_mean": tags.MCSE_MEAN,
    "mcse_max": tags.MCSE_MAX,
    "chain_share": tags.CHAIN_SHARE,
    "draw_share": tags.DRAW_SHARE,
    "end_distance": tags.DISTANCE,
    "gradient_over_eps": tags.GRADIENT_OVER_EPS,
    "minibatch_noise": tags.MINIBATCH_NOISE,
    "flagged": tags.FLAGGED,
    "seconds": tags.SECONDS,
    "signal": tags.SIGNAL,
    "signal_threshold": tags.THRESHOLD,
}
_INFLUENCE = {
    "group_bif": tags.influence,
    "group_bif_se": tags.influence_error,
    "group_bif_z": tags.influence_z,
}
_BASELINES = {
    "control_group_bif": tags.control,
    "graddot": tags.gradient_dot,
    "tracin": tags.tracin,
    "damped_influence": tags.damped_influence,
}
_NEED_REFERENCE = frozenset({"between_share", "flip_fraction", "z_median", "signal", "signal_threshold"})


_LLC = {"llc_localized_share": tags.LLC_LOCALIZED, "llc_seconds": tags.LLC_SECONDS}


def llc_scalars(probe: xr.Dataset) -> dict[str, float]:
    """Returns learning coefficients by tag, those of all losses under ``all``; empty if not measured."""
    if "llc" not in probe:
        return {}
    values = {tags.LLC_ALL: _number(probe, "llc"), tags.llc_error("all"): _number(probe, "llc_se")}
    of_groups = zip(probe["group"].values, probe["group_llc"].values, probe["group_llc_se"].values, strict=True)
    for name, value, error in of_groups:
        values[tags.llc(str(name))], values[tags.llc_error(str(name))] = float(value), float(error)
    values |= {tag: _number(probe, name) for name, tag in _LLC.items() if name in probe}
    if tags.LLC_LOCALIZED in values:
        values[tags.LLC_LOCALIZED] = float(readable_share(values[tags.LLC_LOCALIZED]))
    return values


def _number(probe: xr.Dataset, name: str) -> float:
    return float(probe.variables[name].values)  # a variable alone: xarray collects coordinates for a data array


def _pairs(probe: xr.Dataset) -> Iterator[tuple[int, int, str, str]]:
    names = [str(name) for name in probe["group"].values]
    for row, name in enumerate(names):
        for column in range(row, len(names)):
            yield row, column, name, names[column]


def probe_scalars(probe: xr.Dataset) -> dict[str, float]:
    """Returns scalars to log for a probe: unordered group pairs, traces, baselines, control, losses, diagnostics.

    Undefined values are left out: the between and total parts before there is a reference, errors with one chain,
    groups without a pair of losses in different samples. A probe that is not finite is flagged (``sampler/flagged``).

    Args:
        probe: data set of one probe, see :mod:`stagewise.influence.bif`.
    """
    has_reference = probe.attrs["reference_step"] != probe.attrs["step"]
    values: dict[str, float] = {}
    influence = [(tag_of, probe[name].values) for name, tag_of in _INFLUENCE.items() if name in probe]
    pairs, samples = list(_pairs(probe)), probe["bif"].values
    for index, part in enumerate(PARTS):
        if part in ("between", "total") and not has_reference:
            continue
        for row, column, name, other in pairs:
            for tag_of, matrices in influence:
                values[tag_of(part, name, other)] = float(matrices[index, row, column])
        values[tags.trace(part)] = float(np.trace(samples[index]))
    for baseline, pair_tag in _BASELINES.items():
        if baseline in probe:
            matrix = probe[baseline].values
            for row, column, name, other in pairs:
                values[pair_tag(name, other)] = float(matrix[row, column])
    for name, loss in zip(probe["group"].values, probe["group_loss"].values, strict=True):
        values[tags.group_loss(str(name))] = float(loss)
    values |= llc_scalars(probe)
    for name, tag in _SCALARS.items():
        if has_reference or name not in _NEED_REFERENCE:
            values[tag] = _number(probe, name)
    return {tag: value for tag, value in values.items() if math.isfinite(value)}
