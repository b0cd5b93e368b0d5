"""Scalars that are constant between changes, drawn as steps."""

import torch
from lightning.pytorch import Trainer


class StepLines:
    """Logs values where they change, and once more just before, so that charts show steps and not slopes."""

    def __init__(self) -> None:
        """Start without a value."""
        self._values: dict[str, float] = {}
        self._step = -1

    def log(self, trainer: Trainer, values: dict[str, float], step: int) -> None:
        """Log values that hold from ``step`` on, where they differ from those before."""
        if values == self._values:
            return
        if self._values and self._step < step - 1:
            self._write(trainer, step - 1)
        self._values = values
        self._write(trainer, step)
        trainer.callback_metrics.update({tag: torch.tensor(value) for tag, value in values.items()})

    def end(self, trainer: Trainer, step: int) -> None:
        """Draw the lines up to ``step``."""
        if self._values and self._step < step:
            self._write(trainer, step)

    def _write(self, trainer: Trainer, step: int) -> None:
        for logger in trainer.loggers:
            logger.log_metrics(dict(self._values), step=step)
        self._step = step
