"""Toy experiment over seeds: distributed over processes, measured and written, one folder per seed."""

import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xarray as xr
from joblib import Parallel, delayed

from stagewise.callbacks.run_folder import RUN_FILES
from stagewise.errors import InputError
from stagewise.files.writing import whole_folder
from stagewise.runs.equilibrium import flag_line
from stagewise.runs.probe_files import STORE_NAME
from stagewise.runs.store import ProbeStore
from stagewise.studies.toy.chain_curves import chain_curves
from stagewise.studies.toy.config import ToyConfig
from stagewise.studies.toy.exact_curves import check_computable, exact_curves
from stagewise.studies.toy.training import train
from stagewise.studies.toy.validation import SeedResult, measure

CURVES_NAME = "curves.zarr"

_OURS = RUN_FILES | {CURVES_NAME, "hparams.yaml"}
_EVENTS = "events.out.tfevents."


def seed_folder(output: Path, seed: int) -> Path:
    """Returns the folder of a seed's run: event files, ``influence.zarr``, ``summary.json`` and curves."""
    return output / f"seed-{seed}"


def check_free(output: Path, seeds: Sequence[int]) -> None:
    """Refuses folders with other content.

    Args:
        output: folder of the experiment.
        seeds: of the runs.

    Raises:
        InputError: ``output`` is a file, or the folder of a seed has files that no run of this experiment writes.
    """
    if output.exists() and not output.is_dir():
        raise InputError(f"got output {output}, which is a file; expected a folder; choose another --output")
    for seed in seeds:
        folder = seed_folder(output, seed)
        if folder.exists() and not (folder.is_dir() and all(_is_ours(path) for path in folder.iterdir())):
            raise InputError(
                f"got {folder}, which holds more than a run of this experiment; expected a free folder; choose another "
                "--output"
            )


def _is_ours(path: Path) -> bool:
    return path.name in _OURS or path.name.startswith(_EVENTS)


Progress = Callable[[str], None]

_REPLAY_TOLERANCE = 1e-9
"""Largest difference of weights between the trained run and the one from which retraining starts."""


def _run_chains(config: ToyConfig, seed: int) -> tuple[xr.Dataset, list[str]]:
    """Trains one seed and reads its curves; an existing run of the seed stays until this one is complete."""
    with whole_folder(seed_folder(Path(config.output), seed)) as folder:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            run = train(config, seed, folder)
        notices = [" ".join(str(warning.message).split()) for warning in caught]
        notices = [notice.removeprefix("stagewise: ") for notice in notices if notice.startswith("stagewise")]
        for warning in caught:
            if issubclass(warning.category, RuntimeWarning):  # numerical trouble must not pass unseen
                warnings.warn_explicit(warning.message, warning.category, warning.filename, warning.lineno)
        missing = sorted(set(config.probed_steps) - set(ProbeStore(folder / STORE_NAME).steps()))
        if missing:
            raise InputError(
                f"got seed {seed} without {len(missing)} of its probes, the first at step {missing[0]}; expected all "
                f"{len(config.probed_steps)}; change influence.sgld as the callback says: {' | '.join(notices)}"
            )
        curves = chain_curves(run.folder, config.hierarchy)
        curves["trained_first"] = (("hidden", "item"), run.final.first.numpy())
        curves["trained_second"] = (("property", "hidden"), run.final.second.numpy())
    # Flags are counted in the curves.
    return curves, [notice for notice in notices if "flagged" not in notice]


def _compute(config: ToyConfig, seed: int, part: str) -> tuple[int, str, Any]:
    torch.set_num_threads(1)
    return seed, part, _run_chains(config, seed) if part == "chains" else exact_curves(config, seed)


def _replay_error(chains: xr.Dataset, exact: xr.Dataset) -> float:
    """Returns the largest difference between the weights that Lightning trained and those of plain matrix algebra."""
    differences = [
        np.abs(chains[f"trained_{layer}"].values - exact[f"final_{layer}"].values).max()
        for layer in ("first", "second")
    ]
    return float(max(differences))


def _measured(config: ToyConfig, seed: int, chains: xr.Dataset, exact: xr.Dataset) -> SeedResult:
    """Writes the curves of a seed next to its run, and returns its result."""
    chains.attrs["replay_error"] = _replay_error(chains, exact)
    if not chains.attrs["replay_error"] <= _REPLAY_TOLERANCE:
        raise InputError(
            f"got weights that differ by {chains.attrs['replay_error']:.1e} between the trained run of seed {seed} and "
            f"its replay; expected at most {_REPLAY_TOLERANCE:g}; lower network.lr"
        )
    path = seed_folder(Path(config.output), seed) / CURVES_NAME
    chains.to_zarr(path, group="chains", mode="w", consolidated=False)
    exact.to_zarr(path, group="exact", mode="a", consolidated=False)
    return measure(chains, exact, config, seed)


def run_seeds(config: ToyConfig, progress: Progress = print) -> list[SeedResult]:
    """Trains, probes and retrains each seed.

    Computations with and without chains are separate tasks, so that two processes are both busy to the end.

    Args:
        config: of the experiment.
        progress: called with one line for each finished task, and with the warnings of the callback.

    Returns:
        One result for each seed, in the order of the seeds.

    Raises:
        InputError: other content in the folder of a run, settings for which there is no local Gaussian or closed form,
            a run whose chains failed, or one that differs from the run from which retraining starts.
    """
    check_free(Path(config.output), config.seeds)
    check_computable(config)
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
    return [_measured(config, seed, curves[seed, "chains"], curves[seed, "exact"]) for seed in config.seeds]
