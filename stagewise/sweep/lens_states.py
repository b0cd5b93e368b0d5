"""Conversion of raw state dicts of TransformerLens to Hugging Face models with the same function.

Simple models are supported: learned positions (as in GPT-2) or rotary ones (as in GPT-NeoX), layer norms, full heads,
an MLP in each layer. Settings that a state dict lacks (activation, rotary settings, parallel layers) are read from the
``config.json`` next to it, with TransformerLens's own names, see :class:`LensConfig`.
"""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from stagewise.checks.bounds import settle_fields
from stagewise.checks.ranges import Positive, PositiveInt
from stagewise.errors import InputError
from stagewise.files.json_input import read_json

LENS_CONFIG = "config.json"
"""Name of the file with the settings of a state dict, next to it."""

_BUFFERS = re.compile(r"blocks\.\d+\.attn\.(mask|IGNORE|rotary_sin|rotary_cos)")
_BLOCK = re.compile(r"blocks\.(\d+)\.")
_ACTIVATIONS = {"gelu": "gelu", "gelu_new": "gelu_new", "relu": "relu", "silu": "silu"}
_ADVICE = "a plain GPT-2-like or GPT-NeoX-like model, as HookedTransformer.state_dict() gives it"


@dataclass(frozen=True)
class LensConfig:
    """Settings of a TransformerLens model that its state dict lacks; its ``config.json`` may have others, too.

    Attributes:
        act_fn: activation of the MLP: gelu, gelu_new, relu or silu.
        eps: of the layer norms.
        normalization_type: LN, or LNPre if gains have been folded into weights.
        rotary_dim: values of a head that are rotated; needed without learned positions.
        rotary_base: of the angles.
        parallel_attn_mlp: attention and MLP of a layer read the same input, as in Pythia; for rotary models.
        n_ctx: maximal number of tokens in a sequence; needed without learned positions.

    Raises:
        InputError: settings of another kind of model.
    """

    act_fn: str = "gelu_new"
    eps: Positive = 1e-5
    normalization_type: str = "LN"
    rotary_dim: PositiveInt | None = None
    rotary_base: Positive = 10000
    parallel_attn_mlp: bool = False
    n_ctx: PositiveInt | None = None

    def __post_init__(self) -> None:
        settle_fields(self)
        if self.act_fn not in _ACTIVATIONS:
            raise InputError(f"got act_fn={self.act_fn!r}; expected one of {', '.join(_ACTIVATIONS)}; leave the model")
        if self.normalization_type not in ("LN", "LNPre"):
            raise InputError(
                f"got normalization_type={self.normalization_type!r}; expected LN or LNPre; leave the model"
            )

    @classmethod
    def read(cls, path: Path) -> "LensConfig":
        """Reads a ``config.json`` with the names of ``HookedTransformerConfig``; without one, returns GPT-2's defaults.

        Raises:
            InputError: it cannot be read, or is of another kind of model.
        """
        if not path.is_file():
            return cls()
        content = read_json(path, what="a TransformerLens configuration", advice="write model.cfg.to_dict() as JSON")
        refused: dict[str, bool | str] = {
            "attn_only": True,
            "gated_mlp": True,
            "rotary_adjacent_pairs": True,
            "final_rms": True,
        }
        refused |= {"attention_dir": "bidirectional", "use_local_attn": True, "use_attn_scale": False}
        refused |= {"scale_attn_by_inverse_layer_idx": True, "positional_embedding_type": "shortformer"}
        for name, value in refused.items():
            if content.get(name) == value:
                raise InputError(f"got {name}={value} in {path}; expected {_ADVICE}; leave the model")
        known = {field.name for field in fields(cls)}
        return cls(**{name: value for name, value in content.items() if name in known and value is not None})


def is_lens_state(state: Mapping[str, Any]) -> bool:
    """Returns True if keys are those of a TransformerLens model."""
    return "embed.W_E" in state and any(name.startswith("blocks.0.attn.") for name in state)


