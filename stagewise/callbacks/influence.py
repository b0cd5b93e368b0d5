"""Watch influence while a model trains, without disturbing its training."""

import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.strategies import DeepSpeedStrategy, FSDPStrategy, ModelParallelStrategy
from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn
from torch import Tensor
from torch.utils.data import Dataset

from stagewise.batches import Batch
from stagewise.callbacks.calibration import SettingsWatch
from stagewise.callbacks.probe_data import find_probe_data
from stagewise.callbacks.progress import show_on_bar
from stagewise.callbacks.silence import metrics_refused
from stagewise.callbacks.trainer_facts import forward_context, max_steps, writers
from stagewise.errors import InputError
from stagewise.losses import LossFn, resolve_loss
from stagewise.probes.config import ProbeConfig
from stagewise.probes.prober import Prober
from stagewise.probes.record import Record
from stagewise.probes.references import References
from stagewise.probes.schedule import ProbeSchedule
from stagewise.reporting import tags
from stagewise.reporting.scalars import probe_scalars
from stagewise.reporting.store import STORE_NAME, SUMMARY_NAME, ProbeStore, write_summary
from stagewise.reporting.summary import build_summary, summary_markdown
from stagewise.reporting.tensorboard import write_layout, write_matrices, write_text
from stagewise.sampling.config import SGLDConfig
from stagewise.sampling.data import ProbeData
from stagewise.sampling.trace import Trace

_SHARDING = (FSDPStrategy, DeepSpeedStrategy, ModelParallelStrategy)


