"""Measures curvature along a run, then tests the proposed settings on checkpoints of that run."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Annotated, Any

import numpy as np
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor

from stagewise.batches import to_device
from stagewise.calibration.findings import Finding, check_settings
from stagewise.calibration.landscape import Landscape, Measurement
from stagewise.calibration.loss_traces import judge
from stagewise.calibration.report import Calibration
from stagewise.calibration.rules import Proposal, apply, propose, two_digits
from stagewise.callbacks.influence import InfluenceCallback
from stagewise.callbacks.no_logging import metrics_refused
from stagewise.callbacks.probe_sources import masks_of_component
from stagewise.callbacks.settings_watch import curvature_landscape
from stagewise.callbacks.trainer_facts import forward_context, max_steps, second_moments, show_on_bar
from stagewise.checks.bounds import settle_fields
from stagewise.checks.ranges import PositiveInt, at_least, more_than
from stagewise.errors import InputError
from stagewise.probes.schedule import ProbeSchedule
from stagewise.sampling.chains import ChainSampler
from stagewise.sampling.config import EngineName, SGLDConfig
from stagewise.sampling.preconditioners.diagonal import AdamMoments
from stagewise.sampling.target import Target
from stagewise.sampling.trace import Trace


@dataclass(frozen=True)
class CalibrationSettings:
    """Settings of ``stagewise calibrate``.

    Attributes:
        num_steps: number of checkpoints, evenly spaced in log t from the first probe of the schedule to the end.
        num_samples: samples of the sampling set for curvature. Few samples overestimate it.
        num_chains: chains for each loss trace.
        num_draws: draws of each chain, at least 8. Use the number of the run to predict the quality of its probes.
        max_rise: rise of the loss over that at w*, in nats (per token for token losses), above which localization is
            raised, once: beyond it a chain is not local. 0.05 to 0.3 is useful.
        output_dir: folder for the files; by default a new version next to those of the run.

    Raises:
        InputError: a value out of range.
    """

    num_steps: PositiveInt = 5
    num_samples: PositiveInt = 256
    num_chains: PositiveInt = 4
    num_draws: Annotated[int, at_least(8)] = 60
    max_rise: Annotated[float, more_than(0, ".3 is usual")] = 0.3
    output_dir: str | None = None

    def __post_init__(self) -> None:
        settle_fields(self, prefix="calibration.")


def _kept(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Returns copies in CPU memory."""
    return {name: value.detach().cpu().clone() for name, value in tensors.items()}


def calibration_steps(schedule: ProbeSchedule, last: int, num: int) -> list[int]:
    """Returns steps evenly spaced in log t from the first probe to ``last``; ``last`` alone for ``num=1``."""
    first = next((step for step in range(last + 1) if schedule.due(step - 1, step)), last)
    if num == 1:
        return [last]
    spaced = np.rint(np.geomspace(max(first, 1), last, num)).astype(int)
    spaced[0] = first
    return [int(step) for step in np.unique(spaced)]


