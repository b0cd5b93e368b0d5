"""Samples by the groups they are in, and their weights with the mass of the data preserved."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import ArrayLike, NDArray

from stagewise.checks.group_names import check_group_names
from stagewise.errors import InputError
from stagewise.interventions.check_weights import GroupWeights, complete_weights

Array = NDArray[np.float64]


class Strata:
    """Sets of samples with the same group membership: all that weights of groups can tell apart.

    The weight of a sample is the **product** of the weights of its groups, 1 for a sample in none. So 1 is neutral, a
    group of weight 0 is left out whatever else its samples are in, weights above and below 1 combine, and no order of
    the groups matters. (A maximum fails for weights below 1: a group without an opinion would overrule them.)

    Samples may as well be tokens: masks of any shape are flattened.

    Attributes:
        names: the groups, in order.
        labels: ``[sample]``, which stratum each sample is in.
        members: bool ``[stratum, group]``.
        counts: ``[stratum]``, number of samples.
        shares: ``[stratum]``, fraction of all samples.
    """

    def __init__(self, masks: Mapping[str, ArrayLike], present: ArrayLike | None = None) -> None:
        """Sorts samples into strata.

        Args:
            masks: name to bool ``[sample]``, or ``[sample, token]`` for tokens.
            present: bool, the same shape, where there is a loss; everywhere if None. Others are left out.

        Raises:
            InputError: no group, a name that cannot be shown, one that is empty, or shapes that differ.
        """
        if not masks:
            raise InputError("got no groups; expected at least one, name to bool [sample]")
        check_group_names(masks)
        named = {name: np.asarray(mask) for name, mask in masks.items()}
        shape = np.shape(present) if present is not None else next(iter(named.values())).shape
        for name, mask in named.items():
            if mask.dtype != np.bool_ or mask.shape != shape:
                raise InputError(f"got group {name!r} as {mask.dtype} {list(mask.shape)}; expected bool {list(shape)}")
        membership = np.stack([mask.ravel() for mask in named.values()], axis=1)
        if present is not None:
            membership = membership[np.asarray(present, dtype=bool).ravel()]
        for name, mask in zip(named, membership.T, strict=True):
            if not mask.any():
                raise InputError(f"got group {name!r} without a sample; expected at least one; widen it or drop it")
        self.names = tuple(named)
        self.members, labels, counts = np.unique(membership, axis=0, return_inverse=True, return_counts=True)
        self.labels = labels.reshape(-1)
        self.counts = counts
        self.shares = counts / len(membership)

    def __len__(self) -> int:
        return len(self.counts)

    def share(self, name: str) -> float:
        """Returns the fraction of all samples that are in a group."""
        return float(self.shares @ self.members[:, self.names.index(name)])

    def words(self, stratum: int) -> str:
        """Returns the groups of a stratum."""
        inside = [repr(name) for name, member in zip(self.names, self.members[stratum], strict=True) if member]
        return "in " + " and ".join(inside) if inside else "in no group"

    def rho(self, weights: GroupWeights) -> Array:
        """Returns weights of the samples of each stratum, normalised to a mean of 1 over all samples.

        With rho as sampling probabilities times the number of samples, as many samples are drawn as before; with rho as
        loss weights, the loss has the same scale.

        Args:
            weights: of the groups; 1 where not named.

        Returns:
            ``[stratum]``, pure numbers; exactly 1 where all samples weigh the same.

        Raises:
            InputError: unknown groups, weights that are not finite or negative, or nothing has a weight above 0.
        """
        complete = complete_weights(weights, self.names)
        factors = np.array([complete[name] for name in self.names])
        with np.errstate(over="ignore"):
            raw = np.prod(np.where(self.members, factors, 1.0), axis=1)
        if (raw == raw[0]).all() and 0 < raw[0] < np.inf:
            return np.ones(len(self))
        mean = float(self.shares @ raw)
        if not 0 < mean < np.inf:
            raise InputError(
                f"got weights {complete}, whose sum over the samples is {mean:g}; expected a finite sum above 0; "
                "leave some group a weight"
            )
        return np.asarray(raw / mean)

    def group_rho(self, rho: Array) -> dict[str, float]:
        """Returns the mean of ``rho`` over the samples of each group: by what factor its share of the data is changed.

        Args:
            rho: ``[stratum]``.
        """
        inside = self.members * self.counts[:, None]
        return dict(zip(self.names, (rho @ inside / inside.sum(axis=0)).tolist(), strict=True))

    def moved(self, rho: Array) -> float:
        """Share of the mass that ``rho`` moves from some samples to others: sum of share x (rho - 1) where above 0."""
        return float(self.shares @ np.maximum(rho - 1.0, 0.0))
