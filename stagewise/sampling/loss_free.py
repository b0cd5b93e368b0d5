"""The negative control: chains that do not see the loss."""

from dataclasses import replace

from stagewise.errors import require
from stagewise.sampling.config import SGLDConfig
from stagewise.sampling.preconditioners.diagonal import RMSprop


def loss_free(config: SGLDConfig) -> SGLDConfig:
    """The same sampler with nbeta 0: its target is N(w*, 1 / localization) alone.

    The same seed and the same numbers of steps: its chains get the noise of those they control, number for number, and
    start alike. EK-FAC is then 1 / localization in its own eigenbasis, so that noise means the same directions.

    Args:
        config: the settings, with numbers.

    Raises:
        InputError: ``lr`` or ``localization`` is still ``auto``, or ``localization`` is 0: nothing then holds a chain.
    """
    _, localization = config.numbers()
    require(localization > 0, "localization", localization, "localization > 0 for a control without the loss", "set it")
    return replace(
        config, nbeta=0.0, num_burnin_steps=config.burnin_steps, num_steps_bw_draws=config.steps_bw_draws
    )  # fmt: skip


def needs_gradients(config: SGLDConfig) -> bool:
    """Whether gradients of the loss have any say in the draws: with nbeta 0, only where a preconditioner adapts."""
    return config.nbeta > 0 or isinstance(config.preconditioner, RMSprop)
