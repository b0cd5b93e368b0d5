"""Distribution of cells over processes, on this machine or an existing cluster."""

import importlib
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from enum import StrEnum
from pathlib import Path
from typing import Any, TypeVar

from joblib import Parallel, delayed, parallel_config

from stagewise.errors import InputError
from stagewise.files.writing import refuse_below_file

T = TypeVar("T")

Progress = Callable[[str], None]


class Backend(StrEnum):
    """Backend that runs cells, by its joblib name: local processes, or an existing cluster."""

    loky = "loky"
    dask = "dask"
    ray = "ray"


def check_output(output: Path) -> None:
    """Refuses an output folder that is a file, or below one.

    Raises:
        InputError: such a folder.
    """
    refuse_below_file(output)
    if output.exists() and not output.is_dir():
        raise InputError(f"got output {output}, which is a file; expected a folder; choose another --output")


def register(backend: Backend) -> None:
    """Connects to a Ray cluster, or checks that Dask has a scheduler, unless already connected; starts neither.

    Ray: the cluster of ``RAY_ADDRESS``, else one running on this machine. Dask: the scheduler of
    ``DASK_SCHEDULER_ADDRESS``, see :func:`shared`.

    Raises:
        InputError: missing package or cluster.
    """
    if backend is Backend.loky:
        return
    try:
        found = importlib.import_module({"ray": "ray", "dask": "distributed"}[backend])
    except ImportError as error:
        package = {"ray": "ray", "dask": "dask[distributed]"}[backend]
        raise InputError(
            f"got backend={backend}, whose package is not installed ({error}); expected it in this environment; "
            f"pip install '{package}', or use backend=loky"
        ) from error
    if backend is Backend.dask:
        if not _has_client(found) and found.config.get("scheduler-address", None) is None:
            raise InputError(
                "got backend=dask and no scheduler; expected one that runs; set DASK_SCHEDULER_ADDRESS to that which "
                "`dask scheduler` shows, or make a distributed.Client first"
            )
    elif not found.is_initialized():
        try:
            found.init(address="auto", log_to_driver=False)
        except ConnectionError as error:
            raise InputError(
                "got backend=ray and no cluster; expected one that runs; start it by `ray start --head`, set "
                "RAY_ADDRESS to that of another machine, or call ray.init first"
            ) from error


def shared(
    compute: Callable[..., T],
    tasks: Sequence[tuple[Any, ...]],
    *,
    num_workers: int,
    backend: Backend,
    num_gpus: int = 0,
) -> Iterator[T]:
    """Yields results as they finish, in no fixed order.

    Args:
        compute: called with the arguments of each task, in other processes if there are several.
        tasks: arguments of each call.
        num_workers: maximal number of processes; Dask uses all workers of its cluster.
        backend: backend that runs them, see :func:`register`.
        num_gpus: number of GPUs that Ray reserves for each task; it hides the others from the task.
    """
    if not tasks:
        return
    if backend is Backend.ray:
        yield from _on_ray(compute, tasks, num_workers, num_gpus)
        return
    with ExitStack() as stack:
        if backend is Backend.dask:
            distributed = importlib.import_module("distributed")
            if not _has_client(distributed):
                stack.enter_context(distributed.Client())
        stack.enter_context(parallel_config(backend=str(backend), n_jobs=min(num_workers, len(tasks))))
        yield from Parallel(return_as="generator_unordered")(delayed(compute)(*task) for task in tasks)


def _has_client(distributed: Any) -> bool:
    try:
        distributed.get_client()
    except ValueError:
        return False
    return True


def _on_ray(
    compute: Callable[..., T], tasks: Sequence[tuple[Any, ...]], num_workers: int, num_gpus: int
) -> Iterator[T]:
    # Not by joblib: its Ray backend cannot yield results as they finish.
    ray = importlib.import_module("ray")
    call = ray.remote(num_cpus=1, num_gpus=num_gpus)(compute)
    left = list(reversed(tasks))
    running: list[Any] = []
    while left or running:
        while left and len(running) < num_workers:
            running.append(call.remote(*left.pop()))
        ended, running = ray.wait(running, num_returns=1)
        try:
            found = ray.get(ended[0])
        except ray.exceptions.RayTaskError as error:
            for other in running:
                ray.cancel(other)
            raise error.cause from error
        yield found


def clock(seconds: float) -> str:
    """Returns minutes and seconds, as ``12:05``."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}:{rest:02d}"


class Report:
    """Reporter of a line for each finished cell, with the remaining time."""

    def __init__(self, progress: Progress, total: int, known: int) -> None:
        """Starts the clock.

        Args:
            progress: called with each line.
            total: cells of the study.
            known: number of cells that already exist.
        """
        self._progress, self._total, self._known = progress, total, known
        self._began = time.monotonic()
        self._done = 0

    def __call__(self, words: str) -> None:
        """Reports a finished cell.

        Args:
            words: name of the cell, and its outcome.
        """
        self._done += 1
        passed = time.monotonic() - self._began
        left = passed / self._done * (self._total - self._known - self._done)
        count = f"[{self._known + self._done}/{self._total}]"
        self._progress(f"{count} {words}; {clock(passed)} passed, about {clock(left)} left")
