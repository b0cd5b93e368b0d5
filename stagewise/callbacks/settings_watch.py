"""Checks of the sampler's settings against the curvature during a run; ``auto`` is resolved at the first probe.

An ``lr`` given as ``auto`` is lowered later in the run if the curvature has grown too large for it. The target
(nbeta, localization, drift) does not change, nor does chain time if burn-in and spacing are ``auto``. Draws before and
after the change come from the same posterior. The between part across it is therefore valid up to the error of the
integrator: none for a quadratic with the second-order one, a variance too large by lr lam / 4 with Euler's.
"""

from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import replace
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn
from torch import Tensor

from stagewise.calibration.findings import STEP_TOLERATED, Finding, Severity, check_settings
from stagewise.calibration.landscape import FINE_SAMPLES, Landscape, Measurement
from stagewise.calibration.resolve import resolve
from stagewise.calibration.rules import EARLY_GROWTH
from stagewise.calibration.settings_check import COARSE_SAMPLES, find_faults, landscape_of, unmeasured
from stagewise.callbacks.fault_log import OUT_OF_MEMORY, PROBE, free_memory, kind_of
from stagewise.callbacks.ranks import Ranks
from stagewise.callbacks.trainer_facts import show_on_bar
from stagewise.errors import InputError, first_line
from stagewise.probes.config import ProbeConfig
from stagewise.sampling.config import ResolvedSGLD, SGLDConfig
from stagewise.sampling.relaxation import STABLE
from stagewise.sampling.target import Target

MOST_FAILED_LOOKS = 3
"""Number of consecutive failed measurements after which a run no longer measures the curvature."""

RECHECK_RATIO = 3.0
"""Step ratio of successive measurements: the next is at the first probe at or beyond this many times the last step."""

AUTO_RATIO, DOUBT_RATIO, AT_ONCE = 2.0, 1.25, 1.0
"""Upper limits of the step ratio where lr is ``auto`` and can be lowered: after a sound probe, after one whose chains
diverged or were out of equilibrium, and after one that lost all its chains."""


def curvature_landscape(
    trainer: Trainer,
    module: LightningModule,
    target: Target,
    sgld: SGLDConfig,
    limit_gib: float,
    *,
    num_samples: int = COARSE_SAMPLES,
) -> Landscape:
    """Returns the landscape of a run without mixed precision.

    See :func:`~stagewise.calibration.settings_check.landscape_of`.
    """
    mixed = "mixed" in str(trainer.precision)
    context = nullcontext if mixed else trainer.precision_plugin.forward_context
    return landscape_of(module, replace(target, forward_context=context), sgld, limit_gib, num_samples=num_samples)


