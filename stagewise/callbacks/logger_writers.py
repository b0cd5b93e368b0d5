"""Writers for a trainer's loggers, one adapter per kind of logger, isolated from each other and from random states."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from typing import Any
from weakref import WeakSet

import numpy as np
import torch
from lightning.pytorch import Trainer
from lightning.pytorch.utilities import rank_zero_info
from numpy.typing import NDArray

from stagewise.callbacks.fault_log import LOGGER, Faults
from stagewise.callbacks.hosts import is_a
from stagewise.isolation.guard import global_random_restored
from stagewise.reporting.loggers.comet import CometWriter
from stagewise.reporting.loggers.folder import FolderWriter
from stagewise.reporting.loggers.mlflow_client import MlflowWriter
from stagewise.reporting.loggers.names import plain_name
from stagewise.reporting.loggers.weights_and_biases import WandbWriter
from stagewise.reporting.loggers.writer import RunWriter

_ADAPTERS: dict[str, type[Any]] = {
    "WandbLogger": WandbWriter,
    "MLFlowLogger": MlflowWriter,
    "CometLogger": CometWriter,
    "CSVLogger": FolderWriter,
}

_TOLD: WeakSet[Any] = WeakSet()
"""Loggers already reported to receive scalars only."""


def writers(trainer: Trainer, faults: Faults | None = None) -> list[RunWriter]:
    """Returns writers of images, text and past scalars for the trainer's loggers, in their order.

    A logger of an unknown kind has no writer: this is reported once, and it still receives the scalars of each probe.
    No writer changes a global random state.

    Args:
        trainer: of the run; call this on rank zero.
        faults: catches exceptions of each logger, so that the others are still served; None lets them propagate.
    """
    found: list[RunWriter] = []
    for logger in trainer.loggers:
        with _apart(faults, trainer.global_step):
            writer = _writer_of(logger)
            if writer is not None:
                found.append(ApartWriter(writer, faults))
    return found


def _writer_of(logger: Any) -> RunWriter | None:
    if is_a(logger, "TensorBoardLogger"):
        return logger.experiment
    for name, adapter in _ADAPTERS.items():
        if is_a(logger, name):
            return adapter(logger)
    # A trainer with `fast_dev_run` has one that writes nothing.
    if not is_a(logger, "DummyLogger") and logger not in _TOLD:
        _TOLD.add(logger)
        rank_zero_info(
            f"stagewise: {type(logger).__name__} gets the scalars; images and text go to TensorBoardLogger, "
            f"{', '.join(_ADAPTERS)} alone, and into the run's folder"
        )
    return None


def log_scalars(logger: Any, values: Mapping[str, float], step: int) -> None:
    """Logs values to one logger at a training step, under names that it accepts; random states do not change.

    Args:
        logger: a Lightning logger.
        values: by tag.
        step: of training.
    """
    named = {plain_name(tag): value for tag, value in values.items()} if is_a(logger, "MLFlowLogger") else dict(values)
    with global_random_restored():
        logger.log_metrics(named, step=step)


def log_values(
    trainer: Trainer,
    values: Mapping[str, float],
    step: int,
    faults: Faults,
    *,
    shown: Mapping[str, float] | None = None,
) -> None:
    """Logs values to every logger at a training step, and to the metrics that other callbacks monitor.

    Args:
        trainer: of the run.
        values: by tag.
        step: of training.
        faults: collects errors of a logger; the others still receive the values.
        shown: values for the loggers; all if None.
    """
    for logger in trainer.loggers:
        with faults.contained(LOGGER, step):
            log_scalars(logger, values if shown is None else shown, step)
    trainer.callback_metrics.update({tag: torch.tensor(value) for tag, value in values.items()})


@contextmanager
def _apart(faults: Faults | None, step: int) -> Iterator[None]:
    with global_random_restored(), nullcontext() if faults is None else faults.contained(LOGGER, step):
        yield


class ApartWriter:
    """Writer that catches the exceptions of each call and restores the global random states."""

    def __init__(self, writer: RunWriter, faults: Faults | None) -> None:
        """Stores the writer; writes nothing yet.

        Args:
            writer: of one logger.
            faults: catches its exceptions; None lets them propagate.
        """
        self._writer, self._faults = writer, faults

    def add_image(self, tag: str, img_tensor: NDArray[np.uint8], global_step: int, *, dataformats: str) -> None:
        """See :class:`~stagewise.reporting.loggers.writer.RunWriter`."""
        with _apart(self._faults, global_step):
            self._writer.add_image(tag, img_tensor, global_step, dataformats=dataformats)

    def add_text(self, tag: str, text_string: str, global_step: int) -> None:
        """See :class:`~stagewise.reporting.loggers.writer.RunWriter`."""
        with _apart(self._faults, global_step):
            self._writer.add_text(tag, text_string, global_step)

    def add_scalar(self, tag: str, scalar_value: float, global_step: int) -> None:
        """See :class:`~stagewise.reporting.loggers.writer.RunWriter`."""
        with _apart(self._faults, global_step):
            self._writer.add_scalar(tag, scalar_value, global_step)

    def add_custom_scalars(self, layout: dict[str, Any]) -> None:
        """See :class:`~stagewise.reporting.loggers.writer.RunWriter`."""
        with _apart(self._faults, 0):
            self._writer.add_custom_scalars(layout)

    def flush(self) -> None:
        """See :class:`~stagewise.reporting.loggers.writer.RunWriter`."""
        with _apart(self._faults, 0):
            self._writer.flush()
