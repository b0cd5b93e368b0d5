"""Probes of an active run: objects that live from the start to the end of a fit."""

from collections.abc import Callable

import xarray as xr
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_warn

from stagewise.callbacks.attempt import attempt
from stagewise.callbacks.faults import PROBE, Faults
from stagewise.callbacks.probe_sources import FirstBatch
from stagewise.callbacks.reporter import Reporter
from stagewise.callbacks.run_state import RunSettings, RunState
from stagewise.callbacks.trainer_facts import second_moments, show_on_bar
from stagewise.probes.budget import Stopwatch, affords
from stagewise.probes.history import Record
from stagewise.probes.prober import Prober
from stagewise.probes.subject import Subject
from stagewise.sampling.config import EngineName, ResolvedSGLD
from stagewise.sampling.preconditioners.diagonal import AdamMoments
from stagewise.sampling.trace import Trace

Found = tuple[xr.Dataset | None, Trace]
"""Result of a probe: its data set, None if all chains failed, and its chains."""


class ProbeSession:
    """Makes and reports the probes that are due.

    The prober is built at the first probe, when ``auto`` settings are resolved from the curvature.

    Attributes:
        subject: of the probes.
        prober: makes them; None before the first.
        first_batch: check of the first training batch; None once done.
    """

    def __init__(
        self,
        trainer: Trainer,
        module: LightningModule,
        subject: Subject,
        state: RunState,
        settings: RunSettings,
        reporter: Reporter,
        faults: Faults,
    ) -> None:
        """Starts the clock.

        Args:
            trainer: of the run.
            module: module to probe.
            subject: of the probes, checked at the start.
            state: of the run.
            settings: of the probes.
            reporter: writes and logs them.
            faults: reports and counts errors.
        """
        self._trainer, self._module = trainer, module
        self.subject = subject
        self.prober: Prober | None = None
        self.first_batch: FirstBatch | None = None
        self._state, self._settings = state, settings
        self._reporter, self._faults = reporter, faults
        self._stopwatch = Stopwatch()

    def begin(self) -> None:
        """Probes the initial weights if due; invalid settings raise."""
        self._faults.starting = True
        try:
            self.step()
        finally:
            self._faults.starting = False

    def step(self) -> None:
        """Probes if a step is due and the budget allows."""
        step, record, schedule = self._trainer.global_step, self._state.record, self._settings.schedule
        if step != record.last_step and schedule.due(record.last_step, step):
            record.training_seconds += self._stopwatch.lap()
            if schedule.max_overhead is None or self._affords(schedule.max_overhead, step):
                self._probe(step)
        # After the probe: an interrupted one is due again in a resumed run.
        record.last_step = step

    def count_training_time(self) -> None:
        """Adds the time since the last call to that of training."""
        self._state.record.training_seconds += self._stopwatch.lap()

    def finish(self, *, complete: bool) -> None:
        """Ends the run.

        Args:
            complete: True if training is complete.
        """
        self.count_training_time()
        self._reporter.finish(complete=complete)

    def _affords(self, max_overhead: float, step: int) -> bool:
        """Returns True if the budget allows a probe; skipped ones are counted and reported."""
        # Clocks differ between ranks: one decides, so that all probe or none does.
        allowed = self._trainer.strategy.broadcast(affords(self._state.record, max_overhead))
        if not allowed:
            self._reporter.skipped(step, max_overhead)
        return allowed

    def _probe(self, step: int) -> None:
        """Makes, writes and reports a probe; repeated without samples whose loss is not finite."""
        state, found = self._state, None
        number = state.record.num_attempts

        def measure() -> Found:
            adam = isinstance(state.watch.given.preconditioner, AdamMoments)
            moments = second_moments(self._trainer, self._module) if adam else None
            sgld = state.watch.before_probe(self._trainer, self._module, self.subject.target, step, moments)
            prober = self.prober or self._make(sgld)
            show_on_bar(self._trainer, f"probing step {step} ...")
            return prober.probe(
                self._module,
                step,
                second_moments=moments,
                lr_sum=state.rates.total,
                number=number,
                leave_out=False,
            )

        try:
            for _ in range(2):
                found = attempt(
                    self._trainer, self._module, state.carried, self._faults, step, measure, self._halve_chunks
                )
                lost = found is not None and found[0] is None
                if not (lost or self._trainer.world_size > 1) or not self.leave_out(found):
                    break
            if found is not None:
                state.engine = found[1].engine and str(found[1].engine)
                self._reporter.keep(step, *found)
        finally:
            state.record.add_probe_time(self._stopwatch.lap(), finished=found is not None)
        self._reporter.tell(step, found)

    def _make(self, sgld: ResolvedSGLD) -> Prober:
        """Builds the prober of the run, with resolved settings in the fingerprint."""
        state = self._state
        state.fingerprint = state.fingerprint | self.subject.fingerprint(sgld)
        self.prober = Prober.over(
            self._module,
            self.subject,
            sgld,
            state.carried,
            engine=None if state.engine is None else EngineName(state.engine),
            warn=rank_zero_warn,
        )
        return self.prober

    def _halve_chunks(self) -> bool:
        smaller = self.subject.with_smaller_chunks()
        if smaller is None:
            return False
        self.subject = smaller
        return self.prober is None or self.prober.halve_chunks()

    def leave_out(self, found: Found | None) -> bool:
        """Leaves out samples whose loss is not finite. Collective. Returns True if there are any."""
        result, trace = (None, None) if found is None else found
        lost = result is None and trace is not None
        samples = self.subject.lost_in(trace) if lost and trace is not None else ()
        samples = self._trainer.strategy.broadcast(samples)
        if not samples or trace is None or self.prober is None:
            return False
        with self._faults.contained(PROBE, trace.step):
            self.prober.leave_out(self._module, samples, trace)
            self.subject = self.prober.subject
            self._state.record.add_lost(samples, trace.step)
            return True
        return False


def examined(trainer: Trainer, record: Record, look: Callable[..., Subject], *, goes_on: bool) -> Subject:
    """Returns the subject of the probes, without samples whose loss is not finite. Collective.

    Args:
        trainer: of the run.
        record: stores these samples.
        look: builds the subject, given ``lost``.
        goes_on: True if the run resumes: the samples are then those of the record, as in an uninterrupted run; a probe
            finds later ones.
    """
    if goes_on:
        return look(lost=[entry["sample"] for entry in record.lost_samples])
    subject = look(lost=None)
    agreed = trainer.strategy.broadcast(subject.lost)
    if agreed != subject.lost:
        subject = look(lost=agreed)
    record.add_lost(agreed, trainer.global_step)
    return subject