class InfluenceCallback(Callback):
    """Runs local SGLD chains at scheduled steps and logs the Bayesian influence function with its split.

    Influence is minus the covariance of losses over the draws, in nats^2: *negative = helpful*. Results go to every
    logger of the trainer at ``trainer.global_step``, to ``influence.zarr`` and ``summary.json`` under
    ``trainer.log_dir``, and to ``trainer.callback_metrics``, which other callbacks can monitor.

    Training is left bit for bit as it would be without the callback: weights, gradients, optimizer, buffers, train and
    eval flags, random states and data order. Under DDP every rank probes and rank zero writes.
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
        output_dir: str | None = None,
        enabled: bool = True,
    ) -> None:
        """Nothing is looked at before training starts.

        Args:
            schedule: when to probe; every 50 steps by default.
            sgld: the sampler.
            probe: the measurement.
            observed: data set or batch whose losses are recorded. If not given: the data module's ``probe_data()``,
                else the first 64 samples of the training set.
            sampling: data set or batch whose minibatches drive the gradient. If not given: the first 1,024 samples of
                the training set.
            groups: name to bool mask over the observed set, ``[sample]`` or ``[sample, token]``.
            loss_fn: ``loss_fn(module, batch)``, unreduced; if not given, the module's ``per_sample_loss(batch)`` or its
                Hugging Face causal language model.
            output_dir: where the files go, instead of ``trainer.log_dir``.
            enabled: False switches the callback off, for a run without it from the same configuration.
        """
        self.schedule = schedule
        self.sgld = sgld
        self.probe = probe
        self._observed = observed
        self._sampling = sampling
        self._groups = groups
        self._loss_fn = loss_fn
        self._output_dir = output_dir
        self._enabled = enabled
        self._record = Record()
        self._references = References(self.probe.reference_ratio)
        self._watch = SettingsWatch(sgld, probe)
        self._resumed: dict[str, Any] | None = None
        self._prober: Prober | None = None
        self._folder: Path | None = None
        self._fingerprint: dict[str, str] = {}
        self._clock = 0.0

    @property
    def folder(self) -> Path | None:
        """Where the files of the run are; None before training starts."""
        return self._folder

    # Hooks

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Refuse bad settings, then probe the initial weights where the schedule asks for it."""
        if not self._enabled:
            return
        if isinstance(trainer.strategy, _SHARDING):
            raise InputError(
                f"got {type(trainer.strategy).__name__}, which shards the weights; expected a strategy that keeps them "
                "whole (single device, DDP); set InfluenceCallback(enabled=False) to train without probes"
            )
        if not trainer.fast_dev_run:  # type: ignore[attr-defined]
            self.schedule.check(max_steps(trainer))
        resumed, self._resumed = self._resumed, None
        if trainer.global_step == 0 and resumed is None:
            self._record, self._references = Record(), References(self.probe.reference_ratio)
            self._watch.restart()
        elif self._record.last_step < 0:
            # First attached to a run that goes on: steps before this session are not due.
            self._record.last_step = trainer.global_step - 1
        self.sgld = self._watch.config
        with metrics_refused(pl_module):
            loss_fn, data = self.loss_and_data(trainer, pl_module)
            self._watch.start(loss_fn, data)
            prober = Prober(
                pl_module,
                loss_fn,
                data,
                sgld=self.sgld,
                config=self.probe,
                references=self._references,
                device=pl_module.device,
                forward_context=forward_context(trainer),
            )
        self._fingerprint = prober.fingerprint()
        if resumed is not None:
            _check_unchanged(resumed["fingerprint"], self._fingerprint)
        self._open_store(trainer, resumed)
        self._prober = prober
        if trainer.is_global_zero:
            write_layout(writers(trainer), prober.groups.names)
        self._clock = time.perf_counter()
        self._probe_if_due(trainer, pl_module)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Probe where a new optimizer step is due; micro-batches of gradient accumulation are passed over."""
        if self._prober is not None:
            self._probe_if_due(trainer, pl_module)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Detect windows and write the summary."""
        self._finish(trainer)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Write the summary of what there is; the exception goes on."""
        try:
            self._finish(trainer)
        except Exception as error:
            rank_zero_warn(f"stagewise: the summary could not be written: {error}")

    def state_dict(self) -> dict[str, Any]:
        """Tensors and plain Python: what a resumed run needs to equal an uninterrupted one."""
        self._count_training_time()
        return {
            "record": self._record.state_dict(),
            "references": self._references.state_dict(),
            "watch": self._watch.state_dict(),
            "fingerprint": dict(self._fingerprint),
            "folder": None if self._folder is None else str(self._folder.resolve()),
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take up where a checkpoint left off."""
        self._record = Record.from_state_dict(state_dict["record"])
        self._references.load_state_dict(state_dict["references"])
        self._watch.load_state_dict(state_dict["watch"])
        self._resumed = {"folder": state_dict["folder"], "fingerprint": state_dict["fingerprint"]}

    # Setting up

    def loss_and_data(self, trainer: Trainer, module: LightningModule) -> tuple[LossFn, ProbeData]:
        """The per-sample loss and the data that probes of this trainer use."""
        data = find_probe_data(trainer, module, self._observed, self._sampling, self._groups)
        convert = trainer.precision_plugin.convert_input
        sampling = None if data.sampling is None else convert(data.sampling)
        return resolve_loss(module, self._loss_fn), replace(data, observed=convert(data.observed), sampling=sampling)

    def _open_store(self, trainer: Trainer, resumed: dict[str, Any] | None) -> None:
        # `log_dir` is a broadcast: every rank reads it.
        log_dir = trainer.log_dir or trainer.default_root_dir
        self._folder = Path(self._output_dir or log_dir)
        store = ProbeStore(self._folder / STORE_NAME)
        # Decided by one rank, so that all of them refuse.
        taken = trainer.strategy.broadcast(bool(store.steps()))
        if trainer.global_step == 0 and resumed is None and taken:
            raise InputError(
                f"got {store.path}, which already holds {len(store.steps())} probes of another run; expected a fresh "
                "log directory; choose another, or resume with ckpt_path"
            )
        if not trainer.is_global_zero:
            return
        self._folder.mkdir(parents=True, exist_ok=True)
        (self._folder / SUMMARY_NAME).unlink(missing_ok=True)
        step = trainer.global_step
        store.drop_after(step)
        earlier = None if resumed is None or resumed["folder"] is None else Path(resumed["folder"])
        if earlier not in (None, self._folder.resolve()) and not store.adopt(earlier / STORE_NAME, step):
            rank_zero_warn(f"stagewise: the probes before step {step} are no longer in {earlier}")

    # Probing

    def _probe_if_due(self, trainer: Trainer, module: LightningModule) -> None:
        step = trainer.global_step
        previous = self._record.last_step
        if step != previous and self.schedule.due(previous, step):
            self._run_probe(trainer, module, step)
        # After the probe: one that was interrupted is due again when the run is resumed.
        self._record.last_step = step

    def _run_probe(self, trainer: Trainer, module: LightningModule, step: int) -> None:
        assert self._prober is not None
        assert self._folder is not None
        self._count_training_time()
        try:
            with metrics_refused(module):
                sgld = self._watch.before_probe(trainer, module, step)
                if sgld != self.sgld:
                    self.sgld = sgld
                    self._prober.settle(sgld)
                    self._fingerprint = self._prober.fingerprint()
                show_on_bar(trainer, f"probing step {step} ...")
                result, trace = self._prober.probe(module, step)
            self._record.add(step, result, trace)
            if result is not None and trainer.is_global_zero:
                ProbeStore(self._folder / STORE_NAME).write(result)
                write_matrices(writers(trainer), result)
        finally:
            now = time.perf_counter()
            self._record.probe_seconds += now - self._clock
            self._clock = now
        _warn_of_dropped_chains(trace, lost=result is None)
        values = {} if result is None else probe_scalars(result)
        values[tags.CHAINS_DROPPED] = float(len(trace.dropped))
        if self._record.overhead is not None:
            values[tags.OVERHEAD] = self._record.overhead
        for logger in trainer.loggers:
            logger.log_metrics(values, step=step)
        trainer.callback_metrics.update({tag: torch.tensor(value) for tag, value in values.items()})
        show_on_bar(trainer, f"{len(self._record.steps)} probes, {self._record.probe_seconds:.0f} s")

    def _count_training_time(self) -> None:
        """Credit the time since the last look at the clock to training."""
        if self._prober is not None:
            now = time.perf_counter()
            self._record.training_seconds += now - self._clock
            self._clock = now

    # Finishing

    def _finish(self, trainer: Trainer) -> None:
        if self._prober is None or self._folder is None:
            return
        self._count_training_time()
        self._prober = None
        if not trainer.is_global_zero:
            return
        summary = build_summary(self._record, config=self.sgld, centering=str(self.probe.centering))
        path = write_summary(self._folder, summary)
        write_text(writers(trainer), tags.RUN_SUMMARY, summary_markdown(summary), trainer.global_step)
        windows = self._record.windows()
        for step in self._record.steps:
            inside = any(window.start <= step <= window.end for window in windows)
            # Steps that have passed: other loggers would drop them.
            for writer in writers(trainer):
                writer.add_scalar(tags.IN_WINDOW, float(inside), global_step=step)
        rank_zero_info(
            f"stagewise: {len(self._record.steps)} probes in {self._record.probe_seconds:.1f} s; windows at "
            f"{[window.peak for window in windows]}; results in {path.parent}"
        )


def _warn_of_dropped_chains(trace: Trace, *, lost: bool) -> None:
    for chain, reason in trace.dropped.items():
        rank_zero_warn(
            f"stagewise: chain {chain} of the probe at step {trace.step} was dropped: {reason}; lower sgld.lr or "
            "raise sgld.localization"
        )
    if lost:
        rank_zero_warn(
            f"stagewise: the probe at step {trace.step} lost all its chains and is left out; training goes on"
        )


def _check_unchanged(before: Mapping[str, str], now: Mapping[str, str]) -> None:
    """Refuse to go on with other settings or data: probes would be compared that do not compare."""
    for name, value in now.items():
        if before.get(name) != value:
            what = "other data" if name == "data" else f"{name} {value}"
            was = "" if name == "data" else f" ({before.get(name)})"
            raise InputError(
                f"got {what} for the probes of a resumed run; expected that of its checkpoint{was}; change it back, or "
                "start a new run"
            )
