"""Probes of an active run: objects that live from the start to the end of a fit."""

import time
from collections.abc import Callable

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn

from stagewise.batches import num_samples
from stagewise.callbacks.fault_log import PROBE, Faults
from stagewise.callbacks.outcome import Outcome, told_to_all
from stagewise.callbacks.probe_attempt import attempt
from stagewise.callbacks.probe_sources import FirstBatch
from stagewise.callbacks.ranks import Ranks
from stagewise.callbacks.reporter import Reporter
from stagewise.callbacks.run_state import RunSettings, RunState
from stagewise.callbacks.settings_watch import AT_ONCE, AUTO_RATIO, DOUBT_RATIO
from stagewise.callbacks.trainer_facts import max_steps, second_moments, show_on_bar
from stagewise.probes.budget import Stopwatch, affords
from stagewise.probes.cost import cost_words, evaluations, timed_step
from stagewise.probes.history import Record
from stagewise.probes.prober import Prober
from stagewise.probes.subject import Subject
from stagewise.sampling.config import EngineName, ResolvedSGLD
from stagewise.sampling.preconditioners.diagonal import AdamMoments

_BESIDE_COST = {EngineName.sequential: "", EngineName.compiled: "; less by what compiling saves, and compiling on top"}


class ProbeSession:
    """Makes and reports the probes that are due.

    The prober is built at the first probe, when ``auto`` settings are resolved from the curvature, and again whenever
    ``lr`` is lowered, with the same subject, references and engine.

    Attributes:
        subject: of the probes.
        prober: makes the probes; None before the first one.
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
        ranks: Ranks,
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
        allowed = self._ranks.decide(lambda: affords(self._state.record, max_overhead))
        if not allowed:
            self._reporter.skipped(step, max_overhead)
        return allowed

    def _probe(self, step: int) -> None:
        """Makes, writes and reports a probe; repeated without samples whose loss is not finite."""
        state, found = self._state, None
        number = state.record.num_attempts

        def measure() -> Outcome:
            adam = isinstance(state.watch.given.preconditioner, AdamMoments)
            moments = second_moments(self._trainer, self._module) if adam else None
            mark, before = state.carried.mark(), state.watch.config.lr
            outcome: Outcome | None = None
            # Measures, probes, and measures again at once if the chains are in doubt. If that lowers lr, the probe is
            # repeated; a third measurement at the same step cannot lower it further.
            for _ in range(2):
                began = time.perf_counter()
                sgld = state.watch.before_probe(
                    self._trainer, self._module, self.subject.target, step, moments, ranks=self._ranks
                )
                state.record.curvature_seconds += time.perf_counter() - began
                if before not in ("auto", sgld.lr):
                    state.record.changes.append({"step": step, "setting": "sgld.lr", "before": before, "now": sgld.lr})
                    before = sgld.lr
                prober = self.prober
                if prober is None or prober.sgld != sgld:
                    prober = self._make(sgld)
                elif outcome is not None:
                    break
                if outcome is not None:
                    state.carried.return_to(mark)
                elif number == 0:
                    self._tell_cost(prober)
                show_on_bar(self._trainer, f"probing step {step} ...")
                result, trace = prober.probe(
                    self._module,
                    step,
                    second_moments=moments,
                    lr_sum=state.rates.total,
                    number=number,
                    steepest=state.watch.steepest,
                    leave_out=False,
                )
                outcome = Outcome(result, trace, lost=prober.lost_in(trace) if result is None else ())
                if not self._ranks.alone:
                    outcome = told_to_all(outcome, state.carried, self._ranks)
                if outcome.finite:
                    doubt = DOUBT_RATIO if outcome.in_doubt else AUTO_RATIO
                    state.watch.patience = AT_ONCE if outcome.result is None else doubt
            assert outcome is not None
            return outcome

        try:
            for _ in range(2):
                found = attempt(
                    self._ranks, self._module, state.carried, self._faults, step, measure, self._halve_chunks
                )
                if found is None or not found.lost or not self._leave_out(found):
                    break
            if found is None:
                state.record.broken_steps.append(step)
            else:
                state.engine = found.trace.engine and str(found.trace.engine)
                # With on_error="raise" a fault of one rank ends the run.
                with self._ranks.together:
                    self._reporter.keep(step, found)
                    # Chosen by rank zero, which writes: any rank may save the run.
                    state.scalars = self._ranks.decide(lambda: state.scalars)
        finally:
            state.record.add_probe_time(self._stopwatch.lap(), finished=found is not None)
        with self._ranks.together:
            self._reporter.tell(step, found)

    def _tell_cost(self, prober: Prober) -> None:
        """Logs the estimated time per probe and per run, from one timed step.

        The first probe has a control if any probe has one.
        """
        share = self._ranks.share
        # With weights in shards a step of one rank would wait for the others.
        if not share.is_first or self.subject.target.sharding is not None:
            return
        sgld, config = prober.sgld, self.subject.config
        target, weights = self.subject.target, self.subject.moved_weights
        gradient, record = timed_step(self._module, target, sgld.batch_size)
        control = config.control_every is not None
        needed = evaluations(sgld, config, control=control, weights=weights, samples=num_samples(target.driving))
        seconds = (needed.gradients * gradient + needed.records * record) * len(share.numbers(sgld.num_chains))
        num_probes = self._settings.schedule.count(max_steps(self._trainer))
        rank_zero_info(
            f"stagewise: {cost_words(needed, seconds / sgld.num_chains, num_probes)}"
            f"{_BESIDE_COST.get(sgld.engine, '; less if all chains can run at once')}"
        )

    def _make(self, sgld: ResolvedSGLD) -> Prober:
        """Builds the prober, with resolved settings in the fingerprint."""
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
        """Leaves out samples whose loss is not finite. Collective. Returns True if all ranks could."""
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


def examined(ranks: Ranks, record: Record, look: Callable[..., Subject], step: int, *, resumed: bool) -> Subject:
    """Returns the subject of the probes, without samples whose loss is not finite. Collective.

    Args:
        ranks: of the run.
        record: stores these samples.
        look: builds the subject, given ``lost``.
        step: training step.
        resumed: True for a resumed run: the samples are then those of the record, as in an uninterrupted run; a probe
            finds later ones.
    """
    if resumed:
        return look(lost=[entry["sample"] for entry in record.lost_samples])
    subject = ranks.each(lambda: look(lost=None))
    agreed = ranks.decide(lambda: subject.lost)
    if agreed != subject.lost:
        subject = look(lost=agreed)
    record.add_lost(agreed, step)
    return subject
