"""A network that is written in another way has the numbers of the same network written plainly."""

from functools import cache
from itertools import product

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from stagewise.calibration.curvature import measure_curvature
from stagewise.influence.baselines import damped_influence, gradient_dot
from stagewise.influence.bif import bif
from stagewise.influence.group_draws import GroupDraws
from stagewise.influence.groups import Groups
from stagewise.sampling.chains import run_chains
from stagewise.sampling.config import SGLDConfig
from stagewise.sampling.posterior import LocalPosterior
from stagewise.sampling.preconditioners.ekfac import EKFAC
from stagewise.sampling.preconditioners.ekfac_factors import ekfac_preconditioner
from stagewise.sampling.target import Target

pytestmark = pytest.mark.whole_probes(draw_matrices=False)

POSTERIOR = LocalPosterior(nbeta=20.0, localization=30.0)


class Plain(nn.Module):
    """Embedding, then one layer used twice, then a head."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(5)
        self.words = nn.EmbeddingBag(7, 4)
        self.more = nn.Parameter(torch.randn(7, 4))
        self.block = nn.Linear(4, 4)
        self.head = nn.Linear(4, 3)

    def more_of(self, ids):
        return F.embedding(ids[:, 0], self.more)

    def forward(self, ids):
        x = self.words(ids) + self.more_of(ids)
        return self.head(self.block(self.block(x).tanh()).tanh())


class Sparse(Plain):
    def __init__(self):
        super().__init__()
        self.words.sparse = True


class SparseFunction(Plain):
    def more_of(self, ids):
        return F.embedding(ids[:, 0], self.more, sparse=True)


class TwoNames(Plain):
    def __init__(self):
        super().__init__()
        self.same = self.block
        self.last = nn.Sequential(nn.Tanh(), self.head)[1]

    def forward(self, ids):
        x = self.words(ids) + self.more_of(ids)
        return self.last(self.same(self.block(x).tanh()).tanh())


class Repeated(Plain):
    def __init__(self):
        super().__init__()
        self.blocks = nn.ModuleList([self.block, self.block])

    def forward(self, ids):
        x = self.words(ids) + self.more_of(ids)
        for block in self.blocks:
            x = block(x).tanh()
        return self.head(x)


class Tied(Plain):
    def __init__(self):
        super().__init__()
        self.other = nn.Linear(4, 4)
        self.other.weight, self.other.bias = self.block.weight, self.block.bias

    def forward(self, ids):
        x = self.words(ids) + self.more_of(ids)
        return self.head(self.other(self.block(x).tanh()).tanh())


class HeldElsewhere(Plain):
    def __init__(self):
        super().__init__()
        self.kept = {"block": (self.block.weight, [self.block.bias])}

    def forward(self, ids):
        x = self.words(ids) + self.more_of(ids)
        weight, (bias,) = self.kept["block"]
        return self.head(F.linear(self.block(x).tanh(), weight, bias).tanh())


TWINS = (Sparse, SparseFunction, TwoNames, Repeated, Tied, HeldElsewhere)


def loss_fn(module, batch):
    return F.cross_entropy(module(batch[0]), batch[1], reduction="none")


def data(num=12):
    generator = torch.Generator().manual_seed(1)
    return torch.randint(0, 7, (num, 3), generator=generator), torch.randint(0, 3, (num,), generator=generator)


def in_groups():
    return Groups({"a": np.arange(12) < 6, "b": np.arange(12) > 3}, np.ones(12, dtype=bool))


def chain_influence(module, engine):
    config = SGLDConfig(
        lr=1e-3,
        nbeta=POSTERIOR.nbeta,
        localization=POSTERIOR.localization,
        num_chains=3,
        num_draws=6,
        num_burnin_steps=2,
        num_steps_bw_draws=1,
        batch_size=6,
        engine=engine,
    )
    trace = run_chains(module, loss_fn, observed=data(), sampling=data(), config=config)
    assert not trace.dropped
    assert (trace.distance > 0).all()
    return [trace.loss, bif(GroupDraws.of(trace, in_groups()), None, in_groups())["group_bif"].values]


def chains(module):
    return chain_influence(module, "sequential")


def chains_together(module):
    return chain_influence(module, "batched")


def dot(module):
    return gradient_dot(module, Target(loss_fn, data()), in_groups())


def damped(module, **how):
    return damped_influence(module, Target(loss_fn, data()), in_groups(), posterior=POSTERIOR, **how)


def damped_by_products(module):
    return damped(module, dense_limit=0)


def curvature(module):
    found = measure_curvature(module, Target(loss_fn, data()))
    return np.array([found.lam_max, found.lam_min])


MEASURES = (chains, chains_together, dot, damped, damped_by_products, curvature)


@cache
def of_plain(measure):
    return measure(Plain())


def measured_twins():
    """Every pair; the engine that traces a module has half of the twins among the quick tests."""
    for measure, twin in product(MEASURES, TWINS):
        slow = measure is chains_together and twin not in (Sparse, TwoNames, Tied)
        marks = pytest.mark.slow if slow else ()
        yield pytest.param(measure, twin, id=f"{measure.__name__}-{twin.__name__}", marks=marks)


@pytest.mark.parametrize(("measure", "twin"), [*measured_twins()])
def test_twins_have_the_same_numbers(twin, measure):
    module = twin()
    own = [id(weight) for weight in module.parameters()]
    got, want = measure(module), of_plain(measure)
    for a, b in zip(got, want, strict=True):
        np.testing.assert_allclose(a, b, rtol=2e-4, atol=1e-6)
    assert [id(weight) for weight in module.parameters()] == own


class TwoLayers(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(5)
        self.a, self.b = nn.Linear(4, 5), nn.Linear(5, 3)

    def forward(self, x):
        return self.b(self.a(x).tanh())


class TwoLayersByOtherNames(TwoLayers):
    def __init__(self):
        super().__init__()
        self.head, self.layers = self.b, nn.ModuleList([self.a, self.b])

    def forward(self, x):
        return self.head(self.layers[0](x).tanh())


def test_curvature_factors_are_those_of_the_layers_whatever_their_names():
    pytest.importorskip("curvlinops")
    generator = torch.Generator().manual_seed(1)
    batch = torch.randn(30, 4, generator=generator), torch.randint(0, 3, (30,), generator=generator)
    found = []
    for module in (TwoLayersByOtherNames(), TwoLayers()):
        own = [id(weight) for weight in module.parameters()]
        preconditioner = ekfac_preconditioner(EKFAC(), module, target=Target(loss_fn, batch), posterior=POSTERIOR)
        found.append(preconditioner.times(torch.eye(sum(weight.numel() for weight in module.parameters()))))
        assert [id(weight) for weight in module.parameters()] == own
    torch.testing.assert_close(*found)
