"""Every method with the settings that were chosen on the wine set, clean and with wrong labels (``--choose``)."""

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from lds.bif import Chains, bif
from lds.retraining import Training
from lds.rivals import damped_influence, ekfac_influence, gradient_dot, tracin
from lds.sets import Split
from stagewise.sampling.config import Drift, Integrator, Start
from stagewise.sampling.preconditioners.diagonal import RMSprop
from stagewise.sampling.preconditioners.ekfac import EKFAC


@dataclass(frozen=True)
class Checkpoint:
    """Inputs of a method.

    Attributes:
        module: the trained network.
        run: it, and the same network at earlier steps, in order.
        split: the data.
        training: how it was trained.
        early: in the first steps, where the Hessian has eigenvalues near minus its largest ones.
    """

    module: nn.Module
    run: Sequence[nn.Module]
    split: Split
    training: Training
    early: bool


Method = Callable[[Checkpoint], Tensor]
"""Scores ``[train, test]``, negative = helpful."""

REFERENCE = "EK-FAC influence (kronfluence)"
"""The rival that the targets speak of."""


def _at(early: float, late: float) -> Callable[[Checkpoint], float]:
    return lambda checkpoint: early if checkpoint.early else late


def _bif(chains: Chains) -> Method:
    def method(checkpoint: Checkpoint) -> Tensor:
        # Later on, cold: at nbeta = n the losses rise by as much as they are, and the covariance leaves the linear
        # response that retraining shows, most of all with wrong labels; and there long steps meet curvature that was
        # not measured at w*. In the first steps, hot and wide: there the average over a neighbourhood predicts
        # networks of other seeds better than the slopes of one.
        set_up = chains.but(nbeta_per_sample=0.1, damping=0.3) if checkpoint.early else chains
        return bif(checkpoint.module, checkpoint.split, set_up, checkpoint.training.weight_decay)

    return method


def rivals() -> dict[str, Method]:
    """Rivals of BIF, by name."""
    exact, factored = _at(0.3, 0.05), _at(0.1, 0.02)
    return {
        "gradient dot product": lambda item: gradient_dot(item.module, item.split),
        "TracIn over the run": lambda item: tracin(item.run, item.split),
        "exact damped Gauss-Newton influence": lambda item: damped_influence(item.module, item.split, exact(item)),
        REFERENCE: lambda item: ekfac_influence(item.module, item.split, factored(item)),
    }


def published() -> Chains:
    """The Euler step from w*, with EK-FAC, as it was chosen for it."""
    return Chains(
        nbeta_per_sample=10,
        lr=0.25,
        integrator=Integrator.euler,
        start=Start.anchor,
        preconditioner=EKFAC(),
        batch_size=None,
        num_chains=16,
        num_draws=250,
        num_burnin_steps=40,
        num_steps_bw_draws=4,
    )


def samplers() -> dict[str, Method]:
    """BIF with each sampler and drift at one budget, and the best of them at several, by name."""
    sgld = Chains(nbeta_per_sample=10, num_chains=16, num_draws=250, num_burnin_steps=100, num_steps_bw_draws=4)
    ekfac = Chains(preconditioner=EKFAC(), batch_size=None)
    methods = {"BIF, Euler from w*, EK-FAC, tilted, 16 x 1000 steps": published()}
    for drift in (Drift.plain, Drift.control_variate, Drift.tilted):
        methods[f"BIF, SGLD, {drift}, 16 x 1000 steps"] = sgld.but(drift=drift)
    methods["BIF, SGLD, tilted, full batch, 16 x 1000 steps"] = sgld.but(batch_size=None)
    rmsprop = sgld.but(preconditioner=RMSprop(eps=0.1), num_burnin_steps=200)
    methods["BIF, RMSprop, tilted, 16 x 1000 steps"] = rmsprop
    methods["BIF, EK-FAC, plain, 32 x 200 steps"] = ekfac.but(drift=Drift.plain)
    for draws in (50, 100, 200, 300, 400):
        methods[f"BIF, EK-FAC, tilted, 32 x {draws} steps"] = ekfac.but(num_draws=draws)
    return {name: _bif(chains) for name, chains in methods.items()}


def candidates() -> dict[str, Method]:
    """Settings to choose from, by name; each is used at every step as it is."""

    def exact(damping: float) -> Method:
        return lambda item: damped_influence(item.module, item.split, damping)

    def factored(damping: float | None) -> Method:
        return lambda item: ekfac_influence(item.module, item.split, damping)

    def chosen(chains: Chains) -> Method:
        return lambda item: bif(item.module, item.split, chains, item.training.weight_decay)

    methods: dict[str, Method] = {REFERENCE: factored(None)}
    for damping in (0.01, 0.02, 0.03, 0.1, 0.3, 1.0):
        methods[f"EK-FAC influence, damping {damping}"] = factored(damping)
        methods[f"exact Gauss-Newton influence, damping {damping}"] = exact(damping)
    full = Chains(preconditioner=EKFAC(), batch_size=None)
    for nbeta, damping in itertools.product((0.1, 3.0, 10.0, 30.0, 100.0), (0.02, 0.03, 0.05, 0.1, 0.3)):
        methods[f"BIF, EK-FAC, tilted, nbeta {nbeta} n, damping {damping}"] = chosen(
            full.but(nbeta_per_sample=nbeta, damping=damping)
        )
    methods["BIF, EK-FAC, plain"] = chosen(full.but(drift=Drift.plain))
    methods["BIF, EK-FAC, 16 chains x 400"] = chosen(full.but(num_chains=16, num_draws=400))
    methods["BIF, Euler from w*, EK-FAC"] = chosen(published())
    sgld = Chains(num_chains=16, num_draws=250, num_burnin_steps=100, num_steps_bw_draws=4)
    for drift, nbeta in itertools.product((Drift.plain, Drift.control_variate, Drift.tilted), (3.0, 10.0, 30.0)):
        methods[f"BIF, SGLD, {drift}, nbeta {nbeta} n"] = chosen(sgld.but(drift=drift, nbeta_per_sample=nbeta))
    for eps in (0.1, 0.01):
        chains = sgld.but(nbeta_per_sample=10, preconditioner=RMSprop(eps=eps), num_burnin_steps=200)
        methods[f"BIF, RMSprop, tilted, eps {eps}"] = chosen(chains)
    return methods
