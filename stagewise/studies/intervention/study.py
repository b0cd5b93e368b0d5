"""All cells of the experiment: distributed over processes, stored one by one, never computed twice."""

import shutil
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch

from stagewise.errors import InputError
from stagewise.files.writing import whole_folder
from stagewise.interventions.window_sources import LIVE_KINDS
from stagewise.jobs.building import build_data, build_module
from stagewise.jobs.settings import check_same_settings, plain_settings
from stagewise.jobs.sharing import Progress, check_output, register, shared
from stagewise.phases.signal import Signal
from stagewise.studies.intervention.arms import Arm
from stagewise.studies.intervention.cell import Cell, cell_name, read_cell, write_cell
from stagewise.studies.intervention.cell_report import CellReport
from stagewise.studies.intervention.config import InterventionConfig
from stagewise.studies.intervention.supply import check_data
from stagewise.studies.intervention.training import checkpoint_folder, run_folder, train_cell

_FREE = ("seeds", "output", "num_workers", "backend", "arms", "sweep")
"""Settings that select cells and where they run, without effect on the result of a cell."""

_FREE_WEIGHTS = ("mechanisms",)


def cell_settings(config: InterventionConfig) -> dict[str, Any]:
    """Returns everything on which a cell's result depends, as plain data."""
    content = {name: value for name, value in plain_settings(config).items() if name not in _FREE}
    content["weights"] = {name: value for name, value in content["weights"].items() if name not in _FREE_WEIGHTS}
    return content


def check_settings(config: InterventionConfig) -> None:
    """Refuses to add cells to those with other settings; writes the settings the first time.

    Args:
        config: of the experiment.

    Raises:
        InputError: the folder has cells with other settings, or settings that cannot be read.
    """
    check_same_settings(Path(config.output), cell_settings(config))


Task = tuple[int, str, str]
"""Seed, arm, mechanism."""


def _compute(config: InterventionConfig, task: Task, timeline: dict[str, int | None]) -> Cell:
    """Runs and stores one cell; its folder replaces an earlier one only once complete."""
    torch.set_num_threads(1)
    seed, arm, mechanism = task
    output = Path(config.output)
    with whole_folder(run_folder(output, seed, cell_name(arm, mechanism))) as folder:
        cell = train_cell(config, seed, arm, mechanism, timeline, folder)
        folder.mkdir(parents=True, exist_ok=True)
    write_cell(output, cell)
    return cell


def _check(config: InterventionConfig) -> None:
    """Refuses what can be refused before the work starts."""
    check_output(Path(config.output))
    register(config.backend)
    with torch.random.fork_rng():
        build_module(config.model)
    data = build_data(config.data, seed=config.seeds[0])
    check_groups(config, data.probe_data().groups)
    check_data(config)


def check_groups(config: InterventionConfig, groups: Iterable[str]) -> None:
    """Refuses names of groups, and a signal, that the observed sequences do not have.

    Args:
        config: of the experiment.
        groups: of the observed sequences.

    Raises:
        InputError: such a name; the message lists the existing ones.
    """
    names = sorted(groups)
    weights = config.weights
    asked = [("weights.group" if weights.observed is None else "weights.observed", weights.observed_group)]
    if config.influence.enabled:
        asked.append(("weights.onset.against", weights.onset.against))
        asked.append(("weights.within_onset.against", weights.within_onset.against))
    for setting, name in asked:
        if name not in names:
            raise InputError(
                f"got {setting}={name!r}; expected one of {names}, the groups of the observed sequences; correct the "
                "name"
            )
    if Arm.live in config.arms:
        Signal.parse(config.live.signal, names, kinds=LIVE_KINDS, setting="live.signal")


def run_cells(config: InterventionConfig, progress: Progress = print) -> list[Cell]:
    """Runs every missing cell.

    The arm ``none`` of each seed runs first, since it places the windows of the others. Cells are written as they
    finish, so that a killed study can be resumed.

    Args:
        config: of the experiment.
        progress: called with one line for each finished cell.

    Returns:
        All cells, by seed and in the order of the arms.

    Raises:
        InputError: unusable settings, or cells with other settings in ``output``.
    """
    _check(config)
    output = Path(config.output)
    check_settings(config)
    wanted = [(seed, arm, mechanism) for seed in config.seeds for arm, mechanism in config.cells()]
    cells = {task: read_cell(output, task[0], cell_name(*task[1:])) for task in wanted}
    known = sum(cell is not None for cell in cells.values())
    if known:
        progress(f"{known} of {len(wanted)} cells are there already")
    report = CellReport(progress, [task[1] for task in wanted if cells[task] is None], len(wanted), config.num_workers)
    threads = torch.get_num_threads()

    def run(tasks: Sequence[Task]) -> None:
        missing = [task for task in tasks if cells[task] is None]
        timelines = [{} if task[1] == Arm.none else dict(_none(cells, task[0]).timeline) for task in missing]
        work = [(config, task, timeline) for task, timeline in zip(missing, timelines, strict=True)]
        for cell in shared(_compute, work, num_workers=config.num_workers, backend=config.backend):
            cells[cell.seed, cell.arm, cell.mechanism] = cell
            report(cell)

    try:
        run([task for task in wanted if task[1] == Arm.none])
        run([task for task in wanted if task[1] != Arm.none])
    finally:
        torch.set_num_threads(threads)
    for seed in config.seeds:
        shutil.rmtree(checkpoint_folder(output, seed), ignore_errors=True)
    with suppress(OSError):  # another study may still be there
        checkpoint_folder(output, 0).parent.rmdir()
    return [cell for cell in cells.values() if cell is not None]


def _none(cells: dict[Task, Cell | None], seed: int) -> Cell:
    found = cells[seed, str(Arm.none), "none"]
    assert found is not None
    return found
