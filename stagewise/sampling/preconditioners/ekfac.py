"""Chains preconditioned by curvature: EK-FAC factors of the module, from curvlinops."""

import math
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from stagewise.batches import Batch, num_samples
from stagewise.checks.bounds import settle_fields
from stagewise.checks.ranges import NonNegativeInt, PositiveInt
from stagewise.errors import InputError, require
from stagewise.isolation import untouched, with_weights
from stagewise.losses.contract import LossFn
from stagewise.sampling.preconditioners.ekfac_checks import (
    Loss,
    check_parameters,
    hooks_restored,
    loss_factor,
    refuse_masks,
)
from stagewise.sampling.preconditioners.kronecker import KroneckerBlock, KroneckerPreconditioner
from stagewise.sampling.selection import Selection, moved_entries, trainable

FisherType = Literal["type-2", "mc"]


@dataclass(frozen=True)
class EKFAC:
    """Preconditioner P = 1 / (nbeta lam + localization) in the Kronecker eigenbasis of each layer, frozen for a probe.

    lam are the eigenvalue-corrected Kronecker-factored (EK-FAC) eigenvalues of the Gauss-Newton matrix of the mean loss
    at w*, over the sampling set. P^(1/2) (nbeta H + g) P^(1/2) is then near one, so that ``lr`` has no unit. EK-FAC
    misses curvature across layers: in small networks with g = .03 nbeta the largest eigenvalue was 4 to 6, the smallest
    .1 to .2. ``lr="auto"`` measures it and takes 2.5 over it, .4 to .6 there (.2 to .3 suits the Euler step). At w* is
    where it is measured: a hot target (there: nbeta of 10 times the samples or less) leaves for steeper places and may
    diverge at such steps. Use the full batch (``batch_size`` of the sampling set's size): minibatch noise heats them. P
    is constant, so the stationary law is the target's whatever the factors' quality: they decide the speed alone.

    It fits a batch (x, y) of tensors with predictions ``module(x)`` of shape ``[sample, output]``, and chains over the
    weights and biases of Linear and Conv2d layers that each forward pass uses once. All else is refused, layers that
    EK-FAC does not know included: leave their parameters at w* by ``SGLDConfig(parameters=[...])``.

    Attributes:
        loss: what the per-sample loss is: cross entropy of logits with class indices, or squared error, up to a
            constant factor that is read off the losses themselves.
        fisher_type: "type-2": one backward pass for each output. "mc": labels drawn from the predictions,
            ``mc_samples`` backward passes; for many outputs.
        mc_samples: label draws for each sample, with "mc".
        seed: of those draws.

    Raises:
        InputError: a value out of range.

    Source: George et al. 2018 (EK-FAC), as implemented by curvlinops.
    """

    loss: Loss = "cross_entropy"
    fisher_type: FisherType = "type-2"
    mc_samples: PositiveInt = 1
    seed: NonNegativeInt = 0

    def __post_init__(self) -> None:
        settle_fields(self)
        require(
            self.fisher_type == "mc" or self.mc_samples == 1,
            "mc_samples",
            self.mc_samples,
            "1 with fisher_type 'type-2', which draws no labels",
            "set fisher_type to 'mc'",
        )


def ekfac_preconditioner(
    settings: EKFAC,
    module: nn.Module,
    loss_fn: LossFn,
    sampling: Batch,
    *,
    nbeta: float,
    localization: float,
    parameters: Selection = None,
    chunk_size: int | None = None,
) -> KroneckerPreconditioner:
    """Builds P at the current weights of ``module``, which is left bit for bit as it was.

    Args:
        settings: what to build.
        module: its current weights are w*.
        loss_fn: per-sample loss, compared with what ``settings.loss`` says.
        sampling: the whole set (x, y) behind the target's mean loss, on the module's device.
        nbeta: of the chain.
        localization: of the chain; any further constant precision of the target is to be added to it.
        parameters: patterns of the parameters that the chain moves, or masks that are all True; all trainable ones if
            None.
        chunk_size: samples for each forward pass; all at once if None.

    Returns:
        P over the flat weights in the order of :func:`~stagewise.sampling.selection.trainable`.

    Raises:
        InputError: curvlinops is missing, or the module, the batch or the loss does not fit; says what to do.
    """
    require(
        localization > 0 and math.isfinite(localization),
        "localization",
        localization,
        "localization > 0 with EKFAC",
        "it bounds the step in directions without curvature",
    )
    refuse_masks(moved_entries(module, parameters))
    leaves = {name: value.clone().requires_grad_() for name, value in trainable(module, parameters).items()}
    check_parameters(module, leaves)

    def build() -> KroneckerPreconditioner:
        factor = loss_factor(settings.loss, module, loss_fn, sampling, leaves)
        state = _factors(settings, module, leaves, sampling, chunk_size)
        per_curvature = nbeta * factor / num_samples(sampling)
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
    """One block for each layer, in the dtype of the chain's flat weights."""
    dtype = torch.float64 if any(leaf.dtype == torch.float64 for leaf in leaves.values()) else torch.float32
    starts, start = {}, 0
    for name, leaf in leaves.items():
        starts[name] = start
        start += leaf.numel()
    blocks = []
    for layer, left in state["gradient_covariances_eigenvectors"].items():
        prefix = f"{layer}." if layer else ""
        # curvlinops puts the bias behind the columns of the weight.
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
