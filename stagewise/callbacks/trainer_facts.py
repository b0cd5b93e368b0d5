"""Properties of a Trainer that the callbacks need."""

import math
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from torch import Tensor
from torch.optim import Optimizer

from stagewise.callbacks.hosts import is_a
from stagewise.errors import InputError


def forward_context(trainer: Trainer) -> Callable[[], AbstractContextManager]:
    """Returns the trainer's autocast; none for float16, whose gradients would need scaling."""
    return nullcontext if trainer.precision == "16-mixed" else trainer.precision_plugin.forward_context


def second_moments(trainer: Trainer, module: LightningModule) -> dict[str, Tensor]:
    """Returns Adam's second moments by parameter name, bias-corrected.

    Parameters without a gradient so far are omitted.

    Raises:
        InputError: an optimizer that is not a variant of Adam.
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


def learning_rate(trainer: Trainer, optimizer: Optimizer) -> float:
    """Returns the current learning rate of an optimizer, as a mean over all trained weights.

    Parameter groups are averaged by their number of weights. Weights of other optimizers count with a rate of zero: the
    rates of alternating optimizers add up to the mean over all weights. NaN for an optimizer without a rate.

    Args:
        trainer: holds all optimizers.
        optimizer: one of them.
    """
    groups = optimizer.param_groups
    rates = [float(group.get("lr", math.nan)) for group in groups]
    if len(trainer.optimizers) == 1 and len(set(rates)) == 1:
        return rates[0]
    every = {parameter for other in trainer.optimizers for group in other.param_groups for parameter in group["params"]}
    sizes = [sum(parameter.numel() for parameter in group["params"]) for group in groups]
    moved = sum(rate * size for rate, size in zip(rates, sizes, strict=True))
    return moved / max(1, sum(parameter.numel() for parameter in every))


def max_steps(trainer: Trainer) -> float:
    """Returns the number of optimizer steps of the run, as ``global_step`` counts them; infinite if unknown."""
    limit = trainer.max_steps if trainer.max_steps >= 0 else float("inf")
    if not trainer.lightning_module.automatic_optimization:
        return limit
    try:
        estimated = trainer.estimated_stepping_batches
    except Exception as error:
        if not is_a(error, "MisconfigurationException"):
            raise
        return limit  # accumulation that changes during the run
    # For a stream without a length Lightning returns `max_steps`, -1 if it is not set.
    return limit if estimated < 0 else min(limit, estimated)


def bar_is_watched(trainer: Trainer) -> bool:
    """Returns True if the training bar is visible: on a terminal or in a notebook, not in a file."""
    enabled = getattr(trainer.progress_bar_callback, "is_enabled", False)
    return bool(enabled) and (sys.stdout.isatty() or "ipykernel" in sys.modules)


def show_on_bar(trainer: Trainer, text: str) -> None:
    """Shows a text on Lightning's training progress bar; other bars are unaffected."""
    bar: Any = trainer.progress_bar_callback
    if bar is None or not getattr(bar, "is_enabled", False):
        return
    description = f"Epoch {trainer.current_epoch} | {text}"
    if is_a(bar, "TQDMProgressBar"):
        bar.train_progress_bar.set_description(description)
    elif is_a(bar, "RichProgressBar") and bar.progress is not None and bar.train_progress_bar_id is not None:
        bar.progress.update(bar.train_progress_bar_id, description=description)
        bar.refresh()
