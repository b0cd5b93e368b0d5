"""Settings of the local chains."""

import math
from dataclasses import dataclass
from enum import StrEnum
from typing import Literal

from stagewise.errors import InputError


def _require(condition: bool, name: str, got: object, expected: str, advice: str) -> None:
    if not condition:
        raise InputError(f"got {name}={got}; expected {expected}; {advice}")


def _is_count(value: object, least: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


@dataclass(frozen=True)
class RMSprop:
    """Diagonal preconditioner P = 1 / (sqrt(v) + eps), adapted during the burn-in and then frozen.

    v is the running mean square of the minibatch gradient, corrected for its start at zero. Once frozen, P is a
    constant and the chain's stationary law is exactly the target: no Gamma term is owed.

    Attributes:
        alpha: decay of v per step.
        eps: floor of sqrt(v), in the unit of the gradient (nats per weight). Where gradients are far below it, P is the
            constant 1 / eps.

    Raises:
        InputError: alpha outside [0, 1), or eps not positive.
    """

    alpha: float = 0.99
    eps: float = 0.1

    def __post_init__(self) -> None:
        _require(0 <= self.alpha < 1, "alpha", self.alpha, "0 <= alpha < 1", "0.99 is usual")
        _require(self.eps > 0 and math.isfinite(self.eps), "eps", self.eps, "eps > 0", "0.1 is usual")


class Drift(StrEnum):
    """Which gradient drives the chain, see :class:`~stagewise.sampling.gradients.DriftGradient`.

    Members are named as the YAML writes them:
        plain: the minibatch gradient. Away from a minimum the chain also goes on training.
        control_variate: the same target with less minibatch noise; twice the gradients.
        tilted: the target without its slope at w*: no sliding; twice the gradients.
    """

    plain = "plain"
    control_variate = "control_variate"
    tilted = "tilted"


@dataclass(frozen=True)
class SGLDConfig:
    """Stochastic gradient Langevin dynamics around the training weights w*.

    The target is p(w) ~ exp(-nbeta L(w) - (localization / 2) |w - w*|^2), L the mean loss in nats (mean over tokens for
    token losses). Keep one setting for a whole run: curves at different settings do not compare.

    Attributes:
        lr: step size epsilon, in squared weight units; ``auto`` has the callback calibrate it at its first probe.
        nbeta: inverse temperature times the number of samples (devinterp 2 writes ``n_beta``); 0 is a negative control.
        localization: precision g of the Gaussian that holds the chain near w* (devinterp: gamma); or ``auto``.
        num_chains: chains for each probe.
        num_draws: recorded draws for each chain.
        num_burnin_steps: steps before the first draw.
        num_steps_bw_draws: steps for each draw.
        batch_size: samples of the sampling set for each gradient.
        seed: of the noise and the minibatches; chain c uses the streams (seed, c).
        common_noise: the same streams at every probe (common random numbers), which makes curves over training
            smoother; False adds the step to the seed, for intervals over probes.
        preconditioner: None is plain SGLD.
        drift: which gradient drives the chain.
        parameters: patterns of parameter names (``*`` matches anything) that the chain moves; the others stay at w*.
            None moves all trainable ones.
        max_loss_rise: a chain whose mean observed loss rises by more than this over that at w* has diverged and is
            dropped, nats (per token for token losses). Useful rises are .05 to .3.

    Raises:
        InputError: a value out of range.
    """

    lr: float | Literal["auto"] = 5e-5
    nbeta: float = 300.0
    localization: float | Literal["auto"] = 2000.0
    num_chains: int = 2
    num_draws: int = 40
    num_burnin_steps: int = 0
    num_steps_bw_draws: int = 1
    batch_size: int = 32
    seed: int = 0
    common_noise: bool = True
    preconditioner: RMSprop | None = None
    drift: Drift = Drift.plain
    parameters: list[str] | None = None
    max_loss_rise: float = 10.0

    def __post_init__(self) -> None:
        finite = math.isfinite
        for name in ("lr", "localization"):
            value = getattr(self, name)
            known = value == "auto" or not isinstance(value, str)
            _require(known, name, repr(value), "a number or 'auto'", "set one of them")
        _require(self.nbeta >= 0 and finite(self.nbeta), "nbeta", self.nbeta, "nbeta >= 0", "30 to 300 is usual")
        if self.lr != "auto":
            _require(self.lr > 0 and finite(self.lr), "lr", self.lr, "lr > 0", "start near 0.1 / localization")
        if self.localization != "auto":
            _require(
                self.localization >= 0 and finite(self.localization),
                "localization",
                self.localization,
                "localization >= 0",
                "100 to 2000 is usual: it must exceed nbeta times the most negative curvature",
            )
        if self.lr != "auto" and self.localization != "auto":
            _require(
                self.lr * self.localization < 4 or self.preconditioner is not None,
                "lr * localization",
                self.lr * self.localization,
                "less than 4 (the chain is unstable beyond)",
                f"set lr below {0.3 / max(self.localization, 1e-12):.3g}",
            )
        _require(
            self.nbeta > 0 or self.localization != "auto",
            "localization='auto' with nbeta",
            self.nbeta,
            "nbeta > 0, since localization is calibrated against nbeta times the curvature",
            "set localization to that of the run which this one controls",
        )
        _require(_is_count(self.num_chains, 1), "num_chains", self.num_chains, "an integer >= 1", "2 to 8 is usual")
        _require(
            _is_count(self.num_draws, 2), "num_draws", self.num_draws, "an integer >= 2", "a covariance needs draws"
        )
        _require(
            _is_count(self.num_burnin_steps, 0), "num_burnin_steps", self.num_burnin_steps, "an integer >= 0", "try 0"
        )
        _require(
            _is_count(self.num_steps_bw_draws, 1),
            "num_steps_bw_draws",
            self.num_steps_bw_draws,
            "an integer >= 1",
            "1 records every step",
        )
        _require(_is_count(self.batch_size, 1), "batch_size", self.batch_size, "an integer >= 1", "32 is usual")
        _require(_is_count(self.seed, 0), "seed", self.seed, "an integer >= 0", "0 will do")
        _require(
            self.parameters is None or len(self.parameters) > 0,
            "parameters",
            self.parameters,
            "at least one pattern, or null for all",
            "'*' matches anything, e.g. '*layers.1.attention*'",
        )
        _require(
            self.max_loss_rise > 0 and finite(self.max_loss_rise),
            "max_loss_rise",
            self.max_loss_rise,
            "a finite max_loss_rise > 0",
            "10 nats is ample",
        )
        _require(
            self.preconditioner is None or self.num_burnin_steps > 0,
            "num_burnin_steps",
            self.num_burnin_steps,
            "at least one burn-in step with a preconditioner, which is adapted there and then frozen",
            "set num_burnin_steps to about 100, or preconditioner to null",
        )

    @property
    def num_steps(self) -> int:
        """Gradient steps of one chain."""
        return self.num_burnin_steps + self.num_draws * self.num_steps_bw_draws

    def numbers(self) -> tuple[float, float]:
        """``lr`` and ``localization``, once both are numbers.

        Raises:
            InputError: one of them is still ``auto``.
        """
        if self.lr == "auto" or self.localization == "auto":
            raise InputError(
                f"got lr={self.lr!r} and localization={self.localization!r}; expected numbers where chains run; let "
                "InfluenceCallback settle them at its first probe, or stagewise.sampling.measurement.settle"
            )
        return self.lr, self.localization
