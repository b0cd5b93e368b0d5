"""Closed form of the influence between items over the whole of learning."""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from stagewise.errors import require
from stagewise.toy.mode_dynamics import strength_at
from stagewise.toy.modes import Modes

Array = NDArray[np.float64]


def closed_form_influence(modes: Modes, initial: ArrayLike, *, time: float) -> Array:
    """Computes the unrolled influence dl_j(t) / db_p of the weight of item p in the *data* on the loss of item j.

    The network minimizes (1/n) sum_i 1/2 |y_i - W2 W1 x_i|^2 by gradient flow. The weight b_p multiplies y_p x_p^T / n
    in the correlation of inputs and outputs, while that of the inputs, Sigma_xx, is held fixed. With
    P = U^T y_p x_p^T V, its halves P+ = (P + P^T) / 2 and P- = (P - P^T) / 2, and f_k = a_k(t) from the strength a0_k,

        (U^T dW V)_jk = C_jk P+_jk + (1 - d_j d_k) (f_j + f_k) / (s_j + s_k) P-_jk,     d_k = exp(-s_k t / n),
        C_jk = (f_j - f_k + f_j f_k d_j d_k (1 / a0_j - 1 / a0_k)) / (s_j - s_k),
        C_jk = t / n (f_j + f_k) - f_j f_k (2 t / (n s) - (1 - d^2) / s^2)   where s_j = s_k = s,

    s_k = f_k = 0 and d_k = 1 for directions outside the modes, and dl_j = -(y_j - W x_j)^T dW x_j. This is exact for a
    balanced and aligned start, whatever its strengths. For a common a0 and late times it becomes the Daleckii-Krein
    formula of the matrix function f: C_jk -> (f_j - f_k) / (s_j - s_k), or a'(s), and d -> 0.

    In other cases it is approximate. From a small Gaussian start, with a0 and modes from
    :func:`~stagewise.toy.mode_dynamics.initial_strengths`, the error is 6 to 10 % (32 hidden units, default tree). The
    full weight of an item acts on Sigma_xx too. Its influence has nearly the same pattern (correlation above .96 until
    the last modes are half learned), but this one is larger by 3 % at the first mode, and by 20 to 40 % later. Once
    everything is learned the two diverge, since the full weight does not change the solution.

    Source: derived for this project from the matrix Riccati equation of Q Q^T, Q = [W1^T; W2] (Fukumizu, Effect of
    batch learning in multilayer neural networks, 1998); Daleckii and Krein 1965.

    Args:
        modes: of the data.
        initial: a0, one number for all modes or ``[mode]``, above 0.
        time: t, learning rate times steps.

    Returns:
        ``[item p, item j]``, nats per unit of b_p; negative = helpful: more weight on p lowers the loss of j.

    Raises:
        InputError: a value out of range.
    """
    s, items = modes.strengths, modes.right
    num_items = len(items)
    a0 = np.asarray(initial, dtype=np.float64)
    require(a0.shape in {(), s.shape}, "initial", initial, f"one number or {len(s)}", "one for each mode")
    a0 = np.broadcast_to(a0, s.shape)
    f = strength_at(s, a0, time=time, num_items=num_items)
    fading = np.exp(-s * time / num_items)
    symmetric = _symmetric_gain(modes, a0, f, fading, time)
    antisymmetric = (1 - np.outer(fading, fading)) * (f[:, None] + f) / (s[:, None] + s)

    # P_jk of item p: y_p = U S V^T x_p lies within the modes, x_p need not.
    both = items[:, :, None] * s[:, None] * items[:, None, :]
    flipped = both.swapaxes(1, 2)
    change = symmetric * (both + flipped) / 2 + antisymmetric * (both - flipped) / 2
    outside = np.eye(num_items) - items @ items.T
    answers = change @ items.T + ((1 - fading) * f * items)[:, :, None] * outside[:, None, :]
    errors = (s - f) * items
    return -np.einsum("jk,pkj->pj", errors, answers)


def _symmetric_gain(modes: Modes, a0: Array, f: Array, fading: Array, time: float) -> Array:
    """Returns C of :func:`closed_form_influence`, ``[mode, mode]``."""
    s, num_items = modes.strengths, len(modes.right)
    rate = time / num_items
    # f / a0 is the growth of a mode; divided first, since a0 may be tiny.
    grown = f / a0
    crossing = np.outer(fading, fading) * (np.outer(grown, f) - np.outer(f, grown))
    gap = s[:, None] - s
    tied = np.zeros((len(s), len(s)), dtype=bool)
    for group in modes.groups:
        tied[np.ix_(group, group)] = True
    at_ties = rate * (f[:, None] + f) - np.outer(f, f) * (2 * rate / s - (1 - fading**2) / s**2)
    return np.where(tied, at_ties, (f[:, None] - f + crossing) / np.where(tied, 1.0, gap))
