"""Pairs of groups with the strongest influence in a run."""

import numpy as np
import xarray as xr

from stagewise.errors import require
from stagewise.influence.chain_counts import interval_factor
from stagewise.runs.equilibrium import settled_probes


def strongest_pairs(
    run: xr.Dataset, count: int = 4, *, part: str = "within", confidence: float = 0.95, cross_first: bool = False
) -> list[tuple[str, str]]:
    """Returns pairs of groups by their largest influence, each pair once.

    Sure pairs come first, by their largest significant influence; then the others by their largest. A pair is sure if
    its influence is significant at a probe in equilibrium, by a test over all of these probes together: among many
    probes chance alone makes some significant.

    Args:
        run: as :func:`stagewise.runs.open.open_run` returns it, with group influence.
        count: maximal number of pairs.
        part: ``within``, ``drift``, ``between`` or ``total``.
        confidence: probability that a curve of noise alone, independent at each probe, is not sure.
        cross_first: among the sure pairs, and among the others, put two different groups before a group with itself,
            whose influence is nearly always helpful.

    Raises:
        InputError: a count below 1.

    Source: Sidak 1967.
    """
    require(count >= 1, "count", count, "1 or more", "4 are usual")
    names = [str(name) for name in run["group"].values]
    at = run[["group_bif", "group_bif_se"]].sel(part=part).transpose("step", "group", "group_j")
    size = np.abs(at["group_bif"].values)
    settled = settled_probes(run)
    one_probe = confidence ** (1 / max(1, int(settled.sum())))
    factor = np.broadcast_to(interval_factor(run, one_probe).values, size.shape[:1])
    half = at["group_bif_se"].values * factor[:, None, None]
    if settled.any():
        size = np.where(settled[:, None, None], size, np.nan)
    sure = np.where(size > half, size, 0.0)  # NaN is not larger
    ranked = []
    for row, name in enumerate(names):
        for column in range(row, len(names)):
            if np.isfinite(size[:, row, column]).any():
                surely, largest = float(sure[:, row, column].max()), float(np.nanmax(size[:, row, column]))
                order = (not surely, cross_first and row == column, -surely, -largest)
                ranked.append((order, (name, names[column])))
    return [pair for _, pair in sorted(ranked, key=lambda entry: entry[0])[:count]]
