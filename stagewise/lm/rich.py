"""Group of training sequences that are rich in a class of targets."""

from collections.abc import Callable
from typing import Annotated

import torch
from torch import Tensor

from stagewise.checks.bounds import check_arguments
from stagewise.checks.ranges import within
from stagewise.errors import InputError

_ROWS = 512
"""Number of sequences whose targets are looked up at once, which takes ``[row, position, position]``."""


def group_name(name: str) -> str:
    """Returns the name of the group of sequences rich in a class, ``rich_in_<class>``."""
    return f"rich_in_{name}"


def share_of_targets(ids: Tensor, targets: Callable[[Tensor], Tensor]) -> Tensor:
    """Returns the share of each sequence's targets in a class, ``[sample]``, float64, 0 to 1.

    Args:
        ids: token ids ``[sample, position]``.
        targets: maps token ids ``[row, position]`` to the mask of the class ``[row, position - 1]``, row by row.
    """
    return torch.cat([targets(rows).double().mean(dim=1) for rows in ids.split(_ROWS)])


def richest(
    shares: Tensor, share: Annotated[float, within(0, 1, "0.25 is usual", with_low=False, with_high=False)], name: str
) -> Tensor:
    """Marks the sequences with the largest shares of a class; in ties, the first ones.

    Args:
        shares: share of the class in each sequence, ``[sample]``.
        share: share of the sequences to mark, rounded to whole sequences.
        name: of the class, for messages.

    Returns:
        ``[sample]``, bool.

    Raises:
        InputError: a share out of range, one that rounds to no sequence or to all, or one that would include sequences
            without any target of the class.
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
