"""Preconditioner that is diagonal in a Kronecker eigenbasis of each layer."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class KroneckerBlock:
    """Block of P for one layer with the parameter matrix M ``[row, column]``: left (scale * (left^T M right)) right^T.

    Attributes:
        parts: (start, columns) of each parameter, which begins at ``start`` in the flat weights, row by row, and fills
            ``columns`` columns of M. A weight ``[row, ...]`` and its bias ``[row]``, one column, form one matrix.
        left: ``[row, row]``, orthogonal.
        right: ``[column, column]``, orthogonal.
        scale: ``[row, column]``, positive: the eigenvalues of P.
    """

    parts: tuple[tuple[int, int], ...]
    left: Tensor
    right: Tensor
    scale: Tensor

    def matrix(self, vector: Tensor) -> Tensor:
        """Returns this layer's entries of ``[..., weight]`` as a matrix ``[..., row, column]``."""
        rows = len(self.left)
        pieces = [
            vector[..., start : start + rows * columns].unflatten(-1, (rows, columns)) for start, columns in self.parts
        ]
        return pieces[0] if len(pieces) == 1 else torch.cat(pieces, dim=-1)

    def to_eigenbasis(self, matrix: Tensor) -> Tensor:
        """Transforms into the eigenbasis: left^T M right, ``[..., row, column]``."""
        return self.left.mT @ matrix @ self.right

    def from_eigenbasis(self, matrix: Tensor) -> Tensor:
        """Transforms back to the weights: left M right^T, ``[..., row, column]``."""
        return self.left @ matrix @ self.right.mT

    def pieces(self, matrix: Tensor) -> dict[int, Tensor]:
        """Returns the flat entries ``[..., row * columns]`` of each parameter by start; inverts :meth:`matrix`."""
        split = matrix.split([columns for _, columns in self.parts], dim=-1)
        return {start: piece.flatten(-2) for (start, _), piece in zip(self.parts, split, strict=True)}


class KroneckerPreconditioner:
    """Constant, symmetric, positive definite P on flat weights, with one block per layer.

    Vectors are ``[..., weight]``: leading axes hold many chains at once.
    """

    def __init__(self, blocks: Sequence[KroneckerBlock]) -> None:
        """Combines blocks, which must cover the flat weights without gap or overlap."""
        self._blocks = tuple(blocks)
        self._roots = tuple(block.scale.sqrt() for block in blocks)

    def times(self, vector: Tensor) -> Tensor:
        """Returns P x, ``[..., weight]``."""
        return self._layer_by_layer(
            vector, lambda block, _, matrix: block.from_eigenbasis(block.scale * block.to_eigenbasis(matrix))
        )

    def root_times(self, vector: Tensor) -> Tensor:
        """Returns R x, ``[..., weight]``, with R R^T = P: noise of covariance P from standard normal noise.

        R maps from the eigenbasis to the weights, at half the cost of the symmetric root.
        """
        return self._layer_by_layer(vector, lambda block, root, matrix: block.from_eigenbasis(root * matrix))

    def _layer_by_layer(self, vector: Tensor, multiply: Callable[[KroneckerBlock, Tensor, Tensor], Tensor]) -> Tensor:
        pieces: dict[int, Tensor] = {}
        for block, root in zip(self._blocks, self._roots, strict=True):
            pieces |= block.pieces(multiply(block, root, block.matrix(vector)))
        return torch.cat([pieces[start] for start in sorted(pieces)], dim=-1)
