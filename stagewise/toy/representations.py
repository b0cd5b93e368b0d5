"""Geometry of hidden representations over training: views in few dimensions, and branching times."""

from itertools import combinations
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.fft import dct
from scipy.linalg import orthogonal_procrustes

from stagewise.errors import InputError, require
from stagewise.toy.hierarchy import Hierarchy
from stagewise.toy.modes import echelon_basis, tied_groups

Array = NDArray[np.float64]

_TIED = 1e-6
"""Relative difference below which two eigenvalues count as equal; single precision leaves some 1e-7."""


class Scaling(NamedTuple):
    """Points in few dimensions.

    Attributes:
        coordinates: ``[item, dimension]``, in the units of the points, centred.
        share: shown share of the points' variance, 0 to 1; 1 if all points coincide.
    """

    coordinates: Array
    share: float


def classical_mds(points: ArrayLike, num_dimensions: int = 2) -> Scaling:
    """Scales points to few dimensions by classical multidimensional scaling, which keeps most of their variance.

    The coordinates are eigenvectors of -1/2 J D J, times the square roots of their eigenvalues, largest first, with D
    the squared distances and J the centring matrix; for points in a space this is the Gram matrix of the centred
    points. The order of the items settles signs and ties, so that they do not depend on rounding. If more eigenvalues
    tie than dimensions are left, the view is along the diagonal between them: the second dimension of the default tree
    has equal parts of mammals against birds and of trees against flowers. Three dimensions separate them.

    Source: Torgerson, Multidimensional scaling: I. Theory and method, Psychometrika 1952.

    Args:
        points: ``[item, hidden]``.
        num_dimensions: 1 to the number of items.

    Raises:
        InputError: the points are not a finite matrix of two or more items, or ``num_dimensions`` is out of range.
    """
    places = _finite(points, "points", "[item, hidden]")
    _check(len(places), num_dimensions)
    return _view(places, num_dimensions, toward=None)


def mds_over_time(representations: ArrayLike, *, num_dimensions: int = 2) -> Array:
    """Scales each step by classical multidimensional scaling, aligned so that the points' paths are continuous.

    The last step is that of :func:`classical_mds`. Going backward, the coordinates of each step are rotated or
    reflected, without scaling, onto those of the next step (orthogonal Procrustes). If more eigenvalues tie than
    dimensions are left, the view closest to that of the next step is chosen. Rotations of the hidden space have no
    effect.

    Each step shows its own largest directions. When a hidden direction overtakes a shown one, the view turns within a
    few steps. In a trained network this happens among branches of one level of a tree, whose directions nearly tie:
    choose ``num_dimensions`` to show a whole level, e.g. 3 for the first two levels of the default tree.

    Args:
        representations: ``[step, item, hidden]``.
        num_dimensions: 1 to the number of items.

    Returns:
        ``[step, item, dimension]``, in the units of the representations, each step centred.

    Raises:
        InputError: the representations are not a finite array of one or more steps and two or more items, or
            ``num_dimensions`` is out of range.
    """
    places = _finite(representations, "representations", "[step, item, hidden]")
    _check(places.shape[1], num_dimensions)
    path = np.empty((*places.shape[:2], num_dimensions))
    path[-1] = _view(places[-1], num_dimensions, toward=None).coordinates
    for step in range(len(places) - 2, -1, -1):
        later = path[step + 1]
        view = _view(places[step], num_dimensions, toward=later).coordinates
        turn, _ = orthogonal_procrustes(view, later)
        path[step] = view @ turn
    return path


