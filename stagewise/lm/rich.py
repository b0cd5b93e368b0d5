"""Sequences that are rich in a class of targets: a group of training sequences found in the text itself."""

from collections.abc import Callable
from typing import Annotated

import torch
from torch import Tensor

from stagewise.checks.bounds import check_arguments
from stagewise.checks.ranges import within
from stagewise.errors import InputError

_ROWS = 512
"""Sequences whose targets are looked up at once: that takes ``[row, position, position]``."""


def group_name(name: str) -> str:
    """``rich_in_<class>``, the group of the sequences that are rich in a class."""
    return f"rich_in_{name}"


def share_of_targets(ids: Tensor, targets: Callable[[Tensor], Tensor]) -> Tensor:
    """Returns the share of each sequence's targets that are of a class, ``[sample]``, float64, 0 to 1.

    Args:
        ids: token ids ``[sample, position]``.
        targets: from token ids ``[row, position]`` to the class's mask ``[row, position - 1]``, row by row.
    """
    return torch.cat([targets(rows).double().mean(dim=1) for rows in ids.split(_ROWS)])


def richest(
    shares: Tensor, share: Annotated[float, within(0, 1, "0.25 is usual", with_low=False, with_high=False)], name: str
) -> Tensor:
    """Marks the sequences with the largest shares of a class; among equals, those that come first.

    Args:
        shares: of the class in each sequence, ``[sample]``.
        share: of the sequences to mark, rounded to whole ones.
        name: of the class, for messages.

    Returns:
        ``[sample]``, bool.

    Raises:
        InputError: a share that is none, that rounds to no sequence or to all, or that would take in sequences without
            any target of the class.
    """
    check_arguments("richest", richest, locals(), leave=["shares"])
    wanted = round(share * len(shares))
    if not 0 < wanted < len(shares):
        raise InputError(
            f"got rich_share={share:g} of {len(shares)} sequences, which is {wanted} of them; expected at least one, "
            "and not all; change it, or give more text"
        )
    order = torch.sort(shares, descending=True, stable=True)
    if order.values[wanted - 1] == 0:
        raise InputError(
            f"got rich_share={share:g} of {len(shares)} sequences, of which {int((shares > 0).sum())} have a target of "
            f"class {name!r}; expected {wanted} that have one; lower it, or name another class"
        )
    chosen = torch.zeros(len(shares), dtype=torch.bool)
    chosen[order.indices[:wanted]] = True
    return chosen
