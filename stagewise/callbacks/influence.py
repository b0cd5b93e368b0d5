"""Watch influence while a model trains, without disturbing its training."""

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import xarray as xr
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor
from torch.optim import Optimizer
from torch.utils.data import Dataset

from stagewise.batches import Batch
from stagewise.callbacks.attempt import attempt
from stagewise.callbacks.component import masks_of_component
from stagewise.callbacks.faults import LOGGER, PROBE, Faults, OnError
from stagewise.callbacks.group_coverage import write_group_coverage
from stagewise.callbacks.hosts import HostCallback
from stagewise.callbacks.learning_rates import LearningRates
from stagewise.callbacks.loss_identity import loss_identity
from stagewise.callbacks.lost_samples import examined, left_out
from stagewise.callbacks.no_logging import metrics_refused
from stagewise.callbacks.notices import warn_of_dropped_chains, warn_of_new_flags
from stagewise.callbacks.outcome import write_outcome
from stagewise.callbacks.probe_budget import within_budget
from stagewise.callbacks.probe_listeners import Listener, ProbeListeners
from stagewise.callbacks.probe_sources import FirstBatch, ProbeSources
from stagewise.callbacks.probe_values import log_values, probe_values
from stagewise.callbacks.progress import show_on_bar
from stagewise.callbacks.resume import baselines_of, check_unchanged, note_changes, note_pause, noted_settings
from stagewise.callbacks.run_folder import KnownFolder, open_run_folder
from stagewise.callbacks.settings_watch import SettingsWatch
from stagewise.callbacks.trainer_facts import (
    forward_context,
    max_steps,
    refuse_sharding,
    second_moments,
    writers,
)
from stagewise.checks.bounds import check_arguments
from stagewise.errors import InputError
from stagewise.influence.groups import Groups
from stagewise.influence.stored_matrices import to_store
from stagewise.losses.contract import LossFn
from stagewise.probes.budget import Stopwatch
from stagewise.probes.carried import Carried, TracInOfRun
from stagewise.probes.config import ProbeConfig
from stagewise.probes.history import Record
from stagewise.probes.prober import Prober, target_of
from stagewise.probes.schedule import ProbeSchedule
from stagewise.probes.subject import Subject, examine
from stagewise.reporting.tensorboard import images_due, write_layout, write_matrices
from stagewise.runs.store import STORE_NAME, ProbeStore
from stagewise.sampling.config import EngineName, ResolvedSGLD, SGLDConfig
from stagewise.sampling.preconditioners.diagonal import AdamMoments
from stagewise.sampling.trace import Trace