def branching_times(representations: ArrayLike, steps: ArrayLike, hierarchy: Hierarchy) -> dict[str, float]:
    """Returns the step at which the children of each node have reached half of their final distance.

    The distance of two children is that between the means of their items' representations; with more children it is the
    mean over pairs. The branching time is the first step at which the distance reaches half of its value at the last
    step, interpolated linearly over the logarithm of the step (between step 0 and the next, over the step itself).

    Args:
        representations: ``[step, item, hidden]``, items in the order of ``hierarchy.items``.
        steps: ``[step]``, increasing, 0 or more.
        hierarchy: the tree.

    Returns:
        Maps the name of each node with two or more children, in tree order, to a step: the first if the distance is
        above half from the start, NaN if the children coincide at the end.

    Raises:
        InputError: the representations are not finite or do not fit the steps or the items, or the steps are fewer than
            two, negative or do not increase.
    """
    places = _finite(representations, "representations", "[step, item, hidden]")
    at = np.asarray(steps, dtype=np.float64)
    if at.ndim != 1 or len(at) < 2 or not np.isfinite(at).all() or at[0] < 0 or (np.diff(at) <= 0).any():
        raise InputError(f"got steps {at!s:.60}; expected two or more, from 0 on and increasing; sort them")
    expected = (len(at), len(hierarchy.items))
    if places.shape[:2] != expected:
        raise InputError(
            f"got representations of {places.shape[0]} steps and {places.shape[1]} items; expected {expected[0]} steps "
            f"and {expected[1]} items; give those of every item at every step"
        )
    return {branch.name: _half_time(_mean_distance(places, branch.children), at) for branch in hierarchy.branches()}


def _view(points: Array, num_dimensions: int, *, toward: Array | None) -> Scaling:
    """Returns leading coordinates; ties at the last dimension are settled ``toward`` others, if given."""
    centred = points - points.mean(axis=0)
    values, vectors = np.linalg.eigh(centred @ centred.T)
    values, vectors = values[::-1], vectors[:, ::-1]
    total = values.sum()
    rounding = values[0] * len(values) * np.finfo(np.float64).eps
    values = np.where(values > rounding, values, 0.0)
    coordinates = np.empty((len(points), 0))
    for group in tied_groups(values, _TIED):
        missing = num_dimensions - coordinates.shape[1]
        own = vectors[:, list(group)]
        basis = echelon_basis(own)
        if len(group) > missing:
            basis = basis @ _choice(basis, missing, toward=toward)
        # Rotated, not replaced: distances stay exact if the values are not quite equal.
        coordinates = np.hstack([coordinates, own * np.sqrt(values[list(group)]) @ (own.T @ basis)])
        if coordinates.shape[1] == num_dimensions:
            break
    return Scaling(coordinates, min(float((coordinates**2).sum() / total), 1.0) if values[0] > 0 else 1.0)


def _choice(tied: Array, missing: int, *, toward: Array | None) -> Array:
    """Chooses the ``missing`` directions to show, ``[tied, missing]``, among the axes ``tied`` ``[item, tied]``.

    They are the closest to the coordinates ``toward``, or the diagonals if these do not decide.
    """
    # The rows of the cosine transform are orthonormal, and the first has equal parts of all.
    diagonals = dct(np.eye(tied.shape[1]), axis=0, norm="ortho")[:missing].T
    if toward is None:
        return np.asarray(diagonals)
    hint = _TIED * np.linalg.norm(toward) * diagonals
    return np.asarray(np.linalg.svd(np.hstack([tied.T @ toward, hint]))[0][:, :missing])


def _finite(values: ArrayLike, name: str, axes: str) -> Array:
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != axes.count(",") + 1 or 0 in array.shape:
        raise InputError(f"got {name} of shape {list(array.shape)}; expected {axes}, none of them empty; reshape them")
    if not np.isfinite(array).all():
        raise InputError(f"got {name} that are not finite; expected numbers; leave out the steps after a divergence")
    return array


def _check(num_items: int, num_dimensions: int) -> None:
    require(num_items >= 2, "number of items", num_items, "2 or more", "give at least two points")
    require(
        1 <= num_dimensions <= num_items,
        "num_dimensions",
        num_dimensions,
        f"1 to {num_items}, the number of items",
        "2 is usual",
    )


def _mean_distance(places: Array, children: tuple[tuple[int, ...], ...]) -> Array:
    """Returns the mean distance over pairs of children, ``[step]``."""
    means = [places[:, list(items)].mean(axis=1) for items in children]
    return np.asarray(np.mean([np.linalg.norm(a - b, axis=1) for a, b in combinations(means, 2)], axis=0))


def _half_time(distance: Array, steps: Array) -> float:
    half = distance[-1] / 2
    if half == 0:
        return float("nan")
    past = int(np.argmax(distance >= half))
    if past == 0:
        return float(steps[0])
    before, after = steps[past - 1], steps[past]
    part = float((half - distance[past - 1]) / (distance[past] - distance[past - 1]))
    if before == 0:
        return float(part * after)
    return float(before * (after / before) ** part)
