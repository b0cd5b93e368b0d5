"""Settings of chains preconditioned by curvature."""

from dataclasses import dataclass
from typing import Literal

from stagewise.checks.bounds import settle_fields
from stagewise.checks.ranges import NonNegativeInt, PositiveInt
from stagewise.errors import require
from stagewise.sampling.preconditioners.ekfac_checks import Loss

FisherType = Literal["type-2", "mc"]


@dataclass(frozen=True)
class EKFAC:
    """Preconditioner P = 1 / (nbeta lam + localization) in the Kronecker eigenbasis of each layer, frozen for a probe.

    lam are the eigenvalue-corrected Kronecker-factored (EK-FAC) eigenvalues of the Gauss-Newton matrix of the mean loss
    at w*, over the sampling set. P^(1/2) (nbeta H + g) P^(1/2) is then near one, so that ``lr`` has no unit. P is
    constant, so that the stationary law is the target whatever the quality of the factors, which affects only speed.

    EK-FAC misses curvature across layers: in small networks with g = .03 nbeta the largest eigenvalue was 4 to 6, the
    smallest .1 to .2. ``lr="auto"`` measures the largest and takes 2.5 over it, there .4 to .6 (.2 to .3 suits the
    Euler step). It measures at w*: chains of a hot target (there: nbeta of 10 times the samples or less) move to
    steeper places and may diverge at such steps. Use the full batch (``batch_size`` of the sampling set's size), since
    minibatch noise heats these chains.

    Supports a batch (x, y) of tensors with predictions ``module(x)`` of shape ``[sample, output]``, and chains over the
    weights and biases of Linear and Conv2d layers that each forward pass uses once. Anything else is refused, including
    layers unknown to EK-FAC: leave their parameters at w* by ``SGLDConfig(parameters=[...])``.

    Attributes:
        loss: kind of per-sample loss: cross entropy of logits with class indices, or squared error, up to a constant
            factor measured from the losses.
        fisher_type: "type-2": one backward pass per output. "mc": labels drawn from the predictions, ``mc_samples``
            backward passes; for many outputs.
        mc_samples: label draws per sample, with "mc".
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
