"""Recognition of the language model that a module trains, by its class, outermost first."""

import sys
from collections.abc import Iterator
from typing import Any

from torch import nn

from stagewise.errors import LossContractError
from stagewise.losses.causal_lm import is_peft

_LOSS_OF_THEIR_OWN = {
    "ProphetNetForCausalLM": "a model of several tokens at once",
    "XLMWithLMHeadModel": "a model that is trained causally or masked",
}
"""Classes that ``transformers`` lists as causal, but whose losses are not next-token losses."""

_ADVICE = (
    "give loss_fn, e.g. def loss_fn(module, batch): return F.cross_entropy(module{place}(**batch).logits.transpose(1, "
    "2), batch['labels'], reduction='none'), batch['labels'] != -100"
)


def causal_lm_name(module: nn.Module) -> str | None:
    """Returns the name of the Hugging Face causal language model in a module: '' for the module, None without one.

    Only the class of a model decides whether it is causal. Causal classes are those that ``transformers`` lists for
    ``AutoModelForCausalLM``, decoders that it lists for images and text, and subclasses of both. Custom classes are
    causal if they are registered there, if their configuration says so (``trust_remote_code``), or if their name ends
    in ``ForCausalLM`` or ``LMHeadModel``. Models inside another model (the decoder of an encoder-decoder) are ignored.
    A wrapper of ``peft`` with its own trainable weights (prompt and prefix tuning) counts as the model. Models without
    trainable weights (a teacher, a reference) are ignored if another model has some.

    Args:
        module: any module.

    Raises:
        LossContractError: several models have trainable weights.
    """
    causal = [(name, model) for name, model in _outermost(module) if is_peft(model) or _kind(model) == "causal"]
    trainable = [(name, model) for name, model in causal if any(weight.requires_grad for weight in model.parameters())]
    found = trainable or causal
    if len(found) > 1:
        names = ", ".join(f"{name} ({type(model).__name__})" for name, model in found[:4])
        raise LossContractError(
            f"got {type(module).__name__} with {len(found)} causal language models: {names}; expected one with "
            "trainable weights; freeze the others with requires_grad_(False), or give loss_fn, e.g. lambda module, "
            f"batch: stagewise.causal_lm_loss(module.{found[0][0]}, batch)"
        )
    return found[0][0] if found else None


def trained_causal_lm(module: nn.Module) -> str | None:
    """Returns the same as :func:`causal_lm_name`, for a module whose loss is that of its language model alone.

    Args:
        module: any module.

    Raises:
        LossContractError: several models have trainable weights, or the module has some outside of the model.
    """
    name = causal_lm_name(module)
    if name is None:
        return None
    model = module.get_submodule(name)
    inside = {id(weight) for weight in model.parameters()}
    outside = [key for key, weight in module.named_parameters() if weight.requires_grad and id(weight) not in inside]
    if outside:
        shown = ", ".join(outside[:3]) + (", ..." if len(outside) > 3 else "")
        raise LossContractError(
            f"got {type(module).__name__} with trainable weights ({shown}) outside of its {type(model).__name__}, in "
            "whose loss they have no part; expected a loss of the whole module; give it a method per_sample_loss(self, "
            "batch) or pass loss_fn(module, batch), or freeze them"
        )
    return name


def other_language_model(module: nn.Module) -> str | None:
    """Describes a language model of another kind in a module, with advice; None if there is none.

    Args:
        module: without a causal language model.
    """
    kinds = {
        "masked": "a masked language model, whose loss is that of the masked tokens",
        "seq2seq": "a sequence-to-sequence model, whose loss is that of the labels",
    }
    for name, model in _outermost(module):
        cls = type(model).__name__
        kind = _kind(model)
        words = next(
            (why for known, why in _LOSS_OF_THEIR_OWN.items() if known in _names(model)), kinds.get(kind or "")
        )
        if words is not None:
            place = f".{name}" if name else ""
            return f"{cls}, {words}; expected a causal one or a loss of yours; {_ADVICE.format(place=place)}"
        if callable(getattr(model, "get_output_embeddings", None)) and model.get_output_embeddings() is not None:  # type: ignore[operator]
            call = f"module.{name}" if name else "module"
            return (
                f"{cls}, a language model that is not known to be causal; expected a class that transformers has for "
                "AutoModelForCausalLM, or one that is registered there; give loss_fn, if it is causal lambda module, "
                f"batch: stagewise.causal_lm_loss({call}, batch)"
            )
    return None


