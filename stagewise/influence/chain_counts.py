"""How many chains the errors of a run rest on."""

import numpy as np
import xarray as xr
from scipy.special import stdtrit

from stagewise.errors import InputError


def chain_counts(run: xr.Dataset) -> xr.DataArray:
    """Chains that each probe kept.

    Args:
        run: data set of one probe, or of a run as :func:`stagewise.reporting.store.open_run` returns it.

    Returns:
        ``[step]``, or a number for one probe: the chains of the settings, less those that were dropped.

    Raises:
        InputError: the data set does not tell its settings.
    """
    settings = run.attrs.get("sgld", run.attrs)
    if not isinstance(settings, dict) or "num_chains" not in settings:
        raise InputError(
            "got a data set that does not tell how many chains it is from; expected the attribute 'sgld' of a probe; "
            "pass what Prober.probe or open_run returns"
        )
    dropped = run["chains_dropped"].fillna(settings["num_chains"]) if "chains_dropped" in run else xr.DataArray(0.0)
    return settings["num_chains"] - dropped


def interval_factor(run: xr.Dataset, confidence: float = 0.95) -> xr.DataArray:
    """By what a jackknife error over chains is multiplied for half the width of a confidence interval.

    Args:
        run: as in :func:`chain_counts`.
        confidence: probability that the interval holds the expected value, 0 to 1.

    Returns:
        ``[step]``, or a number for one probe: the quantile of Student's t with one degree of freedom less than chains,
        3.18 for 4 chains and .95; NaN with fewer than two chains.

    Raises:
        InputError: as :func:`chain_counts` does, or ``confidence`` outside of (0, 1).

    Source: Student 1908; jackknife errors over C chains have at best C - 1 degrees of freedom.
    """
    if not 0 < confidence < 1:
        raise InputError(f"got confidence={confidence}; expected 0 < confidence < 1; 0.95 is usual")
    degrees = chain_counts(run) - 1
    return xr.apply_ufunc(stdtrit, degrees.where(degrees > 0, np.nan), (1 + confidence) / 2)