class CalibrationRun(Callback):
    """Replaces the influence callback in a calibration run.

    Curvature is measured at a few steps, with no effect on training. Checkpoints of these steps are kept in CPU memory.
    When training ends, short chains run at each of them with the proposed settings.

    Attributes:
        result: the calibration; None until training ends.
    """

    def __init__(self, influence: InfluenceCallback, settings: CalibrationSettings) -> None:
        """Measures nothing before training starts.

        Args:
            influence: callback with the schedule, sampler, loss and data; it does not run itself.
            settings: of the calibration.
        """
        self.result: Calibration | None = None
        self._influence = influence
        self._settings = settings
        self._steps: list[int] = []
        self._weights: list[dict[str, Tensor]] = []
        self._moments: list[dict[str, Tensor]] = []
        self._measurements: list[Measurement] = []
        self._last_step = -1

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Chooses the steps, and measures the initial weights if they are among them.

        Raises:
            InputError: the run has no known end, or ends before its first probe; or the component has no weights to
                move.
        """
        masks_of_component(self._influence.component, pl_module, self._influence.sgld)
        last = max_steps(trainer)
        if last == float("inf"):
            raise InputError("got a run of unknown length; expected a number of steps; set --trainer.max_steps")
        self._influence.schedule.check(last)
        self._steps = calibration_steps(self._influence.schedule, int(last), self._settings.num_steps)
        self._steps = [step for step in self._steps if step >= trainer.global_step]
        self._look_if_due(trainer, pl_module)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Measures if a step is due."""
        self._look_if_due(trainer, pl_module)

    def _sources(self, trainer: Trainer, module: LightningModule) -> tuple[Target, Landscape]:
        loss_fn, data = self._influence.sources.loss_and_data(trainer, module)
        sgld, probe = self._influence.sgld, self._influence.probe
        masks = masks_of_component(self._influence.component, module, sgld)
        observed, sampling = to_device((data.observed, data.sampling), module.device)
        target = Target(loss_fn, observed, sampling, masks, probe.chunk_size, forward_context(trainer))
        landscape = curvature_landscape(
            trainer, module, target, sgld, probe.memory_limit_gib, num_samples=self._settings.num_samples
        )
        return target, landscape

    def _look_if_due(self, trainer: Trainer, module: LightningModule) -> None:
        step, previous = trainer.global_step, self._last_step
        self._last_step = step
        # One optimizer step may advance the count by more than one.
        if step == previous or not any(previous < wanted <= step for wanted in self._steps):
            return
        show_on_bar(trainer, f"measuring curvature at step {step} ...")
        with metrics_refused(module):
            _, landscape = self._sources(trainer, module)
            adam = isinstance(self._influence.sgld.preconditioner, AdamMoments)
            moments = second_moments(trainer, module) if adam else {}
            landscape = replace(landscape, second_moments=moments)
            self._measurements.append(landscape.measure(module, self._influence.sgld, step))
        self._weights.append(_kept(module.state_dict()))
        self._moments.append(_kept(moments))
        show_on_bar(trainer, f"curvature measured at {len(self._weights)} of {len(self._steps)} steps")

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Proposes settings and tests them at each checkpoint; the module's weights are restored."""
        if not self._measurements:
            return
        final = {name: value.detach().clone() for name, value in pl_module.state_dict().items()}
        try:
            with metrics_refused(pl_module):
                self.result = self._calibrate(trainer, pl_module)
        finally:
            pl_module.load_state_dict(final)

    def _calibrate(self, trainer: Trainer, module: LightningModule) -> Calibration:
        given, limit = self._influence.sgld, self._settings.max_rise
        proposal, measurements = self._propose(trainer, module, given)
        raised = None
        while True:
            proposed = replace(
                apply(given, proposal), num_chains=self._settings.num_chains, num_draws=self._settings.num_draws
            )
            traces = self._traces(trainer, module, proposed)
            verdicts = [judge(trace) if trace.chains else None for trace in traces]
            worst = max(
                (verdict for verdict in verdicts if verdict is not None),
                key=lambda verdict: verdict.level,
                default=None,
            )
            if raised is not None and worst is not None:
                raised += f"; now the largest rise is {worst.level:.2g}, at step {worst.step}"
            if raised is not None or worst is None or worst.level <= limit:
                break
            # Most directions are flat: there the rise is proportional to 1 / localization.
            localization = two_digits(proposal.localization * worst.level / limit, up=True)
            raised = (
                f"localization was raised from {proposal.localization:g} to {localization:g}, since the loss rose by "
                f"{worst.level:.2g} nats at step {worst.step}; the limit is {limit:g}, to keep chains local"
            )
            rank_zero_info(f"stagewise: {raised}; repeating")
            proposal, measurements = self._propose(
                trainer, module, replace(given, localization=localization), keep=True
            )
        return Calibration(
            given=given,
            component=self._influence.component,
            proposed=proposed,
            proposal=proposal,
            raised=raised,
            measurements=measurements,
            findings=self._findings(given),
            traces=traces,
            verdicts=verdicts,
        )

    def _propose(
        self, trainer: Trainer, module: LightningModule, given: SGLDConfig, *, keep: bool = False
    ) -> tuple[Proposal, list[Measurement]]:
        """Proposes settings for all steps, with the localization of ``given`` if it is to be kept."""
        curvatures = [measurement.plain for measurement in self._measurements]
        proposal = propose(replace(given, lr="auto"), curvatures, keep=keep)
        if given.preconditioner is None:
            return proposal, self._measurements
        _, landscape = self._sources(trainer, module)
        resolved = replace(given, lr="auto", localization=proposal.localization)
        measurements = []
        for weights, moments, curvature in zip(self._weights, self._moments, curvatures, strict=True):
            module.load_state_dict(weights)
            here = replace(landscape, second_moments=moments)
            measurements.append(here.measure(module, resolved, curvature.step))
        steepest = [
            measurement.preconditioned.lam_max for measurement in measurements if measurement.preconditioned is not None
        ]
        return propose(resolved, curvatures, steepest=steepest, keep=True), measurements

    def _traces(self, trainer: Trainer, module: LightningModule, config: SGLDConfig) -> list[Trace]:
        """Runs short chains at each checkpoint, for which compiling does not pay."""
        target, _ = self._sources(trainer, module)
        if config.engine is EngineName.compiled:
            config = replace(config, engine=EngineName.sequential)
        traces = []
        kept = zip(self._weights, self._moments, self._measurements, strict=True)
        for number, (weights, moments, measured) in enumerate(kept, start=1):
            step = measured.plain.step
            rank_zero_info(f"stagewise: chains at step {step} ({number} of {len(self._weights)}) ...")
            module.load_state_dict(weights)
            traces.append(ChainSampler(module, target, config).run(step, moments))
        return traces

    def _findings(self, given: SGLDConfig) -> list[Finding]:
        if "auto" in (given.lr, given.localization):
            return []
        plain = [measurement.plain for measurement in self._measurements]
        preconditioned = [
            measurement.preconditioned for measurement in self._measurements if measurement.preconditioned is not None
        ]
        return check_settings(given, plain, preconditioned)
