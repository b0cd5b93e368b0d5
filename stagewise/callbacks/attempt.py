"""A single attempt at a probe, collective over ranks, repeated with smaller chunks if memory runs out."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import TypeVar

import torch
from lightning.pytorch import LightningModule, Trainer

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
from stagewise.isolation import untouched
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
    """Calls ``probe`` and catches what it raises, with no effect on later probes. Must be called on every rank.

    If any rank runs out of memory, the chunks of the observed set are halved once and the probe is repeated.

    Args:
        trainer: of the run.
        module: module to probe.
        carried: state that the probe updates.
        faults: reports and counts errors.
        step: training step.
        probe: makes the probe.
        halve_chunks: halves the chunks; returns False if they cannot be smaller.

    Returns:
        The result of ``probe``; None if it failed on any rank.
    """
    mark = carried.mark()
    error: Exception | None = None
    for tries_left in (1, 0):
        error = None
        try:
            buffers = nullcontext() if trainer.world_size == 1 else rank_zero_buffers(trainer, module)
            with metrics_refused(module), buffers:
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


@contextmanager
def rank_zero_buffers(trainer: Trainer, module: LightningModule) -> Iterator[None]:
    """Gives every rank the buffers of rank zero, such as running statistics, inside the context. Collective.

    Args:
        trainer: of the run.
        module: its own buffers are restored bit for bit on exit.
    """
    own = [buffer.detach().cpu() for buffer in module.buffers()]
    theirs = trainer.strategy.broadcast(own)
    with untouched(module):
        with torch.no_grad():
            for buffer, value in zip(module.buffers(), theirs, strict=True):
                buffer.copy_(value)
        yield
