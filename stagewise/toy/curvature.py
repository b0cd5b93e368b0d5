"""Hessian of the deep linear network's losses, in blocks.

Items are one-hot: the loss of item i, with error e_i, depends on column i of the first layer, F_i, and on the second
layer, R. Its Hessian has the blocks R^T R (first layer), I x F_i F_i^T (second layer) and, for unit a of the column
against weight (property c, unit b), e_ic delta_ab + R_ca F_bi.
"""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from stagewise.toy.descent import Weights


class Precision(NamedTuple):
    """Factored positive definite matrix nbeta H + localization, by the Schur complement of the second layer's block.

    Attributes:
        weights: of the network.
        error: ``[property, item]``.
        scale: nbeta over the number of items.
        second_inverse: ``[hidden, hidden]``, K: inverse of the second layer's block, the same for each property.
        lower: ``[item * hidden, item * hidden]``, Cholesky factor of the Schur complement.
    """

    weights: Weights
    error: Tensor
    scale: float
    second_inverse: Tensor
    lower: Tensor

    def solve(self, vector: Weights) -> Weights:
        """Returns (nbeta H + localization)^-1 vector."""
        (first, second), error, inverse = self.weights, self.error, self.second_inverse
        inner = vector.second @ inverse
        rest = vector.first - self.scale * (inner.T @ error + second.T @ (inner @ first))
        solved = torch.cholesky_solve(rest.T.reshape(-1, 1), self.lower).reshape(rest.T.shape).T
        coupled = self.scale * (error @ solved.T + (second @ solved) @ first.T)
        return Weights(solved, (vector.second - coupled) @ inverse)

    def loss_covariance(self) -> tuple[Tensor, Tensor, Tensor]:
        """Returns moments of the losses under the Gaussian of this precision, S its inverse.

        H_i = B M B^T with B = [J, E, D] in columns: J the gradients of the item's outputs, E its column of the first
        layer, D the direction of its error in the second; M is 1 for J and swaps E and D. All moments follow from
        B_i^T S B_j.

        Returns:
            g_i^T S g_j ``[item, item]``, tr(H_i S H_j S) ``[item, item]``, and tr(H_i S) ``[item]``.
        """
        num_properties, num_items = self.error.shape
        hidden = len(self.second_inverse)
        inner = self._inner_products()
        outputs = inner[:, :num_properties, :, :num_properties]
        first_order = torch.einsum("ci,icjd,dj->ij", self.error, outputs, self.error)
        swap = torch.arange(num_properties + 2 * hidden)
        swap[num_properties:] = swap[num_properties:].roll(hidden)
        swapped = inner[:, swap]
        second_order = (swapped * inner[:, :, :, swap]).sum(dim=(1, 3))
        own = torch.arange(num_items)
        return first_order, second_order, swapped[own, :, own].diagonal(dim1=1, dim2=2).sum(dim=1)

    def _inner_products(self) -> Tensor:
        """Returns B_i^T S B_j, ``[item, column, item, column]``, by S = Q (Schur complement)^-1 Q^T + (0, I x K)."""
        (first, second), error, inverse = self.weights, self.error, self.second_inverse
        num_properties, num_items = error.shape
        hidden = len(inverse)
        reach = inverse @ first
        overlap, errors, pulled = first.T @ reach, error.T @ error, second.T @ error
        same = torch.eye(num_items, dtype=error.dtype)
        scale = self.scale
        # Q^T B, [item, unit of its column, item, column of B].
        columns = torch.cat(
            [
                torch.einsum("ij,ca->iajc", same - scale * overlap, second)
                - scale * torch.einsum("ci,aj->iajc", error, reach),
                torch.einsum("ij,ab->iajb", same, torch.eye(hidden, dtype=error.dtype)),
                -scale * (torch.einsum("ij,ab->iajb", errors, inverse) + torch.einsum("aj,bi->iajb", pulled, reach)),
            ],
            dim=3,
        )
        width = columns.shape[3]
        half = torch.linalg.solve_triangular(self.lower, columns.reshape(len(self.lower), -1), upper=False)
        inner = (half.T @ half).reshape(num_items, width, num_items, width)
        outputs, directions = slice(num_properties), slice(num_properties + hidden, None)
        inner[:, outputs, :, outputs].diagonal(dim1=1, dim2=3).add_(overlap[:, :, None])
        crossed = torch.einsum("cj,bi->icjb", error, reach)
        inner[:, outputs, :, directions] += crossed
        inner[:, directions, :, outputs] += crossed.permute(2, 3, 0, 1)
        inner[:, directions, :, directions] += torch.einsum("ij,ab->iajb", errors, inverse)
        return inner


