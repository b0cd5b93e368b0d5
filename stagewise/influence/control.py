"""Group influence compared with that of loss-free chains with the same noise."""

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from stagewise.influence.group_draws import GroupDraws
from stagewise.influence.groups import Groups
from stagewise.influence.sign import SIGN, UNITS, signed
from stagewise.influence.split import PARTS, Centering
from stagewise.influence.uncertainty import ChainSplits, error_over_chains

Array = NDArray[np.float64]

_WITHIN = PARTS.index("within")
_AXES = ("group", "group_j")


def control_influence(
    probe: GroupDraws, control: GroupDraws, groups: Groups, *, centering: Centering = Centering.pooled
) -> xr.Dataset:
    """Computes the influence of a probe, of its loss-free control, and their difference chain by chain.

    The control samples N(w*, 1 / localization): its influence is minus the gradient dot product over localization, up
    to second order in the displacement. Any further influence of the probe is due to the landscape. Chain c has the
    same noise in both, so that the difference is known far more precisely than either side.

    Args:
        probe: draws at the current weights.
        control: of the same chains without the loss, see :func:`stagewise.sampling.sgld.loss_free`; reduced alike.
        groups: groups to which the draws were reduced; position bins may follow them in the features.
        centering: see :class:`~stagewise.influence.split.Centering`.

    Returns:
        Variables over ``group``, ``group_j``, nats^2, negative = helpful: the within part without a reference, over the
        chains kept by both. NaN where two groups have no pair of losses in different samples, or without a common
        chain:

        - ``control_group_bif``, ``control_group_bif_se``: of the control, and its jackknife error over chains; NaN with
          too few chains.
        - ``control_probe_bif``, ``control_probe_bif_se``: the same of the probe.
        - ``control_difference``, ``control_difference_se``: probe minus control, and the jackknife error of this
          difference, leaving out chain c of both together. It follows Student's t with one degree of freedom less than
          ``control_chains``, the number of chains.

    Source: negative control, Hitchcock and Hoogland, arXiv 2507.21449; paired jackknife, Quenouille 1956, Tukey 1958.
    """
    common = tuple(chain for chain in probe.chains if chain in control.chains)
    size = groups.counts.size  # without the bins
    names = np.array(groups.names, dtype=object)
    found: dict[str, Array] = {}
    if common:
        draws = [features.only(common).groups[:, :, :size] for features in (probe, control)]
        over = [ChainSplits(values, None, centering=centering, moment=groups.pair_means) for values in draws]
        whole = list(range(len(common)))

        def one(side: int, chains: list[int]) -> Array:
            return np.asarray(signed(over[side](chains))[_WITHIN])

        estimates = {
            "control_group_bif": lambda chains: one(1, chains),
            "control_probe_bif": lambda chains: one(0, chains),
            "control_difference": lambda chains: one(0, chains) - one(1, chains),
        }
        for name, estimate in estimates.items():
            value = estimate(whole)
            found[name] = value
            found[f"{name}_se"] = error_over_chains(estimate, value, len(common), centering)
    else:
        for name in ("control_group_bif", "control_probe_bif", "control_difference"):
            found[name] = found[f"{name}_se"] = np.full((len(names), len(names)), np.nan)
    return xr.Dataset(
        {name: (_AXES, value, {"sign": SIGN, "units": UNITS}) for name, value in found.items()}
        | {"control_chains": len(common)},
        coords={axis: (axis, names) for axis in _AXES},
    )
