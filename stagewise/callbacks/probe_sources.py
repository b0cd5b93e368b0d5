"""Sources of loss and data of the probes, as they were given to the callback."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from torch import Tensor
from torch.utils.data import Dataset

from stagewise.batches import Batch
from stagewise.callbacks.first_batch import Strictness, check_first_batch
from stagewise.callbacks.probe_data import collated_like_training, find_probe_data
from stagewise.callbacks.transfer import transfer
from stagewise.losses.collated import CollatedLoss
from stagewise.losses.contract import LossFn, resolve_loss
from stagewise.sampling.data import ProbeData


@dataclass
class FirstBatch:
    """Waits for the first batch that trains.

    Attributes:
        probed: a batch of the probes, as the module gets it.
        strictness: what a difference leads to.
    """

    probed: Batch
    strictness: Strictness

    def check(self, training: Any) -> None:
        """See :func:`~stagewise.callbacks.first_batch.check_first_batch`."""
        check_first_batch(self.probed, training, self.strictness)


@dataclass(frozen=True)
class ProbeSources:
    """Sources of loss and data of the probes; nothing is read before :meth:`loss_and_data`.

    Attributes:
        observed: data set or batch whose losses are recorded; None for the ways of
            :func:`~stagewise.callbacks.probe_data.find_probe_data`.
        sampling: data set or batch that drives the gradient, or None likewise.
        groups: name to bool mask over the observed set, ``[sample]`` or of the shape of the losses, or None likewise.
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
        loss_fn, data, _ = self.settled(trainer, module)
        return loss_fn, data

    def settled(self, trainer: Trainer, module: LightningModule) -> tuple[LossFn, ProbeData, FirstBatch]:
        """:meth:`loss_and_data`, and what to hold against the first batch that trains."""
        data, drawn = find_probe_data(trainer, module, self.observed, self.sampling, self.groups, self.loss_fn)
        loss_fn = resolve_loss(module, self.loss_fn)
        if isinstance(loss_fn, CollatedLoss):
            probed = collated_like_training(trainer, module, loss_fn, data)
            loss_fn = replace(loss_fn, transfer=lambda batch: transfer(trainer, module, batch))
            return loss_fn, data, FirstBatch(probed, Strictness.warn if loss_fn.loss_fn is None else Strictness.ignore)
        given = Strictness.warn if self.loss_fn is None else Strictness.ignore
        return loss_fn, data, FirstBatch(data.observed, Strictness.refuse if drawn else given)
