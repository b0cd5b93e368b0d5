"""Settings of the local chains."""

import json
from dataclasses import dataclass, fields, is_dataclass
from enum import StrEnum
from typing import Annotated, Any, Literal

from stagewise.checks.bounds import settle_fields
from stagewise.checks.ranges import NonNegativeInt, at_least, more_than
from stagewise.errors import InputError, require
from stagewise.sampling.posterior import LocalPosterior
from stagewise.sampling.preconditioners.diagonal import AdamMoments, RMSprop
from stagewise.sampling.preconditioners.ekfac import EKFAC
from stagewise.sampling.relaxation import STABLE, relaxation_steps


class Integrator(StrEnum):
    """Integrators of a chain, see :func:`~stagewise.sampling.sgld.sgld_step_`. Both cost one gradient and one noise.

    Members are named as the YAML writes them:
        leimkuhler_matthews: averages two successive noises. For a quadratic target the variance is exact at every
            stable step (lr times curvature below 4), so that steps can be long and draws nearly independent.
        euler: the standard step, to reproduce published runs. Its variance is too large by 1 / (1 - lr lam / 4): steps
            must be short, and draws are correlated.
    """

    leimkuhler_matthews = "leimkuhler_matthews"
    euler = "euler"


class Start(StrEnum):
    """Starting points of a chain.

    Members are named as the YAML writes them:
        gaussian: a draw of the localizing Gaussian N(w*, 1 / localization); with a curvature preconditioner (EK-FAC),
            of N(w*, P). Directions with little curvature of the loss are in equilibrium at once, steep ones soon.
        anchor: w* itself, as in published runs. Until the chain has relaxed all losses rise together, which is not
            influence: use burn-in.
    """

    gaussian = "gaussian"
    anchor = "anchor"


class Drift(StrEnum):
    """Gradient estimators of a chain, see :class:`~stagewise.sampling.gradients.DriftGradient`.

    Members are named as the YAML writes them:
        auto: resolved at the first probe, to ``plain`` if the measured heat of its minibatches is small, otherwise to
            ``control_variate``; ``control_variate`` without a measurement.
        plain: the minibatch gradient. Away from a minimum the chain also continues training.
        control_variate: the same target with less minibatch noise: the minibatch gradient less that at w*, plus the
            full gradient at w*.
        tilted: the target without its slope at w*: no sliding.
    """

    auto = "auto"
    plain = "plain"
    control_variate = "control_variate"
    tilted = "tilted"


class EngineName(StrEnum):
    """Engines that run the chains of a probe. Their draws agree up to float rounding.

    Members are named as the YAML writes them:
        auto: the faster of ``sequential`` and ``batched``, judged by one timed step of each and kept for the run.
        sequential: one chain after the other; any module.
        batched: all chains in one ``vmap``, traced once and reused at every probe; for small models.
        compiled: one chain after the other, with steps and records compiled once by ``torch.compile``; for runs of
            thousands of draws.
    """

    auto = "auto"
    sequential = "sequential"
    batched = "batched"
    compiled = "compiled"


_ADAPTING_STEPS = 100
"""Default burn-in of RMSprop."""

_LONGEST_BURNIN = 500

_USUAL_REACH = 0.8
"""lr * localization assumed for the burn-in while one of the two is unknown."""

_LOCALIZATION = "100 to 2000 is usual: it must exceed nbeta times the most negative curvature"
_AUTO_STEPS = "auto follows from the step"


def _as_yaml(value: object) -> str:
    """Formats a value in flow style; a preconditioner by its class."""
    if isinstance(value, bool) or value is None or isinstance(value, list):
        return json.dumps(value)
    if isinstance(value, float):
        text = f"{value:g}" if float(f"{value:g}") == value else repr(value)
        # 1e-05 is a string to many readers of YAML.
        return text.replace("e", ".0e") if "e" in text and "." not in text else text
    if is_dataclass(value):
        inner = ", ".join(f"{field.name}: {_as_yaml(getattr(value, field.name))}" for field in fields(value))
        return f"{{class_path: {type(value).__module__}.{type(value).__name__}, init_args: {{{inner}}}}}"
    return str(value)


