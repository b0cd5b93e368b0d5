"""Copying score: the degree to which a head raises the logit of the token it attends to.

The score considers only the OV circuit W_U W_O W_V W_E, with the gains (and the centring) of the first and last layer
norms folded in, and the gain of the norm after the attention if there is one (OLMo 2, Gemma 2 and 3). Its positive
eigenvalues correspond to sets of tokens that raise their own logits.

Source: Elhage et al. 2021, "A mathematical framework for transformer circuits", section "Summarizing OV/QK matrices":
sum of eigenvalues over sum of their magnitudes.
"""

from typing import Any

import torch
from torch import Tensor, nn

from stagewise.lm.components import SUPPORTED, layers, output_projection


def ov_weights(model: Any) -> list[tuple[Tensor, Tensor]]:
    """Returns the value and output matrices of every head.

    Args:
        model: Hugging Face causal language model of one of the architectures in ``SUPPORTED``.

    Returns:
        For each layer W_V ``[head, head size, width]`` and W_O ``[head, width, head size]``: a head that attends to a
        single position adds ``W_O @ (W_V @ x)``, x the normed state of that position, without biases.
    """
    config = model.config
    heads, width = config.num_attention_heads, config.hidden_size
    found = []
    for number, layer in enumerate(layers(model)):
        weight: Any = output_projection(model, number).weight
        out = weight.T if config.model_type == "gpt2" else weight
        if config.model_type == "gpt2":
            value = layer.attn.c_attn.weight[:, 2 * width :].T.reshape(heads, -1, width)
        elif config.model_type == "gpt_neox":
            # Query, key and value of a head are adjacent.
            value = layer.attention.query_key_value.weight.view(heads, 3, -1, width)[:, 2]
        else:
            shared = config.num_key_value_heads
            value = layer.self_attn.v_proj.weight.view(shared, -1, width).repeat_interleave(heads // shared, dim=0)
        found.append((value, out.view(width, heads, -1).transpose(0, 1)))
    return found


def _normed(rows: Tensor, norm: Any) -> Tensor:
    """Applies the gain and the centring of a norm to rows ``[token, width]`` that read from it, without its scale."""
    gained = rows * _gain(norm)
    return gained - gained.mean(dim=1, keepdim=True) if _centres(norm) else gained


def _gain(norm: Any) -> Tensor | float:
    """Returns the gain of a norm: OLMo's has none, and Gemma stores its gain less 1."""
    weight: Tensor | None = getattr(norm, "weight", None)
    if weight is None:
        return 1.0
    return weight.float() + 1 if type(norm).__name__.startswith("Gemma") else weight.float()


def _centres(norm: Any) -> bool:
    """Returns True for a layer norm, False for one that only divides by the root mean square."""
    return isinstance(norm, nn.LayerNorm) or type(norm).__name__ == "OlmoLayerNorm"


def _read(embedding: Tensor, norm: Any) -> Tensor:
    """Returns the embedding ``[token, width]`` as read by the attention, without the norm's scale."""
    if norm is None:
        return embedding
    centred = embedding - embedding.mean(dim=1, keepdim=True) if _centres(norm) else embedding
    return centred * _gain(norm)


def _first_norm(model: Any, layer: Any) -> Any:
    """Returns the norm before the attention; None in OLMo 2, which has it after."""
    return layer.ln_1 if model.config.model_type == "gpt2" else getattr(layer, "input_layernorm", None)


def _norm_behind(model: Any, layer: Any) -> Any:
    """Returns the norm after the attention, if any; in other models the norm of this name is before the MLP."""
    behind = ("olmo2", "gemma2", "gemma3_text")
    return layer.post_attention_layernorm if model.config.model_type in behind else None


def copying_scores(model: Any) -> Tensor | None:
    """Computes the copying score of every head.

    Args:
        model: Hugging Face causal language model.

    Returns:
        ``[layer, head]``, -1 (lowers the logit of the attended token) to 1 (copies it), float32 on the CPU, NaN where
        weights are not finite; None for architectures not in ``SUPPORTED``.
    """
    if model.config.model_type not in SUPPORTED:
        return None
    base = model.base_model
    with torch.no_grad():
        embedding = model.get_input_embeddings().weight.float()
        names = ("final_layer_norm", "final_layernorm", "ln_f", "norm")
        last = next(getattr(base, name) for name in names if hasattr(base, name))
        unembedding = _normed(model.get_output_embeddings().weight.float(), last)
        rows = []
        for layer, (value, out) in zip(layers(model), ov_weights(model), strict=True):
            read = _read(embedding, _first_norm(model, layer))
            behind = _norm_behind(model, layer)
            written = unembedding if behind is None else unembedding * _gain(behind)
            # W_V W_E W_U W_O has the nonzero eigenvalues of W_U W_O W_V W_E, with head size instead of tokens as size.
            small = (value.float() @ read.T) @ (written @ out.float())
            # LAPACK may abort the process at a NaN.
            finite = small.isfinite().all(dim=(1, 2)).cpu()
            values = torch.linalg.eigvals(small.cpu()[finite])
            row = torch.full((len(small),), torch.nan)
            row[finite] = values.real.sum(dim=1) / values.abs().sum(dim=1)
            rows.append(row)
    return torch.stack(rows)
