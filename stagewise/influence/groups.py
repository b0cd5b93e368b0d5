"""Groups of samples or tokens, bins of token positions, and means over the pairs between groups."""

from collections.abc import Mapping, Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import ArrayLike, NDArray

from stagewise.checks.group_names import check_group_names
from stagewise.errors import InputError

Array = NDArray[np.float64]


class Groups:
    """Named sets of losses, and their group-by-sample sums.

    A pair mean over groups A and B runs over i in A, j in B *of different samples*: tokens of one sequence share their
    context, and a sample always moves with itself. It needs only the sums of each group's losses in each sample.

    A group may be as small as one sample. Two groups within a single sample have no such pair (e.g. a group of one
    sample with itself): means over their pairs are NaN.

    Attributes:
        names: the groups, in order.
        masks: bool ``[group, sample]`` or ``[group, sample, token]``, True for the losses in each group.
        present: bool ``[sample]`` or ``[sample, token]``, True where there is a loss.
        counts: ``[group, sample]``, number of losses of a group in a sample.
        num_pairs: ``[group, group]``, number of pairs of losses in different samples.
        has_pairs: bool ``[group, group]``, True where there is a pair. Every group has a pair with some group.
    """

    def __init__(self, masks: Mapping[str, ArrayLike], loss_mask: ArrayLike) -> None:
        """Fits groups to the shape of the losses.

        Args:
            masks: maps names to bool ``[sample]`` or ``[sample, token]``; ``{}`` makes one group, ``all``.
            loss_mask: bool ``[sample]`` or ``[sample, token]``, True where there is a loss.

        Raises:
            InputError: an invalid name, see :func:`~stagewise.checks.group_names.check_group_names`, a mask of another
                shape or that selects no loss, or all groups lie within a single sample.
        """
        check_group_names(masks)
        present = np.asarray(loss_mask, dtype=bool)
        named = {name: np.asarray(mask, dtype=bool) for name, mask in masks.items()} or {"all": present}
        self.names, self.present = tuple(named), present
        self.masks = np.zeros((len(named), *present.shape), dtype=bool)
        for row, (name, mask) in enumerate(named.items()):
            if mask.ndim < present.ndim:
                mask = mask[:, None]
            if (
                mask.ndim != present.ndim
                or mask.shape[0] != len(present)
                or mask.shape[-1] not in (1, present.shape[-1])
            ):
                raise InputError(
                    f"got group {name!r} of shape {list(mask.shape)}; expected the shape of the losses, "
                    f"{list(present.shape)}, or [{len(present)}]"
                )
            self.masks[row] = mask & present
            if not self.masks[row].any():
                raise InputError(f"got group {name!r} that selects no loss; expected at least one; widen it or drop it")
        self.counts = self.masks.reshape(len(named), len(present), -1).sum(axis=2)
        self.num_pairs = self.counts.sum(axis=1)[:, None] * self.counts.sum(axis=1)[None] - self.counts @ self.counts.T
        self.has_pairs = self.num_pairs > 0
        if not self.has_pairs.any():
            listed = ", ".join(map(repr, self.names))
            raise InputError(
                f"got groups ({listed}) within a single sample; expected losses in two samples or more; "
                "observe more samples, or add a group that holds others"
            )

    def __len__(self) -> int:
        return len(self.names)

    def sums(self, loss: ArrayLike) -> Array:
        """Sums each group's losses in each sample.

        Args:
            loss: ``[..., sample]`` or ``[..., sample, token]``, nats, of the shape to which the groups were fitted.

        Returns:
            ``[..., group * sample]``, float64.
        """
        values = np.asarray(loss, dtype=np.float64)
        chosen = [np.where(mask, values, 0.0) for mask in self.masks]
        if self.masks.ndim == 3:
            chosen = [part.sum(axis=-1) for part in chosen]
        stacked = np.stack(chosen, axis=-2)
        return stacked.reshape(*stacked.shape[:-2], -1)

    def means(self, loss: ArrayLike) -> Array:
        """Returns the mean loss of each group, ``[..., group]``, nats."""
        sums = self.sums(loss)
        return sums.reshape(*sums.shape[:-1], *self.counts.shape).sum(axis=-1) / self.counts.sum(axis=1)

    def pair_sums(self, left: Array, right: Array | None = None) -> Array:
        """Sums products over all pairs of losses of two groups in different samples, and over draws.

        The sum over all pairs is a product of group totals, from which pairs within one sample are subtracted. No
        matrix over samples is formed.

        Args:
            left: ``[..., group * sample]``, sums or linear functions of them.
            right: of the same shape; ``left`` itself if None.

        Returns:
            ``[group, group]``: sum over draws d and samples n != m of left[d, g, n] right[d, h, m].
        """
        shape = (-1, *self.counts.shape)
        first = left.reshape(shape)
        second = first if right is None else right.reshape(shape)
        totals = first.sum(axis=2).T @ second.sum(axis=2)
        return totals - np.tensordot(first, second, axes=((0, 2), (0, 2)))

    def per_pair(self, sums: Array) -> Array:
        """Divides ``[group, group]`` sums over pairs in different samples by their number; NaN without a pair."""
        return np.divide(sums, self.num_pairs, out=np.full(sums.shape, np.nan), where=self.has_pairs)

    def pair_means(self, draws: Array) -> Array:
        """Returns the mean product over pairs of losses of two groups in different samples, and over draws.

        For centred sums this is the mean covariance of those pairs.

        Args:
            draws: ``[..., group * sample]``, sums or linear functions of them.

        Returns:
            ``[group, group]``, the unit of ``draws`` squared; NaN where there is no pair.
        """
        return self.per_pair(self.pair_sums(draws) * draws.shape[-1] / draws.size)

    def standardized_pair_means(self, draws: Array, variance: Array) -> Array:
        """Returns the mean product of the standardized sums of two groups over different samples where both vary.

        Args:
            draws: ``[..., group * sample]``.
            variance: ``[group * sample]``, used to standardize; zero where a sample holds no loss of a group.

        Returns:
            ``[group, group]``, pure numbers; zero where no pair varies, NaN where there is no pair.
        """
        scale = np.zeros_like(variance)
        np.divide(1.0, np.sqrt(variance), out=scale, where=variance > 0)
        total = self.pair_sums(draws * scale) * draws.shape[-1] / draws.size
        num_pairs = self.pair_sums((scale > 0).astype(np.float64))
        return np.divide(total, num_pairs, out=np.where(self.has_pairs, 0.0, np.nan), where=num_pairs > 0)


