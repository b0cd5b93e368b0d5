"""One line about a probe, for following a run in progress."""

from collections.abc import Sequence

import numpy as np
import xarray as xr

from stagewise.influence.chain_counts import equilibrated_probes, interval_factor
from stagewise.influence.parts import group_part


def probe_line(result: xr.Dataset, *, number: int, pair: Sequence[str] | None = None) -> str:
    """Describes a probe: influence of a pair within the phase, the loss of its first group, flags and time.

    Args:
        result: data set of the probe, see :mod:`stagewise.influence.bif`.
        number: of the probe in its run, from 1.
        pair: of groups, the same at every probe of a run; that of :func:`strongest_now` if None.
    """
    flags = ", ".join(result.attrs["flags"])
    shown = strongest_now(result)[0] if pair is None else pair
    words = [f"probe {number} at step {result.attrs['step']}", *([] if shown is None else _influence(result, *shown))]
    return ", ".join([*words, f"{float(result['seconds']):.1f} s"]) + (f"; flagged: {flags}" if flags else "")


def strongest_now(result: xr.Dataset) -> tuple[tuple[str, str] | None, bool]:
    """Returns the pair with the strongest influence at a probe, and True if it differs from zero.

    The strongest is the largest influence beyond its 95 % interval; if there is none, the largest of all. The pair is
    None if no two losses are in different samples.

    Args:
        result: data set of the probe.
    """
    value, half = group_part(result, "group_bif"), group_part(result, "group_bif_se") * float(interval_factor(result))
    size = np.abs(np.triu(value)) + np.tril(np.full_like(value, np.nan), -1)
    if not np.isfinite(size).any():
        return None, False
    sure = np.where(size > half, size, np.nan)  # NaN is not larger
    any_sure = bool(np.isfinite(sure).any())
    row, column = np.unravel_index(np.nanargmax(sure if any_sure else size), size.shape)
    names = [str(name) for name in result["group"].values]
    return (names[row], names[column]), any_sure


def _influence(result: xr.Dataset, group: str, group_j: str) -> list[str]:
    """Describes the loss of the first group of a pair, and the influence of the pair."""
    names = [str(name) for name in result["group"].values]
    at = names.index(group), names.index(group_j)
    influence = float(group_part(result, "group_bif")[at])
    half = float(group_part(result, "group_bif_se")[at]) * float(interval_factor(result))
    if not bool(equilibrated_probes(result)):
        verdict = "out of equilibrium"
    elif not abs(influence) > half:
        verdict = "unresolved"
    else:
        verdict = "helpful" if influence < 0 else "harmful"
    loss = float(result["group_loss"].sel(group=group))
    pair = f"{group} on itself" if group == group_j else f"{group} ~ {group_j}"
    return [f"{group} loss {loss:.3g} nats", f"influence {pair} {influence:+.2g} nats² ({verdict})"]
