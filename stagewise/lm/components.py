"""Parts of a causal language model, such as heads and layers, as masks over its weights.

A chain that moves only the weights of one part (``masks`` of :func:`~stagewise.sampling.chains.run_chains` and
:class:`~stagewise.probes.prober.Prober`) measures influence through that part.
"""

import re
from collections.abc import Callable, Iterable
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from stagewise.errors import InputError, require
from stagewise.losses.language_models import causal_lm_name

_WIDE_NORMS = ("olmo2", "olmoe")
"""Architectures whose queries (and keys) pass through one norm over all heads, whose gain has entries for each head."""

_SEPARATE = (
    "llama",
    "mistral",
    "mixtral",
    "qwen2",
    "qwen3",
    "olmo",
    *_WIDE_NORMS,
    "gemma",
    "gemma2",
    "gemma3_text",
    "phi",
    "smollm3",
)
SUPPORTED = ("gpt_neox", "gpt2", *_SEPARATE)
"""Architectures (``config.model_type``) with a known layout of weights. With experts, the ``mlp`` of a layer consists
of the router and all experts."""


def layers(model: Any) -> list[Any]:
    """Returns the layers of a Hugging Face causal language model of an architecture in :data:`SUPPORTED`."""
    base = model.base_model
    return list(base.h if model.config.model_type == "gpt2" else base.layers)


def attention(model: Any, layer: int) -> nn.Module:
    """Returns the attention module of a layer.

    Args:
        model: Hugging Face causal language model of an architecture in :data:`SUPPORTED`.
        layer: number of the layer.
    """
    block = layers(model)[layer]
    if model.config.model_type == "gpt2":
        return block.attn
    return block.attention if model.config.model_type == "gpt_neox" else block.self_attn


def output_projection(model: Any, layer: int) -> nn.Module:
    """Returns the module that maps the concatenated outputs ``[..., head * head size]`` of heads back to the width.

    Args:
        model: Hugging Face causal language model of an architecture in :data:`SUPPORTED`.
        layer: number of the layer.
    """
    names = {"gpt2": "c_proj", "gpt_neox": "dense", "phi": "dense"}
    return attention(model, layer).get_submodule(names.get(model.config.model_type, "o_proj"))


Kind = Literal["heads", "key_value_groups", "attention", "mlp", "layers"]
"""Kinds of parts that a model can be divided into."""

KINDS: tuple[Kind, ...] = get_args(Kind)

_NAME = re.compile(r"layer(\d+)(?:\.(head|group)(\d+)|\.(attention|mlp))?")

_Places = list[tuple[nn.Parameter, int, Iterable[tuple[int, int]]]]
"""Parameter, axis, and spans along it."""


def components(module: nn.Module, kind: Kind = "heads") -> list[str]:
    """Lists the names of the parts of a model.

    Args:
        module: Hugging Face causal language model of an architecture in :data:`SUPPORTED`, or a module that holds one.
        kind: ``heads``: ``layer0.head1``; ``key_value_groups``: ``layer0.group1``, the heads that share keys and
            values (without grouped queries a group is a head); ``attention`` and ``mlp``: ``layer0.attention``,
            ``layer0.mlp``; ``layers``: ``layer0``, a whole layer including its norms.

    Returns:
        Names in the order of layers and heads, for :func:`component_masks`.

    Raises:
        InputError: no such model in the module, an architecture of unknown layout, or an unknown kind.
    """
    model, _ = _find(module)
    require(kind in get_args(Kind), "kind", repr(kind), f"one of {get_args(Kind)}", "'heads' is the default")
    rows = [f"layer{layer}" for layer in range(len(layers(model)))]
    if kind == "layers":
        return rows
    if kind in ("attention", "mlp"):
        return [f"{row}.{kind}" for row in rows]
    count, part = (model.config.num_attention_heads, "head") if kind == "heads" else (_num_groups(model), "group")
    return [f"{row}.{part}{number}" for row in rows for number in range(count)]


def is_component_name(name: str) -> bool:
    """Returns True if a name has the form of a part's name, such as ``layer0.head1``."""
    return _NAME.fullmatch(name) is not None


def component_masks(module: nn.Module, name: str) -> dict[str, Tensor]:
    """Returns the masks of a part by its name, e.g. ``layer1.head0``; see :func:`components` for the names.

    Returns:
        Maps parameter names of ``module`` to bool masks of the parameter's shape, on its device; parameters without an
        entry in the part are omitted.

    Raises:
        InputError: the model has no part of this name, or as :func:`components`.
    """
    found = _NAME.fullmatch(name)
    if found is None:
        raise InputError(
            f"got component {name!r}; expected a name such as 'layer0', 'layer0.head1', 'layer0.group1', "
            "'layer0.attention' or 'layer0.mlp'; see stagewise.lm.components"
        )
    layer, (divided, number, whole) = int(found[1]), found.groups()[1:]
    if divided == "head":
        return head_mask(module, layer, int(number))
    if divided == "group":
        return key_value_group_mask(module, layer, int(number))
    return _whole_mask(module, layer, whole)


