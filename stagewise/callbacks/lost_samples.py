"""Observed samples whose loss is not finite: left out by all ranks alike, and kept in the record of the run."""

from collections.abc import Callable

from lightning.pytorch import LightningModule, Trainer

from stagewise.callbacks.faults import PROBE, Faults
from stagewise.probes.history import Record
from stagewise.probes.prober import Prober
from stagewise.probes.subject import Subject
from stagewise.sampling.trace import Trace


def examined(trainer: Trainer, record: Record, look: Callable[..., Subject], *, goes_on: bool) -> Subject:
    """The subject of the probes without the samples that are left out; every rank calls this.

    Args:
        trainer: of the run.
        record: takes in which samples these are.
        look: examines it, given ``lost``.
        goes_on: whether earlier probes of the run are known: then the samples are those of the record, so that a run
            that was stopped goes on as if it had not been; samples that have turned bad since are found by a probe.
    """
    if goes_on:
        return look(lost=[it["sample"] for it in record.lost_samples])
    subject = look(lost=None)
    agreed = trainer.strategy.broadcast(subject.lost)
    if agreed != subject.lost:
        subject = look(lost=agreed)
    record.add_lost(agreed, trainer.global_step)
    return subject


def left_out(
    trainer: Trainer,
    module: LightningModule,
    prober: Prober | None,
    record: Record,
    faults: Faults,
    trace: Trace | None,
    *,
    lost: bool,
) -> bool:
    """Leave out the samples that kept a probe from its chains; every rank calls this after each probe.

    Args:
        trainer: of the run.
        module: what was probed.
        prober: that probed it; None where no probe came so far.
        record: takes in which samples these are.
        faults: takes in that too little would be left.
        trace: of the probe; None where it failed.
        lost: whether the probe has no chain.

    Returns:
        Whether there are such samples, and the probe is worth another try.
    """
    found = prober.subject.lost_in(trace) if lost and trace is not None and prober is not None else ()
    found = trainer.strategy.broadcast(found)
    if not found or trace is None or prober is None:
        return False
    with faults.contained(PROBE, trace.step):
        prober.leave_out(module, found, trace)
        record.add_lost(found, trace.step)
        return True
    return False
