"""Attempt of a probe, on all ranks together: catches its errors, and repeats it once if memory runs out.

:mod:`stagewise.callbacks.fault_log` counts and reports the errors.
"""

from collections.abc import Callable
from typing import TypeVar

from lightning.pytorch import LightningModule

from stagewise.callbacks.fault_log import OTHER_RANK, OUT_OF_MEMORY, PROBE, Faults, OtherRankError, free_memory, kind_of
from stagewise.callbacks.no_logging import metrics_refused
from stagewise.callbacks.ranks import ENDS, AgreedFault, RankLeftError, Ranks
from stagewise.probes.carried import Carried

T = TypeVar("T")


def attempt(
    ranks: Ranks,
    module: LightningModule,
    carried: Carried,
    faults: Faults,
    step: int,
    probe: Callable[[], T],
    halve_chunks: Callable[[], bool],
) -> T | None:
    """Calls ``probe`` and catches its exceptions, with no effect on later probes. Collective.

    If any rank runs out of memory, the chunks of the observed set are halved once and the probe is repeated.

    Args:
        ranks: of the run.
        module: module to probe, on every rank at the weights and with the buffers of rank zero.
        carried: state that the probe updates.
        faults: reports and counts errors.
        step: training step.
        probe: makes the probe.
        halve_chunks: halves the chunks; returns False if they cannot be smaller.

    Returns:
        The result of ``probe``; None if it failed on any rank.

    Raises:
        OtherRankError: an error on another rank ends the run.
        RankLeftError: another rank has ended.
        Exception: an error on this rank that ends the run.
    """
    mark = carried.mark()
    error: BaseException | None = None

    def as_rank_zero() -> T:
        with metrics_refused(module), ranks.as_rank_zero(module):
            return probe()

    for tries_left in (1, 0):
        try:
            if ranks.alone:
                with metrics_refused(module):
                    return probe()
            ranks.begin()
            return ranks.each(as_rank_zero)
        except RankLeftError:
            raise
        except AgreedFault as fault:
            worst, error = fault.worst, fault.own
        except Exception as raised:
            worst = ENDS if faults.is_fatal(raised) else kind_of(raised, PROBE)
            error = raised
        carried.return_to(mark)
        if worst == ENDS:
            raise error or OtherRankError("a probe failed on another rank, which ends the run; see its output")
        free_memory()
        if not (tries_left and worst == OUT_OF_MEMORY and halve_chunks()):
            break
    if isinstance(error, Exception):
        faults.take(error, PROBE, step)
    else:
        faults.take(OtherRankError("see its output"), OTHER_RANK, step)
    return None
