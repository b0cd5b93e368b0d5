"""Figures of all seeds: ``validation.json`` and its table."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from stagewise._version import __version__
from stagewise.files.writing import write_json, write_text_file
from stagewise.phases.flips import SignFlip
from stagewise.studies.toy.ablation import window_agreement
from stagewise.studies.toy.agreement import agreement, cancellation
from stagewise.studies.toy.config import ToyConfig
from stagewise.studies.toy.stages import (
    BETWEEN,
    CHAINS,
    LOSSES,
    NORM,
    BranchPeak,
    Detection,
    PairFlips,
    branch_peaks,
    detections,
    pair_flips,
    relation_flips,
)

VALIDATION_NAME, FLIPS_NAME = "validation.json", "flips.csv"

_SHORT = {
    CHAINS: "chains",
    "local Gaussian": "gaussian",
    "horizon": "horizon",
    "unrolled": "unrolled",
    "full leave-one-out": "full_loo",
}
_PREFIX = {BETWEEN: "transition", LOSSES: "baseline", NORM: "bif_norm"}


@dataclass(frozen=True)
class SeedResult:
    """Results of one seed.

    Attributes:
        seed: of the initial weights and the chains.
        figures: finite ones, by their names in ``validation.json``.
        flips: of each pair by each method.
        relation_flips: of the mean over the pairs of each relation, from chains.
        detections: of each signal.
        branches: branching times and peaks of influence.
        chains: curves from chains.
        exact: curves without them.
    """

    seed: int
    figures: Mapping[str, float]
    flips: Sequence[PairFlips]
    relation_flips: Mapping[str, Sequence[SignFlip]]
    detections: Sequence[Detection]
    branches: Sequence[BranchPeak]
    chains: xr.Dataset
    exact: xr.Dataset


def measure(chains: xr.Dataset, exact: xr.Dataset, config: ToyConfig, seed: int) -> SeedResult:
    """Computes all figures of one seed from its curves.

    Args:
        chains: see :func:`~stagewise.studies.toy.chain_curves.chain_curves`.
        exact: see :func:`~stagewise.studies.toy.exact_curves.exact_curves`.
        config: of the experiment.
        seed: of the run.
    """
    hierarchy = config.hierarchy
    flips = pair_flips(chains, exact, hierarchy, horizon=config.retraining.horizon)
    of_relations = relation_flips(chains)
    found = detections(chains, exact, min_prominence=config.influence.probe.min_prominence)
    branches = branch_peaks(chains, exact, hierarchy)
    figures = agreement(chains, exact, config) | window_agreement(chains, exact)
    for detection in found:
        prefix, match = _PREFIX[detection.signal], detection.match
        figures |= {f"{prefix}_{name}": getattr(match, name) for name in ("precision", "recall", "timing")}
        half = detection.half_time_match
        figures |= {f"{prefix}_half_time_{name}": getattr(half, name) for name in ("precision", "recall")}
    share = cancellation(chains).values
    for relation in of_relations:
        own = [flip for flip in flips if flip.method == CHAINS and flip.relation == relation]
        figures[f"{relation}_flips"] = float(np.mean([flip.from_helpful is not None for flip in own]))
        figures[f"{relation}_net_over_gross"] = float(np.median(share[hierarchy.relations == relation]))
        for method, name in _SHORT.items():
            turns = [flip.from_helpful for flip in flips if flip.method == method and flip.relation == relation]
            steps = [flip.step for flip in turns if flip is not None]
            figures[f"{relation}_flip_step_{name}"] = float(np.median(steps)) if steps else math.nan
    steps = [figures.get(f"cousin_flip_step_{name}", math.nan) for name in ("unrolled", "chains")]
    figures["cousin_flip_delay"] = steps[0] / steps[1]
    ratios = [branch.ratio for branch in branches if math.isfinite(branch.ratio)]
    figures["branch_peak_ratio"] = float(np.median(ratios)) if ratios else math.nan
    figures["flagged_share"] = chains.attrs["probes_flagged"] / chains.sizes["step"]
    trained = chains.attrs.get("replay_error")
    if trained is not None:
        figures["replay_error"] = trained
    finite = {name: float(value) for name, value in figures.items() if math.isfinite(value)}
    return SeedResult(seed, finite, flips, of_relations, found, branches, chains, exact)


def write_flips(path: Path, results: Sequence[SeedResult]) -> Path:
    """Writes every sign flip of every pair by every method as CSV: step, bounding probes, and significance.

    ``before`` and ``after`` are in the unit of the method. Only chains have a sampling error: for the other methods
    ``z_before`` and ``z_after`` are empty.
    """
    columns = ["seed", "method", "item", "item_j", "relation", *(field.name for field in fields(SignFlip)), "words"]
    rows = []
    for result in results:
        for pair in result.flips:
            for flip in pair.flips:
                values = {name: f"{value:.6g}" for name, value in asdict(flip).items()}
                if pair.method != CHAINS:
                    values |= {"z_before": "", "z_after": ""}
                own = (result.seed, pair.method, pair.item, pair.item_j, pair.relation)
                rows.append([*own, *values.values(), flip.words])
    return write_text_file(path, pd.DataFrame(rows, columns=columns).to_csv(index=False, lineterminator="\n"))


def summarize(results: Sequence[SeedResult]) -> dict[str, dict[str, Any]]:
    """Returns the median and range over seeds of each figure.

    Returns:
        Name to ``median``, ``min``, ``max``, ``seeds`` (those for which the figure is defined) and their ``values``.
    """
    names = list(dict.fromkeys(name for result in results for name in result.figures))
    table = {}
    for name in names:
        having = [result for result in results if name in result.figures]
        values = [result.figures[name] for result in having]
        table[name] = {
            "median": float(np.median(values)),
            "min": min(values),
            "max": max(values),
            "seeds": [result.seed for result in having],
            "values": values,
        }
    return table


def write_validation(path: Path, results: Sequence[SeedResult], config: ToyConfig) -> Path:
    """Writes ``validation.json``: the figures at the top level, and their settings under ``_about``."""
    about = {
        "version": __version__,
        "seeds": [result.seed for result in results],
        "items": list(config.hierarchy.items),
        "pairs": "of different items only; the diagonal is left out of every pooled figure",
        "influence": "chains and the local Gaussian: nats^2; others: nats for each unit of weight; negative = helpful",
        "network": asdict(config.network),
        "sgld": asdict(config.influence.sgld),
        "probe_steps": config.probed_steps,
        "reference_ratio": config.influence.probe.reference_ratio,
        "min_prominence": config.influence.probe.min_prominence,
        "retraining": asdict(config.retraining),
    }
    return write_json(path, {**summarize(results), "_about": about})