class InfluenceCallback(HostCallback):
    """Runs local SGLD chains at scheduled steps and logs the Bayesian influence function with its split.

    Influence is minus the covariance of losses over the draws, in nats^2: *negative = helpful*. Results go to every
    logger of the trainer at ``trainer.global_step``, to ``influence.zarr`` and ``summary.json`` under
    ``trainer.log_dir``, and to ``trainer.callback_metrics``, which other callbacks can monitor.

    Training is left bit for bit as it would be without the callback: weights, gradients, optimizer, buffers, train and
    eval flags, random states and data order. A probe whose chains are not to be trusted is flagged, see
    :class:`~stagewise.probes.flags.Thresholds`; with ``schedule.max_overhead`` probes keep to a share of the training
    time, and those that do not fit are skipped and counted. Under DDP every rank probes and rank zero writes.

    An observed sample whose loss is not finite is left out from then on, named in a warning and in ``summary.json``
    (``lost_samples``).
    """

    def __init__(
        self,
        schedule: ProbeSchedule = ProbeSchedule(),
        sgld: SGLDConfig = SGLDConfig(),
        probe: ProbeConfig = ProbeConfig(),
        *,
        observed: Dataset | Batch | None = None,
        sampling: Dataset | Batch | None = None,
        groups: Mapping[str, Tensor] | None = None,
        loss_fn: LossFn | None = None,
        component: str | None = None,
        output_dir: str | None = None,
        on_error: OnError = "warn",
        enabled: bool = True,
    ) -> None:
        """Nothing is looked at before training starts.

        Args:
            schedule: when to probe; every 50 steps by default.
            sgld: the sampler.
            probe: the measurement.
            observed: data set or batch whose losses are recorded, as the training loader would give it: transfer hooks
                are applied to it. If not given: the data module's ``probe_data()``, else 64 samples that the training
                loader draws, which are the first ones of its set where it loads the whole of it.
            sampling: data set or batch whose minibatches drive the gradient. If not given: 1,024 samples likewise;
                where none can be drawn (a stream), the observed set.
            groups: name to bool mask over the observed set, ``[sample]``, ``[sample, token]`` or of the shape of the
                losses; one sample is enough.
            loss_fn: ``loss_fn(module, batch)``, unreduced; if not given, the module's ``per_sample_loss(batch)`` or its
                Hugging Face causal language model. :class:`~stagewise.losses.collated.CollatedLoss` for batches that
                cannot be cut into samples.
            component: a part of a language model, such as ``layer0.head1``, see
                :func:`stagewise.lm.components.components`: chains, baselines and curvature are those of its weights
                alone. None for all that ``sgld.parameters`` names. A run has one callback; a sweep over its checkpoints
                has several components.
            output_dir: where the files go, instead of ``trainer.log_dir`` (for loggers whose runs share one:
                ``<log_dir>/<name>/<version>``); :attr:`folder` tells.
            on_error: what to do about a fault inside a probe (a full disk, a logger that raises, too little memory, an
                error in the loss): ``"warn"`` tells of it once, counts it in ``summary.json`` (``probes_failed``, by
                kind) and trains on; ``"raise"`` ends the run with it. Bad settings are refused before the first step
                either way.
            enabled: False switches the callback off, for a run without it from the same configuration.
        """
        check_arguments("InfluenceCallback", InfluenceCallback.__init__, locals())
        self.schedule = schedule
        self.sgld = sgld
        self.probe = probe
        self.component = component
        self.sources = ProbeSources(observed, sampling, groups, loss_fn)
        self._output_dir = output_dir
        self.enabled = enabled
        self._record = Record()
        self._faults = Faults(on_error)
        self._carried = Carried(self.probe.reference_ratio)
        self._rates = LearningRates()
        self._watch = SettingsWatch(sgld, probe)
        self._resumed: dict[str, Any] | None = None
        self._subject: Subject | None = None
        self._prober: Prober | None = None
        self._first_batch: FirstBatch | None = None
        self._folder: Path | None = None
        self._known = KnownFolder()
        self._fingerprint: dict[str, str] = {}
        self._identity: dict[str, str] = {}
        self._passed_on: dict[str, Any] = {}
        self._engine: str | None = None
        self._stopwatch = Stopwatch()
        self._listeners = ProbeListeners()

    @property
    def folder(self) -> Path | None:
        """Folder of the run's files; None before training starts.

        Where a deep copy of this callback trained, and not the callback itself, the folder of the copy that did last.
        """
        return self._known.path if self._folder is None else self._folder

    @property
    def groups(self) -> Groups | None:
        """The groups over the observed set; None unless a run is going on."""
        return None if self._subject is None else self._subject.groups

    def subscribe(self, listener: Listener) -> None:
        """Call ``listener(step, data set)`` after each probe, with None where all chains failed; from ``setup`` on."""
        self._listeners.add(listener)

    def unsubscribe(self, listener: Listener) -> None:
        """Stop calling the listener."""
        self._listeners.remove(listener)

    # Hooks

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Refuse bad settings, then probe the initial weights where the schedule asks for it."""
        if not self.enabled:
            return
        refuse_sharding(trainer)
        if not trainer.fast_dev_run:  # type: ignore[attr-defined]
            self.schedule.check(max_steps(trainer))
        resumed, self._resumed = self._resumed, None
        if resumed is None:
            # Rates and what they weigh begin with each fit.
            self._rates, self._carried.tracin = LearningRates(), TracInOfRun()
            self._engine = None
        if trainer.global_step == 0 and resumed is None:
            self._record, self._carried = Record(), Carried(self.probe.reference_ratio)
            self._watch.restart()
        elif self._record.last_step < 0:
            # First attached to a run that goes on: steps before this session are not due.
            self._record.last_step = trainer.global_step - 1
        elif resumed is not None and resumed.get("paused"):
            note_pause(self._record, trainer.global_step)
            self._rates.lose()
        self._faults.record = self._record
        with metrics_refused(pl_module):
            loss_fn, data, self._first_batch = self.sources.resolve(trainer, pl_module)
            masks = masks_of_component(self.component, pl_module, self.sgld)
            self.sgld = self._watch.config
            context = forward_context(trainer)
            target = target_of(pl_module, loss_fn, data, self.probe, masks=masks, forward_context=context)
            look = partial(examine, pl_module, target, data.groups, self.sgld, self.probe, warn=rank_zero_warn)
            goes_on = resumed is not None or bool(self._carried.references.mark())
            subject = examined(trainer, self._record, look, goes_on=goes_on)
            self._watch.look_at(subject.target)
            self._second_moments(trainer, pl_module)
        own = getattr(pl_module, "per_sample_loss", None)
        self._identity = {
            "loss": loss_identity(loss_fn if self.sources.loss_fn is not None or own is None else own),
            **baselines_of(self.probe),
        } | self._named
        self._fingerprint = subject.fingerprint(self.sgld) | self._identity
        if resumed is not None:
            check_unchanged(resumed["fingerprint"], self._fingerprint)
            self._record.changes += note_changes(
                resumed.get("noted", {}), noted_settings(self.schedule, self.probe), trainer.global_step
            )
            self._engine = resumed["engine"]
        self._folder = open_run_folder(
            trainer,
            self._output_dir,
            resumed=resumed is not None,
            earlier=None if resumed is None else resumed["folder"],
            steps=self._record.steps,
            fingerprint=self._fingerprint,
        )
        self._known.path = self._folder
        self._subject, self._prober = subject, None
        if trainer.is_global_zero:
            with self._faults.contained(LOGGER, trainer.global_step):
                write_layout(writers(trainer), subject.groups, control=self.probe.control_every is not None)
                write_group_coverage(trainer, self._folder, data.groups, subject.groups)
        self._stopwatch.lap()
        self._faults.starting = True
        try:
            self._probe_if_due(trainer, pl_module)
        finally:
            self._faults.starting = False

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Before the first step: refuse probes of batches of another structure than training has."""
        first, self._first_batch = self._first_batch, None
        if first is not None:
            first.check(batch)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Probe where a new optimizer step is due; micro-batches of gradient accumulation are passed over."""
        if self._subject is not None:
            self._probe_if_due(trainer, pl_module)

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer) -> None:
        """Take in the learning rate of the step that is about to be made, for TracIn."""
        if self._subject is not None and self.probe.gradient_dot:
            with self._faults.contained(PROBE, trainer.global_step):
                self._rates.before_step(trainer, optimizer)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Detect windows and write the summary."""
        self._finish(trainer, complete=True)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Write the summary of what there is; the exception goes on."""
        try:
            self._finish(trainer, complete=False)
        except Exception as error:
            rank_zero_warn(f"stagewise: the summary could not be written: {error}")

    def state_dict(self) -> dict[str, Any]:
        """Tensors and plain Python: what a resumed run needs to equal an uninterrupted one.

        Where it is switched off, what it was resumed with is passed on as it came.
        """
        if not self.enabled:
            return self._passed_on | ({"paused": True} if self._passed_on else {})
        self._count_training_time()
        return {
            "record": self._record.state_dict(),
            "references": self._carried.references.state_dict(),
            "watch": self._watch.state_dict(),
            "rates": self._rates.state_dict(),
            "fingerprint": dict(self._fingerprint),
            "noted": noted_settings(self.schedule, self.probe),
            "folder": None if self._folder is None else str(self._folder.resolve()),
            "engine": self._engine,
            "baselines": self._carried.tracin.state_dict(),
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take up where a checkpoint left off.

        Raises:
            InputError: TracIn is asked for, and the checkpoint does not know the learning rates of its steps.
        """
        self._passed_on = dict(state_dict)
        if not self.enabled or not state_dict:
            return
        self._record = Record.from_state_dict(state_dict["record"])
        self._carried.references.load_state_dict(state_dict["references"])
        if state_dict.get("baselines") is not None and "lr_sum" in state_dict["baselines"]:
            self._carried.tracin.load_state_dict(state_dict["baselines"])
        self._watch.load_state_dict(state_dict["watch"])
        if "rates" in state_dict:
            self._rates.load_state_dict(state_dict["rates"])
        elif self.probe.gradient_dot:
            raise InputError(
                "got a checkpoint of an older stagewise, without the learning rates of its steps, which TracIn needs; "
                "expected one of this version; set probe.gradient_dot to false, or start a new run"
            )
        names = ("folder", "fingerprint", "engine", "noted", "paused")
        self._resumed = {name: state_dict[name] for name in names if name in state_dict}

    # Probing

    def _probe_if_due(self, trainer: Trainer, module: LightningModule) -> None:
        step = trainer.global_step
        previous = self._record.last_step
        if step != previous and self.schedule.due(previous, step):
            self._count_training_time()
            if within_budget(trainer, self._record, self.schedule.max_overhead, step=step, faults=self._faults):
                self._run_probe(trainer, module, step)
        # After the probe: one that was interrupted is due again when the run is resumed.
        self._record.last_step = step

    def _run_probe(self, trainer: Trainer, module: LightningModule, step: int) -> None:
        found, number = None, self._record.num_attempts
        try:
            for _ in range(2):
                found = attempt(
                    trainer,
                    module,
                    self._carried,
                    self._faults,
                    step,
                    lambda: self._probe(trainer, module, step, number),
                    self._halve_chunks,
                )
                if not self._leave_out(trainer, module, found):
                    break
            if found is not None:
                self._keep(trainer, step, *found)
        finally:
            self._record.add_probe_time(self._stopwatch.lap(), finished=found is not None)
        if found is not None:
            self._tell(trainer, step, *found)
        else:
            self._listeners.tell(step, None, self._faults)

    def _probe(
        self, trainer: Trainer, module: LightningModule, step: int, number: int
    ) -> tuple[xr.Dataset | None, Trace]:
        moments = self._second_moments(trainer, module)
        sgld = self._watch.before_probe(trainer, module, step, moments)
        prober = self._prober_with(module, sgld)
        show_on_bar(trainer, f"probing step {step} ...")
        return prober.probe(
            module, step, second_moments=moments, lr_sum=self._rates.total, number=number, leave_out=False
        )

    def _prober_with(self, module: LightningModule, sgld: ResolvedSGLD) -> Prober:
        """The prober of the run, made at its first probe, since chains need numbers."""
        assert self._subject is not None
        if self._prober is None:
            self.sgld = self._watch.config
            self._fingerprint = self._subject.fingerprint(sgld) | self._identity
            engine = None if self._engine is None else EngineName(self._engine)
            self._prober = Prober.over(module, self._subject, sgld, self._carried, engine=engine, warn=rank_zero_warn)
        return self._prober

    def _halve_chunks(self) -> bool:
        assert self._subject is not None
        if self._prober is not None:
            return self._prober.halve_chunks()
        smaller = self._subject.with_smaller_chunks()
        self._subject = smaller or self._subject
        return smaller is not None

    def _leave_out(
        self, trainer: Trainer, module: LightningModule, found: tuple[xr.Dataset | None, Trace] | None
    ) -> bool:
        """Leave out samples that kept a probe from its chains; True where there are such."""
        result, trace = (None, None) if found is None else found
        again = left_out(
            trainer, module, self._prober, self._record, self._faults, trace, lost=found is not None and result is None
        )
        if again and self._prober is not None:
            self._subject = self._prober.subject
            self._watch.look_at(self._subject.target)
        return again

    def _keep(self, trainer: Trainer, step: int, result: xr.Dataset | None, trace: Trace) -> None:
        """Count the probe, and write it."""
        assert self._prober is not None
        assert self._folder is not None
        self._engine = None if self._prober.engine is None else str(self._prober.engine)
        self._record.add(step, result, chains_dropped=len(trace.dropped))
        if result is None:
            return
        result.attrs |= self._named
        if trainer.is_global_zero:
            with self._faults.contained(PROBE, step):
                ProbeStore(self._folder / STORE_NAME).write(to_store(result, self.probe.sample_matrices))
            earlier = self._record.steps[-2] if len(self._record.steps) > 1 else None
            drawn = self.probe.draw_matrices and images_due(earlier, step)
            with self._faults.contained(LOGGER, step):
                write_matrices(writers(trainer) if drawn else (), result)

    def _tell(self, trainer: Trainer, step: int, result: xr.Dataset | None, trace: Trace) -> None:
        """Warnings, scalars, and those that listen."""
        warn_of_dropped_chains(trace, lost=result is None)
        if result is not None:
            warn_of_new_flags(step, result.attrs["flags"], self._record)
        budgeted = self.schedule.max_overhead is not None
        values = probe_values(result, self._record, chains_dropped=len(trace.dropped), budgeted=budgeted)
        log_values(trainer, values, step, self._faults)
        show_on_bar(trainer, f"{len(self._record.steps)} probes, {self._record.probe_seconds:.0f} s")
        self._listeners.tell(step, result, self._faults)

    @property
    def _named(self) -> dict[str, str]:
        """The component, as results have it, and the fingerprint beside its masks."""
        return {} if self.component is None else {"component": self.component}

    def _second_moments(self, trainer: Trainer, module: LightningModule) -> dict[str, Tensor] | None:
        return second_moments(trainer, module) if isinstance(self.sgld.preconditioner, AdamMoments) else None

    def _count_training_time(self) -> None:
        """Credit the time since the last look at the clock to training."""
        if self._subject is not None:
            self._record.training_seconds += self._stopwatch.lap()

    # Finishing

    def _finish(self, trainer: Trainer, *, complete: bool) -> None:
        if self._subject is None or self._folder is None:
            return
        self._count_training_time()
        self._subject = self._prober = None
        if not trainer.is_global_zero:
            return
        write_outcome(
            trainer,
            self._folder,
            self._record,
            config=self.sgld,
            probe=self.probe,
            max_overhead=self.schedule.max_overhead,
            component=self.component,
            faults=self._faults,
            complete=complete,
        )
