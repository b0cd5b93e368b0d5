"""Products with the Hessian of the mean loss, and what is solved with them."""

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.linalg import LinAlgError, cho_factor, cho_solve
from scipy.sparse.linalg import LinearOperator, cg
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from stagewise.batches import Batch
from stagewise.errors import InputError
from stagewise.losses import Losses
from stagewise.sampling.observed import chunks
from stagewise.sampling.weights import FlatWeights

Array = NDArray[np.float64]


class HessianProducts:
    """v -> H v for H the Hessian of the mean loss L over a batch, by double backward, chunk by chunk.

    The module must hold the leaves of ``weights`` while this is called.
    """

    def __init__(
        self,
        weights: FlatWeights,
        evaluate_batch: Callable[[Batch], Losses],
        batch: Batch,
        chunk_size: int | None = None,
    ) -> None:
        """Prepare the products.

        Args:
            weights: what to differentiate by.
            evaluate_batch: losses of a part of the batch at the weights that the module holds.
            batch: what the loss is averaged over.
            chunk_size: samples for each double backward pass, which bounds memory; all at once if None.
        """
        self._leaves = list(weights.leaves.values())
        self._evaluate = evaluate_batch
        self._chunks = chunks(batch, chunk_size)
        # The graph of a single chunk is kept over the products; with several, memory is that of one chunk.
        self._kept = self._slopes(self._chunks[0]) if len(self._chunks) == 1 else None

    def _slopes(self, chunk: Batch) -> tuple[list[Tensor], int]:
        """Gradient of the summed losses of a chunk, one tensor for each leaf, with its graph; and how many losses."""
        # Fused attention has no second derivative.
        with sdpa_kernel(SDPBackend.MATH):
            losses = self._evaluate(chunk)
            slopes = torch.autograd.grad(
                losses.values.sum(), self._leaves, create_graph=True, allow_unused=True, materialize_grads=True
            )
        return list(slopes), int(losses.mask.sum())

    def __call__(self, vector: Tensor) -> Tensor:
        """H v.

        Args:
            vector: ``[weight]``.

        Returns:
            ``[weight]``, nats per weight for v in weights.

        Raises:
            InputError: the product is not finite.
        """
        parts = vector.split([leaf.numel() for leaf in self._leaves])
        total, count = torch.zeros_like(vector), 0
        for chunk in self._chunks:
            slopes, num_losses = self._slopes(chunk) if self._kept is None else self._kept
            count += num_losses
            # A loss linear in a weight has a slope without a graph, and no curvature there.
            curved = [
                (s, part.view_as(s).to(s.dtype)) for s, part in zip(slopes, parts, strict=True) if s.requires_grad
            ]
            if not curved:
                continue
            outputs, directions = zip(*curved, strict=True)
            found = torch.autograd.grad(
                outputs,
                self._leaves,
                directions,
                retain_graph=self._kept is not None,
                allow_unused=True,
                materialize_grads=True,
            )
            total += torch.cat([part.reshape(-1).to(total.dtype) for part in found])
        if not torch.isfinite(total).all():
            raise InputError(
                "got a Hessian-vector product that is not finite; expected a loss with finite second derivatives; look "
                "for square roots, norms and logarithms at zero"
            )
        return total / count


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
