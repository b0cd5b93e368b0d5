"""Data of the probes: given, from the data module, or drawn as the training loader draws."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor
from torch.utils.data import Dataset

from stagewise.batches import Batch, as_batch, first_samples
from stagewise.callbacks.transfer import checked_transfer
from stagewise.errors import InputError
from stagewise.isolation import unmoved, untouched
from stagewise.loading.draw import draw_batch, draw_indices, has_samples
from stagewise.losses.collated import CollatedLoss
from stagewise.sampling.data import ProbeData

NUM_OBSERVED = 64
"""Samples drawn as the training loader draws where nothing is given to observe."""

NUM_SAMPLING = 1024
"""Samples drawn as the training loader draws where nothing is given to drive the gradient."""


class Found(NamedTuple):
    """The data of the probes.

    Attributes:
        data: as the module gets its batches.
        drawn: whether the observed set was drawn from the training loader.
    """

    data: ProbeData
    drawn: bool


def find_probe_data(
    trainer: Trainer,
    module: LightningModule,
    observed: Dataset | Batch | None,
    sampling: Dataset | Batch | None,
    groups: Mapping[str, Tensor] | None,
    loss_fn: Any = None,
) -> Found:
    """Settle observed set, sampling set and groups, without touching a random number or the training loader.

    In this order: what is given; the data module's ``probe_data()``; samples that the training loader draws, see
    :func:`stagewise.loading.draw.draw_indices`: for a loader over a whole set the first 64 to observe, the first 1,024
    to drive the gradient.

    Data sets and batches are taken as the training loader would give them, wherever they come from: they go through the
    trainer's precision and the transfer hooks of module and data module once, before training, in eval mode. Indices
    for a :class:`~stagewise.losses.collated.CollatedLoss` do not: what is collated from them does, at each look.

    What reading moves in data sets, in the data module or in transfer hooks is put back, see
    :func:`stagewise.isolation.reading.unmoved`.

    Args:
        trainer: at the start of training, with its loader set up.
        module: the module that trains.
        observed: map-style data set or batch to observe, None for the other ways.
        sampling: map-style data set or batch that drives the gradient; drawn from the training set if None.
        groups: masks over the observed set.
        loss_fn: the user's loss; what is drawn for a ``CollatedLoss`` are indices.

    Raises:
        InputError: nothing usable was found, or transfer hooks that are random or mix samples.
    """
    with untouched(module), unmoved(_attributes(trainer), observed, sampling):
        return _find(trainer, module, observed, sampling, groups, loss_fn)


def _find(
    trainer: Trainer,
    module: LightningModule,
    observed: Dataset | Batch | None,
    sampling: Dataset | Batch | None,
    groups: Mapping[str, Tensor] | None,
    loss_fn: Any,
) -> Found:
    loader = trainer.train_dataloader
    indexed = isinstance(loss_fn, CollatedLoss)
    own = getattr(trainer.datamodule, "probe_data", None) if observed is None else None  # type: ignore[attr-defined]
    draw = _drawer(loader, loss_fn)
    if callable(own):
        data = own()
        if not isinstance(data, ProbeData):
            raise InputError(f"got {type(data).__name__} from probe_data(); expected a stagewise.ProbeData")
        groups = data.groups if groups is None else groups
        observed, drawn = data.observed, False
        sampling = data.sampling if sampling is None else _read(sampling, None)
    else:
        collate_fn = None if indexed else getattr(loader, "collate_fn", None)
        drawn = observed is None
        if observed is not None:
            observed = _read(observed, collate_fn)
        elif draw is not None:
            observed = draw(NUM_OBSERVED, True)
        else:
            raise InputError(
                f"got nothing to observe and no map-style training set to take it from ({_loaded(loader)}); expected "
                "InfluenceCallback(observed=..., sampling=...), data sets or batches of what is recorded and of what "
                "drives the chains, or a data module with probe_data()"
            )
        if sampling is not None:
            sampling = _read(sampling, collate_fn)
        elif draw is not None:
            sampling = draw(NUM_SAMPLING, False)
            _refuse_indices_alone(observed, sampling)
        else:
            rank_zero_warn(
                f"stagewise: no sampling= is given, and none can be drawn from the training data ({_loaded(loader)}), "
                "so the losses of the observed set alone drive the chains; pass sampling=, a data set or a batch of "
                "training samples, for chains of the loss that training minimises"
            )
    if not indexed:
        observed = checked_transfer(trainer, module, observed)
        sampling = None if sampling is None else checked_transfer(trainer, module, sampling)
    return Found(ProbeData(observed=observed, sampling=sampling, groups=groups or {}), drawn)


def _attributes(trainer: Trainer) -> dict[str, Any] | None:
    """Of the data module, None without one."""
    datamodule = trainer.datamodule  # type: ignore[attr-defined]
    return None if datamodule is None else vars(datamodule)


def _drawer(loader: Any, loss_fn: Any) -> Callable[[int, bool], Batch] | None:
    """Draws so many samples, each once or not; None where the training data cannot be drawn from."""
    if isinstance(loss_fn, CollatedLoss):
        if has_samples(loader) and loader.dataset is loss_fn.dataset:
            return lambda limit, distinct: torch.as_tensor(draw_indices(loader, limit, distinct=distinct))
        return lambda limit, distinct: torch.arange(min(limit, len(loss_fn.dataset)))
    if has_samples(loader):
        return lambda limit, distinct: draw_batch(loader, limit, distinct=distinct)
    return None


def _read(data: Dataset | Batch, collate_fn: Callable | None) -> Batch:
    """A data set as one batch; a batch as it is, which a transfer hook may have to bring into form first."""
    if isinstance(data, Dataset) or hasattr(data, "__getitems__"):
        with unmoved(data, collate_fn):
            return first_samples(data, collate_fn=collate_fn)
    if isinstance(data, Tensor):
        return as_batch(data)
    return data


def _refuse_indices_alone(observed: Batch, drawn: Batch) -> None:
    """One loss function takes both sets: indices to observe go with indices to sample.

    Raises:
        InputError: indices are observed, and the sampling set drawn from the training loader is a batch.
    """
    if isinstance(observed, Tensor) and observed.dim() == 1 and not observed.is_floating_point():
        if isinstance(drawn, Tensor) and drawn.dim() == 1:
            return
        raise InputError(
            f"got observed={observed.dtype} {list(observed.shape)}, as indices are, and no sampling=, which the "
            "training loader gives as a batch; expected indices in both; add sampling=torch.arange(...), or pass "
            "loss_fn=stagewise.CollatedLoss(dataset, loss_fn, collate_fn)"
        )


def _loaded(loader: Any) -> str:
    """Describes what a loader loads."""
    dataset = getattr(loader, "dataset", None)
    return f"a {type(loader).__name__}" if dataset is None else f"a stream, {type(dataset).__name__}"


def collated_like_training(trainer: Trainer, module: LightningModule, loss_fn: CollatedLoss, data: ProbeData) -> Batch:
    """The first two observed samples as the module gets them, where the loss collates indices.

    Raises:
        InputError: as :func:`~stagewise.callbacks.transfer.checked_transfer`.
    """
    with untouched(module), unmoved(_attributes(trainer), loss_fn.dataset, loss_fn.collate_fn):
        plain = replace(loss_fn, transfer=lambda batch: checked_transfer(trainer, module, batch))
        return plain.batch(module, data.observed[:2])
