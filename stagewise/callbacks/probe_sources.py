"""What the probes of a run look at, as it was given to the callback."""

from collections.abc import Mapping
from dataclasses import dataclass

from lightning.pytorch import LightningModule, Trainer
from torch import Tensor
from torch.utils.data import Dataset

from stagewise.batches import Batch
from stagewise.callbacks.probe_data import find_probe_data, in_precision_of
from stagewise.isolation import unmoved
from stagewise.losses import LossFn, resolve_loss
from stagewise.sampling.data import ProbeData


@dataclass(frozen=True)
class ProbeSources:
    """Where loss and data of the probes come from; nothing is looked at before :meth:`loss_and_data`.

    Attributes:
        observed: data set or batch whose losses are recorded; None for the ways of
            :func:`~stagewise.callbacks.probe_data.find_probe_data`.
        sampling: data set or batch that drives the gradient, or None likewise.
        groups: name to bool mask over the observed set, ``[sample]`` or ``[sample, token]``, or None likewise.
        loss_fn: unreduced loss, or None for that of the module.
    """

    observed: Dataset | Batch | None = None
    sampling: Dataset | Batch | None = None
    groups: Mapping[str, Tensor] | None = None
    loss_fn: LossFn | None = None

    def loss_and_data(self, trainer: Trainer, module: LightningModule) -> tuple[LossFn, ProbeData]:
        """The per-sample loss and the data that probes of this trainer use; random generators in the data stay put.

        Args:
            trainer: at the start of training, with its loader set up.
            module: the module that trains.

        Raises:
            InputError: no data that can be used, or a module without a per-sample loss.
        """
        loader = trainer.train_dataloader
        owner = trainer.datamodule  # type: ignore[attr-defined]
        read = (
            getattr(loader, "dataset", None),
            getattr(loader, "collate_fn", None),
            self.observed,
            self.sampling,
            None if owner is None else vars(owner),
        )
        with unmoved(*read):
            data = find_probe_data(trainer, module, self.observed, self.sampling, self.groups)
        return resolve_loss(module, self.loss_fn), in_precision_of(trainer, data)
