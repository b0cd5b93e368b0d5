"""State of a run of probes, saved in checkpoints and kept after the run."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from lightning.pytorch import Trainer
from torch.optim import Optimizer

from stagewise.callbacks.settings_watch import SettingsWatch
from stagewise.callbacks.trainer_facts import learning_rate
from stagewise.errors import InputError
from stagewise.probes.carried import Carried, TracInOfRun
from stagewise.probes.config import ProbeConfig
from stagewise.probes.history import Record
from stagewise.probes.schedule import ProbeSchedule
from stagewise.runs.stability import Stability
from stagewise.sampling.config import SGLDConfig


class RunSettings(NamedTuple):
    """Settings of the probes of a run, other than the sampler's.

    Attributes:
        schedule: of the probes.
        probe: the measurement.
        component: whose weights the chains move; None for all.
    """

    schedule: ProbeSchedule
    probe: ProbeConfig
    component: str | None

    @property
    def named(self) -> dict[str, str]:
        """Returns the component, as in results and the fingerprint."""
        return {} if self.component is None else {"component": self.component}


class LearningRates:
    """Sum of the learning rates over optimizer steps, for TracIn.

    Steps are those that ``trainer.global_step`` counts, also with manual optimization and gradient accumulation, and
    including those skipped by a gradient scaler. The rate is read after the backward pass and before the step, hence
    before a scheduler changes it. See :func:`~stagewise.callbacks.trainer_facts.learning_rate` for
    several optimizers or parameter groups.
    """

    def __init__(self) -> None:
        """Starts before the first step."""
        self._made = 0.0
        # The latest step may be evaluated more than once (L-BFGS), and may fail.
        self._step, self._rate = -1, 0.0

    @property
    def total(self) -> float:
        """Sum over the steps so far, squared weights per nat."""
        return self._made + self._rate

    def before_step(self, trainer: Trainer, optimizer: Optimizer) -> None:
        """Adds the rate of the coming step.

        Args:
            trainer: its ``global_step`` is the number of steps before this one.
            optimizer: of this step.
        """
        if trainer.global_step != self._step:
            self._made += self._rate
            self._step = trainer.global_step
        self._rate = learning_rate(trainer, optimizer)

    def lose(self) -> None:
        """Marks the sum as unknown (NaN), since steps were made without reading their rate."""
        self._made = math.nan

    def state_dict(self) -> dict[str, Any]:
        """Returns the state as plain Python."""
        return {"made": self._made, "step": self._step, "rate": self._rate}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Loads what :meth:`state_dict` saved."""
        self._made, self._step, self._rate = state["made"], state["step"], state["rate"]


class RunState:
    """State of a run of probes.

    Attributes:
        record: counts and times of the probes.
        carried: state that later probes depend on.
        rates: learning rates of training.
        watch: checks the sampler's settings against the curvature.
        fingerprint: settings that a resumed run must share with this one.
        engine: engine of the chains; None until chosen.
        folder: folder of the run's files; None before training starts.
        scalars: tags of groups and pairs to log, see :func:`~stagewise.reporting.chosen_scalars.choose_scalars`; None
            before the first probe.
        told_pair: pair of groups in the line about each probe: the strongest at the first probe where a pair differs
            from zero; until then, the strongest at the first probe; None before any.
        told_sure: True once ``told_pair`` is final.
    """

    def __init__(self, sgld: SGLDConfig, probe: ProbeConfig) -> None:
        """Starts before the first step.

        Args:
            sgld: settings of the sampler, unresolved.
            probe: the measurement.
        """
        self._probe = probe
        self.watch = SettingsWatch(sgld, probe)
        self.rates = LearningRates()
        self.fingerprint: dict[str, str] = {}
        self.engine: str | None = None
        self.folder: Path | None = None
        self.restart()

    def restart(self) -> None:
        """Resets all state."""
        self.record, self.carried = Record(), Carried(self._probe.reference_ratio)
        self.scalars: list[str] | None = None
        self.told_pair: list[str] | None = None
        self.told_sure = False
        self.watch.restart()

    @property
    def stability(self) -> Stability:
        """Probes that lost all their chains so far, and findings on the settings."""
        record = self.record
        return Stability(tuple(record.failed_steps), tuple(record.not_finite_steps), tuple(self.watch.findings))

    def begin_fit(self) -> None:
        """Resets what belongs to a single fit: learning rates, TracIn and the engine."""
        self.rates, self.carried.tracin, self.engine = LearningRates(), TracInOfRun(), None

    def state_dict(self) -> dict[str, Any]:
        """Returns the state as tensors and plain Python."""
        return {
            "record": self.record.state_dict(),
            "references": self.carried.references.state_dict(),
            "watch": self.watch.state_dict(),
            "rates": self.rates.state_dict(),
            "fingerprint": dict(self.fingerprint),
            "folder": None if self.folder is None else str(self.folder.resolve()),
            "engine": self.engine,
            "scalars": self.scalars,
            "told": [self.told_pair, self.told_sure],
            "baselines": self.carried.tracin.state_dict(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Loads the state of a checkpoint.

        Raises:
            InputError: TracIn is enabled, and the checkpoint has no learning rates.
        """
        self.record = Record.from_state_dict(state["record"])
        self.carried.references.load_state_dict(state["references"])
        self.watch.load_state_dict(state["watch"])
        self.scalars = state.get("scalars")
        self.told_pair, self.told_sure = state.get("told", (None, False))
        if "rates" in state:
            self.rates.load_state_dict(state["rates"])
        elif self._probe.gradient_dot:
            raise InputError(
                "got a checkpoint of an older stagewise, without the learning rates of its steps, which TracIn needs; "
                "expected one of this version; set probe.gradient_dot to false, or start a new run"
            )
        if state.get("baselines") is not None and "lr_sum" in state["baselines"]:
            self.carried.tracin.load_state_dict(state["baselines"])
