"""Pairs of groups with the strongest influence in a run."""

import numpy as np
import xarray as xr

from stagewise.errors import require
from stagewise.influence.chain_counts import interval_factor
from stagewise.runs.equilibrium import settled_probes


def strongest_pairs(
    run: xr.Dataset, count: int = 4, *, part: str = "within", confidence: float = 0.95
) -> list[tuple[str, str]]:
    """Returns pairs of groups by their largest influence, each pair once.

    What is significant at a probe in equilibrium comes first, by its size; then the others by theirs.

    Args:
        run: as :func:`stagewise.runs.open.open_run` returns it, with group influence.
        count: maximal number of pairs.
        part: ``within``, ``drift``, ``between`` or ``total``.
        confidence: of the interval beyond which an influence is significant.

    Raises:
        InputError: a count below 1.
    """
    require(count >= 1, "count", count, "1 or more", "4 are usual")
    names = [str(name) for name in run["group"].values]
    at = run[["group_bif", "group_bif_se"]].sel(part=part).transpose("step", "group", "group_j")
    size = np.abs(at["group_bif"].values)
    half = (
        at["group_bif_se"].values
        * np.broadcast_to(interval_factor(run, confidence).values, size.shape[:1])[:, None, None]
    )
    settled = settled_probes(run)
    if settled.any():
        size = np.where(settled[:, None, None], size, np.nan)
    sure = np.where(size > half, size, 0.0)  # NaN is not larger
    ranked = []
    for row, name in enumerate(names):
        for column in range(row, len(names)):
            if np.isfinite(size[:, row, column]).any():
                order = (-float(sure[:, row, column].max()), -float(np.nanmax(size[:, row, column])))
                ranked.append((order, (name, names[column])))
    return [pair for _, pair in sorted(ranked, key=lambda entry: entry[0])[:count]]