def is_causal_architecture(name: str) -> bool | None:
    """Returns True if a class of ``transformers`` is a causal language model, None if the name is not listed.

    Args:
        name: as in ``architectures`` of a configuration.
    """
    for names, answer in ((_listed("CAUSAL_LM"), True), (_listed("MASKED_LM", "SEQ_TO_SEQ_CAUSAL_LM"), False)):
        if name in names:
            return answer
    return None


def _outermost(module: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Yields the outermost models of ``transformers`` and ``peft``, with their names."""
    if "transformers" not in sys.modules:
        return
    from transformers import PreTrainedModel

    seen: set[int] = set()

    def walk(name: str, part: nn.Module) -> Iterator[tuple[str, nn.Module]]:
        if id(part) in seen:
            return
        seen.add(id(part))
        if isinstance(part, PreTrainedModel) or (is_peft(part) and _has_own_weights(part, PreTrainedModel)):
            yield name, part
            return
        for key, child in part.named_children():
            yield from walk(f"{name}.{key}" if name else key, child)

    yield from walk("", module)


def _has_own_weights(wrapper: nn.Module, inner: type) -> bool:
    """Returns True if a wrapper has trainable weights outside of the wrapped model, as prompts (not adapters) are."""
    inside = {id(weight) for child in wrapper.modules() if isinstance(child, inner) for weight in child.parameters()}
    return any(weight.requires_grad and id(weight) not in inside for weight in wrapper.parameters())


def _names(model: nn.Module) -> set[str]:
    return {cls.__name__ for cls in type(model).__mro__}


def _kind(model: nn.Module) -> str | None:
    """Returns ``causal``, ``masked``, ``seq2seq`` or None, from the nearest base class that is recognised."""
    config: Any = model.config
    for cls in type(model).__mro__:
        name = cls.__name__
        if name in _LOSS_OF_THEIR_OWN:
            return None
        if cls.__module__.split(".")[0] != "transformers":
            if _is_registered(cls, config) or name.endswith(("ForCausalLM", "LMHeadModel")):
                return "causal"
            if name.endswith("ForMaskedLM"):
                return "masked"
        elif name in _listed("CAUSAL_LM"):
            return "causal"
        elif name in _listed("SEQ_TO_SEQ_CAUSAL_LM", "SPEECH_SEQ_2_SEQ"):
            return "seq2seq"
        elif name in _listed("MASKED_LM") or name.endswith(("ForMaskedLM", "ForPreTraining")):
            return "masked"
        elif name in _listed("IMAGE_TEXT_TO_TEXT", "VISION_2_SEQ"):
            return "seq2seq" if _has_encoder(config) else "causal"
    return "seq2seq" if _has_encoder(config) else None


def _has_encoder(config: Any) -> bool:
    return config.is_encoder_decoder or config.get_text_config(decoder=True).is_encoder_decoder


def _is_registered(cls: type, config: Any) -> bool:
    from transformers import MODEL_FOR_CAUSAL_LM_MAPPING

    declared = str((getattr(config, "auto_map", None) or {}).get("AutoModelForCausalLM", ""))
    registered = getattr(MODEL_FOR_CAUSAL_LM_MAPPING, "_extra_content", {}).values()
    return cls in registered or declared.rsplit(".", 1)[-1] == cls.__name__


def _listed(*tasks: str) -> set[str]:
    """Returns the names of the classes that ``transformers`` lists for some tasks."""
    from transformers.models.auto import modeling_auto

    found: set[str] = set()
    for task in tasks:
        for names in getattr(modeling_auto, f"MODEL_FOR_{task}_MAPPING_NAMES", {}).values():
            found |= {names} if isinstance(names, str) else set(names)
    return found
