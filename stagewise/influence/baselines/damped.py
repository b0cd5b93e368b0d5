"""Damped influence function of small models, the limit of -nbeta times the covariance, and its solvers."""

import math
from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.linalg import LinAlgError, cho_factor, cho_solve
from torch import Tensor, nn

from stagewise.batches import Batch
from stagewise.errors import InputError
from stagewise.influence.baselines.gradients import group_gradients
from stagewise.influence.groups import Groups
from stagewise.isolation import untouched, with_weights
from stagewise.losses.contract import Losses
from stagewise.sampling.hessian import HessianProducts
from stagewise.sampling.posterior import LocalPosterior
from stagewise.sampling.target import Target
from stagewise.sampling.weights import FlatWeights

Array = NDArray[np.float64]

_AT_ONCE = 32
"""Number of Hessian columns, or of rows to solve for, that are handled at once."""

_NUMBERS_HELD = 2**22
"""Limit of rows solved for at once times weights: six float64 vectors are held per row."""


def dense_hessian(product: HessianProducts, like: Tensor) -> Array:
    """Returns the symmetrized Hessian ``[weight, weight]`` from one product per weight, several at once.

    Args:
        product: v -> H v.
        like: ``[weight]``, for size, type and device.
    """
    columns = torch.eye(len(like)).to(like).split(_AT_ONCE)
    matrix = np.concatenate([product.of_rows(some).double().cpu().numpy() for some in columns])
    return (matrix + matrix.T) / 2


def solve_dense(hessian: Array, damping: float, vectors: Array) -> Array:
    """Applies (H + damping)^-1 to each row.

    Args:
        hessian: ``[weight, weight]``, nats per squared weight.
        damping: added to the diagonal, nats per squared weight.
        vectors: ``[row, weight]``.

    Raises:
        InputError: H + damping is not positive definite.
    """
    damped = hessian + damping * np.eye(len(hessian))
    try:
        return cho_solve(cho_factor(damped), vectors.T).T
    except LinAlgError:
        smallest = float(np.linalg.eigvalsh(hessian)[0])
        raise InputError(_indefinite(f"a Hessian with an eigenvalue of {smallest:.3g}", damping, -smallest)) from None


