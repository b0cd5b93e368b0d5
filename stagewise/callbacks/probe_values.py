"""Scalars of a probe for the loggers: what it measured, and what is counted over the run."""

from collections.abc import Mapping

import torch
import xarray as xr
from lightning.pytorch import Trainer

from stagewise.callbacks.faults import LOGGER, Faults
from stagewise.probes.history import Record
from stagewise.reporting import tags
from stagewise.reporting.scalars import probe_scalars


def probe_values(result: xr.Dataset | None, record: Record, *, chains_dropped: int, budgeted: bool) -> dict[str, float]:
    """Values by tag.

    Args:
        result: of the probe; None where all its chains failed.
        record: of the run, the probe included.
        chains_dropped: chains that failed in this probe.
        budgeted: whether the schedule may skip probes.
    """
    values = {tags.FLAGGED: 1.0} if result is None else probe_scalars(result)
    values[tags.CHAINS_DROPPED] = float(chains_dropped)
    if budgeted:
        values[tags.SKIPPED] = float(len(record.skipped_steps))
    if record.overhead is not None:
        values[tags.OVERHEAD] = record.overhead
    return values


def log_values(trainer: Trainer, values: Mapping[str, float], step: int, faults: Faults) -> None:
    """Give values to every logger at a training step, and to what other callbacks monitor.

    Args:
        trainer: of the run.
        values: by tag.
        step: of training.
        faults: takes in what a logger raises; the others get the values all the same.
    """
    for logger in trainer.loggers:
        with faults.contained(LOGGER, step):
            logger.log_metrics(dict(values), step=step)
    trainer.callback_metrics.update({tag: torch.tensor(value) for tag, value in values.items()})
