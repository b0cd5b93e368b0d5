"""What the callbacks ask of a Trainer."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch import Tensor
from torch.utils.tensorboard import SummaryWriter

from stagewise.errors import InputError


def writers(trainer: Trainer) -> list[SummaryWriter]:
    """TensorBoard writers behind the trainer's loggers."""
    return [logger.experiment for logger in trainer.loggers if isinstance(logger, TensorBoardLogger)]


def forward_context(trainer: Trainer) -> Callable[[], AbstractContextManager]:
    """Autocast as the trainer has it; chains of a float16 run stay in float32, since they scale no gradients."""
    return nullcontext if trainer.precision == "16-mixed" else trainer.precision_plugin.forward_context


def second_moments(trainer: Trainer, module: LightningModule) -> dict[str, Tensor]:
    """Adam's running mean squares of the gradient by parameter name, corrected for their start at zero.

    Parameters without a gradient so far are left out.

    Raises:
        InputError: an optimizer that is not of Adam's kind.
    """
    names = {parameter: name for name, parameter in module.named_parameters()}
    found = {}
    for optimizer in trainer.optimizers:
        for group in optimizer.param_groups:
            if "betas" not in group:
                raise InputError(
                    f"got preconditioner AdamMoments and the optimizer {type(optimizer).__name__}; expected Adam or "
                    "AdamW; choose another preconditioner"
                )
            for parameter in group["params"]:
                state = optimizer.state.get(parameter, {})
                if "exp_avg_sq" in state:
                    correction = 1 - group["betas"][1] ** float(state["step"])
                    found[names[parameter]] = state["exp_avg_sq"].detach() / correction
    return found


def learning_rate(trainer: Trainer) -> float:
    """Learning rate of the step that was just made; over several parameter groups, their mean by weights."""
    groups = [group for optimizer in trainer.optimizers for group in optimizer.param_groups]
    sizes = [sum(parameter.numel() for parameter in group["params"]) for group in groups]
    return sum(float(group["lr"]) * size for group, size in zip(groups, sizes, strict=True)) / max(1, sum(sizes))


def max_steps(trainer: Trainer) -> float:
    """Optimizer steps of the run, as ``global_step`` counts them; infinite where they cannot be told."""
    limit = trainer.max_steps if trainer.max_steps >= 0 else float("inf")
    if not trainer.lightning_module.automatic_optimization:
        return limit
    try:
        return min(limit, trainer.estimated_stepping_batches)
    except MisconfigurationException:  # accumulation that changes on the way
        return limit
