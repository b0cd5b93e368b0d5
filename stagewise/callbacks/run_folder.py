"""Folder of a run and its existing files."""

import tempfile
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from lightning.pytorch import Trainer
from lightning.pytorch.utilities import rank_zero_warn

from stagewise._version import __version__
from stagewise.callbacks.hosts import is_a
from stagewise.checks.counted import counted
from stagewise.errors import InputError
from stagewise.files.json_input import read_json
from stagewise.files.writing import write_json
from stagewise.reporting.classes_page import CLASSES_NAME
from stagewise.reporting.overview_files import OVERVIEW_NAME
from stagewise.runs.probe_files import STORE_NAME, SUMMARY_NAME
from stagewise.runs.samples_file import SAMPLES_NAME
from stagewise.runs.store import RUN_NAME, ProbeStore

RUN_FILES = frozenset({STORE_NAME, RUN_NAME, SUMMARY_NAME, CLASSES_NAME, SAMPLES_NAME, OVERVIEW_NAME})
"""Names of the files that a run of the callback writes into its folder, besides those of loggers."""


class KnownFolder:
    """Folder of the last run, shared by a callback and all its deep copies.

    Some libraries train with a deep copy of a callback: the original then knows the copy's folder.
    """

    def __init__(self) -> None:
        """Starts without a folder."""
        self.path: Path | None = None

    def __deepcopy__(self, memo: dict[int, Any]) -> "KnownFolder":
        """Returns itself."""
        return self


def default_folder(trainer: Trainer) -> Path:
    """Returns ``trainer.log_dir``, or a subfolder of the run if runs would share it.

    TensorBoard's and the CSV logger give each run a ``log_dir``. For others (Weights & Biases, MLflow, ...) it is the
    ``save_dir`` of all runs: the files then go to the folder of Lightning's checkpoints,
    ``<save_dir>/<name>/<version>``.
    """
    # `log_dir` is a broadcast: every rank reads it.
    folder = Path(trainer.log_dir or trainer.default_root_dir)
    logger = trainer.logger
    if logger is None or is_a(logger, "TensorBoardLogger", "CSVLogger"):
        return folder
    version = logger.version if isinstance(logger.version, str) else f"version_{logger.version}"
    own = None if logger.version is None else folder / str(logger.name) / version
    # Only rank zero, which starts the run, knows the version.
    own = trainer.strategy.broadcast(own)
    return folder if own is None else own


def _set_aside(store: ProbeStore, step: int, *, again: bool) -> None:
    gone = store.set_aside_after(step)
    if gone:
        why = "this run starts again" if again else f"this run resumes from step {step}"
        rank_zero_warn(
            f"stagewise: {why}: {counted(len(gone), 'probe')} at steps {gone[0]} to {gone[-1]} are set aside in "
            f"{store.aside}, each until there is a probe at its step or later"
        )


def _did_not_end(folder: Path, fingerprint: Mapping[str, str]) -> bool:
    """Returns True if the folder has an unfinished run with this fingerprint."""
    if not (folder / RUN_NAME).is_file():
        return False
    advice = "delete it, or choose another folder (output_dir, or the logger's version)"
    before = read_json(folder / RUN_NAME, what="what a run was started with", advice=advice)
    ended = False
    if (folder / SUMMARY_NAME).is_file():
        summary = read_json(folder / SUMMARY_NAME, what="the summary of a run", advice=advice)
        ended = summary.get("complete") is not False
    return not ended and before.get("fingerprint") == dict(fingerprint)


def _unwritable(trainer: Trainer, folder: Path) -> str:
    """Creates the folder on rank zero and tests it; returns why it is not writable, empty if it is."""
    if not trainer.is_global_zero:
        return ""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=folder):
            return ""
    except OSError as error:
        return str(error)


def open_run_folder(
    trainer: Trainer,
    output_dir: str | None,
    *,
    resumed: bool,
    earlier: str | None,
    steps: Collection[int],
    fingerprint: Mapping[str, str],
) -> Path:
    """Chooses the folder of the run and prepares its store.

    A new run is refused in a folder with probes of another one, unless that is an unfinished run with the same
    fingerprint: a job killed before its first checkpoint. Its probes, and those beyond the step of a resume, are set
    aside until the run has passed them.

    Args:
        trainer: at the start of training.
        output_dir: folder for the files; that of :func:`default_folder` if None.
        resumed: True if the run resumes from a checkpoint with probes.
        earlier: folder of the resumed run; its probes are copied to another folder.
        steps: of the probes of the resumed run.
        fingerprint: of the run.

    Raises:
        InputError: the folder has probes of another run, or is not writable.
    """
    # On every rank, whatever `output_dir`: it is a broadcast.
    default = default_folder(trainer)
    folder = Path(output_dir) if output_dir else default
    store = ProbeStore(folder / STORE_NAME)
    # Decided on one rank, so that all refuse.
    taken, unwritable = trainer.strategy.broadcast((bool(store.steps()), _unwritable(trainer, folder)))
    if unwritable:
        raise InputError(
            f"got the folder {folder} for results, which is not writable ({unwritable}); expected a writable one; "
            "set output_dir, or the logger's save_dir"
        )
    again = trainer.strategy.broadcast(_did_not_end(folder, fingerprint))
    if trainer.global_step == 0 and not resumed and taken and not again:
        raise InputError(
            f"got {store.path}, which already holds {counted(len(store.steps()), 'probe')} of another run; expected "
            "a fresh log directory; choose another (output_dir, or the logger's version), or resume with ckpt_path"
        )
    if not trainer.is_global_zero:
        return folder
    for stale in RUN_FILES - {STORE_NAME, RUN_NAME}:
        (folder / stale).unlink(missing_ok=True)
    step = trainer.global_step if resumed or trainer.global_step else -1
    _set_aside(store, step, again=step < 0)
    if resumed:
        store.bring_back(steps)
    write_json(folder / RUN_NAME, {"version": __version__, "fingerprint": dict(fingerprint)})
    past = None if earlier is None else Path(earlier)
    if past not in (None, folder.resolve()) and not store.adopt(past / STORE_NAME, step):
        rank_zero_warn(f"stagewise: the probes before step {step} are no longer in {past}")
    return folder
