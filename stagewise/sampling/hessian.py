"""Products with the Hessian of the mean loss."""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from stagewise.batches import Batch, chunks
from stagewise.losses.contract import Losses
from stagewise.sampling.dense_embeddings import DenseEmbeddings
from stagewise.sampling.weights import FlatWeights

_NUMBERS_AT_ONCE, _LOSSES_AT_ONCE = 2**18, 2**14
"""Limits of rows per pass times weights, and of rows times losses of a chunk: rows multiply the memory of a pass.
Measured on a CPU, relative to the time of single rows: .4 to .8 for 5,000 weights, .6 for 30,000 in chunks, and up to
1.7 for 166,000."""


class HessianProducts:
    """Products v -> H v, H the Hessian of the mean loss L over a batch, by double backward, chunk by chunk.

    The module must hold the leaves of ``weights`` during each call.
    """

    def __init__(
        self,
        weights: FlatWeights,
        evaluate_batch: Callable[[Batch], Losses],
        batch: Batch,
        chunk_size: int | None = None,
    ) -> None:
        """Prepares the products.

        Args:
            weights: to differentiate with respect to.
            evaluate_batch: returns the losses of a part of the batch at the module's present weights.
            batch: of the mean loss.
            chunk_size: samples per double backward pass, which bounds memory; all at once if None.
        """
        self._weights = weights
        self._leaves = list(weights.leaves.values())
        self._evaluate = evaluate_batch
        self._chunks = chunks(batch, chunk_size)
        # The graph of a single chunk is kept between products; with several, memory is that of one chunk.
        self._kept = self._slopes(self._chunks[0]) if len(self._chunks) == 1 else None
        self._batches = True

    def _slopes(self, chunk: Batch) -> tuple[list[Tensor], int]:
        """Returns the gradient of a chunk's summed losses for each leaf, with its graph, and the number of losses."""
        # Fused attention and embedding bags have no second derivative.
        with sdpa_kernel(SDPBackend.MATH), DenseEmbeddings():
            losses = self._evaluate(chunk)
            slopes = torch.autograd.grad(
                losses.values.sum(), self._leaves, create_graph=True, allow_unused=True, materialize_grads=True
            )
        return list(slopes), int(losses.mask.sum())

    def __call__(self, vector: Tensor) -> Tensor:
        """Returns H v.

        Args:
            vector: ``[weight]``.

        Returns:
            ``[weight]``, nats per weight for v in weights.

        Raises:
            FloatingPointError: the product is not finite.
        """
        return self._products(vector.unsqueeze(0), together=False)[0]

    def of_rows(self, vectors: Tensor) -> Tensor:
        """Returns H v for each row v of ``[row, weight]``, from one graph per chunk.

        For small models, several rows share one double backward pass if torch can batch the module's operations; see
        :data:`_NUMBERS_AT_ONCE`. Rounding may then differ from that of single products.

        Raises:
            FloatingPointError: a product is not finite.
        """
        if self._batches and len(vectors) > 1:
            try:
                return self._products(vectors, together=True)
            except RuntimeError:  # an operation that cannot be batched, or too much memory
                self._batches = False
        return self._products(vectors, together=False)

    def _products(self, vectors: Tensor, *, together: bool) -> Tensor:
        """Returns H v of each row, ``[row, weight]``."""
        total, count = torch.zeros_like(vectors), 0
        for chunk in self._chunks:
            slopes, num_losses = self._slopes(chunk) if self._kept is None else self._kept
            count += num_losses
            # For a loss linear in a weight the slope has no graph, and the curvature is zero.
            curved = [number for number, slope in enumerate(slopes) if slope.requires_grad]
            if not curved:
                continue
            most = min(_NUMBERS_AT_ONCE // vectors.shape[1], _LOSSES_AT_ONCE // max(1, num_losses))
            blocks = vectors.split(max(1, most) if together else 1)
            sums = total.split([len(block) for block in blocks])
            for number, (block, sum_of_block) in enumerate(zip(blocks, sums, strict=True)):
                kept = self._kept is not None or number < len(blocks) - 1
                self._add(sum_of_block, block, [slopes[number] for number in curved], curved, kept=kept)
            del slopes  # room for the next graph
        if not torch.isfinite(total).all():
            raise FloatingPointError("a Hessian-vector product was not finite")
        return total / count

    def _add(self, total: Tensor, vectors: Tensor, slopes: list[Tensor], leaves: list[int], *, kept: bool) -> None:
        """Adds products ``[row, weight]`` to ``total`` in one pass, from the slopes of some of the leaves."""
        spread = [self._weights.spread(vector) for vector in vectors]
        together = len(vectors) > 1
        directions = [
            (torch.stack([row[leaf] for row in spread]) if together else spread[0][leaf]).to(slope.dtype)
            for leaf, slope in zip(leaves, slopes, strict=True)
        ]
        found = torch.autograd.grad(
            slopes,
            self._leaves,
            directions,
            retain_graph=kept or together,
            is_grads_batched=together,
            allow_unused=True,
            materialize_grads=True,
        )
        for row, product in enumerate(total):
            product += self._weights.flat([part[row] for part in found] if together else found)
