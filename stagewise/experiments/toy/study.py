"""The toy over seeds: shared out to processes, measured, written."""

import shutil
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xarray as xr
from joblib import Parallel, delayed

from stagewise.errors import InputError
from stagewise.experiments.toy.chain_curves import chain_curves
from stagewise.experiments.toy.config import ToyConfig
from stagewise.experiments.toy.exact_curves import exact_curves
from stagewise.experiments.toy.training import train
from stagewise.experiments.toy.validation import SeedResult, measure
from stagewise.reporting.summary import flag_line

Progress = Callable[[str], None]

_REPLAY_TOLERANCE = 1e-9
"""Largest difference of weights between the trained run and the one that retraining starts from."""


def seed_folder(output: Path, seed: int) -> Path:
    """Where the run of a seed is: event files, ``influence.zarr``, ``summary.json``."""
    return output / f"seed-{seed}"


def _run_chains(config: ToyConfig, seed: int) -> tuple[xr.Dataset, list[str]]:
    """Train one seed beside its old run, take the old one's place, and read the curves."""
    folder = seed_folder(Path(config.output), seed)
    aside = folder.with_name(f".{folder.name}.unfinished")
    shutil.rmtree(aside, ignore_errors=True)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        run = train(config, seed, aside)
        curves = chain_curves(run.folder, config.hierarchy)
    curves["trained_first"] = (("hidden", "item"), run.final.first.numpy())
    curves["trained_second"] = (("property", "hidden"), run.final.second.numpy())
    shutil.rmtree(folder, ignore_errors=True)
    aside.rename(folder)
    # Flags are counted in the curves.
    words = [" ".join(str(it.message).split()) for it in caught]
    return curves, [it for it in words if it.startswith("stagewise") and "flagged" not in it]


def _compute(config: ToyConfig, seed: int, part: str) -> tuple[int, str, Any]:
    torch.set_num_threads(1)
    return seed, part, _run_chains(config, seed) if part == "chains" else exact_curves(config, seed)


def _replay_error(chains: xr.Dataset, exact: xr.Dataset) -> float:
    """Largest difference between the weights that Lightning trained and those of plain matrix algebra."""
    differences = [
        np.abs(chains[f"trained_{layer}"].values - exact[f"final_{layer}"].values).max()
        for layer in ("first", "second")
    ]
    return float(max(differences))


def run_seeds(config: ToyConfig, progress: Progress = print) -> list[SeedResult]:
    """Train, probe and retrain each seed.

    Chains and what needs none are separate tasks, so that two processes are both busy to the end.

    Args:
        config: of the experiment.
        progress: told one line for each task that ends, and what the callback warned of.

    Returns:
        One result for each seed, in the order of the seeds.

    Raises:
        InputError: ``output`` holds something else where a run would go, or a trained run that is not the one that
            retraining starts from.
    """
    output = Path(config.output)
    _check_free(output, config.seeds)
    # The long tasks first.
    tasks = [(seed, part) for part in ("chains", "exact") for seed in config.seeds]
    curves: dict[tuple[int, str], xr.Dataset] = {}
    threads = torch.get_num_threads()
    try:
        workers = Parallel(n_jobs=min(config.num_workers, len(tasks)), return_as="generator_unordered")
        for seed, part, found in workers(delayed(_compute)(config, seed, part) for seed, part in tasks):
            what = "retrained"
            if part == "chains":
                found, notices = found
                flags = flag_line(found.attrs["flags"], found.attrs["probes_flagged"], found.sizes["step"])
                what = "\n    ".join([f"trained and probed; flagged: {flags}", *notices])
            curves[seed, part] = found
            progress(f"[{len(curves)}/{len(tasks)}] seed {seed}: {what}")
    finally:
        torch.set_num_threads(threads)
    results = []
    for seed in config.seeds:
        chains, exact = curves[seed, "chains"], curves[seed, "exact"]
        chains.attrs["replay_error"] = _replay_error(chains, exact)
        if not chains.attrs["replay_error"] <= _REPLAY_TOLERANCE:
            raise InputError(
                f"got weights that differ by {chains.attrs['replay_error']:.1e} between the trained run of seed {seed} "
                f"and its replay; expected at most {_REPLAY_TOLERANCE:g}; lower network.lr"
            )
        results.append(measure(chains, exact, config, seed))
    return results


def _check_free(output: Path, seeds: Sequence[int]) -> None:
    for seed in seeds:
        folder = seed_folder(output, seed)
        if folder.exists() and any(folder.iterdir()) and not (folder / "influence.zarr").is_dir():
            raise InputError(
                f"got {folder}, which is no run of this experiment; expected a free folder; choose another --output"
            )
