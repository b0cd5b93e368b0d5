"""Reweighting of groups of training samples inside windows of a run."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn
from numpy.typing import ArrayLike

from stagewise.callbacks.fault_log import Faults
from stagewise.callbacks.hosts import HostCallback
from stagewise.callbacks.intervention_plan import (
    Earlier,
    Mechanism,
    make_plan,
    policy_words,
    refuse_earlier,
    refuse_unknown,
    resolve_groups,
    resolve_mechanism,
    resolve_policy,
    resolve_windows,
    take_up,
)
from stagewise.callbacks.live_windows import LiveWindows
from stagewise.callbacks.logger_writers import log_scalars, writers
from stagewise.callbacks.reweighted_data import find_loader, follow_plan, refuse_distributed_sampler
from stagewise.callbacks.run_folder import default_folder
from stagewise.callbacks.trainer_facts import max_steps
from stagewise.checks.bounds import check_arguments
from stagewise.errors import InputError
from stagewise.files.writing import write_json
from stagewise.interventions.influence_table import InfluenceTable
from stagewise.interventions.loader import ReweightedLoader
from stagewise.interventions.loss_reweighting import LossReweighting
from stagewise.interventions.policy import Policy, decide_weights
from stagewise.interventions.strata import Strata
from stagewise.interventions.weight_plan import Change, Plan
from stagewise.interventions.window_sources import Live, Windows
from stagewise.reporting import tags
from stagewise.reporting.intervention import FILE_NAME, build_report, report_markdown
from stagewise.reporting.tensorboard import write_text

_CHECKED = ("windows", "policy", "mechanism", "earlier")
"""Arguments with resolving functions of their own."""


class InterventionCallback(HostCallback):
    """Changes the weights of groups of training samples inside windows, keeping the total weight of the data.

    Windows are known before training (``Spans``, ``FromRun``), or *live*: a detector opens and closes them at the
    probes of the trainer's ``InfluenceCallback`` (``Live``), or other code calls :meth:`open` and :meth:`close`.
    Fixed windows take effect exactly at their steps. A live change of sampling is delayed by the batches that workers
    have prefetched; the log reports the delay.

    ``intervention/active`` and ``intervention/weight/<group>`` go to every logger at each change. At the end, also
    after an exception, all changes and the budget go to TensorBoard's text page and to ``<log_dir>/intervention.json``.
    With weights of 1 a run equals the run without the callback bit for bit. A resumed run equals an uninterrupted one.
    Under DDP set ``use_distributed_sampler=False``.
    """

    def __init__(
        self,
        policy: Policy | str | None = None,
        windows: Windows | Earlier | None = None,
        *,
        mechanism: Mechanism | str = Mechanism.sampling,
        groups: Mapping[str, ArrayLike] | Sequence[str] | None = None,
        **earlier: Any,
    ) -> None:
        """Checks windows and policy; everything else waits until training starts.

        Args:
            policy: sets the weights in each window: an object, a function, or its dotted path; required.
            windows: known before training (``Spans``), at the transitions of an earlier run (``FromRun``), or found by
                a detector (``Live``). None for windows opened and closed by other code.
            mechanism: ``sampling`` or ``loss``.
            groups: for loss weights, the groups that batches have masks for: names, or name to bool ``[sample]`` or
                ``[sample, token]`` over the training data, which the budget needs. Default: those of the
                ``ReweightedLoader``, else those of a ``ConstantFactor``.
            earlier: arguments of earlier versions, refused with their replacement.

        Raises:
            InputError: invalid windows, policy or mechanism.
        """
        refuse_unknown(earlier)
        refuse_earlier(**earlier)
        check_arguments("InterventionCallback", InterventionCallback.__init__, locals(), leave=_CHECKED)
        self.mechanism = resolve_mechanism(mechanism, groups)
        self.windows = resolve_windows(windows, policy)
        self.policy = resolve_policy(policy)
        self._live_windows = LiveWindows(self.windows) if isinstance(self.windows, Live) else None
        self.spans = None if self.windows is None else self.windows.resolve()
        self._influence = None if self.windows is None else self.windows.influence
        self._groups = groups
        self._plan: Plan | None = None
        self._strata: Strata | None = None
        self._loader: ReweightedLoader | None = None
        self._reweighting: LossReweighting | None = None
        self._folder: Path | None = None
        self._state: dict[str, Any] | None = None
        self._announced = 0
        self._told_of_others = False
        self._lines = StepLines()

    @property
    def plan(self) -> Plan | None:
        """Weights over training and the log of changes; None before training starts."""
        return self._plan

    # Live windows

    def open(self, step: int, reason: str = "window opens", *, influence: InfluenceTable | None = None) -> None:
        """Opens a live window, with weights set by the policy. Collective under DDP.

        Args:
            step: first training step with the weights, as ``trainer.global_step`` before it; at or after the last
                change.
            reason: for the log.
            influence: of the latest probe, for policies that read it.

        Raises:
            InputError: before training, with fixed windows, while one is open, or for infeasible weights.
        """
        plan = self._live(step)
        plan.open(step, self._decide(plan, plan.windows, step, influence), reason=reason)

    def update(self, step: int, reason: str = "weights change", *, influence: InfluenceTable | None = None) -> None:
        """Updates the weights in the open window by the policy; arguments and errors as for :meth:`open`."""
        plan = self._live(step)
        plan.update(step, self._decide(plan, plan.windows - 1, step, influence), reason=reason)

    def close(self, step: int, reason: str = "window closes") -> None:
        """Closes the live window: weights are 1 from ``step`` on.

        Raises:
            InputError: before training, with fixed windows, or while none is open.
        """
        self._live(step).close(step, reason=reason)

    def _live(self, step: int) -> Plan:
        if self._plan is None or self._plan.fixed:
            what = "before training starts" if self._plan is None else "among fixed ones"
            raise InputError(
                f"got a window change at step {step} {what}; expected a run with live windows; pass "
                "windows=None and call this from a training hook"
            )
        return self._plan

    def _decide(self, plan: Plan, window: int, step: int, influence: InfluenceTable | None) -> dict[str, float]:
        weights = decide_weights(self.policy, plan.names, window=window, step=step, influence=influence)
        if self._strata is not None:
            self._strata.rho(weights)
        return weights

    # Hooks

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Refuses Lightning's distributed sampler before the data are set up."""
        if stage == "fit" and self.mechanism is Mechanism.sampling:
            refuse_distributed_sampler(trainer)
        if stage == "fit" and self._live_windows is not None:
            self._live_windows.attach(trainer)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Checks and attaches the plan."""
        step = trainer.global_step
        state, self._state = self._state, None
        if state is None and step > 0 and self._plan is not None:
            state = self._describe(self._plan)
        self._plan, self._lines = None, StepLines()
        self._loader = find_loader(trainer) if self.mechanism is Mechanism.sampling else None
        names, self._strata = resolve_groups(self._groups, self._loader or trainer.train_dataloader, self.policy)
        limit = float("inf") if trainer.fast_dev_run else max_steps(trainer)  # type: ignore[attr-defined]
        plan = make_plan(
            names,
            self.spans,
            self.policy,
            influence=self._influence,
            max_steps=None if limit == float("inf") else int(limit),
            strata=self._strata,
        )
        self._check_unchanged(state)
        take_up(plan, None if state is None else state["plan"], step)
        if self._loader is not None:
            follow_plan(trainer, self._loader, plan, max_steps=limit)
        else:
            self._reweighting = LossReweighting(plan.weights_at(step))
            pl_module.intervention_weights = self._reweighting  # type: ignore[assignment]
        self._plan = plan
        self._folder = default_folder(trainer)
        self._announced = sum(change.step < step for change in plan.changes)
        if self._live_windows is not None:
            self._live_windows.start(self, None if state is None else state["live"], step)

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Logs changes; sets the loss weights of the batch."""
        if self._plan is None:
            return
        step = trainer.global_step
        if self._live_windows is not None:
            self._live_windows.check()
        while self._announced < len(self._plan.changes) and self._plan.changes[self._announced].step <= step:
            self._announce(self._plan, self._plan.changes[self._announced])
            self._announced += 1
        self._tell_of_others()
        weights = self._weights_now(self._plan, step)
        if self._reweighting is not None:
            self._reweighting.weights = weights
        values = {tags.group_weight(name): weight for name, weight in weights.items()}
        self._lines.log(trainer, {tags.ACTIVE: float(self._plan.inside_at(step)), **values}, step)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Closes a live window at its maximal length, before the next batch is drawn."""
        if self._live_windows is not None:
            self._live_windows.tick(trainer.global_step)

    def on_before_backward(self, trainer: Trainer, pl_module: LightningModule, loss: torch.Tensor) -> None:
        """Refuses a module that ignores the loss weights, before its first update."""
        if self._reweighting is not None and not self._reweighting.calls:
            raise InputError(
                f"got {type(pl_module).__name__}, whose training_step ignores loss weights; expected "
                "`self.intervention_weights(losses, masks)` as its loss if that attribute is set, with "
                "masks as name to bool [sample]; add it, or use mechanism='sampling'"
            )

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Writes the record of changes."""
        self._finish(trainer, pl_module)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Writes the record of changes; the exception propagates."""
        try:
            self._finish(trainer, pl_module)
        except Exception as error:
            rank_zero_warn(f"stagewise: {FILE_NAME} could not be written: {error}")

    def state_dict(self) -> dict[str, Any]:
        """Returns the log of changes, and the settings that a resumed run must share, as plain Python."""
        return {} if self._plan is None else self._describe(self._plan)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Loads the state of a checkpoint."""
        self._state = dict(state_dict) or None

    # Parts

    def _settings(self) -> dict[str, str]:
        detector = "None" if self._live_windows is None else repr(self._live_windows)
        return {"policy": policy_words(self.policy), "mechanism": str(self.mechanism), "detector": detector}

    def _describe(self, plan: Plan) -> dict[str, Any]:
        live = None if self._live_windows is None else self._live_windows.state_dict()
        return {"plan": plan.state_dict(), "live": live, **self._settings()}

    def _check_unchanged(self, state: Mapping[str, Any] | None) -> None:
        for name, value in self._settings().items():
            if state is not None and state[name] != value:
                raise InputError(
                    f"got {name} {value} and a checkpoint with {state[name]}; expected the same; change it back to "
                    "resume"
                )

    def _weights_now(self, plan: Plan, step: int) -> dict[str, float]:
        """Weights of the current batch, in sampling or in the loss."""
        if self._loader is not None:
            return self._loader.weights_of(self._loader.served - 1)
        return plan.weights_at(step)

    def _tell_of_others(self) -> None:
        """Warns once if a window exhausts the samples of a group, and others take their place."""
        if self._loader is not None and self._loader.batches.replaced and not self._told_of_others:
            self._told_of_others = True
            rank_zero_warn(
                "stagewise: got too few samples for the weights of a window: they are replaced by others once each has "
                "been used in this epoch; add data, make windows shorter (detector.max_length if live) or weights "
                "smaller, or set when_exhausted=repeat"
            )

    def _announce(self, plan: Plan, change: Change) -> None:
        lag = 0 if self._loader is None or plan.fixed else self._loader.prefetch_lag
        late = f"; takes effect {lag} batches later, due to prefetching workers" if lag else ""
        weights = ", ".join(f"{name} {weight:g}" for name, weight in change.weights.items())
        rank_zero_info(f"stagewise: step {change.step}: {change.reason}; {self.mechanism} weights {weights}{late}")

    def _finish(self, trainer: Trainer, module: LightningModule) -> None:
        if self._live_windows is not None:
            self._live_windows.end()
        if self._loader is not None:
            self._loader.weights_for = None
        if self._reweighting is not None:
            module.intervention_weights = None  # type: ignore[assignment]
            self._reweighting = None
        if self._plan is None or self._folder is None:
            return
        step, folder, self._folder = trainer.global_step, self._folder, None
        self._lines.end(trainer, step)
        report = build_report(
            self._plan,
            mechanism=str(self.mechanism),
            policy=policy_words(self.policy),
            end=step,
            strata=self._strata,
            loader=self._loader,
        )
        if trainer.is_global_zero:
            write_json(folder / FILE_NAME, report)
            write_text(writers(trainer, Faults("warn")), tags.CHANGES, report_markdown(report), step)


class StepLines:
    """Logs values when they change, and just before, so that charts show steps and not slopes."""

    def __init__(self) -> None:
        """Starts without a value."""
        self._values: dict[str, float] = {}
        self._step = -1

    def log(self, trainer: Trainer, values: dict[str, float], step: int) -> None:
        """Logs values that hold from ``step`` on, if they differ from the previous ones."""
        if values == self._values:
            return
        if self._values and self._step < step - 1:
            self._write(trainer, step - 1)
        self._values = values
        self._write(trainer, step)
        trainer.callback_metrics.update({tag: torch.tensor(value) for tag, value in values.items()})

    def end(self, trainer: Trainer, step: int) -> None:
        """Extends the curves to ``step``."""
        if self._values and self._step < step:
            self._write(trainer, step)

    def _write(self, trainer: Trainer, step: int) -> None:
        for logger in trainer.loggers:
            log_scalars(logger, self._values, step)
        self._step = step
