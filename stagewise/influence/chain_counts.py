"""Number of chains underlying the errors of a run, and probes at which these errors are valid."""

import numpy as np
import xarray as xr
from scipy.special import stdtrit

from stagewise.errors import InputError


def chain_counts(run: xr.Dataset) -> xr.DataArray:
    """Returns the number of chains underlying the influence of each probe, in every part, and its errors.

    Only chains common to the probe and its reference count: a chain shares its noise with itself at the reference, so
    that all parts of the split, including within, use the same chains at both probes (see
    :func:`stagewise.influence.bif.bif`).

    Args:
        run: data set of one probe, or of a run as :func:`~stagewise.runs.open.open_run` returns it.

    Returns:
        ``[step]``, or a number for one probe: ``chains_common``; if missing, as in results of earlier versions, the
        number of chains in the settings less those dropped by the probe.

    Raises:
        InputError: the data set lacks its settings.
    """
    settings = run.attrs.get("sgld", run.attrs)
    if not isinstance(settings, dict) or "num_chains" not in settings:
        raise InputError(
            "got a data set without the number of its chains; expected the attribute 'sgld' of a probe; "
            "pass what Prober.probe or open_run returns"
        )
    if "chains_common" in run and run["chains_common"].dtype.kind in "iu":
        return run["chains_common"]  # known at each probe
    dropped = run["chains_dropped"].fillna(settings["num_chains"]) if "chains_dropped" in run else xr.DataArray(0.0)
    kept = settings["num_chains"] - dropped
    return run["chains_common"].fillna(kept) if "chains_common" in run else kept


def equilibrated_probes(run: xr.Dataset) -> xr.DataArray:
    """Marks probes whose chains and whose reference's chains have reached equilibrium; all parts depend on both.

    At other probes report no z-score, interval or change of sign: errors over chains say nothing about a posterior that
    none of them has reached.

    Args:
        run: as in :func:`chain_counts`.

    Returns:
        Bool ``[step]``, or one value for a single probe; True without a check, as in results of earlier versions.
    """
    checks = [run[name] for name in ("equilibrated", "reference_equilibrated") if name in run]
    if not checks:
        return xr.DataArray(True)
    # In numpy: the same operations in xarray took a twentieth of the time of a small probe.
    found = np.logical_and.reduce([check.values != 0 for check in checks])
    return xr.DataArray(found, coords=checks[0].coords, dims=checks[0].dims)


def interval_factor(run: xr.Dataset, confidence: float = 0.95) -> xr.DataArray:
    """Returns the factor from a jackknife error over chains to half the width of a confidence interval.

    Args:
        run: as in :func:`chain_counts`.
        confidence: probability that the interval holds the expected value, 0 to 1.

    Returns:
        ``[step]``, or a number for one probe: the quantile of Student's t with one degree of freedom less than chains,
        3.18 for 4 chains and .95; NaN with fewer than two chains, and where the chains of the probe or of its reference
        have not reached equilibrium.

    Raises:
        InputError: as :func:`chain_counts` does, or ``confidence`` outside of (0, 1).

    Source: Student 1908; jackknife errors over C chains have at best C - 1 degrees of freedom.
    """
    if not 0 < confidence < 1:
        raise InputError(f"got confidence={confidence}; expected 0 < confidence < 1; 0.95 is usual")
    counts, valid = chain_counts(run), equilibrated_probes(run)
    degrees = np.where(counts.values > 1, counts.values - 1, np.nan)
    factor = np.where(valid.values, stdtrit(degrees, (1 + confidence) / 2), np.nan)
    like = counts if counts.ndim else valid
    return xr.DataArray(factor, coords=like.coords, dims=like.dims)
