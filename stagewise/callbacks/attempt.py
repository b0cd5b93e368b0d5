"""One try at a probe: whole on every rank, with smaller chunks where memory runs out, or not at all."""

from collections.abc import Callable
from typing import TypeVar

from lightning.pytorch import LightningModule, Trainer

from stagewise.callbacks.buffers import rank_zero_buffers
from stagewise.callbacks.faults import (
    ENDS,
    OTHER_RANK,
    OUT_OF_MEMORY,
    PROBE,
    Faults,
    OtherRankError,
    free_memory,
    worst_of_ranks,
)
from stagewise.callbacks.no_logging import metrics_refused
from stagewise.probes.carried import Carried

T = TypeVar("T")


def attempt(
    trainer: Trainer,
    module: LightningModule,
    carried: Carried,
    faults: Faults,
    step: int,
    probe: Callable[[], T],
    halve_chunks: Callable[[], bool],
) -> T | None:
    """Call ``probe``; what it raises is taken in, and leaves no mark on later probes. Every rank calls this.

    Where memory runs out on any rank, the chunks of the observed set are halved once and the probe is tried again.

    Args:
        trainer: of the run.
        module: what is probed.
        carried: what the probe adds to.
        faults: takes in what goes wrong.
        step: training step.
        probe: makes the probe.
        halve_chunks: lets it need less memory; False where it cannot.

    Returns:
        What ``probe`` returns; None where it failed on any rank.
    """
    mark = carried.mark()
    error: Exception | None = None
    for tries_left in (1, 0):
        error = None
        try:
            with metrics_refused(module), rank_zero_buffers(trainer, module):
                result = probe()
        except Exception as raised:
            error = raised
        worst = worst_of_ranks(trainer, error, ends=error is not None and faults.goes_on(error))
        if worst is None:
            return result
        carried.return_to(mark)
        if worst == ENDS:
            raise error or OtherRankError("a probe failed on another rank, which ends the run; see its output")
        free_memory()
        if not (tries_left and worst == OUT_OF_MEMORY and halve_chunks()):
            break
    faults.take(error or OtherRankError("see its output"), PROBE if error is not None else OTHER_RANK, step)
    return None
