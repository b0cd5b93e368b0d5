"""Parts of an influence between groups as arrays, without the cost of an xarray selection."""

import numpy as np
import xarray as xr
from numpy.typing import NDArray


def group_part(data: xr.Dataset, name: str, part: str = "within") -> NDArray[np.float64]:
    """Returns one part of an influence between groups, or of its error.

    Args:
        data: data set of one probe, or of a run as :func:`~stagewise.runs.open.open_run` returns it.
        name: variable over ``part``, ``group``, ``group_j``, such as ``group_bif`` or ``group_bif_se``.
        part: ``within``, ``drift``, ``between`` or ``total``.

    Returns:
        ``[(step,) group, group_j]``, in the unit of the variable.
    """
    values = data.variables[name].transpose("part", ..., "group", "group_j").values
    return values[data.variables["part"].values.tolist().index(part)]
