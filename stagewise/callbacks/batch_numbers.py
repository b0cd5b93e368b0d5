"""Conversion between batches and optimizer steps."""

from dataclasses import dataclass

from lightning.pytorch import Trainer

from stagewise.callbacks.hosts import is_a
from stagewise.errors import InputError


@dataclass(frozen=True)
class BatchNumbers:
    """Batches per optimizer step and per epoch; the end of an epoch completes an accumulation.

    Attributes:
        per_step: batches accumulated in one optimizer step.
        per_epoch: batches in an epoch.
    """

    per_step: int
    per_epoch: int

    @classmethod
    def of(cls, trainer: Trainer) -> "BatchNumbers":
        """Reads the numbers from a trainer whose data are set up.

        Raises:
            InputError: steps and batches cannot be distinguished, or the loader would be recreated.
        """
        if not trainer.lightning_module.automatic_optimization:
            raise InputError(
                "got a module with manual optimization, whose steps cannot be distinguished from batches; expected "
                "automatic optimization; use mechanism='loss'"
            )
        if any(is_a(callback, "GradientAccumulationScheduler") for callback in trainer.callbacks):  # type: ignore[attr-defined]
            raise InputError(
                "got a GradientAccumulationScheduler; expected the same accumulation over the whole run; set "
                "accumulate_grad_batches of the Trainer instead"
            )
        if trainer.reload_dataloaders_every_n_epochs:  # type: ignore[attr-defined]
            raise InputError(
                f"got reload_dataloaders_every_n_epochs={trainer.reload_dataloaders_every_n_epochs}; expected 0: a "  # type: ignore[attr-defined]
                "new loader has no group weights; leave it out"
            )
        return cls(per_step=trainer.accumulate_grad_batches, per_epoch=int(trainer.num_training_batches))

    @property
    def steps_per_epoch(self) -> int:
        """Optimizer steps in an epoch."""
        return -(-self.per_epoch // self.per_step)

    def step(self, batch: int) -> int:
        """Returns ``global_step`` before the optimizer step of a batch."""
        epoch, rest = divmod(batch, self.per_epoch)
        return epoch * self.steps_per_epoch + rest // self.per_step

    def batches(self, steps: int) -> int:
        """Returns the number of batches in the first ``steps`` steps."""
        epochs, rest = divmod(steps, self.steps_per_epoch)
        return epochs * self.per_epoch + min(rest * self.per_step, self.per_epoch)
