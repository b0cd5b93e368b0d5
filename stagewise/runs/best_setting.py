"""Setting that would improve the curves of a run most, with its value."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from stagewise.checks.counted import counted
from stagewise.probes.flags import CALM_CHAINS, EQUILIBRIUM_FLAGS, Thresholds
from stagewise.runs.control import ControlFindings
from stagewise.runs.evidence import RunFigures
from stagewise.runs.stability import Stability
from stagewise.sampling.relaxation import relaxation_steps

_CAUSES = ("not_finite", "unstable", "loss_fall", "slide", "drift", "draw_share", "chain_share", "rhat")
"""Flags of chains out of equilibrium, causes before symptoms: the first of equally frequent ones counts."""

_TROUBLED = 0.2
"""Share of the probes above which a problem is one of the run."""

_COOL = 0.1
"""Target heat of minibatches, half of the limit of the flag."""

_MOST_TIMES = 4
"""Largest factor by which a remedy raises the number of chains."""


@dataclass(frozen=True)
class Remedy:
    """Proposed change of a setting.

    Attributes:
        setting: its name in the configuration.
        value: proposed value.
        now: current value.
        why: problem that it solves.
        advice: the whole sentence, where no single setting is to be changed; else empty.
    """

    setting: str
    value: float | int | str
    now: float | int | str | None
    why: str
    advice: str = ""

    @property
    def words(self) -> str:
        """Remedy as a sentence without its full stop."""
        if self.advice:
            return f"{self.advice}: {self.why}"
        number = f"{self.value:.3g}" if isinstance(self.value, float) else f"{self.value}"
        now = "" if self.now is None else f" ({f'{self.now:.3g}' if isinstance(self.now, float) else self.now} now)"
        return f"set {self.setting} to {number}{now}: {self.why}"

    def record(self) -> dict[str, Any]:
        """Returns plain data for JSON."""
        return {"setting": self.setting, "value": self.value, "now": self.now, "why": self.why, "words": self.words}


def best_remedy(
    figures: RunFigures,
    limits: Thresholds,
    control: ControlFindings | None,
    flags: Mapping[str, tuple[int, str]],
    stability: Stability,
) -> Remedy | None:
    """Returns the most useful change; priorities are stability, equilibrium, bias, then noise.

    Args:
        figures: of the run.
        limits: of its flags.
        control: result of the loss-free control, or None.
        flags: name to the number of probes and the remedy in words.
        stability: lost probes, and findings on the settings.

    Returns:
        None if no change is needed.
    """
    sgld, probes = figures.sgld, max(1, figures.probes)
    counts = {name: count for name, (count, _) in flags.items()}
    lr, localization = sgld.get("lr"), sgld.get("localization")
    diverging = figures.dropped > _TROUBLED * probes * figures.chains
    found = stable_settings(stability, probes, sgld, dropped=bool(figures.dropped))
    if found is not None:
        return found
    if diverging and isinstance(lr, int | float):
        return Remedy("sgld.lr", lr / 2, lr, "chains diverge")
    # Losses that are not finite come from the model: no setting of the sampler helps.
    unsettled = {name: count for name, count in counts.items() if name in EQUILIBRIUM_FLAGS - {"not_finite"}}
    share_settled = None if figures.settled is None else figures.settled / probes
    if unsettled and (max(unsettled.values()) if share_settled is None else probes * (1 - share_settled)) > (
        _TROUBLED * probes
    ):
        found = _to_equilibrium(max(_CAUSES, key=lambda name: unsettled.get(name, 0)), figures)
        if found is not None:
            return found
    if stability.lr is not None:
        return _of_finding(stability.lr, stability, "bias grows towards the limit of stability")
    limit = limits.minibatch_noise_max
    if figures.heat is not None and limit is not None and figures.heat > limit:
        drift, size = str(sgld.get("drift", "plain")), int(sgld.get("batch_size", 1))
        if drift == "plain":
            why = f"minibatch noise makes influence about {100 * figures.heat:.0f} % too large"
            return Remedy("sgld.drift", "control_variate", drift, why)
        larger = math.ceil(size * figures.heat / _COOL)
        why = f"minibatch noise makes influence about {100 * figures.heat:.0f} % too large, and falls in proportion"
        return Remedy("sgld.batch_size", larger, size, why)
    if limits.ess_min is not None and figures.effective is not None and figures.effective < limits.ess_min:
        times = min(_MOST_TIMES, limits.ess_min / max(figures.effective, 1e-9))
        why = f"{figures.effective:.0f} effective draws leave an error of {_percent(figures.effective)} in influence"
        return Remedy("sgld.num_chains", math.ceil(figures.chains * times), figures.chains, why)
    if figures.told_share is not None and figures.wide is not None and figures.wide > 1:
        times = min(_MOST_TIMES, max(1.5, figures.wide**2))
        why = f"the median half interval is {figures.wide:.2g} times the influence; small influences stay undecided"
        return Remedy("sgld.num_chains", math.ceil(figures.chains * times), figures.chains, why)
    alike = control is not None and 2 * control.total("alike") > control.total("effects")
    if alike and isinstance(localization, int | float):
        why = "most effects survive without the loss: at this localization curves show gradients, not the landscape"
        return Remedy("sgld.localization", localization / 2, localization, why)
    return _for_few(figures, unsettled)


def _for_few(figures: RunFigures, unsettled: Mapping[str, int]) -> Remedy | None:
    """Returns the remedy for few probes out of equilibrium, or few dropped chains; None without any."""
    out = 0 if figures.settled is None else figures.probes - figures.settled
    why = f"{out} of {counted(figures.probes, 'probe')} {'is' if out == 1 else 'are'} out of equilibrium"
    if unsettled and out:
        found = _to_equilibrium(max(_CAUSES, key=lambda name: unsettled.get(name, 0)), figures)
        if found is not None:
            return replace(found, why=f"{found.why}; {figures.unread or why}")
    if out:
        return Remedy("", "", None, figures.unread or why, advice="see the flags of these probes")
    lr = figures.sgld.get("lr")
    if figures.dropped and isinstance(lr, int | float):
        chains = "chain diverges" if figures.dropped == 1 else "chains diverge"
        return Remedy("sgld.lr", lr / 2, lr, f"{figures.dropped} {chains}")
    return None


def stable_settings(
    stability: Stability, probes: int, sgld: Mapping[str, Any], *, dropped: bool = False
) -> Remedy | None:
    """Returns the change that keeps chains from diverging; None if they are not known to diverge.

    Args:
        stability: lost probes, and findings on the settings.
        probes: number of probes that were kept.
        sgld: settings of the sampler, or empty.
        dropped: True if chains of kept probes diverged.
    """
    lost, lr, weak = stability.of_chains, stability.lr, stability.localization
    total = probes + len(stability.lost)
    why = f"{len(lost)} of {counted(total, 'probe')} lost all {'its chains' if len(lost) == 1 else 'their chains'}"
    if lr is not None and (stability.unstable or lost or dropped):
        at = f"lr times the curvature was too large at step {lr['step']:,}"
        return _of_finding(lr, stability, f"{at}; {why}" if lost else at)
    if weak is not None and (lost or weak["name"] == "improper"):
        at = f"curvature is too negative for it at step {weak['step']:,}"
        return Remedy("sgld.localization", weak["value"], weak["now"], f"{at}; {why}" if lost else at)
    if lost:
        now = sgld.get("lr")
        if isinstance(now, int | float):
            return Remedy("sgld.lr", now / 2, float(now), why)
        return Remedy("", "", None, why, advice=CALM_CHAINS)
    if stability.not_finite:
        number = f"{len(stability.not_finite)} of {counted(total, 'probe')}"
        why = f"losses are not finite at the training weights of {number}"
        return Remedy("", "", None, why, advice="look at the model and the learning rate of training")
    return None


def _of_finding(lr: Mapping[str, Any], stability: Stability, why: str) -> Remedy:
    """Returns the change of lr that a finding proposes, with that of localization if another finding proposes one."""
    weak = stability.localization
    if weak is not None:
        why += f"; and set sgld.localization to {weak['value']:.3g} or more ({weak['now']:.3g} now)"
    return Remedy("sgld.lr", lr["value"], lr["now"], why)


def _percent(effective: float) -> str:
    return f"{100 * math.sqrt(2 / max(effective, 1e-9)):.0f} %"


def _to_equilibrium(flag: str, figures: RunFigures) -> Remedy | None:
    """Returns the remedy for the most frequent flag of chains out of equilibrium."""
    sgld = figures.sgld
    start, drift = str(sgld.get("start", "anchor")), str(sgld.get("drift", "plain"))
    lr, localization = sgld.get("lr"), sgld.get("localization")
    if flag == "unstable":
        if isinstance(lr, int | float):
            return Remedy("sgld.lr", lr / 2, float(lr), "lr times the steepest curvature exceeds 4")
        return None
    if flag == "loss_fall":
        if isinstance(localization, int | float):
            return Remedy("sgld.localization", 2.0 * localization, float(localization), "chains go on training")
        return None
    if flag in ("slide", "drift", "draw_share"):
        if start == "anchor":
            return Remedy("sgld.start", "gaussian", start, "chains are recorded while they leave the training weights")
        if drift == "plain" and flag == "draw_share":
            return Remedy("sgld.drift", "tilted", drift, "chains slide down the slope at the training weights together")
        now = sgld.get("num_burnin_steps")
        known = now if isinstance(now, int) else 0
        reach = lr * localization if isinstance(lr, float) and isinstance(localization, int | float) else 0.0
        usual = relaxation_steps(reach) if 0 < reach < 4 else 0
        return Remedy("sgld.num_burnin_steps", max(2 * known, usual, 10), now, "chains are still on their way")
    if flag in ("rhat", "chain_share"):
        total = figures.chains * figures.draws
        if figures.effective is not None and figures.effective > 0.5 * total > 0:
            why = "chains differ, though their draws are nearly independent: there are too few of them"
            return Remedy("sgld.num_draws", 2 * figures.draws, figures.draws, why)
        spacing = sgld.get("num_steps_bw_draws")
        value = 2 * spacing if isinstance(spacing, int) else 2
        return Remedy("sgld.num_steps_bw_draws", value, spacing, "chains have not mixed")
    return None
