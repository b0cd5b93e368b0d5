"""Watch influence while a model trains, without disturbing its training."""

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor
from torch.optim import Optimizer
from torch.utils.data import Dataset

from stagewise.batches import Batch
from stagewise.callbacks.faults import PROBE, Faults, OnError
from stagewise.callbacks.hosts import HostCallback
from stagewise.callbacks.no_logging import metrics_refused
from stagewise.callbacks.probe_sources import FirstBatch, ProbeSources, masks_of_component
from stagewise.callbacks.ranks import Ranks, data_of_rank_zero
from stagewise.callbacks.reporter import Listener, Reporter
from stagewise.callbacks.resume import (
    baselines_of,
    check_unchanged,
    loss_identity,
    note_changes,
    note_pause,
    noted_settings,
)
from stagewise.callbacks.run_folder import KnownFolder, open_run_folder
from stagewise.callbacks.run_state import RunSettings, RunState
from stagewise.callbacks.session import ProbeSession, examined
from stagewise.callbacks.trainer_facts import forward_context, max_steps, refuse_sharding, second_moments
from stagewise.checks.bounds import check_arguments
from stagewise.influence.groups import Groups
from stagewise.losses.contract import LossFn
from stagewise.probes.config import ProbeConfig
from stagewise.probes.prober import target_of
from stagewise.probes.schedule import ProbeSchedule
from stagewise.probes.subject import Subject, examine
from stagewise.sampling.config import SGLDConfig
from stagewise.sampling.data import ProbeData
from stagewise.sampling.preconditioners.diagonal import AdamMoments