def lens_model(state: Mapping[str, Tensor], config: LensConfig, what: str) -> nn.Module:
    """Returns the Hugging Face model of a state dict, with the same logits for the same tokens, float32.

    Args:
        state: ``blocks.0.attn.W_Q`` ``[head, width, head size]``, ...
        config: settings that it lacks.
        what: its description, for messages.

    Raises:
        InputError: weights are missing, of other shapes than a plain model's, or of parts that it does not have.
    """
    from transformers import GPT2Config, GPT2LMHeadModel, GPTNeoXConfig, GPTNeoXForCausalLM

    weights = {name: value.float() for name, value in state.items() if not _BUFFERS.fullmatch(name)}
    count = 1 + max((int(number[1]) for name in weights if (number := _BLOCK.match(name))), default=-1)
    taken = _Taken(weights, what, config)
    heads, width, size = taken("blocks.0.attn.W_Q", 3).shape
    if heads * size != width:
        raise InputError(f"got {what} of {heads} heads of {size} in a width of {width}; expected {_ADVICE}; leave it")
    learned = "pos_embed.W_pos" in weights
    embedding, unembedding = taken("embed.W_E", 2), taken("unembed.W_U", 2).T
    inner = taken("blocks.0.mlp.W_in", 2).shape[1]
    if not learned and (config.rotary_dim is None or config.n_ctx is None):
        raise InputError(
            f"got {what} without pos_embed.W_pos, so of rotary positions, and no rotary_dim and n_ctx; expected them "
            f"in {LENS_CONFIG} beside it; write model.cfg.to_dict() there as JSON"
        )
    if learned and config.parallel_attn_mlp:
        raise InputError(f"got {what} with learned positions and parallel_attn_mlp; expected {_ADVICE}; leave it")
    common: dict[str, Any] = {"vocab_size": len(embedding), "tie_word_embeddings": False}
    common |= {"bos_token_id": None, "eos_token_id": None}
    if learned:
        positions = taken("pos_embed.W_pos", 2)
        found: Any = GPT2LMHeadModel(
            GPT2Config(
                **common,
                n_positions=len(positions),
                n_embd=width,
                n_layer=count,
                n_head=heads,
                n_inner=inner,
                activation_function=_ACTIVATIONS[config.act_fn],
                layer_norm_epsilon=config.eps,
            )
        )
        converted = {"transformer.wte.weight": embedding, "transformer.wpe.weight": positions}
    else:
        found = GPTNeoXForCausalLM(
            GPTNeoXConfig(
                **common,
                hidden_size=width,
                num_hidden_layers=count,
                num_attention_heads=heads,
                intermediate_size=inner,
                hidden_act=_ACTIVATIONS[config.act_fn],
                layer_norm_eps=config.eps,
                max_position_embeddings=config.n_ctx,
                use_parallel_residual=config.parallel_attn_mlp,
                rope_parameters={
                    "rope_type": "default",
                    "rope_theta": float(config.rotary_base),
                    "partial_rotary_factor": _factor(config.rotary_dim or size, size),
                },
            )
        )
        converted = {"gpt_neox.embed_in.weight": embedding}
    converted["lm_head.weight"] = unembedding
    last = "transformer.ln_f" if learned else "gpt_neox.final_layer_norm"
    try:
        for layer in range(count):
            converted |= _gpt2_block(taken, layer) if learned else _neox_block(taken, layer)
        converted |= taken.norm("ln_final", last, width)
        taken.refuse_bias_and_rest()
        found.load_state_dict({name: value.contiguous() for name, value in converted.items()}, strict=False)
    except RuntimeError as error:  # torch's words for shapes that do not fit
        words = " ".join(str(error).split())[:200]
        raise InputError(f"got {what} with weights of other shapes ({words}); expected {_ADVICE}; leave it") from error
    _refuse_gaps(found, converted, what)
    return found


def _factor(rotated: int, size: int) -> float:
    """Returns the share of a head that transformers truncates to ``rotated`` values."""
    factor = rotated / size
    return factor if int(size * factor) == rotated else math.nextafter(factor, 2)


