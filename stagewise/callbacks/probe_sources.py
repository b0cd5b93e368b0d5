"""Sources of loss and data of the probes, as they were given to the callback."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from torch import Tensor, nn
from torch.utils.data import Dataset

from stagewise.batches import Batch
from stagewise.callbacks.first_batch import Strictness, check_first_batch
from stagewise.callbacks.probe_data import collated_like_training, find_probe_data
from stagewise.callbacks.transfer import transfer
from stagewise.errors import InputError
from stagewise.lm.components import component_masks
from stagewise.losses.collated import CollatedLoss
from stagewise.losses.contract import LossFn, resolve_loss
from stagewise.sampling.config import SGLDConfig
from stagewise.sampling.data import ProbeData
from stagewise.sampling.preconditioners.ekfac import EKFAC
from stagewise.sampling.selection import Masks, trainable


@dataclass
class FirstBatch:
    """Pending check of the first training batch.

    Attributes:
        probed: batch of the probes, as the module receives it.
        strictness: reaction to a difference.
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
        observed: data set or batch whose losses are recorded; None to find one, see
            :func:`~stagewise.callbacks.probe_data.find_probe_data`.
        sampling: data set or batch that drives the gradient, or None likewise.
        groups: name to bool mask over the observed set, ``[sample]`` or of the shape of the losses, or None likewise.
        loss_fn: unreduced loss; None for the module's.
    """

    observed: Dataset | Batch | None = None
    sampling: Dataset | Batch | None = None
    groups: Mapping[str, Tensor] | None = None
    loss_fn: LossFn | None = None

    def loss_and_data(self, trainer: Trainer, module: LightningModule) -> tuple[LossFn, ProbeData]:
        """Returns the per-sample loss and the data of the probes; random generators in the data keep their state.

        Args:
            trainer: at the start of training, with its loader set up.
            module: module in training.

        Raises:
            InputError: no usable data, or a module without a per-sample loss.
        """
        loss_fn, data, _ = self.resolve(trainer, module)
        return loss_fn, data

    def resolve(self, trainer: Trainer, module: LightningModule) -> tuple[LossFn, ProbeData, FirstBatch]:
        """Returns the same as :meth:`loss_and_data`, and the check of the first training batch."""
        data, drawn = find_probe_data(trainer, module, self.observed, self.sampling, self.groups, self.loss_fn)
        loss_fn = resolve_loss(module, self.loss_fn)
        if isinstance(loss_fn, CollatedLoss):
            probed = collated_like_training(trainer, module, loss_fn, data)
            loss_fn = replace(loss_fn, transfer=lambda batch: transfer(trainer, module, batch))
            return loss_fn, data, FirstBatch(probed, Strictness.warn if loss_fn.loss_fn is None else Strictness.ignore)
        given = Strictness.warn if self.loss_fn is None else Strictness.ignore
        return loss_fn, data, FirstBatch(data.observed, Strictness.refuse if drawn else given)


def masks_of_component(component: str | None, module: nn.Module, sgld: SGLDConfig) -> Masks | None:
    """Returns the masks of a component's weights; refuses settings that do not go together with a component.

    Args:
        component: its name, see :func:`stagewise.lm.components.components`; None to follow ``sgld.parameters``.
        module: module in training, on its device.
        sgld: the sampler.

    Returns:
        As :func:`stagewise.lm.components.component_masks`; None without a component.

    Raises:
        InputError: a component together with ``sgld.parameters`` or EK-FAC, a name that is no part of the model, a
            model of unknown layout, or a component with a frozen parameter.
    """
    if component is None:
        return None
    if sgld.parameters is not None:
        raise InputError(
            f"got component {component!r} together with sgld.parameters={list(sgld.parameters)}; expected one of the "
            "two; set sgld.parameters to null, or component"
        )
    if isinstance(sgld.preconditioner, EKFAC):
        # Its eigenbasis mixes all weights of a layer.
        raise InputError(
            f"got component {component!r} with EKFAC; expected another preconditioner, or none; for whole tensors name "
            "them in sgld.parameters instead"
        )
    masks = component_masks(module, component)
    trainable(module, masks)  # refuses frozen ones
    return masks
