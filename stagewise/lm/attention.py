"""Attention weights and token losses of any Hugging Face causal language model, in one forward pass."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stagewise.errors import InputError
from stagewise.lm.tokens import check_ids


@contextmanager
def eager_attention(model: Any) -> Iterator[None]:
    """Context in which a model uses the attention that returns its weights; restores its own afterwards.

    Args:
        model: Hugging Face model.
    """
    before = getattr(model.config, "_attn_implementation", "eager")
    if before == "eager":
        yield
        return
    model.set_attn_implementation("eager")
    try:
        yield
    finally:
        model.set_attn_implementation(before)


class Look(NamedTuple):
    """Results of one forward pass.

    Attributes:
        attention: ``[layer, sample, head, position k, position j]``, probabilities; from token k to token j.
        losses: ``[sample, position - 1]``, nats; entry k is the loss of token k + 1.
    """

    attention: Tensor
    losses: Tensor


def look(model: nn.Module, ids: Tensor) -> Look:
    """Computes attention weights and losses, without gradients.

    Args:
        model: Hugging Face causal language model, in eval mode.
        ids: token ids ``[sample, position]``, on the model's device.

    Raises:
        InputError: the model returns no attention weights.
    """
    check_ids(ids)
    try:
        with torch.no_grad(), eager_attention(model):
            out = model(input_ids=ids, output_attentions=True, use_cache=False)
    except TypeError:  # architectures without attention do not accept the argument
        out = None
    attentions = [layer for layer in (getattr(out, "attentions", None) or ()) if layer is not None]
    if not attentions:
        raise InputError(
            f"got {type(model).__name__}, which returns no attention weights; expected a transformer that answers "
            "output_attentions=True; leave the induction metrics out for this model"
        )
    assert out is not None
    logits = out.logits[:, :-1].float()
    losses = F.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten(), reduction="none").view(len(ids), -1)
    return Look(torch.stack([layer.float() for layer in attentions]), losses)
