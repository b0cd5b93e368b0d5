"""Token losses of a causal language model, for any inputs of the model in a batch."""

import inspect
from collections.abc import Mapping
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.fx.experimental.proxy_tensor import get_proxy_mode

from stagewise.batches import Batch
from stagewise.checks.bounds import shown
from stagewise.errors import LossContractError, require
from stagewise.losses.chunked_head import chunked_cross_entropy, hidden_states, plain_head

IGNORED = -100
"""Label of a token without a loss, as in ``transformers`` and ``torch.nn.functional.cross_entropy``."""

_NOT_PASSED = {
    "labels",
    "shift_labels",
    "num_items_in_batch",
    "logits_to_keep",
    "num_logits_to_keep",
    "output_attentions",
    "output_hidden_states",
    "output_router_logits",
    "return_dict",
    "use_cache",
    "use_mems",
    "past_key_values",
    "cache_params",
    "cache_position",
    "mems",
    "state",
}
"""Inputs of a forward pass that are targets or would change its output."""

_VARLEN = {"cu_seq_lens_q", "cu_seq_lens_k", "max_length_q", "max_length_k", "seq_idx"}
"""Inputs with the bounds of packed documents, which models pass to their attention without naming them."""

_UNSHIFTED = {
    "BartForCausalLM",
    "BigBirdPegasusForCausalLM",
    "BlenderbotForCausalLM",
    "BlenderbotSmallForCausalLM",
    "CpmAntForCausalLM",
    "MBartForCausalLM",
    "MarianForCausalLM",
    "MvpForCausalLM",
    "PLBartForCausalLM",
    "PegasusForCausalLM",
    "TrOCRForCausalLM",
    "WhisperForCausalLM",
    "XLNetLMHeadModel",
}
"""Classes of ``transformers`` whose own loss compares logits with labels at the same position."""


class _Interface(NamedTuple):
    """Facts needed to call a model.

    Attributes:
        names: names of its inputs.
        takes_cache: True if it accepts ``use_cache``.
        shift: distance between a token and the logits that predict it, 1 or 0.
        counts_positions: True if it accepts ``position_ids`` that count from 0.
        virtual_tokens: True if it may put trained tokens before the text.
    """

    names: frozenset[str]
    takes_cache: bool
    shift: int
    counts_positions: bool
    virtual_tokens: bool


_known: WeakKeyDictionary[nn.Module, _Interface] = WeakKeyDictionary()


def is_peft(model: nn.Module) -> bool:
    """Returns True if a module is the wrapper of the library ``peft`` around a causal language model."""
    return any(
        cls.__name__ == "PeftModelForCausalLM" and cls.__module__.split(".")[0] == "peft" for cls in type(model).__mro__
    )


def _interface(model: nn.Module) -> _Interface:
    found = _known.get(model)
    if found is None:
        wrapped = is_peft(model)
        inner: Any = model.get_base_model() if wrapped else model  # type: ignore[operator]
        named: set[str] = set()
        for part in (model, inner):
            parameters = inspect.signature(part.forward).parameters
            named |= set(parameters)
            if any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in parameters.values()):
                named |= _VARLEN
        classes = {cls.__name__ for cls in type(inner).__mro__}
        # These models start positions after the padding token's id, and find the padding themselves.
        own_positions = any(hasattr(part, "create_position_ids_from_input_ids") for part in inner.modules())
        found = _Interface(
            names=frozenset(named - _NOT_PASSED),
            takes_cache="use_cache" in named,
            shift=0 if classes & _UNSHIFTED else 1,
            counts_positions="position_ids" in named and not own_positions and not wrapped,
            virtual_tokens=wrapped,
        )
        _known[model] = found
    return found


