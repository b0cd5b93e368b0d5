"""All cells of the experiment: shared out to processes, kept one by one, never computed twice."""

import importlib
import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from statistics import fmean

import torch
from joblib import Parallel, delayed, parallel_config

from stagewise.errors import InputError
from stagewise.experiments.intervention.arms import PROBED, Arm
from stagewise.experiments.intervention.building import build_data, build_module
from stagewise.experiments.intervention.cell import Cell, cell_name, read_cell, write_cell
from stagewise.experiments.intervention.config import Backend, InterventionConfig
from stagewise.experiments.intervention.settings import check_settings
from stagewise.experiments.intervention.training import checkpoint_folder, grouped_loader, run_folder, train_cell
from stagewise.experiments.replacing import replacing
from stagewise.phases.live_signal import live_signals

Progress = Callable[[str], None]

Task = tuple[int, str, str]
"""Seed, arm, mechanism."""


def _compute(config: InterventionConfig, task: Task, timeline: dict[str, int | None]) -> Cell:
    """Run one cell and keep it; its folder takes the place of an earlier one only when it is whole."""
    torch.set_num_threads(1)
    seed, arm, mechanism = task
    output = Path(config.output)
    with replacing(run_folder(output, seed, cell_name(arm, mechanism))) as folder:
        cell = train_cell(config, seed, arm, mechanism, timeline, folder)
        folder.mkdir(parents=True, exist_ok=True)
    write_cell(output, cell)
    return cell


def _check(config: InterventionConfig) -> None:
    """Refuse what can be refused before the work starts."""
    if Path(config.output).exists() and not Path(config.output).is_dir():
        raise InputError(f"got output {config.output}, which is a file; expected a folder; choose another --output")
    if config.backend is not Backend.loky:
        _register(config.backend)
    with torch.random.fork_rng():
        build_module(config.model)
    data = build_data(config.data, seed=config.seeds[0])
    check_groups(config, data.probe_data().groups)
    steps = len(grouped_loader(data, config, config.seeds[0], str(Arm.none)))
    if steps < config.training.max_steps:
        raise InputError(
            f"got data for {steps} steps; expected enough for training.max_steps={config.training.max_steps}, so that "
            "no sample comes twice; raise data.init_args.num_sequences"
        )


def check_groups(config: InterventionConfig, groups: Iterable[str]) -> None:
    """Refuse names of groups, and a signal, that the observed sequences do not have.

    Args:
        config: of the experiment.
        groups: of the observed sequences.

    Raises:
        InputError: with the name and those that there are.
    """
    names = sorted(groups)
    weights = config.weights
    for setting, name in (
        ("weights.group", weights.group),
        ("weights.onset.against", weights.onset.against),
        ("weights.within_onset.against", weights.within_onset.against),
    ):
        if name not in names:
            raise InputError(
                f"got {setting}={name!r}; expected one of {names}, the groups of the observed sequences; correct the "
                "name"
            )
    signals = live_signals(names)
    if Arm.live in config.arms and config.live.signal not in signals:
        raise InputError(
            f"got live.signal={config.live.signal!r}; expected one of {signals}; name a signal of these groups"
        )


def _register(backend: Backend) -> None:
    """Make joblib know a backend that another package brings.

    Raises:
        InputError: the package is not there.
    """
    try:
        if backend is Backend.ray:
            importlib.import_module("ray.util.joblib").register_ray()
        else:
            importlib.import_module("distributed")
    except ImportError as error:
        package = {"ray": "ray", "dask": "dask[distributed]"}[backend]
        raise InputError(
            f"got backend={backend}, whose package is not installed ({error}); expected it in this environment; "
            f"pip install '{package}', or use backend=loky"
        ) from error


def _shared(config: InterventionConfig, tasks: Sequence[tuple[Task, dict[str, int | None]]]) -> Iterator[Cell]:
    """Cells as they end."""
    if not tasks:
        return
    with parallel_config(backend=str(config.backend), n_jobs=min(config.num_workers, len(tasks))):
        yield from Parallel(return_as="generator_unordered")(
            delayed(_compute)(config, task, timeline) for task, timeline in tasks
        )


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}:{rest:02d}"


class _Report:
    """One line for each cell that ends, with the time that is left.

    Cells with probes take several times as long as others: the time left goes by the mean of each kind so far.
    """

    def __init__(self, progress: Progress, missing: Sequence[Task], total: int, num_workers: int) -> None:
        self._progress, self._total, self._num_workers = progress, total, num_workers
        self._began = time.monotonic()
        self._left = Counter(arm in PROBED for _, arm, _ in missing)
        self._seconds: dict[bool, list[float]] = {True: [], False: []}

    def _estimate(self) -> str:
        means = {kind: fmean(seconds) for kind, seconds in self._seconds.items() if seconds}
        left = sum(means.get(kind, 0.0) * number for kind, number in self._left.items()) / self._num_workers
        at_least = any(number and kind not in means for kind, number in self._left.items())
        return f"{'at least' if at_least else 'about'} {_clock(left)} left"

    def __call__(self, cell: Cell) -> None:
        kind = cell.arm in PROBED
        self._left[kind] -= 1
        self._seconds[kind].append(cell.seconds)
        curve = cell.curve
        step = None if curve is None else curve.score_step
        found = cell.note or ("no head" if step is None else f"head at step {step}")
        count = f"[{self._total - self._left.total()}/{self._total}]"
        passed = _clock(time.monotonic() - self._began)
        self._progress(f"{count} seed {cell.seed} {cell.name}: {found}; {passed} passed, {self._estimate()}")


def run_cells(config: InterventionConfig, progress: Progress = print) -> list[Cell]:
    """Run every cell that is not there yet.

    The arm ``none`` of each seed first: it says where the windows of the others are. Cells are written as they end, so
    that a study which was killed goes on where it was.

    Args:
        config: of the experiment.
        progress: told one line for each cell that ends.

    Returns:
        All cells, by seed and in the order of the arms.

    Raises:
        InputError: settings that cannot be used, or ``output`` holds cells of other settings.
    """
    _check(config)
    output = Path(config.output)
    check_settings(config)
    wanted = [(seed, arm, mechanism) for seed in config.seeds for arm, mechanism in config.cells()]
    cells = {task: read_cell(output, task[0], cell_name(*task[1:])) for task in wanted}
    known = sum(cell is not None for cell in cells.values())
    if known:
        progress(f"{known} of {len(wanted)} cells are there already")
    report = _Report(progress, [task for task in wanted if cells[task] is None], len(wanted), config.num_workers)
    threads = torch.get_num_threads()

    def run(tasks: Sequence[Task]) -> None:
        missing = [task for task in tasks if cells[task] is None]
        timelines = [{} if task[1] == Arm.none else dict(_none(cells, task[0]).timeline) for task in missing]
        for cell in _shared(config, list(zip(missing, timelines, strict=True))):
            cells[cell.seed, cell.arm, cell.mechanism] = cell
            report(cell)

    try:
        run([task for task in wanted if task[1] == Arm.none])
        # The long ones first: those that start at the beginning.
        run([task for task in wanted if task[1] != Arm.none])
    finally:
        torch.set_num_threads(threads)
    for seed in config.seeds:
        shutil.rmtree(checkpoint_folder(output, seed), ignore_errors=True)
    return [cell for cell in cells.values() if cell is not None]


def _none(cells: dict[Task, Cell | None], seed: int) -> Cell:
    found = cells[seed, str(Arm.none), "none"]
    assert found is not None
    return found
