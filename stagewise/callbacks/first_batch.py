"""Comparison of the first training batch with the probed one: their structure must match."""

import numbers
from collections.abc import Mapping
from enum import StrEnum
from typing import Any

import numpy as np
from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn
from torch import Tensor
from torch import bool as bool_

from stagewise.batches import Batch
from stagewise.errors import InputError
from stagewise.interventions.grouped_rows import GROUPS_ENTRY
from stagewise.structure import is_column, leaves, named, where


class Strictness(StrEnum):
    """Ways to react to a difference in structure."""

    refuse = "refuse"
    """Raise an error: the probes drew their data from the training loader."""
    warn = "warn"
    """Warn: the data are the user's, the loss is the module's."""
    ignore = "ignore"
    """Do not compare: data and loss are the user's."""


def describe(batch: Batch) -> dict[str, tuple[str, tuple[int, ...]]]:
    """Returns the kind of each leaf and the sizes of its axes after the sample axis, by path."""
    return {where(path): _kind(leaf) for path, leaf in leaves(batch)}


def _kind(leaf: Any) -> tuple[str, tuple[int, ...]]:
    if isinstance(leaf, (Tensor, np.ndarray)):
        what = "tensor" if isinstance(leaf, Tensor) else "array"
        return f"a {str(leaf.dtype).removeprefix('torch.')} {what} with {leaf.ndim} axes", tuple(leaf.shape[1:])
    if isinstance(leaf, numbers.Number):
        return "a number", ()
    if is_column(leaf):
        return "a list", ()
    return ("None" if leaf is None else f"a {named(leaf)}"), ()


def difference(probed: Mapping[str, tuple[str, Any]], training: Mapping[str, tuple[str, Any]]) -> str | None:
    """Describes the first difference in paths, types or numbers of axes; None if there is none."""
    for place in [*training, *probed]:
        ours, theirs = (described.get(place, ("nothing", ()))[0] for described in (probed, training))
        if ours != theirs:
            return f"{place} is {ours} in the probes and {theirs} in training"
    return None


def _without_own_groups(training: Batch, probed: Batch) -> Batch:
    """Removes the groups that ``GroupedRows`` adds to a training batch: only interventions read them."""
    if not (isinstance(training, Mapping) and isinstance(probed, Mapping)) or GROUPS_ENTRY in probed:
        return training
    groups = training.get(GROUPS_ENTRY)
    if not isinstance(groups, Mapping) or not all(
        isinstance(group, Tensor) and group.dtype == bool_ for group in groups.values()
    ):
        return training
    return {name: leaf for name, leaf in training.items() if name != GROUPS_ENTRY}


def check_first_batch(probed: Batch, training: Batch, strictness: Strictness) -> None:
    """Compares the probed batch with the first training batch, both as passed to the module.

    Raises:
        InputError: their structures differ, with ``Strictness.refuse``.
    """
    if strictness is Strictness.ignore or training is None:
        return
    ours, theirs = describe(probed), describe(_without_own_groups(training, probed))
    words = difference(ours, theirs)
    if words is None:
        sizes = [place for place in ours if ours[place][1] != theirs[place][1]]
        if sizes:
            place = sizes[0]
            rank_zero_info(
                f"stagewise: {place} has axes {list(ours[place][1])} after that of samples in the probes and "
                f"{list(theirs[place][1])} in the first training batch, as with padding to the longest"
            )
        return
    if strictness is Strictness.warn:
        rank_zero_warn(
            f"stagewise: {words}; pass observed= and sampling= in the format of training batches, unless the "
            "loss accepts both"
        )
        return
    raise InputError(
        f"got a probed batch unlike the first training batch: {words}; expected the same structure; pass "
        "observed= and sampling= in the format of training batches, with a loss_fn that accepts them"
    )
