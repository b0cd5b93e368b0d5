"""Step size and localization from curvature."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from stagewise.calibration.curvature import Curvature
from stagewise.errors import InputError
from stagewise.sampling.config import Integrator, ResolvedSGLD, SGLDConfig

STEP_AIM = {Integrator.leimkuhler_matthews: 2.5, Integrator.euler: 0.3}
"""Aim for lr * (nbeta * lam_max + localization). Between 2 and 3 the second-order integrator is exact, draws are nearly
independent, and there is room up to 4; the variance of the Euler step is 8 % too large at .3."""

LOCALIZATION_MARGIN = 1.5
"""Aim for localization over nbeta * |lam_min|."""

FLOOR_SHARE = 0.5
"""Lower limit of localization over nbeta * lam_max. A step that suits the steepest direction then makes draws forget in
flat directions too, within three steps, and the loss makes up two thirds of the curvature in the steepest one."""

EARLY_GROWTH = 2.0
"""Factor by which curvature is expected to grow if one early checkpoint represents the whole run."""


@dataclass(frozen=True)
class Proposal:
    """Settings valid at all checkpoints from which they were derived.

    Attributes:
        lr: step size.
        nbeta: as given.
        localization: precision of the Gaussian around w*.
        lam_max: largest curvature over the checkpoints, times ``growth``, nats per squared weight.
        lam_min: smallest curvature over the checkpoints, times ``growth`` if negative.
        lam_max_total: largest curvature that a step meets: nbeta * lam_max + localization, or the largest of the
            preconditioned chain.
        growth: factor on the measured curvature.
        step_aim: aim for lr * lam_max_total.
    """

    lr: float
    nbeta: float
    localization: float
    lam_max: float
    lam_min: float
    lam_max_total: float
    growth: float
    step_aim: float

    def explain(self) -> str:
        """Explains the rules and the limits of the two settings, with numbers."""
        pull = self.nbeta * max(0.0, -self.lam_min)
        floor = FLOOR_SHARE * self.nbeta * max(0.0, self.lam_max)
        grown = "" if self.growth == 1 else f" Curvatures are taken {self.growth:g} times as large as measured."
        return (
            f"localization {self.localization:.3g}, at least {LOCALIZATION_MARGIN:g} x nbeta x |lam_min| = "
            f"{LOCALIZATION_MARGIN * pull:.3g} for a proper posterior and {FLOOR_SHARE:g} x nbeta x lam_max = "
            f"{floor:.3g} for flat directions to forget their start; lr {self.lr:.3g}, which makes lr x "
            f"(curvature of the steepest direction, {self.lam_max_total:.3g}) = {self.lr * self.lam_max_total:.2f} "
            f"(aim: {self.step_aim:g}).{grown}"
        )


def two_digits(value: float, *, up: bool) -> float:
    """Rounds to two significant digits, up or down."""
    if value <= 0:
        return 0.0
    scale = 10.0 ** (math.floor(math.log10(value)) - 1)
    digits = math.ceil(value / scale - 1e-9) if up else math.floor(value / scale + 1e-9)
    # Formatted as text, since 29 * 1e-06 is not 2.9e-05.
    return float(f"{digits * scale:.2g}")


def propose(
    config: SGLDConfig,
    curvatures: Sequence[Curvature],
    *,
    growth: float = 1.0,
    steepest: Sequence[float] = (),
    keep: bool = False,
) -> Proposal:
    """Proposes settings with lr * lam_max_total <= 2.5 (Euler: .3) and localization > nbeta * |lam_min|.

    Both hold at every checkpoint, with lam_max_total = nbeta * lam_max + localization. Localization is 1.5 times nbeta
    * |lam_min| for the most negative curvature, and at least nbeta * lam_max / 2. nbeta is unchanged: everything scales
    with it.

    Args:
        config: gives nbeta.
        curvatures: of the checkpoints at which the settings must hold.
        growth: factor on both ends of the spectrum, to allow for other checkpoints.
        steepest: with a preconditioner P, the largest eigenvalue of P^(1/2) (nbeta H + localization) P^(1/2) at each
            checkpoint, with ``growth`` already applied to H; replaces lam_max_total.
        keep: keep ``config.lr`` and ``config.localization`` where they are numbers.

    Raises:
        InputError: no curvature, curvatures that are not finite, nbeta 0, or a ``growth`` below 1.
    """
    if not curvatures:
        raise InputError("got no curvature; expected that of at least one checkpoint; measure it first")
    if not growth >= 1:
        raise InputError(f"got growth={growth}; expected at least 1")
    high, low = max(curvature.lam_max for curvature in curvatures), min(curvature.lam_min for curvature in curvatures)
    if not (math.isfinite(high) and math.isfinite(low)):
        raise InputError(f"got curvatures from {low} to {high}; expected finite ones; look for a diverged checkpoint")
    high, low = growth * high if high > 0 else high, growth * low if low < 0 else low
    given = config.localization if keep else "auto"
    if given == "auto":
        if config.nbeta == 0:
            raise InputError(
                "got nbeta=0, for which no localization can be calibrated; expected nbeta > 0; set localization to "
                "that of the run which this one controls"
            )
        need = max(LOCALIZATION_MARGIN * max(0.0, -low), FLOOR_SHARE * max(0.0, high)) * config.nbeta
        localization = two_digits(need, up=True)
    else:
        localization = float(given)
    total = max(steepest) if steepest else config.nbeta * max(0.0, high) + localization
    if not (total > 0 and math.isfinite(total)):
        raise InputError(
            f"got curvatures from {low:.3g} to {high:.3g} and localization {localization:g}, which leave the loss "
            "flat; expected a loss that depends on the weights; set lr and localization to numbers"
        )
    aim = STEP_AIM[config.integrator]
    lr = two_digits(aim / total, up=False) if config.lr == "auto" or not keep else config.lr
    return Proposal(lr, config.nbeta, localization, high, low, total, growth, aim)


def apply(config: SGLDConfig, proposal: Proposal) -> ResolvedSGLD:
    """Returns ``config`` with the figures of a proposal."""
    return replace(config, lr=proposal.lr, nbeta=proposal.nbeta, localization=proposal.localization).require_resolved()