class InfluenceCallback(HostCallback):
    """Runs local SGLD chains at scheduled steps and logs the Bayesian influence function with its split.

    Influence is minus the covariance of losses over the draws, in nats^2: *negative = helpful*. Results go to every
    logger of the trainer at ``trainer.global_step``, to ``influence.zarr`` and ``summary.json`` under
    ``trainer.log_dir``, and to ``trainer.callback_metrics``, which other callbacks can monitor.

    Training is left bit for bit as it would be without the callback: weights, gradients, optimizer, buffers, train and
    eval flags, random states and data order. A probe whose chains are not to be trusted is flagged, see
    :class:`~stagewise.probes.flags.Thresholds`; with ``schedule.max_overhead`` probes keep to a share of the training
    time, and those that do not fit are skipped and counted.

    Under DDP the ranks share the chains of each probe, and rank zero decides and writes: its weights, buffers and data
    are probed. Results are those of one rank, bit for bit with the sequential engine on a CPU at the same number of
    threads. The loss must not communicate between ranks.

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
        self.schedule, self.probe, self.component = schedule, probe, component
        self.sources = ProbeSources(observed, sampling, groups, loss_fn)
        self.enabled = enabled
        self._output_dir = output_dir
        self._state = RunState(sgld, probe)
        self._faults = Faults(on_error)
        self._listeners: list[Listener] = []
        self._known = KnownFolder()
        self._resumed: dict[str, Any] | None = None
        self._passed_on: dict[str, Any] = {}
        self._session: ProbeSession | None = None

    @property
    def sgld(self) -> SGLDConfig:
        """The sampler, with numbers in place of ``auto`` as soon as they are known."""
        return self._state.watch.config

    @property
    def folder(self) -> Path | None:
        """Folder of the run's files; None before training starts.

        Where a deep copy of this callback trained, and not the callback itself, the folder of the copy that did last.
        """
        return self._known.path if self._state.folder is None else self._state.folder

    @property
    def groups(self) -> Groups | None:
        """The groups over the observed set; None unless a run is going on."""
        return None if self._session is None else self._session.subject.groups

    def subscribe(self, listener: Listener) -> None:
        """Call ``listener(step, data set)`` after each probe, with None where all chains failed; from ``setup`` on."""
        if listener not in self._listeners:
            self._listeners.append(listener)

    def unsubscribe(self, listener: Listener) -> None:
        """Stop calling the listener."""
        if listener in self._listeners:
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
        self._take_up(resumed, trainer.global_step)
        state, settings = self._state, RunSettings(self.schedule, self.probe, self.component)
        ranks = Ranks.of(trainer, self._faults.goes_on)
        with ranks.together:
            subject, data, first_batch, loss = self._examine(trainer, pl_module, ranks, goes_on=resumed is not None)
        state.fingerprint = subject.fingerprint(self.sgld) | {"loss": loss} | baselines_of(self.probe) | settings.named
        if resumed is not None:
            check_unchanged(resumed["fingerprint"], state.fingerprint)
            before, now = resumed.get("noted", {}), noted_settings(self.schedule, self.probe)
            state.record.changes += note_changes(before, now, trainer.global_step)
            state.engine = resumed["engine"]
        folder = open_run_folder(
            trainer,
            self._output_dir,
            resumed=resumed is not None,
            earlier=None if resumed is None else resumed["folder"],
            steps=state.record.steps,
            fingerprint=state.fingerprint,
        )
        self._known.path = state.folder = folder
        reporter = Reporter(trainer, folder, state, settings, self._faults, self._listeners)
        reporter.begin(data.groups, subject.groups)
        self._session = ProbeSession(trainer, pl_module, subject, state, settings, reporter, self._faults, ranks)
        self._session.first_batch = first_batch
        self._session.begin()

    def _take_up(self, resumed: Mapping[str, Any] | None, step: int) -> None:
        """Begin anew, or go on with the run of a checkpoint or of an earlier fit."""
        state = self._state
        if resumed is None:
            state.begin_fit()
        if step == 0 and resumed is None:
            state.restart()
        elif state.record.last_step < 0:
            # First attached to a run that goes on: steps before this session are not due.
            state.record.last_step = step - 1
        elif resumed is not None and resumed.get("paused"):
            note_pause(state.record, step)
            state.rates.lose()
        self._faults.record = state.record

    def _examine(
        self, trainer: Trainer, module: LightningModule, ranks: Ranks, *, goes_on: bool
    ) -> tuple[Subject, ProbeData, FirstBatch, str]:
        """Examines loss and data; returns them, what awaits the first batch, and the loss as text."""
        state = self._state
        with metrics_refused(module):
            loss_fn, data, first_batch = self.sources.resolve(trainer, module)
            data = data_of_rank_zero(data, ranks)
            masks = masks_of_component(self.component, module, self.sgld)
            context = forward_context(trainer)
            target = target_of(module, loss_fn, data, self.probe, masks=masks, forward_context=context)
            look = partial(
                examine, module, target, data.groups, self.sgld, self.probe, share=ranks.share, warn=rank_zero_warn
            )
            known = goes_on or bool(state.carried.references.steps)
            subject = examined(ranks, state.record, look, trainer.global_step, goes_on=known)
            if isinstance(self.sgld.preconditioner, AdamMoments):
                second_moments(trainer, module)  # refuses other optimizers
        own = getattr(module, "per_sample_loss", None)
        loss = loss_fn if self.sources.loss_fn is not None or own is None else own
        return subject, data, first_batch, loss_identity(loss)

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Before the first step: refuse probes of batches of another structure than training has."""
        session = self._session
        if session is not None and session.first_batch is not None:
            first, session.first_batch = session.first_batch, None
            first.check(batch)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Probe where a new optimizer step is due; micro-batches of gradient accumulation are passed over."""
        if self._session is not None:
            self._session.step()

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer) -> None:
        """Take in the learning rate of the step that is about to be made, for TracIn."""
        if self._session is not None and self.probe.gradient_dot:
            with self._faults.contained(PROBE, trainer.global_step):
                self._state.rates.before_step(trainer, optimizer)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Detect windows and write the summary."""
        self._finish(complete=True)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Write the summary of what there is; the exception goes on."""
        try:
            self._finish(complete=False)
        except Exception as error:
            rank_zero_warn(f"stagewise: the summary could not be written: {error}")

    def state_dict(self) -> dict[str, Any]:
        """Tensors and plain Python: what a resumed run needs to equal an uninterrupted one.

        Where it is switched off, what it was resumed with is passed on as it came.
        """
        if not self.enabled:
            return self._passed_on | ({"paused": True} if self._passed_on else {})
        if self._session is not None:
            self._session.count_training_time()
        return self._state.state_dict() | {"noted": noted_settings(self.schedule, self.probe)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take up where a checkpoint left off.

        Raises:
            InputError: TracIn is asked for, and the checkpoint does not know the learning rates of its steps.
        """
        self._passed_on = dict(state_dict)
        if not self.enabled or not state_dict:
            return
        self._state.load_state_dict(state_dict)
        names = ("folder", "fingerprint", "engine", "noted", "paused")
        self._resumed = {name: state_dict[name] for name in names if name in state_dict}

    def _finish(self, *, complete: bool) -> None:
        session, self._session = self._session, None
        if session is not None:
            session.finish(complete=complete)
