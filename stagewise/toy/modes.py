"""Modes of a data set: singular vectors, which a deep linear network learns one after the other."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

_NEGLIGIBLE = 1e-6
"""Length below which a projected unit vector counts as zero."""


def tied_groups(values: Array, tolerance: float) -> tuple[tuple[int, ...], ...]:
    """Groups equal values of a decreasing sequence.

    Args:
        values: ``[mode]``, decreasing, 0 or more.
        tolerance: a value belongs to a group if it is at least ``1 - tolerance`` times the group's largest.

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
    """Returns an orthonormal basis that depends only on the subspace.

    The unit vectors of the items, in order, are projected onto the subspace and made orthonormal. The first nonzero
    entry of each vector is thus positive, and later vectors have a 0 there. For the modes of a tree, each vector then
    involves as few branches as possible.

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
            # Orthogonalized once more: a short remainder is not orthogonal to full precision.
            rest = rest - rotation.T @ (rotation @ rest)
            rotation = np.vstack([rotation, rest / np.linalg.norm(rest)])
        if len(rotation) == vectors.shape[1]:
            break
    return vectors @ rotation.T


_EQUAL = 1e-9
"""Relative difference below which two strengths count as equal."""


@dataclass(frozen=True, eq=False)
class Modes:
    """Singular value decomposition of the map from one-hot items to their features.

    ``features.T = left @ diag(strengths) @ right.T``. A deep linear network with small initial weights learns strong
    modes first, and modes of equal strength together: a group is one stage of learning.

    Source: Saxe, McClelland and Ganguli, A mathematical theory of semantic development in deep neural networks, PNAS
    2019, on the singular value decomposition of the input-output correlations.

    Attributes:
        strengths: ``[mode]``, decreasing, above 0; exactly equal within a group. Pure numbers.
        left: ``[property, mode]``, orthonormal: coefficients of the properties in each mode.
        right: ``[item, mode]``, orthonormal: coefficients of the items in each mode.
        groups: indices of the modes of equal strength, strongest first.
    """

    strengths: Array
    left: Array
    right: Array
    groups: tuple[tuple[int, ...], ...]


def modes_of(features: Array) -> Modes:
    """Decomposes a feature matrix.

    The order of the items determines signs and the basis within a group of equal strengths: the first item with a
    nonzero coefficient in a mode has a positive one, see :func:`echelon_basis`. Modes of strength 0 are omitted.

    Args:
        features: ``[item, property]``.

    Returns:
        The modes, as read-only arrays.
    """
    _, strengths, vectors = np.linalg.svd(features.T, full_matrices=False)
    known = strengths > strengths[0] * max(features.shape) * np.finfo(np.float64).eps
    strengths, right = strengths[known], vectors.T[:, known]
    groups = tied_groups(strengths, _EQUAL)
    strengths = np.concatenate([np.full(len(group), strengths[list(group)].mean()) for group in groups])
    right = np.hstack([echelon_basis(right[:, list(group)]) for group in groups])
    left = features.T @ right / strengths
    for array in (strengths, left, right):
        array.setflags(write=False)
    return Modes(strengths, left, right, groups)
