"""Samples by group membership, and their weights, normalised to preserve the amount of data."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import ArrayLike, NDArray

from stagewise.checks.group_names import check_group_names
from stagewise.errors import InputError
from stagewise.interventions.check_weights import GroupWeights, complete_weights

Array = NDArray[np.float64]


class Strata:
    """Sets of samples with the same group membership, which group weights cannot distinguish further.

    The weight of a sample is the **product** of the weights of its groups, 1 for a sample in none. So 1 is neutral, a
    group of weight 0 is excluded whatever other groups its samples are in, weights above and below 1 combine, and the
    order of groups does not matter. (A maximum would fail for weights below 1: any other group of weight 1 would
    override them.)

    Samples may also be tokens: masks of any shape are flattened.

    Attributes:
        names: the groups, in order.
        labels: ``[sample]``, stratum of each sample.
        members: bool ``[stratum, group]``.
        counts: ``[stratum]``, number of samples.
        shares: ``[stratum]``, fraction of all samples.
    """

    def __init__(self, masks: Mapping[str, ArrayLike], present: ArrayLike | None = None) -> None:
        """Sorts samples into strata.

        Args:
            masks: maps names to bool ``[sample]``, or ``[sample, token]`` for tokens.
            present: bool, of the same shape, True where there is a loss; other entries are ignored. All True if None.

        Raises:
            InputError: no group, an invalid name, an empty group, or shapes that differ.
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
        """Describes a stratum by its groups, in words."""
        inside = [repr(name) for name, member in zip(self.names, self.members[stratum], strict=True) if member]
        return "in " + " and ".join(inside) if inside else "in no group"

    def rho(self, weights: GroupWeights) -> Array:
        """Returns the weight of the samples of each stratum, normalised to a mean of 1 over all samples.

        With rho as sampling probabilities times the number of samples, the number of drawn samples is unchanged; with
        rho as loss weights, the scale of the loss is.

        Args:
            weights: of the groups; 1 for groups that are not mentioned.

        Returns:
            ``[stratum]``, pure numbers; exactly 1 if all samples have the same weight.

        Raises:
            InputError: unknown groups, weights that are not finite numbers of 0 or more, or none above 0.
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
        """Returns the mean of ``rho`` over the samples of each group, the factor on the group's share of the data.

        Args:
            rho: ``[stratum]``.
        """
        inside = self.members * self.counts[:, None]
        return dict(zip(self.names, (rho @ inside / inside.sum(axis=0)).tolist(), strict=True))

    def moved(self, rho: Array) -> float:
        """Returns the share of data that ``rho`` moves between samples: sum of the positive share x (rho - 1)."""
        return float(self.shares @ np.maximum(rho - 1.0, 0.0))
