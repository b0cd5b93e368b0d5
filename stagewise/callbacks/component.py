"""Chains of a run that move one component of a language model and leave all else at the training weights."""

from torch import nn

from stagewise.errors import InputError
from stagewise.lm.components import component_masks
from stagewise.sampling.config import SGLDConfig
from stagewise.sampling.preconditioners.ekfac import EKFAC
from stagewise.sampling.selection import Masks, trainable


def masks_of_component(component: str | None, module: nn.Module, sgld: SGLDConfig) -> Masks | None:
    """Returns the masks of a component's weights; refuses settings that do not go together with a component.

    Args:
        component: its name, see :func:`stagewise.lm.components.components`; None for what ``sgld.parameters`` says.
        module: the module that trains, on its device.
        sgld: the sampler.

    Returns:
        As :func:`stagewise.lm.components.component_masks`; None without a component.

    Raises:
        InputError: a component beside ``sgld.parameters`` or EK-FAC, a name of no part of the model, a model whose
            layout is not known, or a component with a frozen parameter.
    """
    if component is None:
        return None
    if sgld.parameters is not None:
        raise InputError(
            f"got component {component!r} together with sgld.parameters={list(sgld.parameters)}; expected one of the "
            "two; set sgld.parameters to null, or component"
        )
    if isinstance(sgld.preconditioner, EKFAC):
        # Its eigenbasis mixes all weights of a layer.
        raise InputError(
            f"got component {component!r} with EKFAC; expected another preconditioner, or none; for whole tensors name "
            "them in sgld.parameters instead"
        )
    masks = component_masks(module, component)
    trainable(module, masks)  # refuses frozen ones
    return masks
