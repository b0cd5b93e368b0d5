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
from stagewise.probes.prober import Prober

T = TypeVar("T")


def attempt(
    trainer: Trainer, module: LightningModule, prober: Prober, faults: Faults, step: int, probe: Callable[[], T]
) -> T | None:
    """Call ``probe``; what it raises is taken in, and leaves no mark on the prober. Every rank calls this.

    Where memory runs out on any rank, the chunks of the observed set are halved once and the probe is tried again.

    Args:
        trainer: of the run.
        module: what is probed.
        prober: that probes it.
        faults: takes in what goes wrong.
        step: training step.
        probe: uses the prober.

    Returns:
        What ``probe`` returns; None where it failed on any rank.
    """
    mark = prober.mark()
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
        prober.return_to(mark)
        if worst == ENDS:
            raise error or OtherRankError("a probe failed on another rank, which ends the run; see its output")
        free_memory()
        if not (tries_left and worst == OUT_OF_MEMORY and prober.halve_chunks()):
            break
    faults.take(error or OtherRankError("see its output"), PROBE if error is not None else OTHER_RANK, step)
    return None
