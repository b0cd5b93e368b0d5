"""Flags of a probe: limits, their rationale, and advice."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Annotated

from stagewise.checks.bounds import settle_fields
from stagewise.checks.ranges import NonNegative, NonNegativeInt, at_least
from stagewise.errors import InputError
from stagewise.sampling.diagnostics import Diagnostics
from stagewise.sampling.relaxation import STABLE
from stagewise.sampling.trace import NO_FACTORS, NOT_FINITE_HERE


@dataclass(frozen=True)
class Thresholds:
    """Limits beyond which a probe is flagged; null disables one. See :class:`Diagnostics` for the quantities.

    Limits for groups apply to their mean losses. Those for single samples are wider, since the worst of many is worse
    by chance.

    Attributes:
        rhat_max: R-hat of the mean losses of groups. 1.1 is the classical limit; Vehtari et al. 2021 ask for 1.01 in a
            final analysis. For short chains, the limit is raised to the value that nearly independent draws (lag-1
            correlation .2) exceed in one of a hundred probes, see
            :func:`~stagewise.sampling.diagnostics.rhat_by_chance`: 1.29 for three groups and 8 chains of 10 draws, 1.11
            for 24 draws. With the limit for independent draws, 14 % of 120 probes of the demo were flagged as out of
            equilibrium, although their intervals covered the values of long chains in 94 % of cases.
        ess_min: effective draws of the mean losses of groups, all chains together. 50 leave an error of 20 % in a
            variance, sqrt(2 / 50). Vehtari et al. 2021 ask for 400 (7 %).
        sample_rhat_max: R-hat of the worst sample; raised for short chains as above.
        sample_ess_min: effective draws of the worst sample. 20 leave an error of 30 % in a variance.
        chain_share_max: share of the losses' variance between chains. Beyond .1 to .2 the within part is not
            equilibrated.
        draw_share_max: share due to the draw index, a common slide; the same limit.
        drift_max: share of the mean loss's variance between the halves of the chains; a straight slide has .75.
        slide_chance_min: p-value of the change from the first to the second half of the draws for chains without a
            slide, see :func:`~stagewise.sampling.diagnostics.slide_chance`; the rate of false flags.
        loss_rise_max: rise of the mean loss over that at the training weights, nats (per token for token losses). .05
            to .3 are useful; 1 nat is far from the training weights. Not checked for the negative control (nbeta 0),
            which ignores the loss.
        loss_fall_max: fall of the mean loss below that at the training weights, nats: the chain continues training.
        minibatch_noise_max: variance that minibatch noise adds to a step, over that of the injected noise: variances
            are too large by about this fraction. .2 is the error that ``ess_min`` allows.
        chains_dropped_max: diverged chains of a probe: the remaining ones are a biased selection.
        lr_curvature_max: lr times the steepest curvature, as last measured before the probe: a step is unstable if it
            exceeds 4, and draws are then not from the posterior, even if the chains agree.

    Raises:
        InputError: a limit that is negative or not finite, or an R-hat limit below 1.
    """

    rhat_max: Annotated[float, at_least(1)] | None = 1.1
    ess_min: NonNegative | None = 50.0
    sample_rhat_max: Annotated[float, at_least(1)] | None = 1.2
    sample_ess_min: NonNegative | None = 20.0
    chain_share_max: NonNegative | None = 0.2
    draw_share_max: NonNegative | None = 0.2
    drift_max: NonNegative | None = 0.5
    slide_chance_min: NonNegative | None = 0.01
    loss_rise_max: NonNegative | None = 1.0
    loss_fall_max: NonNegative | None = 0.05
    minibatch_noise_max: NonNegative | None = 0.2
    chains_dropped_max: NonNegativeInt | None = 0
    lr_curvature_max: NonNegative | None = STABLE

    def __post_init__(self) -> None:
        settle_fields(self, prefix="thresholds.")


@dataclass(frozen=True)
class Flag:
    """Reason for a probe to be unreliable.

    Attributes:
        name: of the kind, one for each limit.
        words: value, limit and advice.
        severe: the probe is left out of the signal, of windows and of references; its file is kept.
    """

    name: str
    words: str
    severe: bool = False

    @property
    def of_equilibrium(self) -> bool:
        """True if the chains have not reached equilibrium."""
        return self.name in EQUILIBRIUM_FLAGS


@dataclass(frozen=True)
class _Check:
    name: str
    limit: str
    measures: str
    advice: str
    is_minimum: bool = False


CALM_CHAINS = "lower sgld.lr or raise sgld.localization"
"""Advice for chains that diverge."""

_MORE = "raise sgld.num_chains, sgld.num_draws or sgld.num_steps_bw_draws"
_SETTLE = "raise sgld.num_burnin_steps, or set sgld.start to gaussian"
_RAISE_LR = ", or sgld.lr up to 2.5 over the steepest curvature"
_MIX = f"raise sgld.num_draws or sgld.num_steps_bw_draws{_RAISE_LR}"

_CHECKS = (
    _Check(
        "unstable",
        "lr_curvature_max",
        "lr times the steepest curvature",
        "lower sgld.lr, or leave it to auto, which lowers it as the curvature grows",
    ),
    _Check("rhat", "rhat_max", "R-hat of the mean loss of a group", f"{_SETTLE}; {_MIX}"),
    _Check("ess", "ess_min", "effective draws of the mean loss of a group", _MORE, is_minimum=True),
    _Check("sample_rhat", "sample_rhat_max", "R-hat of the worst sample's loss", f"believe groups only, or {_MORE}"),
    _Check(
        "sample_ess",
        "sample_ess_min",
        "effective draws of the worst sample's loss",
        f"believe groups only, or {_MORE}",
        is_minimum=True,
    ),
    _Check("chain_share", "chain_share_max", "share of the losses' variance between chains", f"{_MIX}; {_SETTLE}"),
    _Check(
        "draw_share",
        "draw_share_max",
        "share of the losses' variance in a slide common to the chains",
        f"{_SETTLE}; probe.centering step takes a common slide off",
    ),
    _Check("drift", "drift_max", "share of the mean loss's variance between halves of the chains", _SETTLE),
    _Check(
        "slide",
        "slide_chance_min",
        "chance of such a change of a group's mean loss from the first to the second half of the draws",
        _SETTLE,
        is_minimum=True,
    ),
    _Check(
        "loss_rise",
        "loss_rise_max",
        "rise of the mean loss over the training weights, nats",
        "raise sgld.localization or sgld.nbeta",
    ),
    _Check(
        "loss_fall",
        "loss_fall_max",
        "fall of the mean loss below the training weights, nats: the chain goes on training",
        "raise sgld.localization, or set sgld.drift to tilted",
    ),
    _Check(
        "minibatch_noise",
        "minibatch_noise_max",
        "variance of minibatch noise over that of the injected noise",
        "set sgld.drift to control_variate, raise sgld.batch_size, or lower sgld.lr",
    ),
    _Check("chains_dropped", "chains_dropped_max", "chains that diverged", CALM_CHAINS),
)

FLAG_NAMES = ("not_finite", *(check.name for check in _CHECKS))
"""Names of all flags."""

EQUILIBRIUM_FLAGS = frozenset(
    {"not_finite", "unstable", "rhat", "chain_share", "draw_share", "drift", "slide", "loss_fall"}
)
"""Flags of chains that have not reached equilibrium, have none, or continue training: no z-score, interval or sign
change is reported for such a probe. The other flags indicate noise (effective draws, single samples), a known bias
(heat), or chains that moved too far, and do not affect intervals."""

_NOT_FINITE = "look at the model, and at roots, norms and logarithms at zero in its loss"
_MODEL_NOT_FINITE = "look at the model and the learning rate of training"
_NO_FACTORS = "look at the loss for constant or huge gradients, or set sgld.preconditioner to null"


def drop_advice(reasons: Collection[str]) -> str:
    """Returns the advice for dropped chains: about the sampler only if some of them diverged.

    Args:
        reasons: of these chains, see :attr:`stagewise.sampling.trace.Trace.dropped`.
    """
    if all(reason == NOT_FINITE_HERE for reason in reasons):
        return _MODEL_NOT_FINITE
    return _NO_FACTORS if all(reason.startswith(NO_FACTORS) for reason in reasons) else CALM_CHAINS


def without_larger_lr(words: str) -> str:
    """Removes the suggestion to raise lr from advice, for a run whose lr is too large.

    Args:
        words: the advice.
    """
    return words.replace(_RAISE_LR, "")


def advice(flag: str) -> str:
    """Returns the advice for a flag.

    Args:
        flag: one of :data:`FLAG_NAMES`.

    Raises:
        InputError: unknown flag.
    """
    not_finite = f"{_NOT_FINITE}; where it is the draws, {CALM_CHAINS}"
    known = {"not_finite": not_finite} | {check.name: check.advice for check in _CHECKS}
    if flag not in known:
        raise InputError(f"got flag {flag!r}; expected one of {', '.join(FLAG_NAMES)}; see FLAG_NAMES")
    return known[flag]


def find_flags(
    found: Diagnostics,
    thresholds: Thresholds,
    *,
    nbeta: float,
    chains_dropped: int = 0,
    gradients_finite: bool = True,
    lr_curvature: float | None = None,
) -> list[Flag]:
    """Returns the flags of a probe by comparing its diagnostics with the limits.

    Probes with statistical flags are kept: their figures are noisy or biased. A value that is not finite is a severe
    flag.

    Args:
        found: the diagnostics.
        thresholds: the limits.
        nbeta: of the sampler; 0 is the negative control, whose rise of the loss is not judged.
        chains_dropped: chains of the probe that diverged.
        gradients_finite: True if the gradients of the observed losses at the training weights are finite.
        lr_curvature: lr times the steepest curvature of the target, as last measured; None if it was not.

    Returns:
        Flags; a severe one on its own.
    """
    if not found.finite:
        words = f"got losses of draws that are not finite; expected finite ones; {CALM_CHAINS}"
        return [Flag("not_finite", words, severe=True)]
    if not gradients_finite:
        words = (
            "got gradients of observed losses that are not finite at the training weights, the losses being finite; "
            f"expected finite ones; {_NOT_FINITE}"
        )
        return [Flag("not_finite", words, severe=True)]
    rise = found.loss_rise
    values: Mapping[str, float | None] = {
        "unstable": lr_curvature,
        "rhat": found.rhat_groups,
        "ess": found.ess_groups,
        "sample_rhat": found.rhat_max,
        "sample_ess": found.ess_min,
        "chain_share": found.chain_share,
        "draw_share": found.draw_share,
        "drift": found.drift,
        "slide": found.slide_chance,
        "loss_rise": rise if nbeta > 0 else None,
        "loss_fall": None if rise is None else -rise,
        "minibatch_noise": found.minibatch_noise,
        "chains_dropped": float(chains_dropped),
    }
    by_chance = {"rhat": found.rhat_groups_chance, "sample_rhat": found.rhat_max_chance}
    flags = []
    for check in _CHECKS:
        limit, value = getattr(thresholds, check.limit), values[check.name]
        if limit is None:
            continue
        limit = max(limit, by_chance.get(check.name) or limit)
        expected = f"at {'least' if check.is_minimum else 'most'} {limit:.3g}; {check.advice}"
        if value is None:
            # With fewer than 4 draws, or a constant loss, nothing is known.
            if check.name == "ess":
                flags.append(Flag(check.name, f"got {check.measures} undefined; expected {expected}"))
        elif not (value >= limit if check.is_minimum else value <= limit):
            flags.append(Flag(check.name, f"got {check.measures} {value:.3g}; expected {expected}"))
    return flags
