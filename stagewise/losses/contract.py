"""Loss contract: unreduced losses in nats, ``[sample]`` or ``[sample, token]``, from any module."""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from stagewise.batches import Batch, num_samples
from stagewise.errors import LossContractError
from stagewise.losses.causal_lm import causal_lm_loss
from stagewise.losses.language_models import other_language_model, trained_causal_lm

LossFn = Callable[[nn.Module, Batch], "Tensor | tuple[Tensor, Tensor]"]
"""Function ``loss_fn(module, batch)`` that returns losses ``[sample]``, ``[sample, token]`` or with more axes, or
``(losses, mask)``."""

_EXAMPLE = (
    "per_sample_loss(self, batch) -> Tensor [sample], e.g. "
    "`x, y = batch; return F.cross_entropy(self(x), y, reduction='none')`"
)

_SHOWN = 8


class Losses(NamedTuple):
    """Unreduced losses of one batch.

    Attributes:
        values: ``[sample]`` or ``[sample, token]``, float32 or float64, nats; zero where masked.
        mask: of the same shape, bool; False where there is no loss (padding, ignored labels).
        axes: original sizes of the axes after the first, such as (height, width) of a dense loss; their product is the
            number of tokens.
    """

    values: Tensor
    mask: Tensor
    axes: tuple[int, ...] = ()

    def mean(self) -> Tensor:
        """Returns the mean over unmasked losses, 0 if there are none: the training loss, L in the sampler's target."""
        return self.values.sum() / self.mask.sum().clamp(min=1)


def evaluate(loss_fn: LossFn, module: nn.Module, batch: Batch) -> Losses:
    """Calls a loss function and converts its result to one form.

    Losses with more axes, such as ``[sample, height, width]``, and their mask become ``[sample, token]``, in row-major
    order.

    Raises:
        LossContractError: the result is reduced, has the wrong leading size, or is not a tensor.
    """
    answer = loss_fn(module, batch)
    values, mask = answer if isinstance(answer, tuple) else (answer, None)
    values, mask = _plain(values), _plain(mask)
    size = num_samples(batch)
    if not isinstance(values, Tensor):
        raise LossContractError(f"got a loss of type {type(values).__name__}; expected a tensor; return {_EXAMPLE}")
    if values.dim() == 0 or len(values) != size:
        raise LossContractError(
            f"got a loss of shape {list(values.shape)} for a batch of {size} samples; expected [{size}], "
            f"[{size}, token] or more axes behind; leave it unreduced (reduction='none'): {_EXAMPLE}"
        )
    if mask is None:
        mask = torch.ones_like(values, dtype=torch.bool)
    elif mask.shape != values.shape:
        raise LossContractError(
            f"got a mask of shape {list(mask.shape)} for losses of shape {list(values.shape)}; expected equal shapes"
        )
    else:
        mask = mask.bool()
        values = torch.where(mask, values, 0.0)
    if values.dtype in (torch.float16, torch.bfloat16):
        values = values.float()
    axes = tuple(values.shape[1:])
    if len(axes) > 1:
        values, mask = values.flatten(1), mask.flatten(1)
    return Losses(values, mask, axes)


def _plain(answer: Any) -> Any:
    """Strips the subclass of a tensor (e.g. MetaTensor): gradients would inherit its class and its indexing.

    A subclass that dispatches, e.g. for tracing, is kept.
    """
    own = isinstance(answer, Tensor) and type(answer) is not Tensor
    if own and type(answer).__torch_dispatch__ is Tensor.__torch_dispatch__:
        return answer.as_subclass(Tensor)
    return answer


def check_loss(loss_fn: LossFn, module: nn.Module, batch: Batch) -> Losses:
    """Checks the whole contract on one batch: shape, finite values, a gradient, and equal results of two calls.

    The module is expected in eval mode, as in a probe.

    Raises:
        LossContractError: the contract is broken; the message says what to do.
    """
    with torch.enable_grad():
        again = evaluate(loss_fn, module, batch)
        # The gradient is that of the second: a forward pass may write to weights saved by an earlier one.
        losses = evaluate(loss_fn, module, batch)
    check_finite(losses)
    check_some(losses.mask)
    if not losses.values.requires_grad:
        raise LossContractError(
            "got a loss without a gradient; expected one that depends on trainable parameters; "
            "leave out .detach(), .item() and torch.no_grad(), and unfreeze a parameter"
        )
    if not torch.equal(losses.values, again.values):
        raise LossContractError(
            "got different losses from two calls in eval mode; expected a deterministic loss; "
            "switch off dropout, augmentation and sampling where self.training is False"
        )
    return losses


def check_finite(losses: Losses, where: str = "a batch", start: int = 0) -> None:
    """Refuses losses that are not finite.

    Args:
        losses: of a batch, or of a part of a set.
        where: name of the set, for the message.
        start: number of the first sample in that set.

    Raises:
        LossContractError: a loss is not finite; the message names the samples and says what to do.
    """
    bad = ~torch.isfinite(losses.values)
    if not bad.any():
        return
    rows = (bad.flatten(1).any(dim=1) if bad.dim() > 1 else bad).nonzero().flatten().add(start).tolist()
    shown = ", ".join(map(str, rows[:_SHOWN])) + (", ..." if len(rows) > _SHOWN else "")
    raise LossContractError(
        f"got {int(bad.sum())} losses of {bad.numel()} that are not finite, in samples {shown} of {where}; expected "
        "finite nats; mask them out by returning (losses, mask), or fix the batch"
    )


def check_some(mask: Tensor, where: str = "a batch") -> None:
    """Refuses a set without any loss; individual samples may have none.

    Args:
        mask: True where there is a loss.
        where: name of the set, for the message.

    Raises:
        LossContractError: the contract is broken; the message says what to do.
    """
    if not mask.any():
        raise LossContractError(
            f"got {where} of {len(mask)} samples with a mask that leaves no loss at all; expected at least one True; "
            "use samples that have labels"
        )


def _own_loss(module: nn.Module, batch: Batch) -> "Tensor | tuple[Tensor, Tensor]":
    return module.per_sample_loss(batch)  # type: ignore[operator]


def resolve_loss(module: nn.Module, loss_fn: LossFn | None = None) -> LossFn:
    """Finds the per-sample loss of a module.

    The order of precedence is ``loss_fn``; the module's own ``per_sample_loss(batch)``; a Hugging Face causal language
    model, the module itself or one inside it, see :func:`~stagewise.losses.language_models.causal_lm_name`.

    Raises:
        LossContractError: (a ``TypeError``) none of the three was found, or there are several language models, or
            trainable weights outside of the language model.
    """
    if loss_fn is not None:
        if not callable(loss_fn):
            raise LossContractError(
                f"got loss_fn of type {type(loss_fn).__name__}; expected a function loss_fn(module, batch)"
            )
        return loss_fn
    if callable(getattr(module, "per_sample_loss", None)):
        return _own_loss
    name = trained_causal_lm(module)
    if name is not None:
        return lambda owner, batch: causal_lm_loss(owner.get_submodule(name), batch)
    other = other_language_model(module)
    if other is not None:
        raise LossContractError(f"got {type(module).__name__} with {other}")
    raise LossContractError(
        f"got {type(module).__name__}, which has no per-sample loss; expected one of three: an argument "
        f"loss_fn(module, batch), a Hugging Face causal language model, or a method on the module: {_EXAMPLE}"
    )
