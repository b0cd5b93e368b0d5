"""The modes of a data set: the singular vectors that a deep linear network learns one after the other."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stagewise.toy.ties import echelon_basis, tied_groups

Array = NDArray[np.float64]

_EQUAL = 1e-9
"""Relative difference below which two strengths are one."""


@dataclass(frozen=True, eq=False)
class Modes:
    """Singular value decomposition of the map from one-hot items to their features.

    ``features.T = left @ diag(strengths) @ right.T``. A deep linear network that starts small learns strong modes
    first, and modes of equal strength together: a group is one stage of learning.

    Source: Saxe, McClelland and Ganguli, A mathematical theory of semantic development in deep neural networks, PNAS
    2019, on the singular value decomposition of the input-output correlations.

    Attributes:
        strengths: ``[mode]``, decreasing, above 0; exactly equal within a group. Pure numbers.
        left: ``[property, mode]``, orthonormal: what the mode says of the properties.
        right: ``[item, mode]``, orthonormal: how much of the mode each item has.
        groups: indices of the modes of equal strength, strongest first.
    """

    strengths: Array
    left: Array
    right: Array
    groups: tuple[tuple[int, ...], ...]


def modes_of(features: Array) -> Modes:
    """Decompose a feature matrix.

    Signs, and the basis within a group of equal strengths, are set by the order of the items: the first item with a
    share in a mode has a positive one, see :func:`~stagewise.toy.ties.echelon_basis`. Modes of strength 0 are left out.

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
