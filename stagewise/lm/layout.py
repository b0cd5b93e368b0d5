"""Where the parts of an attention layer are, by architecture."""

from typing import Any

from torch import nn

_SEPARATE = ("llama", "mistral", "qwen2", "qwen3")
SUPPORTED = ("gpt_neox", "gpt2", *_SEPARATE)
"""Architectures (``config.model_type``) whose weights are laid out in a way known here."""


def layers(model: Any) -> list[Any]:
    """The layers of a Hugging Face causal language model of one of the architectures in :data:`SUPPORTED`."""
    base = model.base_model
    return list(base.h if model.config.model_type == "gpt2" else base.layers)


def attention(model: Any, layer: int) -> nn.Module:
    """The attention of a layer.

    Args:
        model: Hugging Face causal language model of one of the architectures in :data:`SUPPORTED`.
        layer: its number.
    """
    block = layers(model)[layer]
    if model.config.model_type == "gpt2":
        return block.attn
    return block.attention if model.config.model_type == "gpt_neox" else block.self_attn


def output_projection(model: Any, layer: int) -> nn.Module:
    """The module that maps the heads' outputs, side by side ``[..., head * head size]``, back to the width.

    Args:
        model: Hugging Face causal language model of one of the architectures in :data:`SUPPORTED`.
        layer: its number.
    """
    names = {"gpt2": "c_proj", "gpt_neox": "dense"}
    return attention(model, layer).get_submodule(names.get(model.config.model_type, "o_proj"))
