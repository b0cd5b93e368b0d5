"""Bayesian influence function during training, without any effect on the training."""

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import xarray as xr
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn
from torch import Tensor
from torch.optim import Optimizer
from torch.utils.data import Dataset

from stagewise.batches import Batch
from stagewise.callbacks.default_groups import default_groups
from stagewise.callbacks.fault_log import PROBE, Faults, OnError
from stagewise.callbacks.hosts import HostCallback
from stagewise.callbacks.no_logging import metrics_refused
from stagewise.callbacks.observed_words import observed_words
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
from stagewise.callbacks.sharded_run import refuse_sharding, sharding_of
from stagewise.callbacks.tokenizers import find_tokenizer
from stagewise.callbacks.trainer_facts import forward_context, max_steps, second_moments
from stagewise.checks.bounds import check_arguments
from stagewise.checks.counted import counted
from stagewise.influence.groups import Groups
from stagewise.losses.contract import LossFn
from stagewise.probes.config import ProbeConfig
from stagewise.probes.schedule import ProbeSchedule
from stagewise.probes.subject import Subject, examine
from stagewise.probes.target import target_of
from stagewise.sampling.config import SGLDConfig
from stagewise.sampling.data import ProbeData
from stagewise.sampling.preconditioners.diagonal import AdamMoments


class _Examined(NamedTuple):
    """Loss and data at the start of a fit.

    Attributes:
        subject: of the probes.
        data: of the probes, with groups.
        first_batch: check of the first training batch.
        loss: identity of the loss function, as text.
        samples: words of the observed samples; None if not kept.
    """

    subject: Subject
    data: ProbeData
    first_batch: FirstBatch
    loss: str
    samples: xr.Dataset | None


