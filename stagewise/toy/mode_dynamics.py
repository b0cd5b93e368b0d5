"""Closed form of the strength of each mode over the time of learning."""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from stagewise.errors import require
from stagewise.toy.descent import Weights
from stagewise.toy.modes import Modes, echelon_basis, tied_groups

Array = NDArray[np.float64]

_EQUAL = 1e-9
"""Relative difference below which two initial strengths count as equal."""


def mode_strengths(weights: Weights, modes: Modes) -> Array:
    """Returns the strength of each mode in the network, u_k^T W2 W1 v_k, ``[..., mode]``.

    Args:
        weights: one network, or a batch such as the steps of a run.
        modes: of the data.
    """
    answers = weights.map().detach().cpu().numpy()
    return np.einsum("pk,...pi,ik->...k", modes.left, answers, modes.right)


def initial_strengths(weights: Weights, modes: Modes) -> tuple[Array, Modes]:
    """Returns the effective initial strengths of the modes, for a small start that is neither balanced nor aligned.

    While the weights are small, W1 v_k and W2^T u_k drive each other: their mean p_k grows and their difference decays.
    The mode evolves as from the balanced strength a0 = |p_k|^2. Modes of equal strength grow together, so that any
    mixture of them is a mode; those returned have orthogonal p_k and do not mix. Between modes of different strength,
    p_j . p_k is neglected. It is 1 / sqrt(hidden) of |p_j| |p_k| for a Gaussian start, the error of predictions from a0
    (5 to 12 % of s with 32 hidden units).

    Args:
        weights: one network, at the start.
        modes: of the data.

    Returns:
        a0, ``[mode]``, pure numbers; and the modes, rotated within their groups, strongest start first. Signs are those
        of :func:`~stagewise.toy.modes.modes_of`.

    Raises:
        InputError: fewer hidden units than modes, which then compete and are not independent.
    """
    count, hidden = len(modes.strengths), weights.first.shape[-2]
    require(hidden >= count, "hidden units", hidden, f"as many as modes, {count}, or more", "widen the network")
    first, second = weights.first.detach().cpu().numpy(), weights.second.detach().cpu().numpy()
    growing = (first @ modes.right + second.T @ modes.left) / 2
    initial, turned = np.zeros(count), np.zeros((count, count))
    for group in modes.groups:
        members = np.array(group)
        _, lengths, rows = np.linalg.svd(growing[:, members], full_matrices=False)
        initial[members] = lengths**2
        # If starts tie, as aligned ones do, the choice of modes must not depend on rounding.
        for tied in tied_groups(lengths**2, _EQUAL):
            basis = echelon_basis(modes.right[:, members] @ rows[list(tied)].T)
            turned[np.ix_(members, members[list(tied)])] = modes.right[:, members].T @ basis
    left, right = modes.left @ turned, modes.right @ turned
    for array in (initial, left, right):
        array.setflags(write=False)
    return initial, Modes(modes.strengths, left, right, modes.groups)


def strength_at(strengths: ArrayLike, initial: ArrayLike, *, time: ArrayLike, num_items: int) -> Array:
    """Returns the strength of a mode at time t, a(t) = s E / (E - 1 + s / a0), E = exp(2 s t / n).

    It solves a' = 2 a (s - a) / n, gradient flow on the mean loss over n items from a balanced start.

    Source: Saxe, McClelland and Ganguli, Exact solutions to the nonlinear dynamics of learning in deep linear neural
    networks, ICLR 2014.

    Args:
        strengths: s, singular values above 0.
        initial: a0, above 0.
        time: t, learning rate times steps, 0 or more.
        num_items: n.

    Returns:
        Strengths, of the shape to which the three arrays broadcast.

    Raises:
        InputError: a value out of range.
    """
    s, a0, t = _checked(strengths, initial, time, num_items)
    # exp(-2 s t / n) may underflow to 0 but never overflows.
    return s * a0 / (a0 + (s - a0) * np.exp(-2 * s * t / num_items))


def half_time(strengths: ArrayLike, initial: ArrayLike, *, num_items: int) -> Array:
    """Returns the time at which :func:`strength_at` is s / 2: n / (2 s) ln(s / a0 - 1).

    Args:
        strengths: s, singular values above 0.
        initial: a0, above 0 and below s; above s / 2 the time is negative, before the start.
        num_items: n.

    Returns:
        Times, in units of the learning rate times steps.

    Raises:
        InputError: a value out of range.
    """
    s, a0, _ = _checked(strengths, initial, 0.0, num_items)
    require(bool(np.all(a0 < s)), "initial", initial, "below the final strengths", "start smaller")
    return num_items / (2 * s) * np.log(s / a0 - 1)


def _checked(strengths: ArrayLike, initial: ArrayLike, time: ArrayLike, num_items: int) -> tuple[Array, Array, Array]:
    require(num_items >= 1, "num_items", num_items, "1 or more", "count the items that the loss is the mean of")
    s, a0, t = (np.asarray(values, dtype=np.float64) for values in (strengths, initial, time))
    for name, values in (("strengths", s), ("initial", a0)):
        good = bool(np.all((values > 0) & np.isfinite(values)))
        require(good, name, values, "finite numbers above 0", "leave out modes that the data or the start lack")
    require(bool(np.all((t >= 0) & np.isfinite(t))), "time", t, "finite numbers, 0 or more", "learning starts at 0")
    return s, a0, t