class Positions:
    """Bins of token positions, reduced together with the groups as if they were further groups.

    Attributes:
        edges: ``bin + 1`` numbers; bin b holds the losses at positions ``edges[b]`` to ``edges[b + 1] - 1``. Loss
            position k of a causal language model belongs to target token k + 1.
        joint: the groups, followed by the bins.
    """

    def __init__(self, groups: Groups, loss_mask: ArrayLike, bins: int | Sequence[int]) -> None:
        """Divides the positions of the losses into bins.

        Args:
            groups: groups to combine with the bins.
            loss_mask: bool ``[sample, token]``, True where there is a loss.
            bins: number of bins over all positions, as equal as possible; or the edges of the bins.

        Raises:
            InputError: losses without tokens, more bins than positions, edges that do not increase within them, a bin
                without a loss, or a group whose name is that of a bin.
        """
        present = np.asarray(loss_mask, dtype=bool)
        if present.ndim != 2:
            raise InputError(
                f"got losses of shape {list(present.shape)}; expected [sample, token]; leave position bins out for "
                "losses without tokens"
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
                f"got {bins} position bins; expected 1 to {num_tokens}, the number of positions; 8 is usual"
            )
        return tuple(np.linspace(0, num_tokens, bins + 1).round().astype(int).tolist())
    edges = tuple(int(edge) for edge in bins)
    if len(edges) < 2 or edges[0] < 0 or edges[-1] > num_tokens or (np.diff(edges) <= 0).any():
        raise InputError(
            f"got edges {list(edges)} of position bins; expected two or more that increase from 0 to {num_tokens} at "
            "most; give the first position of each bin, and the end of the last"
        )
    return edges