class InfluenceCallback(HostCallback):
    """Runs local SGLD chains at scheduled steps and logs the Bayesian influence function and its parts.

    Influence is minus the covariance of losses over the draws, in nats^2: *negative = helpful*. Results go to every
    logger of the trainer at ``trainer.global_step``, to ``influence.zarr`` and ``summary.json`` under
    ``trainer.log_dir``, and to ``trainer.callback_metrics``, which other callbacks can monitor.

    Training is left bit for bit as it would be without the callback: weights, gradients, optimizer, buffers, train and
    eval flags, random states and data order. Probes with unreliable chains are flagged, see
    :class:`~stagewise.probes.flags.Thresholds`; with ``schedule.max_overhead`` probes take at most a fraction of the
    training time, and the others are skipped and counted.

    Under DDP the ranks share the chains of each probe, and rank zero decides and writes: its weights, buffers and data
    are probed. Results are those of one rank, bit for bit with the sequential engine on a CPU at the same number of
    threads. The loss must not communicate between ranks. Where FSDP2 (``fully_shard``) keeps the weights in shards, all
    ranks run each chain together instead.

    An observed sample whose loss is not finite is left out from then on; a warning and ``summary.json`` list it
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
        sample_words: bool = True,
        output_dir: str | None = None,
        on_error: OnError = "warn",
        enabled: bool = True,
    ) -> None:
        """Stores the settings; checks and measurements wait until training starts.

        Args:
            schedule: of the probes; every 50 steps by default.
            sgld: the sampler.
            probe: the measurement.
            observed: data set or batch whose losses are recorded, in the format of the training loader: transfer hooks
                are applied to it. Default: the data module's ``probe_data()``, else 64 samples drawn by the training
                loader, the first ones of its set if it loads the whole set.
            sampling: data set or batch for the stochastic gradients of the chains. Default: 1,024 samples likewise; for
                a stream, the observed set.
            groups: name to bool mask over the observed set, ``[sample]``, ``[sample, token]`` or of the shape of the
                losses; one sample is enough. If not given, nor by ``probe_data()``: ``label <n>`` for each of 2 to 20
                distinct integer labels of ``(x, y)`` batches; for a causal language model with a tokenizer (of the
                module, the data module or the ``collate_fn``) the classes ``induction``, ``delimiter`` and ``rest`` of
                tokens. ``{}`` for none of these: then there is one group, ``all``.
            loss_fn: ``loss_fn(module, batch)``, unreduced; if not given, the module's ``per_sample_loss(batch)`` or its
                Hugging Face causal language model. :class:`~stagewise.losses.collated.CollatedLoss` for batches that
                cannot be sliced into samples.
            component: a part of a language model, such as ``layer0.head1``, see
                :func:`stagewise.lm.components.components`: chains, baselines and curvature are restricted to its
                weights. None for all weights that ``sgld.parameters`` selects. A run has a single callback; for several
                components, sweep over its checkpoints.
            sample_words: store the first 120 characters of each observed sample's text, else its label, else its
                number, and its groups, so that reports can name samples. False for private data: nothing of the kind is
                written.
            output_dir: folder for the files, instead of ``trainer.log_dir`` (``<log_dir>/<name>/<version>`` for loggers
                whose runs share one); see :attr:`folder`.
            on_error: reaction to a failure inside a probe (full disk, error in a logger or the loss, out of memory):
                ``"warn"`` reports it once, counts it in ``summary.json`` (``probes_failed``, by kind) and continues
                training; ``"raise"`` ends the run. Invalid settings are always refused before the first step.
            enabled: False disables the callback, for a run without it from the same configuration.
        """
        check_arguments("InfluenceCallback", InfluenceCallback.__init__, locals())
        self.schedule, self.probe, self.component = schedule, probe, component
        self.sources = ProbeSources(observed, sampling, groups, loss_fn)
        self.enabled, self.sample_words = enabled, sample_words
        self._output_dir = output_dir
        self._state = RunState(sgld, probe)
        self._faults = Faults(on_error)
        self._listeners: list[Listener] = []
        self._known = KnownFolder()
        # Runs begun by an earlier version have no groups unless given.
        self._finds_groups = True
        self._resumed: dict[str, Any] | None = None
        self._passed_on: dict[str, Any] = {}
        self._session: ProbeSession | None = None

    @property
    def sgld(self) -> SGLDConfig:
        """Settings of the sampler, with ``auto`` replaced by numbers once resolved."""
        return self._state.watch.config

    @property
    def folder(self) -> Path | None:
        """Folder of the run's files; None before training starts.

        If only deep copies of this callback trained, it is the folder of the last one.
        """
        return self._known.path if self._state.folder is None else self._state.folder

    @property
    def groups(self) -> Groups | None:
        """Groups over the observed set; None unless a run is active."""
        return None if self._session is None else self._session.subject.groups

    def subscribe(self, listener: Listener) -> None:
        """Calls ``listener(step, data set)`` after each probe, with None if it raised or all its chains failed."""
        if listener not in self._listeners:
            self._listeners.append(listener)

    def unsubscribe(self, listener: Listener) -> None:
        """Removes a listener."""
        if listener in self._listeners:
            self._listeners.remove(listener)

    # Hooks

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Checks settings, then probes the initial weights if due."""
        if not self.enabled:
            return
        refuse_sharding(trainer)
        if not trainer.fast_dev_run:  # type: ignore[attr-defined]
            self._check_schedule(trainer)
        resumed, self._resumed = self._resumed, None
        self._finds_groups = resumed is None or resumed.get("finds_groups", False)
        self._begin_or_resume(resumed, trainer.global_step)
        state, settings = self._state, RunSettings(self.schedule, self.probe, self.component)
        ranks = Ranks.of(trainer, self._faults.is_fatal)
        with ranks.together:
            found = self._examine(trainer, pl_module, ranks, resumed=resumed is not None)
        subject = found.subject
        state.fingerprint = (
            subject.fingerprint(self.sgld) | {"loss": found.loss} | baselines_of(self.probe) | settings.named
        )
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
        reporter = Reporter(trainer, folder, state, settings, self._faults, self._listeners, found.samples)
        reporter.begin(found.data.groups, subject.groups)
        self._session = ProbeSession(trainer, pl_module, subject, state, settings, reporter, self._faults, ranks)
        self._session.first_batch = found.first_batch
        self._session.begin()

    def _check_schedule(self, trainer: Trainer) -> None:
        """Refuses a schedule beyond the end of the run, and reports few probes and those after the end."""
        last = max_steps(trainer)
        num_beyond, listed = self.schedule.check(last), self.schedule.listed_steps
        few = self.schedule.few_words(last)
        if few is not None:
            rank_zero_info(f"stagewise: {few}")
        if listed is not None and num_beyond:
            end = f"trainer.max_steps={last:g}" if trainer.max_steps == last else f"step {last:g}, the run's last,"
            rank_zero_info(
                f"stagewise: {num_beyond} of {counted(len(listed), 'probe')} are after {end} and are left out"
            )

    def _begin_or_resume(self, resumed: Mapping[str, Any] | None, step: int) -> None:
        """Starts a run, or resumes that of a checkpoint or of an earlier fit."""
        state = self._state
        if resumed is None:
            state.begin_fit()
        if step == 0 and resumed is None:
            state.restart()
        elif state.record.last_step < 0:
            # First used in a resumed run: earlier steps are not due.
            state.record.last_step = step - 1
        elif resumed is not None and resumed.get("paused"):
            note_pause(state.record, step)
            state.rates.lose()
        self._faults.record = state.record

    def _examine(self, trainer: Trainer, module: LightningModule, ranks: Ranks, *, resumed: bool) -> "_Examined":
        """Examines loss and data, and finds groups where none are given. Collective."""
        state = self._state
        with metrics_refused(module):
            loss_fn, data, first_batch = self.sources.resolve(trainer, module)
            data = data_of_rank_zero(data, ranks)
            masks = masks_of_component(self.component, module, self.sgld)
            sharding = sharding_of(module, ranks, self.sgld, self.probe)
            context = forward_context(trainer)
            target = target_of(
                module, loss_fn, data, self.probe, masks=masks, forward_context=context, sharding=sharding
            )
            wanted = self.sources.groups is None and not data.groups and self._finds_groups
            tokenizer = find_tokenizer(trainer, module) if wanted or self.sample_words else None
            if wanted:
                data = replace(data, groups=default_groups(trainer, module, data, target, tokenizer))
                # Every rank has searched; if the groups differ, those of rank zero count.
                data = data_of_rank_zero(data, ranks)
            look = partial(
                examine, module, target, data.groups, self.sgld, self.probe, share=ranks.share, warn=rank_zero_warn
            )
            known = resumed or bool(state.carried.references.steps)
            subject = examined(ranks, state.record, look, trainer.global_step, resumed=known)
            if isinstance(self.sgld.preconditioner, AdamMoments):
                second_moments(trainer, module)  # refuses other optimizers
        own = getattr(module, "per_sample_loss", None)
        loss = loss_fn if self.sources.loss_fn is not None or own is None else own
        samples = observed_words(data, tokenizer) if self.sample_words else None
        return _Examined(subject, data, first_batch, loss_identity(loss), samples)

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Compares the structure of probed and training batches before the first step."""
        session = self._session
        if session is not None and session.first_batch is not None:
            first, session.first_batch = session.first_batch, None
            first.check(batch)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Probes after each due optimizer step; micro-batches of gradient accumulation are skipped."""
        if self._session is not None:
            self._session.step()

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer) -> None:
        """Adds the learning rate of the coming step, for TracIn."""
        if self._session is not None and self.probe.gradient_dot:
            with self._faults.contained(PROBE, trainer.global_step):
                self._state.rates.before_step(trainer, optimizer)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Detects windows and writes the summary."""
        self._finish(complete=True)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Writes the summary so far; the exception propagates."""
        try:
            self._finish(complete=False)
        except Exception as error:
            rank_zero_warn(f"stagewise: the summary could not be written: {error}")

    def state_dict(self) -> dict[str, Any]:
        """Returns the state that makes a resumed run equal an uninterrupted one, as tensors and plain Python.

        If disabled, returns the state that it was resumed with.
        """
        if not self.enabled:
            return self._passed_on | ({"paused": True} if self._passed_on else {})
        if self._session is not None:
            self._session.count_training_time()
        own = {"noted": noted_settings(self.schedule, self.probe), "finds_groups": self._finds_groups}
        return self._state.state_dict() | own

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Loads the state of a checkpoint.

        Raises:
            InputError: TracIn is enabled, and the checkpoint has no learning rates.
        """
        self._passed_on = dict(state_dict)
        if not self.enabled or not state_dict:
            return
        self._state.load_state_dict(state_dict)
        names = ("folder", "fingerprint", "engine", "noted", "paused", "finds_groups")
        self._resumed = {name: state_dict[name] for name in names if name in state_dict}

    def _finish(self, *, complete: bool) -> None:
        session, self._session = self._session, None
        if session is not None:
            session.finish(complete=complete)
