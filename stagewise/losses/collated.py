"""Loss over indices that fetches and collates the samples itself, for any form of batch."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn
from torch.fx.experimental.proxy_tensor import get_proxy_mode

from stagewise.batches import Batch, collated, to_device
from stagewise.checks.bounds import settle_fields
from stagewise.errors import InputError
from stagewise.losses.contract import LossFn, resolve_loss

Transfer = Callable[[Batch], Batch]


@dataclass(frozen=True)
class CollatedLoss:
    """``loss_fn`` for batches that cannot be cut into samples: graphs, packed sequences, ragged lists.

    Observe indices instead of samples; the samples are collated at each evaluation::

        InfluenceCallback(
            observed=torch.arange(64),
            sampling=torch.arange(1024),
            loss_fn=CollatedLoss(dataset, per_sample_loss, Batch.from_data_list),
        )

    If ``observed=`` and ``sampling=`` are omitted and the training loader loads this same data set, they are the
    indices that it draws first. Collated batches are treated like training batches: precision, transfer hooks of module
    and data module, device. Samples are fetched at each evaluation, in the main process: the data set should be fast.
    Only the sequential engine supports this loss, unless each minibatch is the whole sampling set.

    Attributes:
        dataset: map-style data set; its samples must be the same at each evaluation.
        loss_fn: ``loss_fn(module, batch)`` of the collated batch, unreduced; that of the module if None.
        collate_fn: turns samples into a batch; torch's default if None.
        transfer: applied to a collated batch; the callback sets that of the Trainer. If None, tensors are moved to the
            module's device.
    """

    dataset: Any
    loss_fn: LossFn | None = None
    collate_fn: Callable[[list[Any]], Batch] | None = None
    transfer: Transfer | None = None

    def __post_init__(self) -> None:
        settle_fields(self)
        if not (hasattr(self.dataset, "__getitem__") and hasattr(self.dataset, "__len__")):
            raise InputError(
                f"got a {type(self.dataset).__name__} for CollatedLoss; expected a map-style data set, with a length "
                "and samples by index; draw a fixed list of samples from a stream and pass that"
            )

    def __deepcopy__(self, memo: dict[int, Any]) -> "CollatedLoss":
        """Returns itself: the data set is only read, and a copy would not be recognised as that of the loader."""
        return self

    def __call__(self, module: nn.Module, index: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        """Returns the losses of the samples ``index [k]``, ``[k]`` or with further axes; or losses and mask.

        Raises:
            InputError: not indices of the data set, or an engine that traces.
        """
        loss_fn = resolve_loss(module, self.loss_fn)
        return loss_fn(module, self.batch(module, index))

    def batch(self, module: nn.Module, index: Tensor) -> Batch:
        """Returns the samples ``index [k]`` as one batch, on the module's device."""
        batch = collated(self.dataset, self._numbers(index), self.collate_fn)
        if self.transfer is not None:
            return self.transfer(batch)
        return to_device(batch, next(module.parameters()).device)

    def _numbers(self, index: Tensor) -> list[int]:
        if not isinstance(index, Tensor) or index.dim() != 1 or index.is_floating_point() or index.is_complex():
            got = f"{index.dtype} {list(index.shape)}" if isinstance(index, Tensor) else type(index).__name__
            raise InputError(
                f"got {got} for CollatedLoss; expected int64 indices [sample] of its data set; pass "
                "observed=torch.arange(64) and sampling=torch.arange(1024), or leave both out"
            )
        if get_proxy_mode() is not None:
            raise InputError(
                "got a CollatedLoss to trace; expected an engine that calls the loss; set engine to sequential"
            )
        numbers = index.tolist()
        if numbers and not (min(numbers) >= 0 and max(numbers) < len(self.dataset)):
            raise InputError(
                f"got indices from {min(numbers)} to {max(numbers)} for a data set of {len(self.dataset)} samples; "
                f"expected 0 to {len(self.dataset) - 1}; choose others"
            )
        return numbers
