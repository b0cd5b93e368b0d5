"""One line about a probe, for people who watch a run go on."""

import numpy as np
import xarray as xr

from stagewise.influence.chain_counts import equilibrated_probes, interval_factor
from stagewise.influence.parts import group_part


def probe_line(result: xr.Dataset, *, number: int) -> str:
    """Says what a probe found: its strongest influence within the phase, the loss of that group, flags and time.

    The strongest is the largest beyond its 95 % interval; where none is, the largest, called unresolved.

    Args:
        result: data set of the probe, see :mod:`stagewise.influence.bif`.
        number: of the probe in its run, from 1.
    """
    flags = ", ".join(result.attrs["flags"])
    words = [f"probe {number} at step {result.attrs['step']}", *_influence(result)]
    return ", ".join([*words, f"{float(result['seconds']):.1f} s"]) + (f"; flagged: {flags}" if flags else "")


def _influence(result: xr.Dataset) -> list[str]:
    """Words for the strongest pair of groups; none where no two losses are in different samples."""
    value, half = group_part(result, "group_bif"), group_part(result, "group_bif_se") * float(interval_factor(result))
    size = np.abs(np.triu(value)) + np.tril(np.full_like(value, np.nan), -1)
    if not np.isfinite(size).any():
        return []
    sure = np.where(size > half, size, np.nan)  # NaN is not larger
    row, column = np.unravel_index(np.nanargmax(sure if np.isfinite(sure).any() else size), size.shape)
    names = [str(name) for name in result["group"].values]
    pair = f"{names[row]} on itself" if row == column else f"{names[row]} ~ {names[column]}"
    influence = float(value[row, column])
    if not bool(equilibrated_probes(result)):
        verdict = "out of equilibrium"
    elif not np.isfinite(sure[row, column]):
        verdict = "unresolved"
    else:
        verdict = "helpful" if influence < 0 else "harmful"
    loss = float(result["group_loss"].values[row])
    return [f"{names[row]} loss {loss:.3g} nats", f"influence {pair} {influence:+.2g} nats² ({verdict})"]