@dataclass(frozen=True)
class SGLDConfig:
    """Stochastic gradient Langevin dynamics around the training weights w*.

    The target is p(w) ~ exp(-nbeta L(w) - (localization / 2) |w - w*|^2), L the mean loss in nats (mean over tokens for
    token losses). Keep one setting for a whole run: curves at different settings are not comparable.

    The defaults are adaptive: the callback resolves ``auto`` at its first probe, from measured curvature and the heat
    of minibatches in the steepest directions, and prints the result as one line to paste. See
    :func:`stagewise.calibration.resolve.resolve` for the rules and their motivation.

    Attributes:
        lr: step size epsilon, in squared weight units; or ``auto``.
        nbeta: inverse temperature times the number of samples (devinterp 2 writes ``n_beta``); 0 is a negative control.
        localization: precision g of the Gaussian that holds the chain near w* (devinterp: gamma); or ``auto``.
        num_chains: chains per probe. More, shorter chains give narrower intervals at equal cost, although each has its
            own burn-in: Student's factor is 3.2 for 4 chains, 2.4 for 8, 2.1 for 16.
        num_draws: recorded draws per chain.
        num_burnin_steps: steps before the first draw; or ``auto``: until a displacement has shrunk to a tenth in the
            slowest direction, see :attr:`burnin_steps`.
        num_steps_bw_draws: steps per draw; or ``auto``: 1, unless a resolved step is short.
        batch_size: samples of the sampling set per gradient.
        seed: of the noise and the minibatches; chain c uses the streams (seed, c).
        common_noise: use the same streams at every probe (common random numbers), for smoother curves over training;
            False adds the step to the seed, for intervals over probes.
        preconditioner: None is plain SGLD; :class:`~stagewise.sampling.preconditioners.diagonal.RMSprop`,
            :class:`~stagewise.sampling.preconditioners.diagonal.AdamMoments` or
            :class:`~stagewise.sampling.preconditioners.ekfac.EKFAC`.
        drift: gradient estimator.
        integrator: ``euler`` reproduces published runs.
        start: starting point of a chain; ``anchor`` reproduces published runs.
        parameters: patterns of parameter names (``*`` matches anything) that the chain moves; the others stay at w*.
            None moves all trainable ones.
        max_loss_rise: a chain whose mean observed loss rises by more than this over that at w* has diverged and is
            dropped, nats (per token for token losses). Useful rises are .05 to .3.
        weight_decay: coefficient of |w|^2 / 2, added to the mean loss in the target, as for a run trained with weight
            decay; the term is multiplied by nbeta and is not part of recorded losses.
        engine: runs the chains.

    Raises:
        InputError: a value out of range.
    """

    lr: Annotated[float, more_than(0, "start near 0.1 / localization")] | Literal["auto"] = "auto"
    nbeta: Annotated[float, at_least(0, "30 to 300 is usual")] = 300.0
    localization: Annotated[float, at_least(0, _LOCALIZATION)] | Literal["auto"] = "auto"
    num_chains: Annotated[int, at_least(1, "2 to 8 is usual")] = 8
    num_draws: Annotated[int, at_least(2, "a covariance needs draws")] = 10
    num_burnin_steps: Annotated[int, at_least(0, _AUTO_STEPS)] | Literal["auto"] = "auto"
    num_steps_bw_draws: Annotated[int, at_least(1, _AUTO_STEPS)] | Literal["auto"] = "auto"
    batch_size: Annotated[int, at_least(1, "32 is usual")] = 32
    seed: NonNegativeInt = 0
    common_noise: bool = True
    preconditioner: RMSprop | AdamMoments | EKFAC | None = None
    drift: Drift = Drift.auto
    integrator: Integrator = Integrator.leimkuhler_matthews
    start: Start = Start.gaussian
    parameters: list[str] | None = None
    max_loss_rise: Annotated[float, more_than(0, "10 nats is ample")] = 10.0
    weight_decay: Annotated[float, at_least(0, "0 leaves it out")] = 0.0
    engine: EngineName = EngineName.auto

    def __post_init__(self) -> None:
        settle_fields(self)
        if self.lr != "auto" and self.localization != "auto":
            require(
                self.lr * self.localization < STABLE or self.preconditioner is not None,
                "lr * localization",
                self.lr * self.localization,
                "less than 4 (the chain is unstable beyond)",
                f"set lr below {0.3 / max(self.localization, 1e-12):.3g}",
            )
        require(
            self.localization != 0 or self.start is not Start.gaussian,
            "localization",
            self.localization,
            "localization > 0 with start 'gaussian', which draws from N(w*, 1 / localization)",
            "set start to anchor, or localization to a number above 0",
        )
        require(
            self.nbeta > 0 or self.localization != "auto",
            "localization='auto' with nbeta",
            self.nbeta,
            "nbeta > 0, since localization is calibrated against nbeta times the curvature",
            "set localization to that of the run which this one controls",
        )
        require(
            self.parameters is None or len(self.parameters) > 0,
            "parameters",
            self.parameters,
            "at least one pattern, or null for all",
            "'*' matches anything, e.g. '*layers.1.attention*'",
        )
        require(
            not (isinstance(self.preconditioner, RMSprop) and self.preconditioner.frozen) or self.num_burnin_steps != 0,
            "num_burnin_steps",
            self.num_burnin_steps,
            "at least one burn-in step with a preconditioner, which is adapted there and then frozen",
            "set num_burnin_steps to about 100, or preconditioner to null",
        )

    @property
    def burnin_steps(self) -> int:
        """Steps before the first draw: ``num_burnin_steps``, or a number derived from the step size.

        By default enough steps for a displacement to shrink to a tenth in the slowest direction, held by localization
        alone, and at most 500. RMSprop, which adapts during the burn-in, takes 100; with EK-FAC the rate is ``lr``
        itself. While ``lr`` or ``localization`` is ``auto``, a typical value is assumed.
        """
        if self.num_burnin_steps != "auto":
            return self.num_burnin_steps
        if isinstance(self.preconditioner, RMSprop):
            return _ADAPTING_STEPS
        if self.lr == "auto" or self.localization == "auto":
            return relaxation_steps(_USUAL_REACH)
        reach = self.lr * (1.0 if isinstance(self.preconditioner, EKFAC) else self.localization)
        if not 0 < reach < STABLE:
            return 0
        return min(relaxation_steps(reach), _LONGEST_BURNIN)

    @property
    def steps_bw_draws(self) -> int:
        """Steps per draw: ``num_steps_bw_draws``, 1 for ``auto``."""
        return 1 if self.num_steps_bw_draws == "auto" else self.num_steps_bw_draws

    @property
    def num_steps(self) -> int:
        """Gradient steps of one chain."""
        return self.burnin_steps + self.num_draws * self.steps_bw_draws

    @property
    def unresolved(self) -> tuple[str, ...]:
        """Names of the settings that are ``auto`` and depend on the curvature."""
        names = ("lr", "localization", "drift", "num_burnin_steps", "num_steps_bw_draws")
        return tuple(name for name in names if getattr(self, name) == "auto")

    def fallbacks(self) -> dict[str, Any]:
        """Returns fallbacks for :attr:`unresolved` settings, except ``lr`` and ``localization``."""
        taken = {
            "drift": str(Drift.control_variate),
            "num_burnin_steps": self.burnin_steps,
            "num_steps_bw_draws": self.steps_bw_draws,
        }
        return {name: value for name, value in taken.items() if name in self.unresolved}

    def one_line(self) -> str:
        """Returns the settings as one line of YAML: the common ones, and any others that differ from the default."""
        target, steps = ("lr", "nbeta", "localization"), ("num_burnin_steps", "num_steps_bw_draws")
        usual = (*target, "num_chains", "num_draws", *steps, "batch_size", "drift")
        others = [
            field.name
            for field in fields(self)
            if field.name not in usual and getattr(self, field.name) != field.default
        ]
        return f"sgld: {{{', '.join(f'{name}: {_as_yaml(getattr(self, name))}' for name in (*usual, *others))}}}"

    @property
    def posterior(self) -> LocalPosterior:
        """The distribution that the chains sample, once ``localization`` is a number.

        Raises:
            InputError: ``localization`` is still ``auto``.
        """
        if self.localization == "auto":
            raise InputError("got localization='auto'; expected a number; resolve the settings first")
        return LocalPosterior(self.nbeta, self.localization, self.weight_decay)

    def require_resolved(self) -> "ResolvedSGLD":
        """Returns the same settings with numbers for ``lr`` and ``localization``.

        Raises:
            InputError: one of them is still ``auto``.
        """
        if isinstance(self, ResolvedSGLD):
            return self
        if self.lr == "auto" or self.localization == "auto":
            raise InputError(
                f"got lr={self.lr!r} and localization={self.localization!r}; expected numbers where chains run; let "
                "InfluenceCallback resolve them at its first probe, or stagewise.calibration.resolve.resolve"
            )
        return ResolvedSGLD(**vars(self))


@dataclass(frozen=True, kw_only=True, repr=False, eq=False)
class ResolvedSGLD(SGLDConfig):
    """Settings of runnable chains: ``lr`` and ``localization`` are numbers.

    Created by :meth:`SGLDConfig.require_resolved`; repr and equality are those of the base class.
    """

    lr: Annotated[float, more_than(0, "start near 0.1 / localization")]
    localization: Annotated[float, at_least(0, _LOCALIZATION)]

    def __repr__(self) -> str:
        return repr(SGLDConfig(**vars(self)))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, SGLDConfig) and vars(self) == vars(other)

    __hash__ = SGLDConfig.__hash__
