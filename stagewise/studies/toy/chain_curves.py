"""Measurements of the callback in a finished run: influence from chains, and the signal of transitions."""

from pathlib import Path

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from stagewise.influence.split import PARTS
from stagewise.runs.open import open_run
from stagewise.runs.summary_file import summary_of
from stagewise.toy.hierarchy import Hierarchy

Array = NDArray[np.float64]


def _chain_influence(losses: Array) -> Array:
    """Returns ``[chain, item, item_j]``: BIF of each chain around its own mean, from ``[chain, draw, item]``."""
    centred = losses - losses.mean(axis=1, keepdims=True)
    return -np.einsum("cdi,cdj->cij", centred, centred) / losses.shape[1]


def _error(by_chain: Array, settled: NDArray[np.bool_]) -> Array:
    """Returns standard errors of means over chains, ``[step, ...]`` of ``[step, chain, ...]``; NaN if not settled."""
    error = by_chain.std(axis=1, ddof=1) / np.sqrt(by_chain.shape[1])
    return np.where(settled.reshape(-1, *[1] * (error.ndim - 1)), error, np.nan)


def _of_relations(hierarchy: Hierarchy) -> dict[str, NDArray[np.bool_]]:
    return {
        name: hierarchy.relations == name
        for name in ("sibling", "cousin", "far")
        if (hierarchy.relations == name).any()
    }


def chain_curves(folder: Path, hierarchy: Hierarchy) -> xr.Dataset:
    """Reads the curves of a run from its store, as any user could.

    Args:
        folder: log directory of the run.
        hierarchy: of the observed items, one group each.

    Returns:
        Over ``step`` (of the probe), ``item``, ``item_j``, ``part``, ``relation``:

        - ``bif``, ``bif_se`` [step, item, item_j]: of the draws of the probe alone, around the mean of each chain;
          nats^2, negative = helpful; standard error over chains, NaN where the probe's chains are out of equilibrium.
        - ``relation_bif``, ``relation_bif_se`` [step, relation]: mean over the pairs of a relation, same error.
        - ``parts`` [step, part, item, item_j]: the callback's split against the reference probe, nats^2.
        - ``graddot``, ``tracin`` [step, item, item_j]: positive = helpful; nats^2 per squared weight, nats.
        - ``signal``, ``signal_se`` [step]: square root of the between-norm, nats.
        - ``reference_step`` [step].

        Attributes: ``windows`` (start, peak, end of the run's transitions), ``num_chains``, ``num_draws``,
        ``probes_flagged``, ``flagged_steps``, ``flags``.
    """
    run = open_run(folder, trace=True)
    summary = summary_of(run)
    losses = run["loss"].transpose("step", "chain", "draw", "sample").values.astype(np.float64)
    by_chain = np.stack([_chain_influence(probe) for probe in losses])
    settled = run["equilibrated"].values != 0 if "equilibrated" in run else np.ones(len(losses), dtype=bool)
    relations = _of_relations(hierarchy)
    means = np.stack([by_chain[:, :, pairs].mean(axis=-1) for pairs in relations.values()], axis=-1)
    names = np.array(hierarchy.items, dtype=object)
    pairs = ("step", "item", "item_j")
    return xr.Dataset(
        {
            "bif": (pairs, by_chain.mean(axis=1)),
            "bif_se": (pairs, _error(by_chain, settled)),
            "relation_bif": (("step", "relation"), means.mean(axis=1)),
            "relation_bif_se": (("step", "relation"), _error(means, settled)),
            "parts": (("step", "part", "item", "item_j"), run["bif"].sel(part=list(PARTS)).values),
            "graddot": (pairs, run["graddot"].values),
            "tracin": (pairs, run["tracin"].values),
            "signal": ("step", run["signal"].values),
            "signal_se": ("step", run["signal_se"].values),
            "reference_step": ("step", run["reference_step"].values),
        },
        coords={
            "step": run["step"].values,
            "item": names,
            "item_j": names,
            "relation": np.array(list(relations), dtype=object),
            "part": np.array(PARTS, dtype=object),
        },
        attrs={
            "windows": [[window["start"], window["peak"], window["end"]] for window in summary["transitions"]],
            "num_chains": int(losses.shape[1]),
            "num_draws": int(losses.shape[2]),
            "probes_flagged": summary["probes_flagged"],
            "flags": summary["flags"],
            "flagged_steps": summary["flagged_steps"],
        },
    )
