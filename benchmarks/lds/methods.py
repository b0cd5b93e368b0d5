"""Every method with the settings that were chosen on the wine set, clean and with wrong labels (``--choose``)."""

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from lds.bif import Chains, bif
from lds.retraining import Training
from lds.rivals import damped_influence, ekfac_influence, gradient_dot, tracin
from lds.sets import Split
from stagewise.sampling.config import Drift
from stagewise.sampling.ekfac import EKFAC
from stagewise.sampling.preconditioners import RMSprop


@dataclass(frozen=True)
class Checkpoint:
    """What a method may look at.

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
        # response that retraining shows, most of all with wrong labels. In the first steps, hot and wide: there the
        # average over a neighbourhood predicts networks of other seeds better than the slopes of one.
        set_up = chains.but(nbeta_per_sample=0.1, damping=0.3) if checkpoint.early else chains
        return bif(checkpoint.module, checkpoint.split, set_up, checkpoint.training.weight_decay)

    return method


def rivals() -> dict[str, Method]:
    """What BIF is compared with, by name."""
    exact, factored = _at(0.3, 0.05), _at(0.1, 0.02)
    return {
        "gradient dot product": lambda it: gradient_dot(it.module, it.split),
        "TracIn over the run": lambda it: tracin(it.run, it.split),
        "exact damped Gauss-Newton influence": lambda it: damped_influence(it.module, it.split, exact(it)),
        REFERENCE: lambda it: ekfac_influence(it.module, it.split, factored(it)),
    }


def samplers() -> dict[str, Method]:
    """BIF with each sampler and drift at one budget, and the best of them at several, by name."""
    plain = Chains(nbeta_per_sample=10, damping=0.03, step=1.0)
    rmsprop = plain.but(preconditioner=RMSprop(eps=0.1), num_burnin_steps=200)
    ekfac = plain.but(preconditioner=EKFAC(), batch_size=None, step=0.25, num_burnin_steps=40)
    methods = {}
    for name, chains in (("SGLD", plain), ("RMSprop", rmsprop), ("EK-FAC", ekfac)):
        for drift in Drift:
            if chains.batch_size is None and drift is Drift.control_variate:
                continue  # With the full batch it is the plain drift.
            # Minibatch noise heats the plain drift, the more the colder the target.
            heated = drift is Drift.plain and chains.batch_size is not None
            nbeta = 3.0 if heated else chains.nbeta_per_sample
            methods[f"BIF, {name}, {drift}"] = chains.but(drift=drift, nbeta_per_sample=nbeta)
    for draws in (60, 500):
        methods[f"BIF, EK-FAC, tilted, 16 x {draws * 4} steps"] = ekfac.but(num_draws=draws)
    return {name: _bif(chains) for name, chains in methods.items()}


def candidates() -> dict[str, Method]:
    """Settings to choose from, by name; each is used at every step as it is."""

    def exact(damping: float) -> Method:
        return lambda it: damped_influence(it.module, it.split, damping)

    def factored(damping: float | None) -> Method:
        return lambda it: ekfac_influence(it.module, it.split, damping)

    def chosen(chains: Chains) -> Method:
        return lambda it: bif(it.module, it.split, chains, it.training.weight_decay)

    methods: dict[str, Method] = {REFERENCE: factored(None)}
    for damping in (0.01, 0.02, 0.03, 0.1, 0.3, 1.0):
        methods[f"EK-FAC influence, damping {damping}"] = factored(damping)
        methods[f"exact Gauss-Newton influence, damping {damping}"] = exact(damping)
    full = Chains(preconditioner=EKFAC(), batch_size=None, num_burnin_steps=40)
    for drift, nbeta, damping in itertools.product((Drift.plain, Drift.tilted), (0.1, 1.0, 10.0), (0.03, 0.1, 0.3)):
        chains = full.but(drift=drift, nbeta_per_sample=nbeta, damping=damping, step=0.25)
        methods[f"BIF, EK-FAC, {drift}, nbeta {nbeta} n, damping {damping}"] = chosen(chains)
    methods["BIF, EK-FAC, tilted, nbeta 10 n, damping 0.03, step 0.5"] = chosen(
        full.but(nbeta_per_sample=10, damping=0.03, step=0.5)
    )
    for drift, nbeta, step in itertools.product(Drift, (1.0, 3.0, 10.0), (0.3, 1.0)):
        chains = Chains(nbeta, 0.03, step, drift)
        methods[f"BIF, SGLD, {drift}, nbeta {nbeta} n, step {step}"] = chosen(chains)
    for eps, step in itertools.product((0.1, 0.01, 0.001), (0.3, 1.0)):
        chains = Chains(10, 0.03, step, preconditioner=RMSprop(eps=eps), num_burnin_steps=200)
        methods[f"BIF, RMSprop, tilted, eps {eps}, step {step}"] = chosen(chains)
    return methods