class _Taken:
    """Weights of a state dict, requested by name; those never requested are refused at the end."""

    def __init__(self, weights: Mapping[str, Tensor], what: str, config: LensConfig) -> None:
        self._weights, self._what, self._config = weights, what, config
        self._left = set(weights)

    def __call__(self, name: str, dims: int) -> Tensor:
        value = self._weights.get(name)
        if value is None or value.dim() != dims:
            got = "no" if value is None else f"{tuple(value.shape)} as"
            raise InputError(f"got {self._what} with {got} {name}; expected {_ADVICE}; save it so, or leave it")
        self._left.discard(name)
        return value

    def norm(self, name: str, target: str, width: int) -> dict[str, Tensor]:
        """Returns gain and bias; one and zero if they have been folded into the following weights."""
        if f"{name}.w" not in self._weights and self._config.normalization_type == "LNPre":
            return {f"{target}.weight": torch.ones(width), f"{target}.bias": torch.zeros(width)}
        return {f"{target}.weight": self(f"{name}.w", 1), f"{target}.bias": self(f"{name}.b", 1)}

    def refuse_bias_and_rest(self) -> None:
        """Refuses weights without a place in the model, except a zero bias of the unembedding."""
        bias = self._weights.get("unembed.b_U")
        self._left.discard("unembed.b_U")
        if bias is not None and bias.abs().max() > 0:
            raise InputError(
                f"got {self._what} with unembed.b_U other than zero, which models of Hugging Face have no place for; "
                "expected none; load it with fold_ln=False and center_unembed=False before saving"
            )
        if self._left:
            raise InputError(
                f"got {self._what} with {sorted(self._left)[0]}, a part that is not known; expected {_ADVICE}; leave it"
            )


def _gpt2_block(taken: _Taken, layer: int) -> dict[str, Tensor]:
    """Returns a block of GPT-2: all queries, then all keys, then all values; weights are ``[input, output]``."""
    source, target = f"blocks.{layer}", f"transformer.h.{layer}"
    into = [taken(f"{source}.attn.W_{part}", 3).permute(1, 0, 2).flatten(1) for part in "QKV"]
    bias = [taken(f"{source}.attn.b_{part}", 2).flatten() for part in "QKV"]
    width = into[0].shape[0]
    return {
        **taken.norm(f"{source}.ln1", f"{target}.ln_1", width),
        **taken.norm(f"{source}.ln2", f"{target}.ln_2", width),
        f"{target}.attn.c_attn.weight": torch.cat(into, dim=1),
        f"{target}.attn.c_attn.bias": torch.cat(bias),
        f"{target}.attn.c_proj.weight": taken(f"{source}.attn.W_O", 3).flatten(0, 1),
        f"{target}.attn.c_proj.bias": taken(f"{source}.attn.b_O", 1),
        f"{target}.mlp.c_fc.weight": taken(f"{source}.mlp.W_in", 2),
        f"{target}.mlp.c_fc.bias": taken(f"{source}.mlp.b_in", 1),
        f"{target}.mlp.c_proj.weight": taken(f"{source}.mlp.W_out", 2),
        f"{target}.mlp.c_proj.bias": taken(f"{source}.mlp.b_out", 1),
    }


def _neox_block(taken: _Taken, layer: int) -> dict[str, Tensor]:
    """Returns a block of GPT-NeoX: query, key and value of a head are adjacent; weights are ``[output, input]``."""
    source, target = f"blocks.{layer}", f"gpt_neox.layers.{layer}"
    into = torch.stack([taken(f"{source}.attn.W_{part}", 3).transpose(1, 2) for part in "QKV"], dim=1)
    bias = torch.stack([taken(f"{source}.attn.b_{part}", 2) for part in "QKV"], dim=1)
    width = into.shape[-1]
    return {
        **taken.norm(f"{source}.ln1", f"{target}.input_layernorm", width),
        **taken.norm(f"{source}.ln2", f"{target}.post_attention_layernorm", width),
        f"{target}.attention.query_key_value.weight": into.flatten(0, 2),
        f"{target}.attention.query_key_value.bias": bias.flatten(),
        f"{target}.attention.dense.weight": taken(f"{source}.attn.W_O", 3).flatten(0, 1).T,
        f"{target}.attention.dense.bias": taken(f"{source}.attn.b_O", 1),
        f"{target}.mlp.dense_h_to_4h.weight": taken(f"{source}.mlp.W_in", 2).T,
        f"{target}.mlp.dense_h_to_4h.bias": taken(f"{source}.mlp.b_in", 1),
        f"{target}.mlp.dense_4h_to_h.weight": taken(f"{source}.mlp.W_out", 2).T,
        f"{target}.mlp.dense_4h_to_h.bias": taken(f"{source}.mlp.b_out", 1),
    }


def _refuse_gaps(model: nn.Module, converted: Mapping[str, Tensor], what: str) -> None:
    """Refuses missing weights, which transformers would have initialised at random."""
    missing = sorted({name for name, _ in model.named_parameters()} ^ set(converted))
    if missing:
        raise InputError(f"got {what}, which does not fill {missing[0]}; expected {_ADVICE}; leave it")
