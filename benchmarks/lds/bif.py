"""The Bayesian influence function of one checkpoint, by stagewise's chains."""

import sys
from dataclasses import dataclass, replace
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lds.sets import Split
from stagewise.calibration.landscape import Landscape
from stagewise.calibration.resolve import resolve
from stagewise.sampling.chains import run_chains
from stagewise.sampling.config import Drift, EngineName, Integrator, SGLDConfig, Start
from stagewise.sampling.preconditioners.diagonal import RMSprop
from stagewise.sampling.preconditioners.ekfac import EKFAC
from stagewise.sampling.target import Target


@dataclass(frozen=True)
class Chains:
    """Settings of the chains.

    Attributes:
        nbeta_per_sample: nbeta over the number of training samples; 1 is the posterior of the set, 30 a colder one.
        damping: precision around w* over nbeta, all in all: localization / nbeta, plus the weight decay where the
            target has it.
        lr: step size; ``auto`` is what stagewise settles at the checkpoint: 2.5 over the measured largest eigenvalue of
            P^(1/2) (nbeta H + g) P^(1/2), less where minibatches are hot. With EK-FAC it has no unit.
        integrator: how a chain steps.
        start: where a chain starts.
        drift: which gradient drives the chains.
        preconditioner: None, RMSprop or EKFAC.
        batch_size: None is the full batch.
        num_chains: all at once.
        num_draws: recorded, for each chain.
        num_burnin_steps: before them.
        num_steps_bw_draws: steps for each draw.
    """

    nbeta_per_sample: float = 30.0
    damping: float = 0.03
    lr: float | Literal["auto"] = "auto"
    integrator: Integrator = Integrator.leimkuhler_matthews
    start: Start = Start.gaussian
    drift: Drift = Drift.tilted
    preconditioner: RMSprop | EKFAC | None = None
    batch_size: int | None = 32
    num_chains: int = 32
    num_draws: int = 200
    num_burnin_steps: int = 10
    num_steps_bw_draws: int = 1

    def but(self, **changes: object) -> "Chains":
        """The same with other settings."""
        return replace(self, **changes)  # type: ignore[arg-type]


def cross_entropy(module: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    """Per-sample loss ``[sample]``, nats."""
    return F.cross_entropy(module(batch[0]), batch[1], reduction="none")


def bif(module: nn.Module, split: Split, chains: Chains, weight_decay: float) -> Tensor:
    """Minus the covariance of training and test losses over all draws, ``[train, test]``, nats^2."""
    num_train = len(split.train[0])
    nbeta = num_train * chains.nbeta_per_sample
    # A tilted chain has no slope at w*: there the decay is a part of the localization. Others need it in the target.
    decay = 0.0 if chains.drift is Drift.tilted else min(weight_decay, chains.damping / 2)
    config = SGLDConfig(
        lr=chains.lr,
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
        integrator=chains.integrator,
        start=chains.start,
        engine=EngineName.batched,
    )
    if config.unresolved:
        config, _ = resolve(config, Landscape(Target(cross_entropy, split.train), num_samples=num_train), module)
    observed = (torch.cat([split.train[0], split.test[0]]), torch.cat([split.train[1], split.test[1]]))
    trace = run_chains(module, cross_entropy, observed=observed, sampling=split.train, config=config)
    if trace.dropped:
        print(f"{split.name}, {chains}, lr {config.lr}: dropped {trace.dropped}", file=sys.stderr)
    losses = trace.sample_losses().reshape(-1, len(observed[0]))
    centred = losses - losses.mean(axis=0)
    return -torch.from_numpy(centred[:, :num_train].T @ centred[:, num_train:] / len(losses))
