"""What the callbacks ask of a Trainer."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

from lightning.pytorch import Trainer
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch.utils.tensorboard import SummaryWriter


def writers(trainer: Trainer) -> list[SummaryWriter]:
    """TensorBoard writers behind the trainer's loggers."""
    return [logger.experiment for logger in trainer.loggers if isinstance(logger, TensorBoardLogger)]


def forward_context(trainer: Trainer) -> Callable[[], AbstractContextManager]:
    """Autocast as the trainer has it; chains of a float16 run stay in float32, since they scale no gradients."""
    return nullcontext if trainer.precision == "16-mixed" else trainer.precision_plugin.forward_context


def max_steps(trainer: Trainer) -> float:
    """Optimizer steps of the run, as ``global_step`` counts them; infinite where they cannot be told."""
    limit = trainer.max_steps if trainer.max_steps >= 0 else float("inf")
    if not trainer.lightning_module.automatic_optimization:
        return limit
    try:
        return min(limit, trainer.estimated_stepping_batches)
    except MisconfigurationException:  # accumulation that changes on the way
        return limit
