"""Settings of the local chains."""

import math
from dataclasses import dataclass
from enum import StrEnum

from stagewise.errors import require
from stagewise.sampling.ekfac import EKFAC
from stagewise.sampling.preconditioners import AdamMoments, RMSprop


def _is_count(value: object, least: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


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


class EngineName(StrEnum):
    """How the chains of a probe are run. Draws agree between engines up to float rounding.

    Members are named as the YAML writes them:
        auto: the faster by a timed step of each, kept for the run.
        sequential: one chain after the other; any module.
        batched: all chains in one ``vmap``, traced once and kept over probes; for small models.
    """

    auto = "auto"
    sequential = "sequential"
    batched = "batched"


@dataclass(frozen=True)
class SGLDConfig:
    """Stochastic gradient Langevin dynamics around the training weights w*.

    The target is p(w) ~ exp(-nbeta L(w) - (localization / 2) |w - w*|^2), L the mean loss in nats (mean over tokens for
    token losses). Keep one setting for a whole run: curves at different settings do not compare.

    Attributes:
        lr: step size epsilon, in squared weight units.
        nbeta: inverse temperature times the number of samples (devinterp 2 writes ``n_beta``); 0 is a negative control.
        localization: precision g of the Gaussian that holds the chain near w* (devinterp: gamma).
        num_chains: chains for each probe.
        num_draws: recorded draws for each chain.
        num_burnin_steps: steps before the first draw.
        num_steps_bw_draws: steps for each draw.
        batch_size: samples of the sampling set for each gradient.
        seed: of the noise and the minibatches; chain c uses the streams (seed, c).
        common_noise: the same streams at every probe (common random numbers), which makes curves over training
            smoother; False adds the step to the seed, for intervals over probes.
        preconditioner: None is plain SGLD; :class:`~stagewise.sampling.preconditioners.RMSprop`,
            :class:`~stagewise.sampling.preconditioners.AdamMoments` or :class:`~stagewise.sampling.ekfac.EKFAC`.
        drift: which gradient drives the chain.
        parameters: patterns of parameter names (``*`` matches anything) that the chain moves; the others stay at w*.
            None moves all trainable ones.
        max_loss_rise: a chain whose mean observed loss rises by more than this over that at w* has diverged and is
            dropped, nats (per token for token losses). Useful rises are .05 to .3.
        weight_decay: coefficient of |w|^2 / 2 beside the mean loss in the target, as of a run that is trained with it
            in the loss; it is multiplied by nbeta, and recorded losses are without it.
        engine: which engine runs the chains.

    Raises:
        InputError: a value out of range.
    """

    lr: float = 5e-5
    nbeta: float = 300.0
    localization: float = 2000.0
    num_chains: int = 2
    num_draws: int = 40
    num_burnin_steps: int = 0
    num_steps_bw_draws: int = 1
    batch_size: int = 32
    seed: int = 0
    common_noise: bool = True
    preconditioner: RMSprop | AdamMoments | EKFAC | None = None
    drift: Drift = Drift.plain
    parameters: list[str] | None = None
    max_loss_rise: float = 10.0
    weight_decay: float = 0.0
    engine: EngineName = EngineName.auto

    def __post_init__(self) -> None:
        finite = math.isfinite
        for name, kind in (("drift", Drift), ("engine", EngineName)):
            value = getattr(self, name)
            known = [member.value for member in kind]
            require(value in known, name, value, f"one of {known}", f"{known[0]} is the default")
            object.__setattr__(self, name, kind(value))
        require(self.lr > 0 and finite(self.lr), "lr", self.lr, "lr > 0", "start near 0.1 / localization")
        require(self.nbeta >= 0 and finite(self.nbeta), "nbeta", self.nbeta, "nbeta >= 0", "30 to 300 is usual")
        require(
            self.localization >= 0 and finite(self.localization),
            "localization",
            self.localization,
            "localization >= 0",
            "100 to 2000 is usual: it must exceed nbeta times the most negative curvature",
        )
        require(
            self.lr * self.localization < 4 or self.preconditioner is not None,
            "lr * localization",
            self.lr * self.localization,
            "less than 4 (the chain is unstable beyond)",
            f"set lr below {0.3 / max(self.localization, 1e-12):.3g}",
        )
        require(_is_count(self.num_chains, 1), "num_chains", self.num_chains, "an integer >= 1", "2 to 8 is usual")
        require(
            _is_count(self.num_draws, 2), "num_draws", self.num_draws, "an integer >= 2", "a covariance needs draws"
        )
        require(
            _is_count(self.num_burnin_steps, 0), "num_burnin_steps", self.num_burnin_steps, "an integer >= 0", "try 0"
        )
        require(
            _is_count(self.num_steps_bw_draws, 1),
            "num_steps_bw_draws",
            self.num_steps_bw_draws,
            "an integer >= 1",
            "1 records every step",
        )
        require(_is_count(self.batch_size, 1), "batch_size", self.batch_size, "an integer >= 1", "32 is usual")
        require(_is_count(self.seed, 0), "seed", self.seed, "an integer >= 0", "0 will do")
        require(
            self.parameters is None or len(self.parameters) > 0,
            "parameters",
            self.parameters,
            "at least one pattern, or null for all",
            "'*' matches anything, e.g. '*layers.1.attention*'",
        )
        require(
            self.max_loss_rise > 0 and finite(self.max_loss_rise),
            "max_loss_rise",
            self.max_loss_rise,
            "a finite max_loss_rise > 0",
            "10 nats is ample",
        )
        require(
            not (isinstance(self.preconditioner, RMSprop) and self.preconditioner.frozen) or self.num_burnin_steps > 0,
            "num_burnin_steps",
            self.num_burnin_steps,
            "at least one burn-in step with a preconditioner, which is adapted there and then frozen",
            "set num_burnin_steps to about 100, or preconditioner to null",
        )
        require(
            self.weight_decay >= 0 and finite(self.weight_decay),
            "weight_decay",
            self.weight_decay,
            "weight_decay >= 0",
            "0 leaves it out",
        )

    @property
    def num_steps(self) -> int:
        """Gradient steps of one chain."""
        return self.num_burnin_steps + self.num_draws * self.num_steps_bw_draws
