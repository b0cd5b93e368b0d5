"""A run of probes while it goes on: what exists between the start and the end of a fit."""

from collections.abc import Callable

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_warn

from stagewise.callbacks.attempt import attempt
from stagewise.callbacks.faults import PROBE, Faults
from stagewise.callbacks.outcome import Outcome, told_to_all
from stagewise.callbacks.probe_sources import FirstBatch
from stagewise.callbacks.ranks import Ranks
from stagewise.callbacks.reporter import Reporter
from stagewise.callbacks.run_state import RunSettings, RunState
from stagewise.callbacks.trainer_facts import second_moments, show_on_bar
from stagewise.probes.budget import Stopwatch, affords
from stagewise.probes.history import Record
from stagewise.probes.prober import Prober
from stagewise.probes.subject import Subject
from stagewise.sampling.config import EngineName, ResolvedSGLD
from stagewise.sampling.preconditioners.diagonal import AdamMoments


class ProbeSession:
    """Probes where one is due, and has it told.

    The prober is made at the first probe: it needs numbers for what is ``auto``, which come from the curvature there.

    Attributes:
        subject: what probes look at.
        prober: that makes them; None before the first.
        first_batch: waits for the first batch that trains; None once it has come.
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
        ranks: Ranks,
    ) -> None:
        """Start the clock.

        Args:
            trainer: of the run.
            module: what is probed.
            subject: what probes look at, as examined at the start.
            state: of the run.
            settings: of the probes.
            reporter: tells of them.
            faults: takes in what goes wrong.
            ranks: that share the chains.
        """
        self._ranks = ranks
        self._trainer, self._module = trainer, module
        self.subject = subject
        self.prober: Prober | None = None
        self.first_batch: FirstBatch | None = None
        self._state, self._settings = state, settings
        self._reporter, self._faults = reporter, faults
        self._stopwatch = Stopwatch()

    def begin(self) -> None:
        """Probe the first weights where the schedule asks for it; bad settings are refused."""
        self._faults.starting = True
        try:
            self.step()
        finally:
            self._faults.starting = False

    def step(self) -> None:
        """Probe where a new training step is due and the budget allows it."""
        step, record, schedule = self._trainer.global_step, self._state.record, self._settings.schedule
        if step != record.last_step and schedule.due(record.last_step, step):
            record.training_seconds += self._stopwatch.lap()
            if schedule.max_overhead is None or self._affords(schedule.max_overhead, step):
                self._probe(step)
        # After the probe: one that was interrupted is due again when the run is resumed.
        record.last_step = step

    def count_training_time(self) -> None:
        """Credit the time since the last look at the clock to training."""
        self._state.record.training_seconds += self._stopwatch.lap()

    def finish(self, *, complete: bool) -> None:
        """End the run.

        Args:
            complete: whether it has come to its end.
        """
        self.count_training_time()
        self._reporter.finish(complete=complete)

    def _affords(self, max_overhead: float, step: int) -> bool:
        """True if the budget allows the probe at a step; one that it does not is counted and reported."""
        # Every rank has a clock of its own: one decides, so that all of them probe or none does.
        allowed = self._ranks.decide(lambda: affords(self._state.record, max_overhead))
        if not allowed:
            self._reporter.skipped(step, max_overhead)
        return allowed

    def _probe(self, step: int) -> None:
        """Make a probe, write it and tell of it; once more where samples are left out that kept it from its chains."""
        state, found = self._state, None
        number = state.record.num_attempts

        def measure() -> Outcome:
            adam = isinstance(state.watch.given.preconditioner, AdamMoments)
            moments = second_moments(self._trainer, self._module) if adam else None
            sgld = state.watch.before_probe(
                self._trainer, self._module, self.subject.target, step, moments, ranks=self._ranks
            )
            prober = self.prober or self._make(sgld)
            show_on_bar(self._trainer, f"probing step {step} ...")
            result, trace = prober.probe(
                self._module,
                step,
                second_moments=moments,
                lr_sum=state.rates.total,
                number=number,
                leave_out=False,
            )
            outcome = Outcome(result, trace, lost=prober.lost_in(trace) if result is None else ())
            return outcome if self._ranks.alone else told_to_all(outcome, state.carried, self._ranks)

        try:
            for _ in range(2):
                found = attempt(
                    self._ranks, self._module, state.carried, self._faults, step, measure, self._halve_chunks
                )
                if found is None or not found.lost or not self._leave_out(found):
                    break
            if found is not None:
                state.engine = found.trace.engine and str(found.trace.engine)
                # With on_error="raise" a fault of one rank ends the run.
                with self._ranks.together:
                    self._reporter.keep(step, found)
        finally:
            state.record.add_probe_time(self._stopwatch.lap(), finished=found is not None)
        with self._ranks.together:
            self._reporter.tell(step, found)

    def _make(self, sgld: ResolvedSGLD) -> Prober:
        """The prober of the run; from now on its fingerprint has numbers."""
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

    def _leave_out(self, found: Outcome) -> bool:
        """Leave out the samples that kept a probe from its chains, on every rank; True where that could be done."""
        prober = self.prober
        if prober is None:
            return False

        done = False
        with self._ranks.together, self._faults.contained(PROBE, found.trace.step):
            prober.leave_out(self._module, found.lost, found.trace)
            self.subject = prober.subject
            self._state.record.add_lost(found.lost, found.trace.step)
            done = True
        return all(self._ranks.gather(done))


def examined(ranks: Ranks, record: Record, look: Callable[..., Subject], step: int, *, goes_on: bool) -> Subject:
    """The subject of the probes, without the samples whose loss is not finite; every rank calls this.

    Args:
        ranks: of the run.
        record: takes in which samples these are.
        look: examines it, given ``lost``.
        step: training step.
        goes_on: whether earlier probes of the run are known: then the samples are those of the record, so that a run
            that was stopped goes on as if it had not been; samples that have turned bad since are found by a probe.
    """
    if goes_on:
        return look(lost=[loss["sample"] for loss in record.lost_samples])
    subject = ranks.each(lambda: look(lost=None))
    agreed = ranks.decide(lambda: subject.lost)
    if agreed != subject.lost:
        subject = look(lost=agreed)
    record.add_lost(agreed, step)
    return subject
