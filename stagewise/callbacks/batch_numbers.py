"""Numbers of batches and of optimizer steps, and which batches a trainer will draw."""

from dataclasses import dataclass

from lightning.pytorch import Trainer

from stagewise.callbacks.hosts import is_a
from stagewise.errors import InputError


@dataclass(frozen=True)
class BatchNumbers:
    """Numbers of batches and the steps that they make; an epoch ends an unfinished accumulation.

    Attributes:
        per_step: batches whose gradients are accumulated in one optimizer step.
        per_epoch: batches in an epoch.
    """

    per_step: int
    per_epoch: int

    @classmethod
    def of(cls, trainer: Trainer) -> "BatchNumbers":
        """Of a trainer whose data are set up.

        Raises:
            InputError: steps and batches cannot be distinguished, or the loader would be made anew.
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
                "new loader would not know the weights; leave it out"
            )
        return cls(per_step=trainer.accumulate_grad_batches, per_epoch=int(trainer.num_training_batches))

    @property
    def steps_per_epoch(self) -> int:
        """Optimizer steps in an epoch."""
        return -(-self.per_epoch // self.per_step)

    def step(self, batch: int) -> int:
        """``global_step`` when a batch of the run is used, before its optimizer step."""
        epoch, rest = divmod(batch, self.per_epoch)
        return epoch * self.steps_per_epoch + rest // self.per_step

    def batches(self, steps: int) -> int:
        """Batches that the first ``steps`` steps take."""
        epochs, rest = divmod(steps, self.steps_per_epoch)
        return epochs * self.per_epoch + min(rest * self.per_step, self.per_epoch)
