"""Budget of the schedule: decides on a probe that is due."""

from lightning.pytorch import Trainer

from stagewise.callbacks.faults import Faults
from stagewise.callbacks.notices import warn_of_first_skip
from stagewise.callbacks.probe_values import log_values
from stagewise.probes.budget import affords
from stagewise.probes.history import Record
from stagewise.reporting import tags


def within_budget(trainer: Trainer, record: Record, max_overhead: float | None, *, step: int, faults: Faults) -> bool:
    """True if the budget allows the probe at a step; one that it does not is counted and reported.

    Args:
        trainer: of the run.
        record: of the run, with all seconds of training up to now.
        max_overhead: probe seconds over training seconds, at most; None without a budget.
        step: at which a probe is due.
        faults: takes in what a logger raises.
    """
    if max_overhead is None:
        return True
    # Every rank has a clock of its own: one decides, so that all of them probe or none does.
    if trainer.strategy.broadcast(affords(record, max_overhead)):
        return True
    record.skipped_steps.append(step)
    warn_of_first_skip(step, max_overhead, record)
    log_values(trainer, {tags.SKIPPED: float(len(record.skipped_steps))}, step, faults)
    return False
