"""Transfer of a batch from the loader to the module: precision, transfer hooks, device."""

import copy
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor

from stagewise.batches import Batch, num_samples, take
from stagewise.errors import InputError
from stagewise.isolation.seeding import find_generators, seed_generators, seed_global_states
from stagewise.structure import leaves, where

_HOOKS = ("on_before_batch_transfer", "transfer_batch_to_device", "on_after_batch_transfer")
_TOLERANCE = 1e-3
"""Tolerated difference of a sample between two batches, relative to 1 + |value|."""


def transfer(trainer: Trainer, module: LightningModule, batch: Batch) -> Batch:
    """Returns a batch as passed to ``training_step`` by the trainer."""
    batch = trainer.precision_plugin.convert_input(batch)
    batch = module._on_before_batch_transfer(batch, dataloader_idx=0)
    return trainer.strategy.batch_to_device(batch, dataloader_idx=0)


def own_hooks(trainer: Trainer) -> list[str]:
    """Returns the overridden transfer hooks of the module or the data module, with their owner."""
    selector = trainer._data_connector._datahook_selector
    assert selector is not None
    found = []
    for name in _HOOKS:
        # The data module's hook has precedence. Calling the selector would repeat its warning.
        for owner in (selector.datamodule, selector.model):
            made_by = getattr(getattr(owner, name, None), "__module__", None) or ""
            if owner is not None and not made_by.startswith(("lightning.pytorch.core.", "pytorch_lightning.core.")):
                found.append(f"{type(owner).__name__}.{name}")
                break
    return found


def checked_transfer(trainer: Trainer, module: LightningModule, batch: Batch) -> Batch:
    """Returns the same as :func:`transfer`, after checking the transfer hooks on copies of the batch.

    The caller restores the module, the data module and random states, and sets the module to eval mode.

    Raises:
        InputError: a hook fails on the batch, is random, or makes samples depend on their batch.
    """
    hooks = own_hooks(trainer)
    if not hooks:
        return transfer(trainer, module, batch)
    return _held(trainer, module, batch, hooks)


def _held(trainer: Trainer, module: LightningModule, batch: Batch, hooks: Sequence[str]) -> Batch:
    named = " and ".join(hooks)
    owners = (module, trainer.datamodule)  # type: ignore[attr-defined]
    generators = [generator for owner in owners if owner is not None for generator in find_generators(vars(owner))]

    def passed(part: Batch, seed: int) -> Batch:
        seed_global_states(seed)
        for generator in generators:
            seed_generators(generator, seed)
        try:
            return transfer(trainer, module, copy.deepcopy(part))
        except InputError:
            raise
        except Exception as error:
            raise InputError(
                f"got probe data that {named} cannot process ({type(error).__name__}: {error}); expected a "
                "batch in the format of the training loader; pass such a batch, or indices with "
                "loss_fn=stagewise.CollatedLoss"
            ) from error

    first = passed(batch, 0)
    place = _differing(first, passed(batch, 1), 0.0)
    if place is not None:
        raise InputError(
            f"got random numbers from {named} ({place} differs between two passes); expected the same result each "
            "time; keep augmentation behind `if self.training:` of the module, which is False in a probe, or give "
            "data to observe and a loss_fn that need no augmentation"
        )
    place = _mixed(first, batch, lambda part: passed(part, 0))
    if place is not None:
        raise InputError(
            f"got samples from {named} that depend on their batch ({place} differs in a smaller batch); expected each "
            "sample to be processed on its own; use fixed statistics instead of those of the batch"
        )
    return first


def _mixed(whole: Batch, batch: Batch, passed: Callable[[Batch], Batch]) -> str | None:
    """Returns where samples of the first half differ without the second half; None if they do not."""
    try:
        size = num_samples(whole)
        if size < 2 or num_samples(batch) != size:
            return None
        half = slice(0, (size + 1) // 2)
        part = take(batch, half)
    except InputError:  # sliced into samples by the hook itself
        return None
    return _differing(take(whole, half), passed(part), _TOLERANCE)


def _differing(left: Batch, right: Batch, tolerance: float) -> str | None:
    """Returns where batches differ by more than ``tolerance * (1 + |number|)``; shapes may differ if it is above 0."""
    for (path, first), (_, second) in zip(leaves(left), leaves(right), strict=False):
        pair = tuple(torch.as_tensor(value) if _numeric(value) else value for value in (first, second))
        if not all(isinstance(value, Tensor) for value in pair):
            continue
        if pair[0].shape != pair[1].shape:
            # Another length, such as trimmed padding.
            if tolerance:
                continue
            return where(path)
        a, b = (value.to_dense().double() if not value.is_complex() else torch.view_as_real(value) for value in pair)
        unequal = (a - b).abs() > tolerance * (1 + b.abs())
        if (unequal | (a.isnan() != b.isnan())).any():
            return where(path)
    return None


def _numeric(value: Any) -> bool:
    return isinstance(value, np.ndarray) and value.dtype.kind in "biufc"
