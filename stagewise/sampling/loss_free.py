"""The negative control: chains that do not see the loss."""

from dataclasses import replace

from stagewise.errors import require
from stagewise.sampling.config import SGLDConfig
from stagewise.sampling.ekfac import EKFAC
from stagewise.sampling.preconditioners import RMSprop


def loss_free(config: SGLDConfig) -> SGLDConfig:
    """The same sampler with nbeta 0: its target is N(w*, 1 / localization) alone.

    The same seed and the same numbers of steps: its chains get the noise of those they control, number for number, and
    start at the same places. An EK-FAC preconditioner is 1 / localization where there is no loss: that is a step of
    lr / localization without one, so that no factors are computed.

    Args:
        config: the settings, with numbers.

    Raises:
        InputError: ``lr`` or ``localization`` is still ``auto``, or ``localization`` is 0: nothing then holds a chain.
    """
    lr, localization = config.numbers()
    require(localization > 0, "localization", localization, "localization > 0 for a control without the loss", "set it")
    same_steps = {"num_burnin_steps": config.burnin_steps, "num_steps_bw_draws": config.steps_bw_draws}
    if isinstance(config.preconditioner, EKFAC):
        return replace(config, nbeta=0.0, lr=lr / localization, preconditioner=None, **same_steps)
    return replace(config, nbeta=0.0, **same_steps)


def needs_gradients(config: SGLDConfig) -> bool:
    """Whether gradients of the loss have any say in the draws: with nbeta 0, only where a preconditioner adapts."""
    return config.nbeta > 0 or isinstance(config.preconditioner, RMSprop)
