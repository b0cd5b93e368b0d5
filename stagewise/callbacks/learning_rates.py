"""The learning rates of the steps of a run, added up as they are made."""

import math
from collections.abc import Mapping
from typing import Any

from lightning.pytorch import Trainer
from torch.optim import Optimizer

from stagewise.callbacks.trainer_facts import learning_rate


class LearningRates:
    """Sum over optimizer steps of the rate that each was made with, for TracIn.

    A step is what ``trainer.global_step`` counts, under manual optimization and gradient accumulation too, with those
    that a gradient scaler skips. The rate is read once gradients are there and before the weights move: a scheduler,
    which acts after the step, has not moved it yet. See :func:`~stagewise.callbacks.trainer_facts.learning_rate` for
    several optimizers or parameter groups.
    """

    def __init__(self) -> None:
        """Start before the first step."""
        self._made = 0.0
        # Of the step with this number, which may be asked for more than once (L-BFGS) and may fail.
        self._step, self._rate = -1, 0.0

    @property
    def total(self) -> float:
        """Sum over the steps so far, squared weights per nat."""
        return self._made + self._rate

    def before_step(self, trainer: Trainer, optimizer: Optimizer) -> None:
        """Take in the rate of the step that is about to be made.

        Args:
            trainer: whose ``global_step`` is the number of steps made before it.
            optimizer: that makes it.
        """
        if trainer.global_step != self._step:
            self._made += self._rate
            self._step = trainer.global_step
        self._rate = learning_rate(trainer, optimizer)

    def lose(self) -> None:
        """Steps were made that nobody read the rate of: the sum is unknown (NaN) from now on."""
        self._made = math.nan

    def state_dict(self) -> dict[str, Any]:
        """Plain Python."""
        return {"made": self._made, "step": self._step, "rate": self._rate}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Loads what :meth:`state_dict` saved."""
        self._made, self._step, self._rate = state["made"], state["step"], state["rate"]
