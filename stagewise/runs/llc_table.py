"""Learning coefficients of a run with their intervals: of all losses, and of each group."""

import numpy as np
import xarray as xr
from numpy.typing import NDArray
from scipy.special import stdtrit

from stagewise.checks.counted import counted
from stagewise.errors import InputError, require
from stagewise.influence.llc import readable_share

ALL_LOSSES = "all losses"
"""Name of the first curve."""

_RHAT_LIMIT = 1.1
"""Limit for separate chains; those of influence have flags."""


def has_llc(run: xr.Dataset) -> bool:
    """Returns True if the run has learning coefficients."""
    return "llc" in run and bool(np.isfinite(run["llc"].values).any())


def no_llc_words(run: xr.Dataset) -> str:
    """Returns the reason why a run has no learning coefficient, and the setting to change.

    Args:
        run: one for which :func:`has_llc` is False.
    """
    if "llc" not in run:
        return (
            "No learning coefficient was measured: set `influence.probe.llc.enabled: true`; it needs no other chains."
        )
    return (
        f"No learning coefficient is known: at none of {counted(run.sizes['step'], 'probe')} were its chains finite; "
        "lower `influence.probe.llc.lr`, or raise `influence.probe.llc.localization`."
    )


def llc_settled(run: xr.Dataset) -> NDArray[np.bool_]:
    """Marks probes, ``[step]``, whose chains of the learning coefficient have reached equilibrium.

    Args:
        run: as :func:`stagewise.runs.open.open_run` returns it.
    """
    if "llc_rhat" in run:
        return np.asarray(~(run["llc_rhat"].values > _RHAT_LIMIT))
    return run["equilibrated"].values != 0 if "equilibrated" in run else np.ones(run.sizes["step"], dtype=bool)


def llc_table(run: xr.Dataset, *, confidence: float = 0.95) -> xr.Dataset:
    """Returns curves of the learning coefficient, nbeta (E[L] - L(w*)), pure numbers.

    Args:
        run: as :func:`stagewise.runs.open.open_run` returns it.
        confidence: of Student's interval, 0 to 1.

    Returns:
        ``value``, ``se`` (over chains), ``low``, ``high`` (NaN with one chain and out of equilibrium) and
        ``localized_share`` (NaN where it is not a share, see :func:`~stagewise.influence.llc.readable_share`) over
        ``group`` (:data:`ALL_LOSSES`, then the groups) and ``step``; and ``equilibrated`` [step], of these chains.

    Raises:
        InputError: the run has no learning coefficient, or ``confidence`` is out of range.

    Source: Lau et al. 2023, arXiv 2308.12108; interval: Student 1908.
    """
    require(0 < confidence < 1, "confidence", confidence, "a probability in (0, 1)", "0.95 is usual")
    if not has_llc(run) or "step" not in run.dims:
        raise InputError(
            "got a data set that is not a run with llc; expected what open_run returns; leave probe.llc.enabled on and "
            "train again"
        )
    settled = llc_settled(run)
    degrees = run["llc_chains"].values - 1.0
    factor = np.where(settled, stdtrit(np.where(degrees > 0, degrees, np.nan), (1 + confidence) / 2), np.nan)
    names = [str(name) for name in run["group"].values] if "group_llc" in run else []
    found = {}
    for short, ending in (("value", ""), ("se", "_se"), ("localized_share", "_localized_share")):
        rows = [run[f"llc{ending}"].values]
        rows += [run[f"group_llc{ending}"].sel(group=name).values for name in run["group"].values] if names else []
        found[short] = np.stack(rows)
    found["localized_share"] = readable_share(found["localized_share"])
    half = factor * found["se"]
    found |= {"low": found["value"] - half, "high": found["value"] + half}
    words = {
        "value": "local learning coefficient, nbeta (E[L] - L(w*))",
        "se": "standard error over chains",
        "low": f"lower end of the {100 * confidence:g} % interval",
        "high": f"upper end of the {100 * confidence:g} % interval",
        "localized_share": "localized share d log llc / d log nbeta",
    }
    return xr.Dataset(
        {name: (("group", "step"), found[name], {"long_name": what, "units": "1"}) for name, what in words.items()}
        | {"equilibrated": ("step", settled, {"long_name": "chains in equilibrium", "units": ""})},
        coords={"group": ("group", np.array([ALL_LOSSES, *names], dtype=object)), "step": run["step"]},
        attrs={"confidence": confidence, "chains": run["llc"].attrs.get("chains", "those of influence")},
    ).drop_vars("reference_step", errors="ignore")