def precision_at(weights: Weights, targets: Tensor, nbeta: float, localization: float) -> Precision | None:
    """Factors nbeta H + localization, H the Hessian of the mean loss; None if not positive definite.

    Args:
        weights: one network, float64.
        targets: ``[property, item]``, float64.
        nbeta: inverse temperature times the number of samples, 0 or more.
        localization: above 0.
    """
    first, second = weights
    num_items, hidden = targets.shape[1], len(first)
    scale = nbeta / num_items
    error = weights.map() - targets
    damping = localization * torch.eye(hidden, dtype=first.dtype)
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(scale * first @ first.T + damping))
    reach, pulled, gram = inverse @ first, second.T @ error, second.T @ second
    crossed = torch.einsum("di,aj->iajd", pulled, reach)
    removed = torch.einsum("ij,ad->iajd", error.T @ error, inverse)
    removed += crossed + crossed.permute(2, 3, 0, 1)
    removed += torch.einsum("ij,ad->iajd", first.T @ reach, gram)
    complement = -(scale**2) * removed
    complement.diagonal(dim1=0, dim2=2).add_((scale * gram + damping)[:, :, None])
    size = num_items * hidden
    lower, failed = torch.linalg.cholesky_ex(complement.reshape(size, size))
    return None if failed else Precision(weights, error, scale, inverse, lower)


def mean_hessian(weights: Weights, targets: Tensor) -> Tensor:
    """Returns the Hessian H of the mean loss, ``[weight, weight]``, nats per squared weight.

    Args:
        weights: one network; its weights are in the order of both matrices, row by row.
        targets: ``[property, item]``.
    """
    first, second = weights
    (num_properties, num_items), error = targets.shape, weights.map() - targets
    same = torch.eye(len(first), dtype=first.dtype)
    between = torch.einsum("ci,ab->aicb", error, same) + torch.einsum("ca,bi->aicb", second, first)
    between = between.reshape(first.numel(), second.numel())
    one = torch.kron(second.T @ second, torch.eye(num_items, dtype=first.dtype))
    two = torch.kron(torch.eye(num_properties, dtype=first.dtype), first @ first.T)
    return torch.cat([torch.cat([one, between], dim=1), torch.cat([between.T, two], dim=1)]) / num_items


def lowest_curvature(weights: Weights, targets: Tensor) -> float:
    """Returns the smallest eigenvalue of the Hessian of the mean loss, nats per squared weight.

    The loss is invariant under rotations of the hidden units. They are rotated so that surplus units have no weights;
    each of these has the eigenvalues plus and minus the singular values of the error over n.

    Args:
        weights: one network.
        targets: ``[property, item]``.
    """
    first, second = weights
    used = torch.linalg.qr(torch.cat([first, second.T], dim=1)).Q
    hessian = mean_hessian(Weights(used.T @ first, second @ used), targets)
    # LAPACK through NumPy takes half the time of torch.
    lowest = float(np.linalg.eigvalsh(hessian.numpy())[0])
    if used.shape[1] == len(first):
        return lowest
    return min(lowest, -float(torch.linalg.matrix_norm(weights.map() - targets, 2)) / targets.shape[1])
