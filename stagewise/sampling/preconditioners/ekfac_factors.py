"""EK-FAC factors of a module, from curvlinops."""

import math
from typing import Any

import torch
from torch import Tensor, nn

from stagewise.batches import Batch, num_samples
from stagewise.errors import InputError, require
from stagewise.isolation import untouched, with_weights
from stagewise.sampling.posterior import LocalPosterior
from stagewise.sampling.preconditioners.ekfac import EKFAC
from stagewise.sampling.preconditioners.ekfac_checks import check_parameters, hooks_restored, loss_factor, refuse_masks
from stagewise.sampling.preconditioners.kronecker import KroneckerBlock, KroneckerPreconditioner
from stagewise.sampling.selection import moved_entries, trainable
from stagewise.sampling.target import Target


def ekfac_preconditioner(
    settings: EKFAC,
    module: nn.Module,
    *,
    target: Target,
    posterior: LocalPosterior,
) -> KroneckerPreconditioner:
    """Builds P at the current weights of ``module``, which is not changed.

    Args:
        settings: of P.
        module: its current weights are w*.
        target: per-sample loss, compared with ``settings.loss``; the sampling set (x, y), ``chunk_size`` samples per
            forward pass; and the parameters that the chain moves: masks must be all True or all False.
        posterior: of the chain.

    Returns:
        P over the flat weights in the order of :func:`~stagewise.sampling.selection.trainable`.

    Raises:
        InputError: curvlinops is missing, or the module, the batch or the loss is not supported.
    """
    localization, sampling = posterior.precision, target.driving
    require(
        localization > 0 and math.isfinite(localization),
        "localization",
        localization,
        "localization > 0 with EKFAC",
        "it bounds the step in directions without curvature",
    )
    refuse_masks(moved_entries(module, target.selection))
    leaves = {name: value.clone().requires_grad_() for name, value in trainable(module, target.selection).items()}
    check_parameters(module, leaves)

    def build() -> KroneckerPreconditioner:
        factor = loss_factor(settings.loss, module, target.loss_fn, sampling, leaves)
        state = _factors(settings, module, leaves, sampling, target.chunk_size)
        per_curvature = posterior.nbeta * factor / num_samples(sampling)
        return KroneckerPreconditioner(_blocks(state, leaves, per_curvature, localization))

    with untouched(module), torch.enable_grad(), hooks_restored(module):
        return with_weights(module, leaves, build)


def _factors(
    settings: EKFAC, module: nn.Module, leaves: dict[str, Tensor], sampling: Batch, chunk_size: int | None
) -> dict[str, Any]:
    """Returns the state of curvlinops' operator for the *sum* of the library's losses over the sampling set."""
    try:
        from curvlinops import EKFACLinearOperator
    except ImportError as missing:
        raise InputError(
            f"got EKFAC without the package behind it ({missing}); expected curvlinops; "
            "install it: pip install 'stagewise[ekfac]'"
        ) from missing
    x, y = sampling
    chunk = chunk_size or len(x)
    try:
        operator = EKFACLinearOperator(
            module,
            nn.CrossEntropyLoss(reduction="sum") if settings.loss == "cross_entropy" else nn.MSELoss(reduction="sum"),
            list(leaves.values()),
            [(x[start : start + chunk], y[start : start + chunk]) for start in range(0, len(x), chunk)],
            check_deterministic=False,
            seed=settings.seed,
            fisher_type=settings.fisher_type,
            mc_samples=settings.mc_samples,
            num_per_example_loss_terms=1,
            separate_weight_and_bias=False,
            num_data=len(x),
        )
        operator.compute_kronecker_factors()
        operator.compute_eigenvalue_correction()
        return operator.state_dict()
    except (NotImplementedError, ValueError) as failure:
        raise InputError(
            f"got a module that curvlinops has no EK-FAC factors for ({failure}); expected Linear and Conv2d layers; "
            "choose others by SGLDConfig(parameters=[...]), or take another preconditioner"
        ) from failure


def _blocks(
    state: dict[str, Any], leaves: dict[str, Tensor], per_curvature: float, localization: float
) -> list[KroneckerBlock]:
    """Returns one block per layer, in the dtype of the chain's flat weights."""
    dtype = torch.float64 if any(leaf.dtype == torch.float64 for leaf in leaves.values()) else torch.float32
    starts, start = {}, 0
    for name, leaf in leaves.items():
        starts[name] = start
        start += leaf.numel()
    blocks = []
    for layer, left in state["gradient_covariances_eigenvectors"].items():
        prefix = f"{layer}." if layer else ""
        # curvlinops appends the bias to the columns of the weight.
        names = [name for name in (f"{prefix}weight", f"{prefix}bias") if name in leaves]
        parts = tuple((starts[name], leaves[name].numel() // len(left)) for name in names)
        right = state["input_covariances_eigenvectors"].get(layer)
        corrected = state["corrected_eigenvalues"][layer]
        if isinstance(corrected, dict):
            (corrected,) = corrected.values()
        curvature = corrected.detach().reshape(len(left), -1).to(dtype).clamp(min=0)
        blocks.append(
            KroneckerBlock(
                parts=parts,
                left=left.detach().to(dtype),
                right=curvature.new_ones(1, 1) if right is None else right.detach().to(dtype),
                scale=1 / (per_curvature * curvature + localization),
            )
        )
    return blocks
