"""The loss contract: unreduced losses in nats, ``[sample]`` or ``[sample, token]``, from any module."""

import sys
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.fx.experimental.proxy_tensor import get_proxy_mode

from stagewise.batches import Batch, num_samples
from stagewise.errors import LossContractError

LossFn = Callable[[nn.Module, Batch], "Tensor | tuple[Tensor, Tensor]"]
"""``loss_fn(module, batch)`` returns ``[sample]`` or ``[sample, token]`` losses, or ``(losses, mask)``."""

_EXAMPLE = (
    "per_sample_loss(self, batch) -> Tensor [sample], e.g. "
    "`x, y = batch; return F.cross_entropy(self(x), y, reduction='none')`"
)


class Losses(NamedTuple):
    """Unreduced losses of one batch.

    Attributes:
        values: ``[sample]`` or ``[sample, token]``, float32 or float64, nats; zero where masked.
        mask: the same shape, bool; False where there is no loss (padding, ignored labels).
    """

    values: Tensor
    mask: Tensor

    def mean(self) -> Tensor:
        """Mean over what the mask keeps: the loss that training minimises, and L in the sampler's target."""
        return self.values.sum() / self.mask.sum()

    def per_sample(self) -> Tensor:
        """``[sample]``: token losses summed, so that a sequence loss is minus its log likelihood in nats."""
        return self.values if self.values.dim() == 1 else self.values.sum(dim=1)


def evaluate(loss_fn: LossFn, module: nn.Module, batch: Batch) -> Losses:
    """Call a loss function and bring its answer into one form.

    Raises:
        LossContractError: the answer is reduced, has the wrong leading size, or is not a tensor.
    """
    answer = loss_fn(module, batch)
    values, mask = answer if isinstance(answer, tuple) else (answer, None)
    values, mask = _plain(values), _plain(mask)
    size = num_samples(batch)
    if not isinstance(values, Tensor):
        raise LossContractError(f"got a loss of type {type(values).__name__}; expected a tensor; return {_EXAMPLE}")
    if values.dim() not in (1, 2) or len(values) != size:
        raise LossContractError(
            f"got a loss of shape {list(values.shape)} for a batch of {size} samples; expected [{size}] or "
            f"[{size}, token]; leave it unreduced (reduction='none'): {_EXAMPLE}"
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
    return Losses(values, mask)


def _plain(answer: Any) -> Any:
    """A tensor without its subclass (a MetaTensor): gradients take on the loss's class, and index as it pleases.

    A subclass that dispatches, as that of a trace, is what it has to be.
    """
    own = isinstance(answer, Tensor) and type(answer) is not Tensor
    if own and type(answer).__torch_dispatch__ is Tensor.__torch_dispatch__:
        return answer.as_subclass(Tensor)
    return answer


def check_loss(loss_fn: LossFn, module: nn.Module, batch: Batch) -> Losses:
    """Check the whole contract on one batch: shape, finite values, a gradient, and the same answer twice.

    The module is expected in eval mode, as in a probe.

    Raises:
        LossContractError: what was got, what was expected, what to do.
    """
    with torch.enable_grad():
        losses = evaluate(loss_fn, module, batch)
        again = evaluate(loss_fn, module, batch)
    check_finite(losses)
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


def check_finite(losses: Losses) -> None:
    """Refuse losses that are not finite, or a mask that leaves none.

    Raises:
        LossContractError: what was got, what was expected, what to do.
    """
    if not torch.isfinite(losses.values).all():
        bad = int((~torch.isfinite(losses.values)).sum())
        raise LossContractError(
            f"got {bad} losses of {losses.values.numel()} that are not finite; expected finite nats; "
            "mask them out by returning (losses, mask), or mend the batch"
        )
    if not losses.mask.any():
        raise LossContractError("got a mask that leaves no loss at all; expected at least one True")


def causal_lm_loss(model: nn.Module, batch: Batch) -> tuple[Tensor, Tensor]:
    """Next-token losses of a Hugging Face causal language model.

    Args:
        model: called with ``input_ids`` (and ``attention_mask`` where the batch has one), returns ``.logits``.
        batch: token ids ``[sample, position]``, or a mapping with ``input_ids`` and, optionally, ``attention_mask``
            and ``labels`` (-100 = ignored; not shifted).

    Returns:
        Losses and mask, both ``[sample, position - 1]``; entry k is the loss in nats of token k + 1 given tokens 0..k.
    """
    fields = {"input_ids": batch} if isinstance(batch, Tensor) else batch
    ids = fields["input_ids"]
    attention = fields.get("attention_mask")
    inputs = {"input_ids": ids} if attention is None else {"input_ids": ids, "attention_mask": attention}
    if get_proxy_mode() is not None:
        inputs["attention_mask"] = _causal_mask(model, ids, attention)
    logits = model(**inputs, use_cache=False).logits
    labels = fields.get("labels", ids)
    if attention is not None:
        labels = labels.masked_fill(attention == 0, -100)
    # Shifting the targets, not the logits, saves a copy of the logits.
    targets = F.pad(labels[:, 1:], (0, 1), value=-100)
    losses = F.cross_entropy(logits.flatten(0, 1).float(), targets.flatten(), reduction="none", ignore_index=-100)
    return losses.view(ids.shape)[:, :-1], (targets != -100)[:, :-1]


def _causal_mask(model: nn.Module, ids: Tensor, attention: Tensor | None) -> Tensor:
    """What is added to attention scores ``[sample, 1, position, position]``, for a model that is being traced.

    The model's own way to its mask looks at values. Where it would have made another mask (sliding windows), its losses
    differ, which the batched engine checks.
    """
    length = ids.shape[1]
    visible = torch.ones(length, length, dtype=torch.bool, device=ids.device).tril().expand(len(ids), 1, -1, -1)
    if attention is not None:
        visible = visible & attention.bool()[:, None, None, :]
    dtype = next(model.parameters()).dtype
    return torch.zeros((), dtype=dtype, device=ids.device).masked_fill(~visible, torch.finfo(dtype).min)


def _own_loss(module: nn.Module, batch: Batch) -> "Tensor | tuple[Tensor, Tensor]":
    return module.per_sample_loss(batch)  # type: ignore[operator]


def causal_lm_name(module: nn.Module) -> str | None:
    """Name of the Hugging Face causal language model in a module: '' for the module itself, None without one."""
    if "transformers" not in sys.modules:
        return None
    from transformers import PreTrainedModel

    for name, child in module.named_modules():
        if isinstance(child, PreTrainedModel) and child.get_output_embeddings() is not None:
            return name
    return None


def resolve_loss(module: nn.Module, loss_fn: LossFn | None = None) -> LossFn:
    """Find the per-sample loss of a module.

    In this order: ``loss_fn``; the module's own ``per_sample_loss(batch)``; a Hugging Face causal language model, as
    the module itself or inside it.

    Raises:
        LossContractError: (a ``TypeError``) none of the three was found.
    """
    if loss_fn is not None:
        if not callable(loss_fn):
            raise LossContractError(
                f"got loss_fn of type {type(loss_fn).__name__}; expected a function loss_fn(module, batch)"
            )
        return loss_fn
    if callable(getattr(module, "per_sample_loss", None)):
        return _own_loss
    name = causal_lm_name(module)
    if name is not None:
        return lambda owner, batch: causal_lm_loss(owner.get_submodule(name), batch)
    raise LossContractError(
        f"got {type(module).__name__}, which has no per-sample loss; expected one of three: an argument "
        f"loss_fn(module, batch), a Hugging Face causal language model, or a method on the module: {_EXAMPLE}"
    )
