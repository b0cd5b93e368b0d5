"""Bins of token positions beside groups: where in its sequence a loss is that a group acts on."""

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import ArrayLike

from stagewise.errors import InputError
from stagewise.influence.groups import Groups


class Positions:
    """Bins of positions, which are reduced with the groups as if they were further groups.

    Attributes:
        edges: ``bin + 1`` numbers; bin b holds the losses at positions ``edges[b]`` to ``edges[b + 1] - 1``. Position k
            of the losses of a causal language model is that of target token k + 1.
        joint: the groups first, then the bins.
    """

    def __init__(self, groups: Groups, loss_mask: ArrayLike, bins: int | Sequence[int]) -> None:
        """Lay bins over the positions of the losses.

        Args:
            groups: what they stand beside.
            loss_mask: bool ``[sample, token]``, where there is a loss.
            bins: how many, as equal as can be, over all positions; or their edges.

        Raises:
            InputError: losses without tokens, more bins than positions, edges that do not increase within them, a bin
                without a loss, or a group whose name is that of a bin.
        """
        present = np.asarray(loss_mask, dtype=bool)
        if present.ndim != 2:
            raise InputError(
                f"got losses of shape {list(present.shape)}; expected [sample, token]; leave position bins out where "
                "there are no tokens"
            )
        self.edges = _edges(bins, present.shape[1])
        masks = dict(zip(groups.names, groups.masks, strict=True))
        for start, stop in pairwise(self.edges):
            inside = np.zeros_like(present)
            inside[:, start:stop] = present[:, start:stop]
            name = f"position {start}:{stop}"
            if name in masks:
                raise InputError(f"got a group {name!r}; expected another name, which no bin has; rename it")
            if not inside.any():
                raise InputError(
                    f"got no loss at positions {start} to {stop - 1}; expected one in each bin; give the edges of bins "
                    "that hold losses"
                )
            masks[name] = inside
        self.joint = Groups(masks, present)

    def __len__(self) -> int:
        return len(self.edges) - 1


def _edges(bins: int | Sequence[int], num_tokens: int) -> tuple[int, ...]:
    if isinstance(bins, int):
        if not 1 <= bins <= num_tokens:
            raise InputError(
                f"got {bins} position bins; expected 1 to {num_tokens}, the positions there are; 8 is usual"
            )
        return tuple(np.linspace(0, num_tokens, bins + 1).round().astype(int).tolist())
    edges = tuple(int(edge) for edge in bins)
    if len(edges) < 2 or edges[0] < 0 or edges[-1] > num_tokens or (np.diff(edges) <= 0).any():
        raise InputError(
            f"got edges {list(edges)} of position bins; expected two or more that increase from 0 to {num_tokens} at "
            "most; give the first position of each bin, and the end of the last"
        )
    return edges
