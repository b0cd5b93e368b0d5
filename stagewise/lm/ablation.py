"""Ablation of a head, to test whether a model relies on it."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor

from stagewise.errors import InputError, require
from stagewise.lm.components import SUPPORTED, output_projection


@contextmanager
def head_ablated(model: Any, layer: int, head: int) -> Iterator[None]:
    """Context that sets the output of one attention head to zero, and restores the model even after an exception.

    This is zero ablation: the head adds nothing to the residual stream, except the bias of the output projection, which
    all heads of the layer share.

    Args:
        model: Hugging Face causal language model of an architecture in :data:`~stagewise.lm.components.SUPPORTED`.
        layer: number of the layer.
        head: number of the head in it.

    Raises:
        InputError: an architecture of unknown layout, or no such head.

    Source: Olsson et al. 2022, "In-context learning and induction heads" (arXiv 2209.11895), full (not
    pattern-preserving) ablation.
    """
    config = model.config
    if config.model_type not in SUPPORTED:
        raise InputError(
            f"got an architecture {config.model_type!r}; expected one of {', '.join(SUPPORTED)}, whose heads are "
            "known; leave the head ablation out for this model"
        )
    for name, value, count in (
        ("layer", layer, config.num_hidden_layers),
        ("head", head, config.num_attention_heads),
    ):
        require(0 <= value < count, name, value, f"0 to {count - 1}", "choose one that the model has")

    def silence(module: Any, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        merged = inputs[0].clone()
        size = merged.shape[-1] // config.num_attention_heads
        merged[..., head * size : (head + 1) * size] = 0
        return (merged, *inputs[1:])

    handle = output_projection(model, layer).register_forward_pre_hook(silence)
    try:
        yield
    finally:
        handle.remove()
