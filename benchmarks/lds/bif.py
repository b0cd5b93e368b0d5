"""The Bayesian influence function of one checkpoint, by stagewise's chains."""

import sys
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call, grad, jvp

from lds.sets import Split
from stagewise.sampling.chains import run_chains
from stagewise.sampling.config import Drift, EngineName, SGLDConfig
from stagewise.sampling.ekfac import EKFAC
from stagewise.sampling.preconditioners import RMSprop


@dataclass(frozen=True)
class Chains:
    """What is sampled, and how.

    Attributes:
        nbeta_per_sample: nbeta over the number of training samples; 1 is the posterior of the set, 10 a colder one.
        damping: precision around w* over nbeta, all in all: localization / nbeta, plus the weight decay where the
            target has it.
        step: lr times the largest eigenvalue of P^(1/2) (nbeta H + g) P^(1/2), estimated; with EK-FAC lr itself.
        drift: which gradient drives the chains.
        preconditioner: None, RMSprop or EKFAC.
        batch_size: None is the full batch.
        num_chains: all at once.
        num_draws: recorded, for each chain.
        num_burnin_steps: before them.
        num_steps_bw_draws: steps for each draw.
    """

    nbeta_per_sample: float = 10.0
    damping: float = 0.05
    step: float = 0.3
    drift: Drift = Drift.tilted
    preconditioner: RMSprop | EKFAC | None = None
    batch_size: int | None = 32
    num_chains: int = 16
    num_draws: int = 250
    num_burnin_steps: int = 100
    num_steps_bw_draws: int = 4

    def but(self, **changes: object) -> "Chains":
        """The same with other settings."""
        return replace(self, **changes)  # type: ignore[arg-type]


def cross_entropy(module: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    """Per-sample loss ``[sample]``, nats."""
    return F.cross_entropy(module(batch[0]), batch[1], reduction="none")


def largest_curvature(module: nn.Module, split: Split, iterations: int = 15) -> float:
    """Largest Hessian eigenvalue of the mean training loss, by power iteration."""
    weights = {name: value.detach() for name, value in module.named_parameters()}
    generator = torch.Generator().manual_seed(0)
    vector = {name: torch.randn(value.shape, generator=generator) for name, value in weights.items()}

    def loss(parameters: dict[str, Tensor]) -> Tensor:
        return F.cross_entropy(functional_call(module, parameters, (split.train[0],)), split.train[1])

    size = 0.0
    for _ in range(iterations):
        length = torch.cat([part.flatten() for part in vector.values()]).norm()
        vector = {name: part / length for name, part in vector.items()}
        vector = jvp(grad(loss), (weights,), (vector,))[1]
        size = float(torch.cat([part.flatten() for part in vector.values()]).norm())
    return size


def bif(module: nn.Module, split: Split, chains: Chains, weight_decay: float) -> Tensor:
    """Minus the covariance of training and test losses over all draws, ``[train, test]``, nats^2."""
    num_train = len(split.train[0])
    nbeta = num_train * chains.nbeta_per_sample
    # A tilted chain has no slope at w*: there the decay is a part of the localization. Others need it in the target.
    decay = 0.0 if chains.drift is Drift.tilted else min(weight_decay, chains.damping)
    lr = chains.step
    if not isinstance(chains.preconditioner, EKFAC):
        lr /= nbeta * (largest_curvature(module, split) + chains.damping)
    if isinstance(chains.preconditioner, RMSprop):
        lr *= chains.preconditioner.eps
    config = SGLDConfig(
        lr=lr,
        nbeta=nbeta,
        localization=nbeta * (chains.damping - decay),
        weight_decay=decay,
        num_chains=chains.num_chains,
        num_draws=chains.num_draws,
        num_burnin_steps=chains.num_burnin_steps,
        num_steps_bw_draws=chains.num_steps_bw_draws,
        batch_size=chains.batch_size or num_train,
        preconditioner=chains.preconditioner,
        drift=chains.drift,
        engine=EngineName.batched,
    )
    observed = (torch.cat([split.train[0], split.test[0]]), torch.cat([split.train[1], split.test[1]]))
    trace = run_chains(module, cross_entropy, observed=observed, sampling=split.train, config=config)
    if trace.dropped:
        print(f"{split.name}, {chains}: dropped {trace.dropped}", file=sys.stderr)
    losses = trace.sample_losses().reshape(-1, len(observed[0]))
    centred = losses - losses.mean(axis=0)
    return -torch.from_numpy(centred[:, :num_train].T @ centred[:, num_train:] / len(losses))
