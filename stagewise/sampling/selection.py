"""Selection of the entries of a module's parameters that a chain moves."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

import torch
from torch import Tensor, nn

from stagewise.errors import InputError

Masks = Mapping[str, Tensor]
"""Maps parameter names to bool masks of the parameter's shape: the chain moves entries that are True; others stay at
w*."""

Selection = Sequence[str] | Masks | None
"""Patterns of parameter names (``*`` matches anything), or masks; None selects all trainable parameters."""


@dataclass(frozen=True)
class Entries:
    """Entries of one parameter that a chain moves: a slice of its flat weights.

    Attributes:
        name: of the parameter.
        shape: of the parameter.
        dtype: of the parameter.
        index: ``[entry]``, int64, increasing: positions in the flattened parameter; None if all of it moves.
    """

    name: str
    shape: torch.Size
    dtype: torch.dtype
    index: Tensor | None = None

    @property
    def size(self) -> int:
        """Number of entries."""
        return self.shape.numel() if self.index is None else len(self.index)

    def take(self, whole: Tensor) -> Tensor:
        """Returns the entries ``[entry]`` of a tensor of the parameter's shape."""
        flat = whole.reshape(-1)
        return flat if self.index is None else flat[self.index]

    def spread(self, part: Tensor) -> Tensor:
        """Returns a tensor of the parameter's shape that holds the entries ``[entry]``, zero elsewhere."""
        if self.index is None:
            return part.view(self.shape)
        return part.new_zeros(self.shape.numel()).scatter(0, self.index, part).view(self.shape)

    def write_(self, leaf: Tensor, part: Tensor) -> None:
        """Copies entries ``[entry]`` into a tensor of the parameter's shape; for a part, it must be contiguous."""
        if self.index is None:
            leaf.copy_(part.view(self.shape))
        else:
            leaf.view(-1).index_copy_(0, self.index, part.to(leaf.dtype))


def one_selection(parameters: Sequence[str] | None, masks: Masks | None) -> Selection:
    """Returns the selection, given as either patterns or masks.

    Args:
        parameters: patterns from the sampler's settings.
        masks: by parameter name.

    Raises:
        InputError: both are given.
    """
    if parameters is not None and masks is not None:
        raise InputError(
            f"got masks together with parameters={list(parameters)}; expected one of the two; set parameters to null: "
            "masks name the parameters that move"
        )
    return parameters if masks is None else masks


def trainable(module: nn.Module, selection: Selection = None) -> dict[str, Tensor]:
    """Returns trainable parameters that are selected at least in part, by name, detached, in the module's order.

    Raises:
        InputError: no trainable parameter, a pattern that matches none, or masks that do not fit.
    """
    parameters = {name: value.detach() for name, value in module.named_parameters() if value.requires_grad}
    if not parameters:
        raise InputError("got a module without trainable parameters; expected at least one; unfreeze a part of it")
    if selection is None:
        return parameters
    if isinstance(selection, Mapping):
        _check_masks(module, parameters, selection)
        return {name: value for name, value in parameters.items() if name in selection and selection[name].any()}
    for pattern in selection:
        if not any(fnmatchcase(name, pattern) for name in parameters):
            raise InputError(
                f"got parameters={pattern!r}, which matches no trainable parameter; expected a pattern such as "
                f"{next(iter(parameters))!r} or '*{next(iter(parameters)).split('.')[-1]}'; see named_parameters()"
            )
    return {
        name: value for name, value in parameters.items() if any(fnmatchcase(name, pattern) for pattern in selection)
    }


def moved_entries(module: nn.Module, selection: Selection = None) -> list[Entries]:
    """Returns the selected entries in the order of the flat weights; a mask of all True selects the whole parameter.

    Raises:
        InputError: as :func:`trainable`.
    """
    masks = selection if isinstance(selection, Mapping) else {}
    found = []
    for name, value in trainable(module, selection).items():
        mask = masks.get(name)
        index = None
        if mask is not None and not mask.all():
            index = mask.reshape(-1).nonzero().flatten().to(value.device)
        found.append(Entries(name, value.shape, value.dtype, index))
    return found


def masks_digest(masks: Masks) -> str:
    """Returns a digest of the entries that masks select."""
    digest = hashlib.sha256()
    for name in sorted(name for name, mask in masks.items() if mask.any()):
        digest.update(name.encode())
        digest.update(masks[name].detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def _check_masks(module: nn.Module, parameters: Mapping[str, Tensor], masks: Masks) -> None:
    for name, mask in masks.items():
        if name not in parameters:
            frozen = name in dict(module.named_parameters())
            why = "which is frozen" if frozen else "which the module does not have"
            raise InputError(
                f"got a mask for {name!r}, {why}; expected a trainable parameter such as {next(iter(parameters))!r}; "
                + ("leave it out or unfreeze it" if frozen else "see named_parameters()")
            )
        shape = parameters[name].shape
        if not isinstance(mask, Tensor) or mask.dtype != torch.bool or mask.shape != shape:
            got = f"{list(mask.shape)}, {mask.dtype}" if isinstance(mask, Tensor) else type(mask).__name__
            raise InputError(
                f"got a mask of {got} for {name!r}; expected a bool tensor {list(shape)}; True marks what moves"
            )
    if not any(mask.any() for mask in masks.values()):
        raise InputError("got masks that select nothing; expected at least one True; pass None to move all weights")
