"""Ends of the Hessian's spectrum, by Lanczos iteration with Hessian-vector products."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse.linalg import ArpackNoConvergence, LinearOperator, eigsh
from torch import Tensor, nn

from stagewise.batches import Batch, num_samples
from stagewise.errors import InputError, first_line
from stagewise.isolation import untouched, with_weights
from stagewise.sampling.hessian import HessianProducts
from stagewise.sampling.posterior import LocalPosterior
from stagewise.sampling.target import Target
from stagewise.sampling.weights import FlatWeights

Root = Callable[[Tensor], Tensor]
"""Linear map x -> R x on flat weights ``[weight]``, in plain tensor operations; R R^T is the preconditioner."""

_LOSS_ALONE = LocalPosterior(nbeta=1.0, localization=0.0)
_POWER_STEPS = 4
_FEWEST_VECTORS = 6


@dataclass(frozen=True)
class Curvature:
    """Largest and smallest eigenvalue of the Hessian of the mean loss L at one checkpoint.

    Attributes:
        lam_max: largest eigenvalue, nats per squared weight.
        lam_min: smallest eigenvalue; negative at a saddle.
        residual: the larger |H v - lam v| of the two unit eigenvectors found: each figure is at most this far from an
            eigenvalue of H. The true ends of the spectrum lie further out, not further in.
        num_products: number of Hessian-vector products used.
        step: training step of the checkpoint.
    """

    lam_max: float
    lam_min: float
    residual: float
    num_products: int
    step: int = 0


class _Products:
    """Products v -> R^T (nbeta H + precision) R v, with a count."""

    def __init__(self, hessian: HessianProducts, root: Root | None, posterior: LocalPosterior) -> None:
        self._hessian = hessian
        self._root = root
        self._posterior = posterior
        self.num_products = 0

    def __call__(self, vector: Tensor) -> Tensor:
        self.num_products += 1
        inner = vector if self._root is None else self._root(vector)
        product = self._posterior.nbeta * self._hessian(inner) + self._posterior.precision * inner
        if self._root is not None:
            # R^T y is the slope of <y, R x>.
            at = torch.zeros_like(vector, requires_grad=True)
            (product,) = torch.autograd.grad(self._root(at), at, product)
        return product.detach()


def _check(batch: Batch, tolerance: float, num_vectors: int) -> None:
    if not 0 < tolerance < 1:
        raise InputError(f"got tolerance={tolerance}; expected 0 < tolerance < 1; 0.01 is usual")
    if num_vectors < _FEWEST_VECTORS:
        raise InputError(f"got num_vectors={num_vectors}; expected at least {_FEWEST_VECTORS}; 20 is usual")
    if num_samples(batch) == 0:
        raise InputError("got a batch of 0 samples; expected at least one")


def _ends(
    product: _Products, like: Tensor, tolerance: float, num_vectors: int, seed: int
) -> tuple[float, float, float]:
    """Returns the largest and the smallest eigenvalue, and the larger residual."""
    size = like.numel()
    dtype = np.float64 if like.dtype == torch.float64 else np.float32

    def on_tensors(vector: NDArray) -> NDArray:
        tensor = torch.from_numpy(np.ascontiguousarray(vector, dtype=dtype).reshape(-1)).to(like.device)
        return product(tensor).cpu().numpy()

    if size <= num_vectors:
        # Too few weights for Lanczos: take the dense matrix.
        dense = np.stack([on_tensors(column) for column in np.eye(size, dtype=dtype)]).astype(np.float64)
        exact = np.linalg.eigvalsh((dense + dense.T) / 2)
        return float(exact[-1]), float(exact[0]), float(np.abs(dense - dense.T).max())

    start: NDArray[Any] = np.random.default_rng(seed).standard_normal(size).astype(dtype)
    vector, norm = start / dtype(np.linalg.norm(start)), 0.0
    for _ in range(_POWER_STEPS):
        vector = on_tensors(vector)
        length = float(np.linalg.norm(vector))
        if length == 0:
            return 0.0, 0.0, 0.0
        norm, vector = max(norm, length), vector / dtype(length)
    # ARPACK's tolerance is relative to each eigenvalue: unattainable for one near zero. Shifted by -3 |H|, both ends
    # have the size of |H|; the Krylov space is the same.
    shift = 3 * norm
    shifted = LinearOperator(
        (size, size), matvec=lambda x: on_tensors(x) - dtype(shift) * x.reshape(-1).astype(dtype), dtype=dtype
    )
    try:
        values, vectors = eigsh(
            shifted, k=2, which="BE", v0=start, tol=tolerance / 4, ncv=min(num_vectors, size - 1), maxiter=100
        )
    except ArpackNoConvergence as error:
        raise ArithmeticError(
            f"Lanczos did not converge to a tolerance of {tolerance:g} in {product.num_products} products"
        ) from error
    values = values.astype(np.float64) + shift
    residuals = [np.linalg.norm(on_tensors(v) - value * v) for value, v in zip(values, vectors.T, strict=True)]
    return float(values.max()), float(values.min()), float(max(residuals))


def measure_curvature(
    module: nn.Module,
    target: Target,
    *,
    root: Root | None = None,
    posterior: LocalPosterior = _LOSS_ALONE,
    tolerance: float = 0.01,
    num_vectors: int = 20,
    seed: int = 0,
) -> Curvature:
    """Measures both ends of the spectrum of H, the Hessian of the mean loss at the module's weights.

    With ``root`` or ``posterior`` the spectrum is that of R^T (nbeta H + localization + nbeta weight_decay) R, which
    decides whether a preconditioned chain is stable. The module is left unchanged, bit for bit.

    Args:
        module: the Hessian is taken at its current weights.
        target: a loss with second derivatives; the sampling set, over which the loss is averaged, ``chunk_size``
            samples at a time, which bounds memory; and the moving weights, to which H is restricted. No autocast in
            ``forward_context``: products in half precision are too rough.
        root: R, for a chain with a preconditioner P = R R^T; differentiation gives its transpose.
        posterior: factor of H, and diagonal added before R; H alone by default.
        tolerance: of both ends, relative to the norm of the matrix.
        num_vectors: Lanczos vectors held at once, each as large as the weights. Fewer vectors need more products.
        seed: of the start vector.

    Raises:
        InputError: a setting out of range, an empty batch, a pattern that matches nothing, masks that do not fit, or a
            loss without second derivatives.
        FloatingPointError: a product is not finite.
        ArithmeticError: no convergence.

    Source: Lanczos with implicit restarts, ARPACK through :func:`scipy.sparse.linalg.eigsh`; products by double
    backward, Pearlmutter 1994.
    """
    _check(target.driving, tolerance, num_vectors)
    weights = FlatWeights(module, target.selection)

    def body() -> Curvature:
        hessian = HessianProducts(weights, partial(target.evaluate, module), target.driving, target.chunk_size)
        product = _Products(hessian, root, posterior)
        high, low, residual = _ends(product, weights.anchor, tolerance, num_vectors, seed)
        return Curvature(high, low, residual, product.num_products)

    with untouched(module), torch.enable_grad():
        try:
            return with_weights(module, weights.leaves, body)
        except (RuntimeError, NotImplementedError) as error:
            if not _no_second_derivative(error):
                raise
            raise InputError(
                f"got a loss without second derivatives ({first_line(error)}); expected operations that can "
                "be differentiated twice; switch off torch.compile and fused kernels, or measure no curvature: set "
                "probe.check_curvature to false, lr and localization to numbers"
            ) from error


def _no_second_derivative(error: BaseException) -> bool:
    """Returns True if an error of torch, in any of its wordings, says that an operation has no second derivative."""
    words = ("double backward", "not implemented", "differentiable twice", "derivative for", "once_differentiable")
    return any(word in str(error).lower() for word in words)
