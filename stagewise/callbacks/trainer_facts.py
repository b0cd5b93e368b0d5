"""Facts about a Trainer that the callbacks need."""

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

_SHARDING = ("FSDPStrategy", "DeepSpeedStrategy", "ModelParallelStrategy")


def refuse_sharding(trainer: Trainer) -> None:
    """Refuse strategies under which no process holds all weights.

    Raises:
        InputError: such a strategy.
    """
    if is_a(trainer.strategy, *_SHARDING):
        raise InputError(
            f"got {type(trainer.strategy).__name__}, which shards the weights; expected a strategy that keeps them "
            "whole (single device, DDP); set InfluenceCallback(enabled=False) to train without probes"
        )


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


def learning_rate(trainer: Trainer, optimizer: Optimizer) -> float:
    """Learning rate that an optimizer has now, as a mean over all weights that the run trains.

    Over several parameter groups, their mean by weights. Weights that only other optimizers move count with a rate of
    zero: with two optimizers in turn, the rates of both steps add up to the mean rate of all weights. NaN for an
    optimizer without a rate.

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
    """Optimizer steps of the run, as ``global_step`` counts them; infinite where they cannot be told."""
    limit = trainer.max_steps if trainer.max_steps >= 0 else float("inf")
    if not trainer.lightning_module.automatic_optimization:
        return limit
    try:
        estimated = trainer.estimated_stepping_batches
    except Exception as error:
        if not is_a(error, "MisconfigurationException"):
            raise
        return limit  # accumulation that changes on the way
    # A stream without a length: Lightning then answers with `max_steps`, -1 where there is none.
    return limit if estimated < 0 else min(limit, estimated)


def bar_is_watched(trainer: Trainer) -> bool:
    """True where a training bar moves before someone's eyes: on a terminal or in a notebook, and not in a file."""
    enabled = getattr(trainer.progress_bar_callback, "is_enabled", False)
    return bool(enabled) and (sys.stdout.isatty() or "ipykernel" in sys.modules)


def show_on_bar(trainer: Trainer, text: str) -> None:
    """Put a text beside the epoch on Lightning's own training bar; other bars are left alone."""
    bar: Any = trainer.progress_bar_callback
    if bar is None or not getattr(bar, "is_enabled", False):
        return
    description = f"Epoch {trainer.current_epoch} | {text}"
    if is_a(bar, "TQDMProgressBar"):
        bar.train_progress_bar.set_description(description)
    elif is_a(bar, "RichProgressBar") and bar.progress is not None and bar.train_progress_bar_id is not None:
        bar.progress.update(bar.train_progress_bar_id, description=description)
        bar.refresh()
