"""Modules and data modules from their descriptions in YAML."""

from typing import Any, TypeVar

from jsonargparse import ArgumentParser
from lightning.pytorch import LightningModule

from stagewise.errors import InputError
from stagewise.lm.data import SequenceData
from stagewise.losses.language_models import causal_lm_name

T = TypeVar("T")


def build(base: type[T], description: dict[str, Any], what: str, **changed: Any) -> T:
    """Returns an object from ``class_path`` and ``init_args``.

    Args:
        base: required base class.
        description: as in YAML.
        what: section of the configuration, for messages.
        **changed: further ``init_args``, which replace those in the description.

    Raises:
        InputError: unknown class, a class of another kind, or arguments that it does not accept.
    """
    parser = ArgumentParser(exit_on_error=False)
    parser.add_subclass_arguments(base, "it")
    full = {**description, "init_args": {**description.get("init_args", {}), **changed}}
    try:
        return parser.instantiate_classes(parser.parse_object({"it": full})).it
    except Exception as error:
        link: BaseException | None = error
        while link is not None:  # jsonargparse wraps the errors of classes
            if isinstance(link, InputError):
                raise link from error
            link = link.__cause__ or link.__context__
        words = " ".join(str(error).split())[:300] or type(error).__name__
        raise InputError(
            f"got {what} {description.get('class_path')} ({words}); expected a "
            f"{base.__name__} and arguments that it takes; see configs/"
        ) from error


def build_module(description: dict[str, Any]) -> LightningModule:
    """Returns a module with a causal language model; its weights come from the global random state.

    Args:
        description: as in YAML.

    Raises:
        InputError: it cannot be built, or has no Hugging Face causal language model.
    """
    module = build(LightningModule, description, "model")
    if causal_lm_name(module) is None:
        raise InputError(
            f"got model {description['class_path']}, which holds no Hugging Face causal language model; expected one "
            "as an attribute of the module, such as stagewise.lm.module.CausalLM; it is what is measured"
        )
    return module


def build_data(description: dict[str, Any], *, seed: int, num_observed: int | None = None) -> SequenceData:
    """Returns the data module of a cell.

    Args:
        description: as in YAML.
        seed: of the cell, in place of that in the description.
        num_observed: observed sequences of each kind; those of the description if None.

    Raises:
        InputError: it cannot be built.
    """
    changed = {"seed": seed} if num_observed is None else {"seed": seed, "num_observed": num_observed}
    return build(SequenceData, description, "data", **changed)
