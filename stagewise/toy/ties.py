"""Equal singular values or eigenvalues: which they are, and a basis for them that rounding does not choose."""

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

_NEGLIGIBLE = 1e-6
"""Length below which a projected unit vector counts as zero."""


def tied_groups(values: Array, tolerance: float) -> tuple[tuple[int, ...], ...]:
    """Group decreasing values that are equal.

    Args:
        values: ``[mode]``, decreasing, 0 or more.
        tolerance: a value belongs to a group while it is at least ``1 - tolerance`` times the group's largest.

    Returns:
        Indices of each group, in order.
    """
    groups: list[list[int]] = []
    for index, value in enumerate(values):
        if groups and value >= values[groups[-1][0]] * (1 - tolerance):
            groups[-1].append(index)
        else:
            groups.append([index])
    return tuple(tuple(group) for group in groups)


def echelon_basis(vectors: Array) -> Array:
    """The orthonormal basis of a subspace that depends on the subspace alone.

    The unit vectors of the items, in order, are projected onto the subspace and made orthonormal. Of each vector the
    first entry that is not 0 is thus positive, and later vectors have a 0 there. For the modes of a tree, each vector
    then speaks of as few branches as it can.

    Args:
        vectors: ``[item, mode]``, any orthonormal basis of the subspace.

    Returns:
        ``[item, mode]``, orthonormal, with the same span.
    """
    rotation = np.zeros((0, vectors.shape[1]))
    for row in vectors:
        rest = row - rotation.T @ (rotation @ row)
        length = np.linalg.norm(rest)
        if length > _NEGLIGIBLE:
            rest = rest / length
            # Once more: a short rest is not orthogonal to full precision.
            rest = rest - rotation.T @ (rotation @ rest)
            rotation = np.vstack([rotation, rest / np.linalg.norm(rest)])
        if len(rotation) == vectors.shape[1]:
            break
    return vectors @ rotation.T
