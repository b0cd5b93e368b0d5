"""Findings: faults of sampler settings at measured curvatures, described in words."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any

from stagewise.calibration.curvature import Curvature
from stagewise.calibration.rules import LOCALIZATION_MARGIN, STEP_AIM
from stagewise.errors import InputError
from stagewise.sampling.config import Integrator, ResolvedSGLD, SGLDConfig
from stagewise.sampling.preconditioners.diagonal import RMSprop
from stagewise.sampling.relaxation import STABLE

STEP_TOLERATED = {Integrator.leimkuhler_matthews: 3.5, Integrator.euler: 0.4}
"""Limit of lr * lam_max_total without a finding. Beyond it, the variance of the Euler step is more than 11 % too large;
the second-order integrator is exact for a quadratic, but multiplies minibatch noise by 8, and is close to its limit of
stability, 4."""

FROZEN_RATIO = 5.0
"""Limit of the autocorrelation time along the steepest direction over the steps of a chain. Beyond it, a chain hardly
moves: it reaches a third of its variance."""

BLIND_SHARE = 0.1
"""Limit of nbeta * lam_max over localization. Below it, a chain hardly sees the loss."""

_LIMIT = f"the step is unstable where lr x curvature exceeds {STABLE:g}"


class Severity(StrEnum):
    """Severity: ``refuse`` gives wrong draws, ``warn`` gives draws that mislead, ``inform`` is a remark."""

    refuse = "refuse"
    warn = "warn"
    inform = "inform"


@dataclass(frozen=True)
class Finding:
    """One fault or remark about the settings.

    Attributes:
        severity: severity of the fault.
        name: kind of fault: ``unstable``, ``biased``, ``improper``, ``thin``, ``blind``, ``frozen``, ``slow``,
            ``control``.
        text: the fault, its reason and its remedy, with numbers.
        step: training step where the fault is worst.
        setting: setting that would fix it, ``lr`` or ``localization``; None if not given.
        value: suggested value, an upper limit for ``lr``, a lower one for ``localization``; None without ``setting``.
        now: present value of the setting; None without ``setting``.
    """

    severity: Severity
    name: str
    text: str
    step: int
    setting: str | None = None
    value: float | None = None
    now: float | None = None

    def record(self) -> dict[str, Any]:
        """Returns plain data for checkpoints and JSON."""
        return asdict(self) | {"severity": str(self.severity)}


def check_settings(
    config: SGLDConfig, curvatures: Sequence[Curvature], preconditioned: Sequence[Curvature] = ()
) -> list[Finding]:
    """Checks sampler settings against the curvature at the checkpoints where they are to be used.

    Args:
        config: the settings; ``lr`` and ``localization`` are numbers.
        curvatures: ends of the Hessian's spectrum at each checkpoint.
        preconditioned: ends of the spectrum of P^(1/2) (nbeta H + localization) P^(1/2) at the same checkpoints, if the
            chain has a preconditioner P. Without them the step size of a preconditioned chain is not checked.

    Returns:
        The findings, worst first; empty if the settings are sound.

    Raises:
        InputError: no curvature, or settings that are still ``auto``.

    Source: a step of size lr in a direction of curvature lam is stable iff lr lam < 4 and remembers for 2 / (lr lam)
    steps; the variance of the Euler step is (1 / lam) / (1 - lr lam / 4), see
    :func:`~stagewise.sampling.sgld.sgld_step_`.
    """
    config = config.require_resolved()
    if not curvatures:
        raise InputError("got no curvature; expected that of at least one checkpoint; measure it first")
    findings = [*_posterior(config, curvatures)]
    if config.preconditioner is None:
        findings += _steps(config, [_total(config, curvature) for curvature in curvatures], curvatures)
    elif preconditioned:
        findings += _steps(config, preconditioned, curvatures)
    order = list(Severity)
    return sorted(findings, key=lambda finding: order.index(finding.severity))


def _total(config: ResolvedSGLD, curvature: Curvature) -> Curvature:
    localization = config.localization
    high, low = (config.nbeta * lam + localization for lam in (curvature.lam_max, curvature.lam_min))
    return Curvature(high, low, config.nbeta * curvature.residual, curvature.num_products, curvature.step)


def _posterior(config: ResolvedSGLD, curvatures: Sequence[Curvature]) -> list[Finding]:
    """Finds faults of the target, which do not depend on the step size."""
    localization = config.localization
    nbeta = config.nbeta
    lowest = min(curvatures, key=lambda curvature: curvature.lam_min)
    highest = max(curvatures, key=lambda curvature: curvature.lam_max)
    pull = nbeta * max(0.0, -lowest.lam_min)
    found = []
    if nbeta == 0:
        text = "nbeta is 0: chains see weight noise only, and influence is that of the noise: a negative control."
        return [Finding(Severity.inform, "control", text, lowest.step)]
    # With a small tolerance: 1.5 x .1 is not .15 in floating point, and the rules aim for exactly that.
    if pull > 0 and localization < LOCALIZATION_MARGIN * pull * (1 - 1e-9):
        enough = f"set localization to {LOCALIZATION_MARGIN * pull:.2g} or more"
        if localization > 0:
            enough += f", or nbeta to {localization / (LOCALIZATION_MARGIN * -lowest.lam_min):.2g} or less"
        mend = ("localization", float(f"{LOCALIZATION_MARGIN * pull:.2g}"), float(localization))
        at = f"at step {lowest.step} the most negative curvature is lam_min = {lowest.lam_min:.3g}"
        if localization <= pull:
            text = (
                f"localization {localization:g} is too weak: {at}, and nbeta x |lam_min| = {pull:.3g} exceeds it. "
                f"There is no local posterior: the chain slides off the saddle and goes on training; {enough}."
            )
            found.append(Finding(Severity.refuse, "improper", text, lowest.step, *mend))
        else:
            text = (
                f"localization {localization:g} is hardly enough: {at}, and nbeta x |lam_min| = {pull:.3g}. In that "
                f"direction only {localization - pull:.3g} holds the chain; {enough}."
            )
            found.append(Finding(Severity.warn, "thin", text, lowest.step, *mend))
    sight = nbeta * max(0.0, highest.lam_max, -lowest.lam_min)
    if sight < BLIND_SHARE * localization:
        text = (
            f"localization {localization:g} hides the loss: nbeta x lam_max = {sight:.3g} at most (step "
            f"{highest.step}), {sight / localization:.1%} of it. Draws are nearly those of the localizing "
            f"Gaussian, and BIF is about -(gradient dot product) / localization, which baseline/graddot "
            f"shows without chains; "
        )
        if sight > 0:
            text += (
                f"set localization to {max(sight, LOCALIZATION_MARGIN * pull):.2g}, or nbeta to "
                f"{nbeta * localization / sight:.2g}."
            )
        else:
            text += "the loss is flat here: look at the module's weights."
        found.append(Finding(Severity.warn, "blind", text, highest.step))
    return found


def _steps(config: ResolvedSGLD, totals: Sequence[Curvature], curvatures: Sequence[Curvature]) -> list[Finding]:
    """Finds faults of the step size: stability, bias and autocorrelation."""
    lr = config.lr
    steep = max(totals, key=lambda curvature: curvature.lam_max)
    flat = min(totals, key=lambda curvature: curvature.lam_min)
    reach = lr * steep.lam_max
    found = []
    if reach > STEP_TOLERATED[config.integrator]:
        what = f"{_steepest(config, steep, curvatures)} = {reach:.3g}"
        mend = _smaller_steps(config, reach)
        smaller = ("lr", float(f"{lr * STEP_AIM[config.integrator] / reach:.2g}"), float(lr))
        if reach >= STABLE:
            text = f"lr {lr:g} is too large: {what}; {_LIMIT}; {mend}."
            found.append(Finding(Severity.refuse, "unstable", text, steep.step, *smaller))
        else:
            excess = 1 / (1 - reach / STABLE)
            text = f"lr {lr:g} is large: {what}. Along the steepest direction "
            if config.integrator is Integrator.euler:
                text += f"the variance of the draws is {excess - 1:.0%} too large; {mend}."
            else:
                text += f"minibatch noise counts {excess:.0f} times; {_LIMIT}; {mend}."
            found.append(Finding(Severity.warn, "biased", text, steep.step, *smaller))
    steps = config.num_draws * config.steps_bw_draws
    fastest = 2 / reach if reach > 0 else float("inf")
    slowest = 2 / (lr * flat.lam_min) if flat.lam_min > 0 else None
    if fastest > FROZEN_RATIO * steps:
        text = (
            f"lr {lr:g} is too small: even along the steepest direction a draw remembers the one before for "
            f"{fastest:.3g} steps, and a chain has {steps}. Draws hardly leave w*; set lr to "
            f"{lr * STEP_AIM[config.integrator] / reach:.2g}."
        )
        found.append(Finding(Severity.warn, "frozen", text, steep.step))
    elif slowest is not None and slowest > steps:
        text = (
            f"Along the flattest direction a draw remembers the one before for {slowest:.3g} steps (step {flat.step}), "
            f"and a chain has {steps}: the draws are far from independent there, and loss traces still rise. More "
            "draws, a higher localization, or drift: tilted help."
        )
        found.append(Finding(Severity.inform, "slow", text, flat.step))
    return found


def _steepest(config: ResolvedSGLD, steep: Curvature, curvatures: Sequence[Curvature]) -> str:
    lr, localization = config.lr, config.localization
    if config.preconditioner is not None:
        return (
            f"at step {steep.step} the steepest direction of the preconditioned chain has curvature "
            f"{steep.lam_max:.3g}, and lr x curvature"
        )
    lam_max = next(curvature.lam_max for curvature in curvatures if curvature.step == steep.step)
    return (
        f"at step {steep.step} lr x (nbeta x lam_max + localization) = {lr:g} x ({config.nbeta:g} x {lam_max:.3g} + "
        f"{localization:g})"
    )


def _smaller_steps(config: ResolvedSGLD, reach: float) -> str:
    lr = config.lr
    smaller = f"set lr to {lr * STEP_AIM[config.integrator] / reach:.2g} or less"
    if isinstance(config.preconditioner, RMSprop) and config.preconditioner.eps < 0.1:
        smaller = (
            f"with eps {config.preconditioner.eps:g} the preconditioner 1 / (sqrt(v) + eps) has no ceiling where "
            f"gradients are small: set preconditioner.eps to 0.1, or {smaller[4:]}"
        )
    return smaller
