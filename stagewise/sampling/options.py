"""Named choices of the sampler, spelled as the YAML writes them."""

from enum import StrEnum


class Integrator(StrEnum):
    """How a chain steps, see :func:`~stagewise.sampling.kernel.sgld_step_`. Both cost one gradient and one noise.

    Members are named as the YAML writes them:
        leimkuhler_matthews: averages two successive noises. For a quadratic target the variance is exact at every
            stable step (lr times curvature below 4), so that steps can be long and draws nearly independent.
        euler: the usual step, to repeat published runs. Its variance is too large by 1 / (1 - lr lam / 4): steps must
            be short, and draws are correlated.
    """

    leimkuhler_matthews = "leimkuhler_matthews"
    euler = "euler"


class Start(StrEnum):
    """Where a chain starts.

    Members are named as the YAML writes them:
        gaussian: a draw of the localizing Gaussian N(w*, 1 / localization); with a curvature preconditioner (EK-FAC),
            of N(w*, P). Directions that the loss hardly bends are in equilibrium at once, steep ones soon.
        anchor: w* itself, as published runs do. Until the chain has relaxed all losses rise together, which is no
            influence: burn it in.
    """

    gaussian = "gaussian"
    anchor = "anchor"


class Drift(StrEnum):
    """Which gradient drives the chain, see :class:`~stagewise.sampling.gradients.DriftGradient`.

    Members are named as the YAML writes them:
        auto: settled at the first probe, ``plain`` where the measured heat of its minibatches is small and
            ``control_variate`` where it is not; ``control_variate`` where nothing settles it.
        plain: the minibatch gradient. Away from a minimum the chain also goes on training.
        control_variate: the same target with less minibatch noise: the minibatch gradient less that at w*, plus the
            full gradient at w*.
        tilted: the target without its slope at w*: no sliding.
    """

    auto = "auto"
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
