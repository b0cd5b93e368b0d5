"""Data of the probes: given by the user or the data module, or drawn like those of the training loader."""

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
"""Number of samples to observe if none are given, drawn like those of the training loader."""

NUM_SAMPLING = 1024
"""Number of samples to drive the gradient if none are given, drawn like those of the training loader."""


class Found(NamedTuple):
    """Data of the probes.

    Attributes:
        data: in the form in which the module receives its batches.
        drawn: True if the observed set was drawn from the training loader.
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
    """Finds the observed set, the sampling set and the groups, without using random numbers or the training loader.

    Tries in this order: the arguments; the data module's ``probe_data()``; samples drawn like those of the training
    loader, see :func:`stagewise.loading.draw.draw_indices`. For a loader over a whole set these are the first 64 to
    observe and the first 1,024 to drive the gradient.

    Data sets and batches are treated like batches of the training loader, wherever they come from: once, before
    training and in eval mode, they pass through the trainer's precision and the transfer hooks of module and data
    module. Indices for a :class:`~stagewise.losses.collated.CollatedLoss` do not; the batches collated from them do,
    each time.

    Changes that reading makes to data sets, the data module or transfer hooks are undone, see
    :func:`stagewise.isolation.reading.unmoved`.

    Args:
        trainer: at the start of training, with its loader set up.
        module: module in training.
        observed: map-style data set or batch to observe; None to find one.
        sampling: map-style data set or batch that drives the gradient; drawn from the training set if None.
        groups: masks over the observed set.
        loss_fn: the user's loss; for a ``CollatedLoss``, indices are drawn.

    Raises:
        InputError: no usable data, or transfer hooks that are random or mix samples.
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
    """Returns the attributes of the data module; None without one."""
    datamodule = trainer.datamodule  # type: ignore[attr-defined]
    return None if datamodule is None else vars(datamodule)


def _drawer(loader: Any, loss_fn: Any) -> Callable[[int, bool], Batch] | None:
    """Returns a function that draws samples, given their number and if they must be distinct; None if none can be."""
    if isinstance(loss_fn, CollatedLoss):
        if has_samples(loader) and loader.dataset is loss_fn.dataset:
            return lambda limit, distinct: torch.as_tensor(draw_indices(loader, limit, distinct=distinct))
        return lambda limit, distinct: torch.arange(min(limit, len(loss_fn.dataset)))
    if has_samples(loader):
        return lambda limit, distinct: draw_batch(loader, limit, distinct=distinct)
    return None


def _read(data: Dataset | Batch, collate_fn: Callable | None) -> Batch:
    """Returns a data set as one batch, and a batch as given, since a transfer hook may still have to convert it."""
    if isinstance(data, Dataset) or hasattr(data, "__getitems__"):
        with unmoved(data, collate_fn):
            return first_samples(data, collate_fn=collate_fn)
    if isinstance(data, Tensor):
        return as_batch(data)
    return data


def _refuse_indices_alone(observed: Batch, drawn: Batch) -> None:
    """Refuses indices to observe without indices to sample, since one loss function evaluates both sets.

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
    """Describes the data of a loader."""
    dataset = getattr(loader, "dataset", None)
    return f"a {type(loader).__name__}" if dataset is None else f"a stream, {type(dataset).__name__}"


def collated_like_training(trainer: Trainer, module: LightningModule, loss_fn: CollatedLoss, data: ProbeData) -> Batch:
    """Returns the first two observed samples as the module receives them, for a loss that collates indices.

    Raises:
        InputError: as :func:`~stagewise.callbacks.transfer.checked_transfer`.
    """
    with untouched(module), unmoved(_attributes(trainer), loss_fn.dataset, loss_fn.collate_fn):
        plain = replace(loss_fn, transfer=lambda batch: checked_transfer(trainer, module, batch))
        return plain.batch(module, data.observed[:2])
