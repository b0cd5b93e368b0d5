"""Where hidden representations lie at one step: classical multidimensional scaling, continued over training."""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.fft import dct
from scipy.linalg import orthogonal_procrustes

from stagewise.errors import InputError, require
from stagewise.toy.ties import echelon_basis, tied_groups

Array = NDArray[np.float64]

_TIED = 1e-6
"""Relative difference below which two eigenvalues are one unless the caller says otherwise."""


class Scaling(NamedTuple):
    """Points in few dimensions.

    Attributes:
        coordinates: ``[item, dimension]``, in the units of the points, centred.
        share: of the points' variance that is shown, 0 to 1; 1 if all points are one.
    """

    coordinates: Array
    share: float


def classical_mds(points: ArrayLike, num_dimensions: int = 2, *, tie_tolerance: float = _TIED) -> Scaling:
    """Classical multidimensional scaling: the view of the points that keeps most of their variance.

    The coordinates are eigenvectors of -1/2 J D J, times the square roots of their eigenvalues, largest first, with D
    the squared distances and J the centring matrix; for points in a space that is the Gram matrix of the centred
    points. Signs and ties are settled by the order of the items, so that they do not depend on rounding. Where more
    eigenvalues tie than there are dimensions left, the view goes along the diagonals between them: of the default
    tree's second dimension, mammals against birds and trees against flowers have equal parts.

    Source: Torgerson, Multidimensional scaling: I. Theory and method, Psychometrika 1952; Cox and Cox,
    Multidimensional Scaling, section 2.2.

    Args:
        points: ``[item, hidden]``.
        num_dimensions: 1 to the number of items.
        tie_tolerance: relative difference, 0 to below 1, up to which eigenvalues count as tied.

    Raises:
        InputError: the points are no finite matrix of two or more items, or a setting is out of range.
    """
    places = _finite(points, "points", "[item, hidden]")
    _check(len(places), num_dimensions, tie_tolerance)
    return _view(places, num_dimensions, tie_tolerance, toward=None)


def mds_over_time(representations: ArrayLike, *, num_dimensions: int = 2, tie_tolerance: float = _TIED) -> Array:
    """Classical multidimensional scaling of each step, turned so that the points' paths are continuous.

    From the last step, which is that of :func:`classical_mds`, backward: each step's coordinates are rotated or
    reflected, without scaling, onto those of the step after it (orthogonal Procrustes). Where more eigenvalues tie than
    there are dimensions left, the view closest to the later step's is taken. Rotations of the hidden space have no
    effect.

    Of directions that are about equally large, but not tied, only the largest is shown; where their order changes,
    paths jump. The branches of one level of a tree do so in a trained network: there a ``tie_tolerance`` of .1 to .3
    shows them side by side.

    Args:
        representations: ``[step, item, hidden]``.
        num_dimensions: 1 to the number of items.
        tie_tolerance: relative difference, 0 to below 1, up to which eigenvalues of a step count as tied.

    Returns:
        ``[step, item, dimension]``, in the units of the representations, each step centred.

    Raises:
        InputError: the representations are no finite array of one or more steps and two or more items, or a setting
            is out of range.
    """
    places = _finite(representations, "representations", "[step, item, hidden]")
    _check(places.shape[1], num_dimensions, tie_tolerance)
    path = np.empty((*places.shape[:2], num_dimensions))
    path[-1] = _view(places[-1], num_dimensions, tie_tolerance, toward=None).coordinates
    for step in range(len(places) - 2, -1, -1):
        later = path[step + 1]
        view = _view(places[step], num_dimensions, tie_tolerance, toward=later).coordinates
        turn, _ = orthogonal_procrustes(view, later)
        path[step] = view @ turn
    return path


def _view(points: Array, num_dimensions: int, tie_tolerance: float, *, toward: Array | None) -> Scaling:
    """The leading coordinates; ties across the last dimension are settled ``toward`` other coordinates if given."""
    centred = points - points.mean(axis=0)
    values, vectors = np.linalg.eigh(centred @ centred.T)
    values, vectors = values[::-1], vectors[:, ::-1]
    total = values.sum()
    rounding = values[0] * len(values) * np.finfo(np.float64).eps
    values = np.where(values > rounding, values, 0.0)
    columns: list[Array] = []
    for group in tied_groups(values, tie_tolerance):
        missing = num_dimensions - sum(column.shape[1] for column in columns)
        if missing <= 0:
            break
        members = list(group)
        basis = vectors[:, members]
        # Near ties keep their own eigenvectors; those of equal values are an accident of rounding.
        exact = [basis[:, list(same)] for same in tied_groups(values[members], _TIED)]
        basis = np.hstack([echelon_basis(same) for same in exact])
        column = basis * np.sqrt(values[members])
        if column.shape[1] > missing:
            column = column @ _choice(column, missing, toward, columns)
        columns.append(column)
    coordinates = np.hstack(columns)
    return Scaling(coordinates, float((coordinates**2).sum() / total) if values[0] > 0 else 1.0)


def _choice(tied: Array, missing: int, toward: Array | None, columns: list[Array]) -> Array:
    """Which ``missing`` directions ``[tied, missing]`` of tied coordinates ``[item, tied]`` are shown."""
    if toward is None:
        return np.asarray(dct(np.eye(tied.shape[1]), axis=0, norm="ortho")[:missing].T)
    rest = toward
    for column in columns:
        # What the dimensions shown already account for is not to be shown once more.
        shown = np.linalg.qr(column)[0]
        rest = rest - shown @ (shown.T @ rest)
    return np.asarray(np.linalg.svd(tied.T @ rest)[0][:, :missing])


def _finite(values: ArrayLike, name: str, axes: str) -> Array:
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != axes.count(",") + 1 or 0 in array.shape:
        raise InputError(f"got {name} of shape {list(array.shape)}; expected {axes}, none of them empty; reshape them")
    if not np.isfinite(array).all():
        raise InputError(f"got {name} that are not finite; expected numbers; leave out the steps after a divergence")
    return array


def _check(num_items: int, num_dimensions: int, tie_tolerance: float) -> None:
    require(num_items >= 2, "number of items", num_items, "2 or more", "give at least two points")
    require(
        1 <= num_dimensions <= num_items,
        "num_dimensions",
        num_dimensions,
        f"1 to {num_items}, the number of items",
        "2 is usual",
    )
    require(0 <= tie_tolerance < 1, "tie_tolerance", tie_tolerance, "0 to below 1", "1e-6 is usual")