def causal_lm_loss(model: nn.Module, batch: Batch) -> tuple[Tensor, Tensor]:
    """Returns the token losses of a batch under a Hugging Face causal language model, as in the model's own ``loss``.

    The model receives every input that the batch has for it, by the names of its ``forward``: masks of any rank,
    ``position_ids``, ``token_type_ids``, images. Packed documents are separated exactly as in the model's training:
    many models do so by ``position_ids`` that restart, if there is no ``attention_mask`` and ``config.use_cache`` is
    False. Targets across document borders count unless labels ignore them. If a two-dimensional ``attention_mask`` has
    padding on the left and the model accepts positions, these count from the first token of the text, so that padding
    on either side gives the losses of the text alone. Models with learned positions that accept none (BART's) are
    affected by the padding.

    In eval mode, the logits of a large batch are not held for all tokens at once if the output layer allows it, see
    :func:`~stagewise.losses.chunked_head.plain_head`; losses then agree up to rounding.

    Args:
        model: returns ``.logits`` ``[sample, position, token]``.
        batch: token ids ``[sample, position]``, alone or as the only tensor of a tuple or list; or a mapping with
            ``input_ids`` and, optionally, ``labels`` ``[sample, position]`` (-100 = ignored; not shifted; by default
            the ids) and further inputs of the model. ``inputs_embeds`` in place of ids requires ``labels``. Where a
            two-dimensional ``attention_mask`` is 0, a token is neither a target nor predicts one.

    Returns:
        Losses in nats and their mask, both ``[sample, position - 1]``: entry k is the loss of token k + 1 given tokens
        0..k. If the model's own loss is over all tokens, both are ``[sample, position]``, with the loss of token k in
        entry k: for BART's family and other classes whose own loss does not shift labels, and after trained virtual
        tokens (``peft``), which predict the first token of a text.

    Raises:
        LossContractError: a batch without ids, labels that cannot be targets, or logits of another shape.
    """
    require(isinstance(model, nn.Module), "model", shown(model), "a causal language model", "pass the module")
    interface = _interface(model)
    fields = _fields(batch)
    labels = _labels(fields)
    mask = fields.get("attention_mask")
    padding = mask if isinstance(mask, Tensor) and mask.shape == labels.shape else None
    inputs = {name: value for name, value in fields.items() if name in interface.names and value is not None}
    if padding is not None and interface.counts_positions and "position_ids" not in inputs:
        inputs["position_ids"] = _positions(padding)
    # Given positions and no mask, transformers separates packed documents only without a cache.
    apart = mask is None and "position_ids" in inputs
    cached = apart and getattr(model.config, "use_cache", False)
    if get_proxy_mode() is not None and "attention_mask" in interface.names and (mask is None or mask.dim() == 2):
        inputs["attention_mask"] = _traced_mask(
            model, labels, mask, inputs["position_ids"] if apart and not cached else None
        )
        cached = False
    if interface.takes_cache:
        inputs["use_cache"] = bool(cached)
    shift = interface.shift
    head = None if interface.virtual_tokens else plain_head(model, labels.numel())
    hidden = None if head is None else hidden_states(model, head, inputs)
    if head is not None and hidden is not None and hidden.shape[:2] == labels.shape:
        targets = _targets(labels, padding, shift)
        losses = chunked_cross_entropy(hidden.flatten(0, 1), head.weight, targets.flatten(), ignored=IGNORED)
        return _placed(losses, targets, shift)
    output = model(**inputs)
    logits = output[0] if isinstance(output, tuple) else output.logits
    if interface.virtual_tokens and logits.dim() == 3 and logits.shape[1] > labels.shape[1]:
        # The last virtual token predicts the first one of the text.
        logits, shift = logits[:, logits.shape[1] - labels.shape[1] - 1 : -1], 0
    if logits.dim() != 3 or logits.shape[:2] != labels.shape:
        raise LossContractError(
            f"got logits of shape {list(logits.shape)} from {type(model).__name__} for labels of shape "
            f"{list(labels.shape)}; expected [sample, position, token], one position for each label; give a "
            "loss_fn(module, batch) of your own"
        )
    targets = _targets(labels, padding, shift)
    losses = F.cross_entropy(logits.flatten(0, 1).float(), targets.flatten(), reduction="none", ignore_index=IGNORED)
    return _placed(losses, targets, shift)


