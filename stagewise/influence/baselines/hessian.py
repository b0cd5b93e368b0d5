"""What is solved with the Hessian of the mean loss."""

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.linalg import LinAlgError, cho_factor, cho_solve
from scipy.sparse.linalg import LinearOperator, cg
from torch import Tensor

from stagewise.errors import InputError
from stagewise.sampling.hessian import HessianProducts

Array = NDArray[np.float64]


def dense_hessian(product: HessianProducts, like: Tensor) -> Array:
    """``[weight, weight]``, symmetrized: one product for each weight.

    Args:
        product: v -> H v.
        like: ``[weight]``, for size, type and device.
    """
    columns = [product(column).double().cpu().numpy() for column in torch.eye(len(like)).to(like)]
    matrix = np.stack(columns)
    return (matrix + matrix.T) / 2


def solve_dense(hessian: Array, damping: float, vectors: Array) -> Array:
    """(H + damping)^-1 applied to each row.

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
    """As :func:`solve_dense`, by conjugate gradients: nothing larger than a few vectors is held for each row.

    The directions of conjugate gradients diagonalize the matrix on the space that they search: where it is not positive
    definite there, one of them shows negative curvature.

    Args:
        product: v -> H v.
        damping: added to the diagonal, nats per squared weight.
        vectors: ``[row, weight]``.
        like: ``[weight]``, for type and device.
        rtol: norm of the residual over that of the row.

    Raises:
        InputError: H + damping is not positive definite, or no convergence.
    """

    def damped(direction: Array) -> Array:
        answer = product(torch.from_numpy(direction).to(like)).double().cpu().numpy() + damping * direction
        along = float(direction @ answer)
        if along <= 0:
            curvature = along / float(direction @ direction) - damping
            raise InputError(_indefinite(f"a Hessian with a curvature of {curvature:.3g}", damping, -curvature))
        return answer

    size = vectors.shape[1]
    operator = LinearOperator((size, size), matvec=damped, dtype=np.float64)
    solved = np.zeros_like(vectors)
    for row, vector in enumerate(vectors):
        solved[row], unfinished = cg(operator, vector, rtol=rtol, atol=0.0, maxiter=10 * size)
        if unfinished:
            raise InputError(
                f"got no solution to a relative residual of {rtol:g} in {10 * size} conjugate gradient steps; expected "
                "fewer steps than weights to do; raise localization / nbeta, or rtol, or compute in float64"
            )
    return solved


def _indefinite(got: str, damping: float, needed: float) -> str:
    return (
        f"got {got} and a damping of localization / nbeta = {damping:.3g}; expected their sum to be positive definite "
        f"(without that there is no local posterior either); raise localization / nbeta above {max(needed, 0):.3g}"
    )