def head_mask(module: nn.Module, layer: int, head: int) -> dict[str, Tensor]:
    """Returns the masks of the weights that belong to a single attention head.

    These are its rows of query, key and value (weights and biases) and its columns of the output projection. Excluded
    are the bias of the output projection, norms and rotary settings, which all heads of a layer share. With grouped
    queries, the shared key and value are also excluded: a head is then its query and its output, and
    :func:`key_value_group_mask` is the smallest part with keys and values. In OLMo 2 and OLMoE the head's entries of
    the gains of the query and key norms are included; these norms divide by the size of all heads together, so that a
    change in one head affects the others.

    Args:
        module: Hugging Face causal language model of an architecture in :data:`SUPPORTED`, or a module that holds one.
        layer: number of the layer.
        head: number of the head in it.

    Returns:
        As :func:`component_masks`.

    Raises:
        InputError: no such model in the module, an architecture of unknown layout, or no such head.
    """
    model, names = _find(module)
    _check("layer", layer, len(layers(model)))
    _check("head", head, model.config.num_attention_heads)
    own = _num_groups(model) == model.config.num_attention_heads
    return _masks(names, _places(model, layer, range(head, head + 1), head if own else None))


def key_value_group_mask(module: nn.Module, layer: int, group: int) -> dict[str, Tensor]:
    """Returns the masks of the heads that share one key and value, with both; without sharing, as :func:`head_mask`.

    Args:
        module: as in :func:`head_mask`.
        layer: number of the layer.
        group: number of the key-value head.

    Raises:
        InputError: as :func:`head_mask`.
    """
    model, names = _find(module)
    _check("layer", layer, len(layers(model)))
    _check("group", group, _num_groups(model))
    size = model.config.num_attention_heads // _num_groups(model)
    return _masks(names, _places(model, layer, range(group * size, (group + 1) * size), group))


def _whole_mask(module: nn.Module, layer: int, part: str | None) -> dict[str, Tensor]:
    model, names = _find(module)
    _check("layer", layer, len(layers(model)))
    block = layers(model)[layer]
    parts: dict[str | None, Callable[[], Any]] = {
        None: lambda: block,
        "attention": lambda: attention(model, layer),
        "mlp": lambda: block.mlp,
    }
    return {
        # Not `ones_like`, which would be sharded like the parameter.
        names[id(parameter)]: torch.ones(parameter.shape, dtype=torch.bool, device=parameter.device)
        for parameter in parts[part]().parameters()
    }


def _find(module: nn.Module) -> tuple[Any, dict[int, str]]:
    """Returns the language model in a module, and the module's names for its parameters."""
    name = causal_lm_name(module)
    if name is None:
        raise InputError(
            f"got {type(module).__name__}, which holds no Hugging Face causal language model; expected one; components "
            "are known for its architectures alone: leave the component out, or give a Prober masks of your own"
        )
    model: Any = module.get_submodule(name)
    if model.config.model_type not in SUPPORTED:
        raise InputError(
            f"got an architecture {model.config.model_type!r}; expected one of {', '.join(SUPPORTED)}, whose heads are "
            "known; leave the component out, or give a Prober masks of your own for this model"
        )
    return model, {id(parameter): known for known, parameter in module.named_parameters()}


def _check(name: str, value: int, count: int) -> None:
    require(0 <= value < count, name, value, f"0 to {count - 1}", "choose one that the model has")


def _num_groups(model: Any) -> int:
    """Returns the number of key-value heads."""
    heads = model.config.num_attention_heads
    return getattr(model.config, "num_key_value_heads", None) or heads


def _places(model: Any, layer: int, heads: range, group: int | None) -> _Places:
    """Returns the places of adjacent heads, with the keys and values of one group if given."""
    block: Any = attention(model, layer)
    out: Any = output_projection(model, layer)
    count, width = model.config.num_attention_heads, model.config.hidden_size
    rows_in = model.config.model_type == "gpt2"  # its weights are [input, output]
    size = out.weight.shape[0 if rows_in else 1] // count
    span = (heads.start * size, heads.stop * size)
    places: _Places = [(out.weight, 0 if rows_in else 1, [span])]
    if rows_in:
        # All queries, then all keys, then all values.
        spans = [(part * width + span[0], part * width + span[1]) for part in range(3)]
        return places + [(weight, weight.dim() - 1, spans) for weight in _weights(block.c_attn)]
    if model.config.model_type == "gpt_neox":
        # Query, key and value of a head are adjacent.
        return places + [(weight, 0, [(3 * span[0], 3 * span[1])]) for weight in _weights(block.query_key_value)]
    wide = model.config.model_type in _WIDE_NORMS
    places += [(weight, 0, [span]) for weight in [*_weights(block.q_proj), *([block.q_norm.weight] if wide else [])]]
    if group is not None:
        shared = [*_weights(block.k_proj), *_weights(block.v_proj), *([block.k_norm.weight] if wide else [])]
        places += [(weight, 0, [(group * size, (group + 1) * size)]) for weight in shared]
    return places


def _weights(linear: Any) -> list[nn.Parameter]:
    return [weight for weight in (linear.weight, linear.bias) if weight is not None]


def _masks(names: dict[int, str], places: _Places) -> dict[str, Tensor]:
    masks = {}
    for parameter, axis, spans in places:
        mask = torch.zeros(parameter.shape, dtype=torch.bool, device=parameter.device)
        for start, stop in spans:
            mask.narrow(axis, start, stop - start).fill_(True)
        masks[names[id(parameter)]] = mask
    return masks
