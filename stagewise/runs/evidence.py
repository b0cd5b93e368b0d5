"""Figures of a run behind its verdict."""

from dataclasses import dataclass

import numpy as np
import xarray as xr

from stagewise.influence.chain_counts import chain_counts, interval_factor
from stagewise.influence.parts import group_part
from stagewise.runs.curves import pairs_to_read
from stagewise.runs.equilibrium import settled_probes, unread_start


@dataclass(frozen=True)
class RunFigures:
    """Quantities behind a verdict. Medians are over probes in equilibrium, over all if there are none; None if unknown.

    Attributes:
        probes: number of kept probes.
        settled: number in equilibrium; None if unknown.
        unread: description of the consecutive probes out of equilibrium at the start, before later ones in
            equilibrium; None if there are none.
        chains: in the settings.
        draws: of each chain.
        effective: effective draws of the mean losses of groups, median.
        heat: of minibatches, median.
        dropped: chains that diverged in kept probes.
        told_share: share of the influences of pairs, within phases at probes in equilibrium, that differ from zero at
            95 %.
        told_pairs: pairs that differ from zero at more than half of these probes, as
            :func:`~stagewise.runs.curves.pairs_to_read` orders them.
        half_width: half an interval over the value, median of those that differ from zero.
        wide: the same for all.
        centering: of the within part; empty where unknown.
        sgld: settings of the sampler.
    """

    probes: int
    settled: int | None
    unread: str | None
    chains: int
    draws: int
    effective: float | None
    heat: float | None
    dropped: int
    told_share: float | None
    told_pairs: tuple[str, ...]
    half_width: float | None
    wide: float | None
    centering: str
    sgld: dict


def run_figures(run: xr.Dataset) -> RunFigures:
    """Computes the figures of a run.

    Args:
        run: as :func:`~stagewise.runs.open.open_run` returns it, with group influence.

    Raises:
        InputError: the data set lacks its settings.
    """
    settled = settled_probes(run)
    chain_counts(run)  # refuses
    sgld = run.attrs.get("sgld", run.attrs)
    inside = settled if settled.any() else np.ones_like(settled)
    # In numpy: selecting each pair with xarray took a twelfth of the time of a small run.
    factor = interval_factor(run).values.reshape(-1, 1, 1)
    matrices, errors = (group_part(run, name) for name in ("group_bif", "group_bif_se"))
    margins = errors * factor
    names = [str(name) for name in run["group"].values]
    told_pairs, shares, widths = [], [], []
    for group, group_j in pairs_to_read(run):
        row, column = names.index(group), names.index(group_j)
        value, margin = matrices[:, row, column], margins[:, row, column]
        known = np.isfinite(value) & np.isfinite(margin)
        if not known.any():
            continue
        sure = np.abs(value[known]) > margin[known]
        shares.append(sure)
        widths.append(
            np.divide(margin[known], np.abs(value[known]), out=np.full(known.sum(), np.inf), where=value[known] != 0)
        )
        if sure.mean() > 0.5:
            told_pairs.append(names[row] if row == column else f"{names[row]} ~ {names[column]}")
    significant = np.concatenate(shares) if shares else np.zeros(0, dtype=bool)
    width = np.concatenate(widths) if widths else np.zeros(0)
    return RunFigures(
        probes=run.sizes["step"],
        settled=int(settled.sum()) if "equilibrated" in run else None,
        unread=unread_start(run) if "equilibrated" in run else None,
        chains=int(sgld["num_chains"]),
        draws=int(sgld.get("num_draws", 0)),
        effective=_median(run, "ess_groups", inside),
        heat=_median(run, "minibatch_noise", inside),
        dropped=int(run["chains_dropped"].fillna(0).sum()) if "chains_dropped" in run else 0,
        told_share=float(significant.mean()) if significant.size else None,
        told_pairs=tuple(told_pairs),
        half_width=float(np.median(width[significant])) if significant.any() else None,
        wide=float(np.median(width)) if width.size else None,
        centering=str(run.attrs.get("centering", "")),
        sgld=dict(sgld),
    )


def _median(run: xr.Dataset, name: str, inside: np.ndarray) -> float | None:
    if name not in run:
        return None
    values = run[name].values[inside]
    values = values[np.isfinite(values)]
    return float(np.median(values)) if values.size else None