def _targets(labels: Tensor, padding: Tensor | None, shift: int) -> Tensor:
    """Returns the token that each position predicts, or -100, ``[sample, position]``."""
    if padding is not None:
        labels = labels.masked_fill(padding == 0, IGNORED)
    # Shifting the targets, not the logits, saves a copy of the logits.
    targets = F.pad(labels[:, 1:], (0, 1), value=IGNORED) if shift else labels
    if padding is not None and shift:
        targets = targets.masked_fill(padding == 0, IGNORED)
    return targets


def _placed(losses: Tensor, targets: Tensor, shift: int) -> tuple[Tensor, Tensor]:
    """Returns losses and mask ``[sample, position]``, without the last position if targets are shifted."""
    kept = slice(None, -1) if shift else slice(None)
    return losses.view(targets.shape)[:, kept], (targets != IGNORED)[:, kept]


def _fields(batch: Batch) -> Mapping[str, Any]:
    if isinstance(batch, tuple | list) and len(batch) == 1:
        batch = batch[0]
    if isinstance(batch, Tensor):
        return {"input_ids": batch}
    if isinstance(batch, Mapping) and ("input_ids" in batch or "inputs_embeds" in batch):
        return batch
    got = f"names {list(batch)}" if isinstance(batch, Mapping) else f"type {type(batch).__name__}"
    raise LossContractError(
        f"got a batch of {got} for a causal language model; expected token ids, or a mapping with input_ids and "
        "optionally attention_mask, labels and other inputs of the model; give a loss_fn(module, batch) that takes "
        "yours, e.g. lambda module, batch: stagewise.causal_lm_loss(module.model, {'input_ids': batch[0]})"
    )


def _labels(fields: Mapping[str, Any]) -> Tensor:
    """Returns the labels ``[sample, position]`` as int64, since other types may not hold -100."""
    labels = fields.get("labels")
    if labels is None:
        labels = fields.get("input_ids")
    if not isinstance(labels, Tensor) or labels.dim() != 2 or labels.is_floating_point():
        got = "no labels beside inputs_embeds" if labels is None else f"{_described(labels)} to predict"
        raise LossContractError(
            f"got {got}; expected integers [sample, position] as labels, or as input_ids; pad texts to one length"
        )
    return labels.long()


def _described(value: Any) -> str:
    return f"{value.dtype} {list(value.shape)}" if isinstance(value, Tensor) else type(value).__name__


def _positions(padding: Tensor) -> Tensor:
    """Returns positions ``[sample, position]`` counted from the first token that is not padding."""
    before = (padding != 0).cumsum(dim=1) == 0
    places = torch.arange(padding.shape[1], device=padding.device)
    return (places - before.sum(dim=1, keepdim=True)).clamp(min=0)


def _traced_mask(model: nn.Module, like: Tensor, padding: Tensor | None, positions: Tensor | None) -> Tensor:
    """Builds the term added to attention scores, ``[sample, 1, position, position]``, while a model is traced.

    The model's own code for the mask depends on values. If it would build another mask (sliding windows), its losses
    differ, which the batched engine checks.
    """
    length = like.shape[1]
    visible = torch.ones(length, length, dtype=torch.bool, device=like.device).tril().expand(len(like), 1, -1, -1)
    if padding is not None:
        visible = visible & padding.bool()[:, None, None, :]
    if positions is not None and positions.dim() == 2:
        # As in transformers without a mask: a text ends where positions do not increase by one.
        begins = F.pad(positions[:, 1:] - positions[:, :-1] != 1, (1, 0))
        text = begins.cumsum(dim=1)
        visible = visible & (text[:, None, :, None] == text[:, None, None, :])
    dtype = next(model.parameters()).dtype
    return torch.zeros((), dtype=dtype, device=like.device).masked_fill(~visible, torch.finfo(dtype).min)
