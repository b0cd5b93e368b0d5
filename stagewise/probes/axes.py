"""Dense losses: axes after the sample axis are flattened to tokens, and their sizes stored."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray
from torch import Tensor

from stagewise.errors import InputError

TOKEN_AXES = "token_axes"
"""Attribute of a probe's data set: sizes of the axes that were flattened to ``token``, in row-major order."""


def flat_masks(groups: Mapping[str, Tensor], axes: Sequence[int]) -> dict[str, NDArray[Any]]:
    """Returns masks of groups as numpy arrays, ``[sample]`` or ``[sample, token]``.

    Args:
        groups: ``[sample]``, ``[sample, token]``, or of the shape of the losses.
        axes: sizes of the axes of losses after the sample axis.

    Raises:
        InputError: a mask with more than two axes whose shape is not that of the losses.
    """
    found = {}
    for name, group in groups.items():
        mask = group.detach().cpu().numpy()
        if mask.ndim > 2:
            if mask.shape[1:] != tuple(axes):
                size = len(mask)
                raise InputError(
                    f"got group {name!r} of shape {list(mask.shape)} for losses of shape {[size, *axes]}; expected "
                    f"[{size}], [{size}, {math.prod(axes)}] or the shape of the losses"
                )
            mask = mask.reshape(len(mask), -1)
        found[name] = mask
    return found


def in_axes(probe: xr.Dataset, name: str) -> NDArray[Any]:
    """Returns a variable over tokens in the shape of the losses, such as ``[sample, height, width]``.

    Args:
        probe: of one probe, or a run.
        name: a variable whose last axis is ``token``, such as ``anchor_loss`` or ``mask``.

    Raises:
        InputError: the variable's last axis is not ``token``, or the losses are not dense.
    """
    values, axes = probe[name], probe.attrs.get(TOKEN_AXES)
    if axes is None or values.dims[-1] != "token":
        raise InputError(
            f"got {name} with the axes {list(values.dims)} and {TOKEN_AXES}={axes}; expected a variable over tokens of "
            "a run with dense losses; use its values directly"
        )
    return np.asarray(values.values).reshape(*values.shape[:-1], *axes)
