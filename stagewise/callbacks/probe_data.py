"""Where the data of the probes come from: given, from the data module, or from the training set."""

from collections.abc import Callable, Mapping
from dataclasses import replace

from lightning.pytorch import LightningModule, Trainer
from torch import Tensor
from torch.utils.data import Dataset

from stagewise.batches import Batch, as_batch, first_samples
from stagewise.errors import InputError
from stagewise.isolation import untouched
from stagewise.sampling.data import ProbeData

NUM_OBSERVED = 64
"""Samples taken from the training set where nothing is given to observe."""

NUM_SAMPLING = 1024
"""Samples taken from the training set where nothing is given to drive the gradient."""


def find_probe_data(
    trainer: Trainer,
    module: LightningModule,
    observed: Dataset | Batch | None,
    sampling: Dataset | Batch | None,
    groups: Mapping[str, Tensor] | None,
) -> ProbeData:
    """Settle observed set, sampling set and groups, without touching a random number or the training loader.

    In this order: what is given; the data module's ``probe_data()``; the first samples of the training set. A training
    set that draws from a generator of its own is moved by reading it: give the observed and the sampling set then.

    Args:
        trainer: at the start of training, with its loader set up.
        module: the module that trains.
        observed: map-style data set or batch to observe, None for the other ways.
        sampling: map-style data set or batch that drives the gradient; the start of the training set if None.
        groups: masks over the observed set.

    Raises:
        InputError: nothing usable was found.
    """
    with untouched(module):
        if observed is None:
            own = getattr(trainer.datamodule, "probe_data", None)  # type: ignore[attr-defined]
            if callable(own):
                data = own()
                if not isinstance(data, ProbeData):
                    raise InputError(f"got {type(data).__name__} from probe_data(); expected a stagewise.ProbeData")
                return replace(
                    data,
                    sampling=data.sampling if sampling is None else as_batch(sampling),
                    groups=data.groups if groups is None else groups,
                )
        training_set, collate_fn = _training_set(trainer)
        if observed is None:
            if training_set is None:
                raise InputError(
                    "got nothing to observe and no map-style training set to take it from; expected "
                    "InfluenceCallback(observed=...), a data set or a batch, or a data module with probe_data()"
                )
            observed = first_samples(training_set, NUM_OBSERVED, collate_fn)
        else:
            observed = as_batch(observed, collate_fn)
        if sampling is not None:
            sampling = as_batch(sampling, collate_fn)
        elif training_set is not None:
            sampling = first_samples(training_set, NUM_SAMPLING, collate_fn)
        return ProbeData(observed=observed, sampling=sampling, groups=groups or {})


def in_precision_of(trainer: Trainer, data: ProbeData) -> ProbeData:
    """The same data with floating-point tensors converted as the trainer converts its batches."""
    convert = trainer.precision_plugin.convert_input
    sampling = None if data.sampling is None else convert(data.sampling)
    return replace(data, observed=convert(data.observed), sampling=sampling)


def _training_set(trainer: Trainer) -> tuple[Dataset | None, Callable | None]:
    """The one map-style training set and its collate function, or None."""
    loader = trainer.train_dataloader
    dataset = getattr(loader, "dataset", None)
    if not (hasattr(dataset, "__len__") and hasattr(dataset, "__getitem__")):
        return None, None
    return dataset, getattr(loader, "collate_fn", None)
