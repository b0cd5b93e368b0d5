"""Weights that the chains of a cell move: all, or those of a head, a layer, or another part of the model."""

from collections.abc import Sequence

from torch import nn

from stagewise.errors import InputError
from stagewise.lm.components import KINDS, component_masks, components, is_component_name
from stagewise.sampling.selection import Masks

ALL = "all"
"""Component whose chains move all weights selected by ``sgld.parameters``."""


def check_component(name: str) -> None:
    """Refuses a name that cannot denote a component.

    Raises:
        InputError: such a name; the message lists the valid forms.
    """
    if name != ALL and name not in KINDS and not is_component_name(name):
        raise InputError(
            f"got component {name!r}; expected {ALL!r}, one of {list(KINDS)} for all of a kind, or a name such as "
            "'layer0.head1'; correct the name"
        )


def needs_model(names: Sequence[str]) -> bool:
    """Returns True if the components can only be listed or checked with a model."""
    return any(name != ALL for name in names)


def expand(names: Sequence[str], module: nn.Module) -> tuple[str, ...]:
    """Returns all components denoted by names, each once, in order.

    Args:
        names: ``all``, kinds of parts (``heads``), and parts (``layer0.head1``).
        module: a checkpoint.

    Raises:
        InputError: the model has no such part, or its layout is not known.
    """
    found: dict[str, None] = {}
    for name in names:
        for part in components(module, name) if name in KINDS else [name]:
            masks_of(part, module)
            found[part] = None
    return tuple(found)


def masks_of(component: str, module: nn.Module) -> Masks | None:
    """Returns masks of the weights that the chains of a component move; None for all.

    Args:
        component: its name.
        module: a checkpoint.

    Raises:
        InputError: the model has no such part, or its layout is not known.
    """
    return None if component == ALL else component_masks(module, component)
