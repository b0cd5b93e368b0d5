"""Influence of groups by position, from a trace of token losses."""

import numpy as np
import torch
import xarray as xr
from numpy.typing import ArrayLike

from stagewise.checks.bounds import checked
from stagewise.influence.bif import position_variables
from stagewise.influence.group_draws import Reducer
from stagewise.influence.group_influence import group_influence
from stagewise.influence.groups import Groups, Positions
from stagewise.influence.sign import SIGN, UNITS
from stagewise.influence.split import PARTS, Centering, Floats


@checked
def position_influence(
    loss: Floats,
    groups: Groups,
    loss_mask: ArrayLike,
    bins: int | list[int] = 8,
    *,
    reference: Floats | None = None,
    centering: Centering = Centering.pooled,
) -> xr.Dataset:
    """Computes the influence of each group on the losses at bins of positions, with errors over chains.

    This is the mean over losses (i, k) in the group and (j, l) with l in the bin, *of different sequences* i and j: a
    token moves with the others of its own sequence whatever its class. No matrix over tokens is formed. Chains that
    keep no trace give the same through ``position_bins`` of :class:`~stagewise.probes.config.ProbeConfig`.

    Args:
        loss: ``[chain, draw, sample, token]``, nats, zero where masked.
        groups: groups whose influence is computed.
        loss_mask: bool ``[sample, token]``, True where there is a loss.
        bins: number of bins, or their edges; see :class:`~stagewise.influence.groups.Positions`.
        reference: the same chains at the reference probe, or None.
        centering: see :class:`~stagewise.influence.split.Centering`.

    Returns:
        Data set with axes ``part`` (within, drift, between, total), ``group``, ``position``; the coordinates
        ``position`` and ``position_end`` are the first position of each bin and the one after its last. Negative =
        helpful, NaN where a group and a bin have no losses in different sequences. As in
        :func:`~stagewise.influence.group_influence.group_influence`:

        - ``position_bif``: minus the mean covariance, nats^2.
        - ``position_bif_correlation``: of the sums of group and bin in each sequence, every part divided by the total
          standard deviations; a pure number.
        - ``position_bif_se``, ``position_bif_correlation_se``: their jackknife standard errors over chains.
        - ``position_bif_z``: position_bif / position_bif_se.

    Raises:
        InputError: bins that do not fit the losses.

    Source: BIF, arXiv 2509.26544; by token and class, arXiv 2510.12071.
    """
    positions = Positions(groups, loss_mask, bins)
    reduce = Reducer(positions.joint)

    def sums(draws: Floats) -> np.ndarray:
        rows = np.stack([reduce(torch.from_numpy(chain)).numpy()[:, 1:] for chain in draws])
        return rows.reshape(*rows.shape[:2], -1)

    found = group_influence(
        sums(loss), None if reference is None else sums(reference), positions.joint, centering=centering
    )
    result = xr.Dataset(
        coords={
            "part": ("part", np.array(PARTS, dtype=object)),
            "group": ("group", np.array(groups.names, dtype=object)),
        },
        attrs={"sign": SIGN, "units": UNITS, "centering": str(centering)},
    )
    return result.merge(position_variables(found, positions), combine_attrs="override")