class SettingsWatch:
    """Measures the curvature before some probes: resolves ``auto`` and reports unsuitable settings.

    Measurements are at the first probe, then at steps about a factor of three apart. With ``lr: auto`` the factor is
    1.25 to 2: the growth of curvature that ``lr`` still allows, as if curvature grew in proportion to the step. The
    next measurement is sooner after a probe whose chains are in doubt, see :attr:`patience`. A measurement lowers an
    automatic ``lr`` that has become too large, and never raises it: each change makes curves less comparable.
    Measurements use few samples, which overestimates curvature; a finding is confirmed with more. Each kind of finding
    is reported once per run. A failed measurement is left out with a warning; after :data:`MOST_FAILED_LOOKS` in a row
    there are no more.

    Attributes:
        given: unresolved settings.
        patience: upper limit of the step ratio between two measurements, where ``lr`` is ``auto``; set after each
            probe.
    """

    def __init__(self, config: SGLDConfig, probe: ProbeConfig) -> None:
        """Starts without a measurement.

        Args:
            config: unresolved settings.
            probe: provides ``check_curvature`` and the memory limit.
        """
        self.given, self._probe = config, probe
        self.restart()

    def restart(self) -> None:
        """Resets all state."""
        self._failed_looks = 0
        self._resolved: dict[str, Any] = {}
        self._numbers: ResolvedSGLD | None = None
        self._last_look = -1
        self._steepest: float | None = None
        self.patience = AUTO_RATIO
        self._told: list[str] = []
        self._findings: dict[str, dict[str, Any]] = {}

    @property
    def config(self) -> SGLDConfig:
        """Settings, with ``auto`` replaced by numbers once resolved."""
        known = {name: value for name, value in self._resolved.items() if getattr(self.given, name) == "auto"}
        return replace(self.given, **known)

    @property
    def findings(self) -> list[dict[str, Any]]:
        """Findings that warrant a warning, the strictest of each kind.

        See :meth:`stagewise.calibration.findings.Finding.record`; ``since`` is the training step at which that kind was
        first found.
        """
        return list(self._findings.values())

    @property
    def steepest(self) -> float | None:
        """Largest curvature that a step meets, as last measured; None if unknown."""
        return self._steepest

    @property
    def _checks(self) -> bool:
        """True while this run measures the curvature."""
        return self._probe.check_curvature and self._failed_looks < MOST_FAILED_LOOKS

    @property
    def _ratio(self) -> float:
        """Factor on the step of the last measurement at which the next is due."""
        lr = self.config.lr
        if self.given.lr != "auto" or lr == "auto" or not self._steepest:
            return RECHECK_RATIO
        room = STEP_TOLERATED[self.given.integrator] / (lr * self._steepest)
        return min(max(room, DOUBT_RATIO), self.patience)

    def before_probe(
        self,
        trainer: Trainer,
        module: LightningModule,
        target: Target,
        step: int,
        second_moments: Mapping[str, Tensor] | None = None,
        *,
        ranks: Ranks,
    ) -> ResolvedSGLD:
        """Returns settings for the probe at ``step``, after measuring the curvature if due. Collective.

        Args:
            trainer: of the run.
            module: at the weights to probe.
            target: of the measurement.
            step: training step.
            second_moments: of Adam, by parameter name, for ``AdamMoments``.
            ranks: of the run; rank zero measures, for all of them.

        Raises:
            InputError: ``auto`` could not be resolved.
            RuntimeError, MemoryError: out of memory while resolving ``auto``.
            AgreedFault: the same, with several ranks.
        """
        first = self._last_look < 0
        # There are no second derivatives of weights in shards.
        checks = self._checks and target.sharding is None
        due = checks and (first or step >= max(self._ratio * self._last_look, self._last_look + 1))
        if self._numbers is not None and not due:
            return self._numbers
        unresolved = bool(self.config.unresolved)
        needed = "auto" in (self.config.lr, self.config.localization)
        if due or needed or (unresolved and checks):
            show_on_bar(trainer, f"measuring curvature at step {step} ...")
            if needed:
                rank_zero_info(f"stagewise: measuring the curvature at step {step} to resolve the sampler's settings")

            def look() -> dict[str, Any]:
                self._look(trainer, module, target, step, second_moments or {}, first=first, needed=needed)
                return self.state_dict()

            # The same on all ranks: they are settings of the run.
            found = ranks.decide(look)
            self._failed_looks, self._resolved = found["failed_looks"], dict(found["settled"])
            self._told, self._last_look = list(found["told"]), step
            self._findings = {finding["name"]: dict(finding) for finding in found["findings"]}
            self._steepest, self.patience = found["steepest"], AUTO_RATIO
        # Remaining settings that have fallbacks.
        self._resolved |= self.config.fallbacks()
        self._numbers = self.config.require_resolved()
        return self._numbers

    def _look(
        self,
        trainer: Trainer,
        module: LightningModule,
        target: Target,
        step: int,
        second_moments: Mapping[str, Tensor],
        *,
        first: bool,
        needed: bool,
    ) -> None:
        config = self.config
        try:
            landscape = curvature_landscape(trainer, module, target, config, self._probe.memory_limit_gib)
            landscape = replace(landscape, second_moments=second_moments)
            if config.unresolved:
                self._resolve(module, config, replace(landscape, num_samples=FINE_SAMPLES), step)
            else:
                found, measured = find_faults(config, landscape, module, step)
                if self.given.lr == "auto" and any(finding.setting == "lr" for finding in found):
                    fine = replace(landscape, num_samples=FINE_SAMPLES)
                    found, measured = self._lower(module, config, fine, measured, step)
                self._steepest = measured.steepest(self.config)
                self._tell(found, first=first)
            self._failed_looks = 0
        except (InputError, ArithmeticError, RuntimeError, MemoryError) as error:
            memory = kind_of(error, PROBE) == OUT_OF_MEMORY
            if needed and memory:
                raise  # the probe is repeated with smaller chunks
            if needed:
                raise unmeasured(config, step, error) from error
            self._look_failed(error, step)
            if memory:
                free_memory()

    def _look_failed(self, error: BaseException, step: int) -> None:
        """Counts a failed measurement: training continues, and errors of the loss will recur in the probe."""
        if isinstance(error, InputError):  # the next measurement would fail alike
            self._failed_looks = MOST_FAILED_LOOKS
            rank_zero_info(
                f"stagewise: the sampler's settings were not checked against the curvature: {first_line(error)}"
            )
            return
        self._failed_looks += 1
        then = "the next look is at a later probe" if self._checks else "it failed too often: no more looks in this run"
        rank_zero_warn(
            f"stagewise: the curvature could not be measured at step {step} ({first_line(error, typed=True)}): the "
            f"sampler's settings were not checked; {then}"
        )

    def _resolve(self, module: LightningModule, config: SGLDConfig, landscape: Landscape, step: int) -> None:
        resolved, measured = resolve(config, landscape, module, growth=EARLY_GROWTH, step=step)
        self._resolved = {name: getattr(resolved, name) for name in config.unresolved} | {"drift": str(resolved.drift)}
        python = ", ".join(f"{name}={value!r}" for name, value in self._resolved.items())
        rank_zero_info(
            f"stagewise: at step {step} the curvature ranges from {measured.plain.lam_min:.3g} to "
            f"{measured.plain.lam_max:.3g}; resolved settings of the sampler (to paste): "
            f"{self.config.one_line()}; in Python sgld=SGLDConfig({python}). "
            f"Curvature may grow later in the run, so it was taken {EARLY_GROWTH:g} times as large; `stagewise "
            "calibrate` measures the whole run"
        )
        self._steepest = measured.steepest(self.config)
        self._tell(check_settings(self.config, *measured.as_lists()), first=True)

    def _lower(
        self, module: LightningModule, config: SGLDConfig, landscape: Landscape, measured: Measurement, step: int
    ) -> tuple[list[Finding], Measurement]:
        """Lowers ``lr`` by the rules, with ``auto`` burn-in and spacing; returns remaining findings and measurement."""
        follow = [name for name in ("num_burnin_steps", "num_steps_bw_draws") if getattr(self.given, name) == "auto"]
        open_again: dict[str, Any] = dict.fromkeys(("lr", *follow), "auto")
        free = replace(config, **open_again)
        resolved, measured = resolve(free, landscape, module, growth=EARLY_GROWTH, step=step, measured=measured)
        reach = float(config.lr) * (measured.steepest(resolved) or 0.0)
        self._resolved |= {name: getattr(resolved, name) for name in ("lr", *follow)}
        steps = ", ".join(f"{name} {getattr(config, name)} to {getattr(resolved, name)}" for name in follow)
        rank_zero_info(
            f"stagewise: lr is lowered from {config.lr:g} to {resolved.lr:g} from step {step} on"
            f"{f' ({steps})' if steps else ''}: the curvature has grown since step {self._last_look}, and lr x "
            f"curvature would be {reach:.3g} (stable up to {STABLE:g}); nbeta and localization stay, "
            "so the posterior is the same"
        )
        return check_settings(self.config, *measured.as_lists()), measured

    def _tell(self, findings: list[Finding], *, first: bool) -> None:
        for finding in findings:
            self._keep(finding)
            if finding.name in self._told:
                continue
            self._told.append(finding.name)
            if finding.severity is Severity.inform:
                rank_zero_info(f"stagewise: {finding.text}")
            else:
                since = "" if first else "the sampler's settings are no longer suitable: "
                rank_zero_warn(f"stagewise: {since}{finding.text}")

    def _keep(self, finding: Finding) -> None:
        """Keeps the strictest finding of each kind, which holds for the whole run."""
        if finding.severity is Severity.inform:
            return
        kept = self._findings.get(finding.name)
        if kept is not None:
            value, before = finding.value, kept["value"]
            if value is None or (value >= before if finding.setting == "lr" else value <= before):
                return
        since = finding.step if kept is None else kept.get("since", kept["step"])
        self._findings[finding.name] = finding.record() | {"since": since}

    def state_dict(self) -> dict[str, Any]:
        """Returns the resolved settings, the last measurement and the reported findings, as plain Python."""
        return {
            "settled": dict(self._resolved),
            "last_look": self._last_look,
            "told": list(self._told),
            "findings": self.findings,
            "steepest": self._steepest,
            "patience": self.patience,
            "failed_looks": self._failed_looks,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Loads what :meth:`state_dict` saved."""
        self._resolved, self._last_look = dict(state["settled"]), state["last_look"]
        self._numbers = None
        self._told = list(state["told"])
        # Checkpoints of older versions lack these.
        self._steepest, self.patience = state.get("steepest"), state.get("patience", AUTO_RATIO)
        self._failed_looks = state.get("failed_looks", 0)
        self._findings = {finding["name"]: dict(finding) for finding in state.get("findings", [])}