def solve_by_products(product: HessianProducts, damping: float, vectors: Array, like: Tensor, rtol: float) -> Array:
    """Solves as :func:`solve_dense` does, by conjugate gradients over several rows in lockstep.

    Each row takes the steps that it would take alone, and stops when it has converged; only products are shared, see
    :meth:`~stagewise.sampling.hessian.HessianProducts.of_rows`. The directions of conjugate gradients diagonalize the
    matrix on the space searched: if it is not positive definite there, one of them has negative curvature.

    Args:
        product: v -> H v.
        damping: added to the diagonal, nats per squared weight.
        vectors: ``[row, weight]``. In addition to them and the solutions, memory is 192 MiB, or the vectors of one row.
        like: ``[weight]``, for type and device.
        rtol: norm of the residual over that of the row.

    Raises:
        InputError: H + damping is not positive definite, or no convergence.

    Source: Hestenes and Stiefel 1952.
    """

    def damped(directions: Array) -> Array:
        found = product.of_rows(torch.from_numpy(directions).to(like)).double().cpu().numpy()
        return found + damping * directions

    most = max(1, min(_AT_ONCE, _NUMBERS_HELD // vectors.shape[1]))
    blocks = [vectors[start : start + most] for start in range(0, len(vectors), most)]
    return np.concatenate([_conjugate_gradients(damped, block, damping, rtol) for block in blocks])


def _conjugate_gradients(times: Callable[[Array], Array], vectors: Array, damping: float, rtol: float) -> Array:
    """Solves for each row by conjugate gradients; ``times`` multiplies rows by the matrix."""
    solved, residual = np.zeros_like(vectors), vectors.copy()
    squares = _dots(vectors, vectors)
    limits = rtol**2 * squares
    rows: NDArray[np.int64] = np.flatnonzero(squares > 0)
    residual, squares, limits = residual[rows], squares[rows], limits[rows]
    direction = residual.copy()
    for _ in range(10 * vectors.shape[1]):
        if not len(rows):
            return solved
        image = times(direction)
        along = _dots(direction, image)
        if (along <= 0).any():
            worst = float((along / _dots(direction, direction)).min()) - damping
            raise InputError(_indefinite(f"a Hessian with a curvature of {worst:.3g}", damping, -worst))
        step = (squares / along)[:, None]
        solved[rows] += step * direction
        residual -= step * image
        before, squares = squares, _dots(residual, residual)
        direction = residual + (squares / before)[:, None] * direction
        left = squares > limits
        if not left.all():
            rows, squares, limits = rows[left], squares[left], limits[left]
            residual, direction = residual[left], direction[left]
    if len(rows):
        raise InputError(
            f"got no solution to a relative residual of {rtol:g} in {10 * vectors.shape[1]} conjugate gradient steps; "
            "expected fewer steps than weights to do; raise localization / nbeta, or rtol, or compute in float64"
        )
    return solved


def _dots(left: Array, right: Array) -> Array:
    return np.einsum("ij,ij->i", left, right)


def _indefinite(got: str, damping: float, needed: float) -> str:
    return (
        f"got {got} and a damping of localization / nbeta = {damping:.3g}; expected their sum to be positive definite "
        f"(without that there is no local posterior either); raise localization / nbeta above {max(needed, 0):.3g}"
    )


UNITS = "nats"
"""Unit of the damped influence function; its sign is that of BIF, negative = helpful."""


def damped_influence(
    module: nn.Module,
    target: Target,
    groups: Groups | None,
    *,
    posterior: LocalPosterior,
    dense_limit: int = 1000,
    rtol: float = 1e-5,
) -> Array:
    """Computes -g_j^T (H + (weight_decay + localization / nbeta) I)^-1 g_i at the module's weights.

    To first order in the fluctuations this is -nbeta Cov(l_i, l_j) of the local posterior: nbeta times BIF, with its
    sign (*negative* = helpful). It is the change of l_j, in nats, per unit of weight added to l_i in the mean loss L,
    with the pull towards the present weights in place.

    H is the exact Hessian of L and g the gradients of the recorded losses, both without weight decay. H is dense up to
    ``dense_limit`` weights; beyond, conjugate gradients use Hessian-vector products. Memory is two float64 gradients
    per sample and group; beyond the limit, each costs some tens of double backward passes over the sampling set. For
    small models.

    Args:
        module: left unchanged, bit for bit; evaluated at its current weights, in eval mode.
        target: loss with second derivatives; the observed set, whose losses influence each other; the sampling set,
            over which L is the mean, ``chunk_size`` samples per double backward pass; and the weights. No autocast in
            ``forward_context``: second derivatives are too rough in half precision.
        groups: over the observed set; None gives all pairs of samples, including each with itself.
        posterior: of the chains to compare with.
        dense_limit: largest number of weights for which the Hessian is formed.
        rtol: relative residual at which conjugate gradients stop.

    Returns:
        ``[group, group]``, mean over pairs of losses in different samples, NaN where two groups have none; or
        ``[sample, sample]``; nats.

    Raises:
        InputError: a setting out of range, no trainable parameter, H + damping not positive definite (a saddle needs
            localization > nbeta |lam_min|), derivatives that are not finite, or no convergence.

    Source: Koh and Liang 2017; damping from the localized posterior as in Kreer et al., arXiv 2509.26544.
    """
    for name, value, sound in (
        ("nbeta", posterior.nbeta, posterior.nbeta > 0),
        ("localization", posterior.localization, posterior.localization >= 0),
        ("weight_decay", posterior.weight_decay, posterior.weight_decay >= 0),
    ):
        if not (sound and math.isfinite(value)):
            raise InputError(
                f"got {name}={value}; expected a finite nbeta > 0, localization >= 0 and weight_decay >= 0; pass those "
                "of the chains"
            )
    damping = posterior.damping
    if not 0 < rtol < 1:
        raise InputError(f"got rtol={rtol}; expected 0 < rtol < 1; 1e-5 is usual")
    weights = FlatWeights(module, target.selection)
    evaluate_batch = partial(target.evaluate, module)

    def solve() -> tuple[Array, Array]:
        held = _everything(evaluate_batch, target.observed) if groups is None else groups
        vectors = np.zeros((*held.counts.shape, weights.state.numel()))
        leaves = list(weights.leaves.values())
        singles = list(np.arange(held.counts.shape[1])[:, None])
        for sample, group, found in group_gradients(module, target, held, leaves, singles):
            vectors[group, sample] = weights.flat(found).double().cpu().numpy()
        rows = vectors.reshape(-1, vectors.shape[-1])
        if not np.isfinite(rows).all():
            raise InputError("got gradients that are not finite; expected finite ones; mask or fix the observed set")
        product = HessianProducts(weights, evaluate_batch, target.driving, target.chunk_size)
        if rows.shape[1] <= dense_limit:
            solved = solve_dense(dense_hessian(product, weights.state), damping, rows)
        else:
            solved = solve_by_products(product, damping, rows, weights.state, rtol)
        return rows, solved

    try:
        with untouched(module), torch.enable_grad():
            rows, solved = with_weights(module, weights.leaves, solve)
    except FloatingPointError as error:
        raise InputError(
            "got a Hessian-vector product that is not finite; expected a loss with finite second derivatives; look for "
            "square roots, norms and logarithms at zero"
        ) from error
    if groups is None:
        return -rows @ solved.T
    return -groups.per_pair(groups.pair_sums(rows.T, solved.T))


@torch.no_grad()
def _everything(evaluate_batch: Callable[[Batch], Losses], observed: Batch) -> Groups:
    return Groups({}, evaluate_batch(observed).mask.cpu().numpy())
