"""Cells shared out to processes, on this machine or a cluster that is set up already."""

import importlib
import time
from collections.abc import Callable, Iterator, Sequence
from enum import StrEnum
from pathlib import Path
from typing import Any, TypeVar

from joblib import Parallel, delayed, parallel_config

from stagewise.errors import InputError
from stagewise.files.writing import refuse_below_file

T = TypeVar("T")

Progress = Callable[[str], None]


class Backend(StrEnum):
    """Backends that run cells, as joblib names them: local processes, or a cluster that is set up already."""

    loky = "loky"
    dask = "dask"
    ray = "ray"


def check_output(output: Path) -> None:
    """Refuses to write where a file is, or below one.

    Raises:
        InputError: it is a file, or one is in the way.
    """
    refuse_below_file(output)
    if output.exists() and not output.is_dir():
        raise InputError(f"got output {output}, which is a file; expected a folder; choose another --output")


def register(backend: Backend) -> None:
    """Makes joblib know a backend that another package brings.

    Raises:
        InputError: the package is not there.
    """
    if backend is Backend.loky:
        return
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


def shared(
    compute: Callable[..., T], tasks: Sequence[tuple[Any, ...]], *, num_workers: int, backend: Backend
) -> Iterator[T]:
    """Yields results as they end, in no fixed order.

    Args:
        compute: called with the parts of each task, in another process where there are several.
        tasks: arguments of each call.
        num_workers: processes, at most.
        backend: where they run.
    """
    if not tasks:
        return
    with parallel_config(backend=str(backend), n_jobs=min(num_workers, len(tasks))):
        yield from Parallel(return_as="generator_unordered")(delayed(compute)(*task) for task in tasks)


def clock(seconds: float) -> str:
    """Returns minutes and seconds, as ``12:05``."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}:{rest:02d}"


class Report:
    """One line for each cell that ends, with the time that is left."""

    def __init__(self, progress: Progress, total: int, known: int) -> None:
        """Starts the clock.

        Args:
            progress: told each line.
            total: cells of the study.
            known: of these, how many were there already.
        """
        self._progress, self._total, self._known = progress, total, known
        self._began = time.monotonic()
        self._done = 0

    def __call__(self, words: str) -> None:
        """Tells of a cell that has ended.

        Args:
            words: name of the cell, and its outcome.
        """
        self._done += 1
        passed = time.monotonic() - self._began
        left = passed / self._done * (self._total - self._known - self._done)
        count = f"[{self._known + self._done}/{self._total}]"
        self._progress(f"{count} {words}; {clock(passed)} passed, about {clock(left)} left")
