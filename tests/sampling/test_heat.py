"""Heat of minibatches: their noise over the injected noise, along the directions of the losses."""

import numpy as np
import pytest
import torch
from torch import nn

from stagewise.sampling.chains import run_chains
from stagewise.sampling.config import SGLDConfig
from stagewise.sampling.heat import NUM_GRADIENTS, minibatch_heat
from stagewise.sampling.preconditioners.diagonal import Diagonal
from tests.sampling.test_chains import squared
from tests.sampling.test_integrators import preconditioners

LR, NBETA = 2e-3, 30.0
FACTOR = LR * NBETA**2 / 4


def estimates(mean, root, repetitions=20_000, number=NUM_GRADIENTS, seed=0):
    """Gaussian gradients of covariance root root^T, ``[estimate][repetition, weight]``."""
    generator = torch.Generator().manual_seed(seed)
    shape = (number, repetitions, len(mean))
    noise = torch.randn(shape, generator=generator, dtype=torch.float64)
    return list(mean + noise @ root.T)


@pytest.fixture
def case():
    generator = torch.Generator().manual_seed(3)
    root = torch.randn(6, 6, generator=generator, dtype=torch.float64) / 3
    mean = torch.randn(6, generator=generator, dtype=torch.float64)
    return mean, root, root @ root.T


def heat(gradients, direction, **more):
    return minibatch_heat(gradients, direction.expand_as(gradients[0]), lr=LR, nbeta=NBETA, **more)


@pytest.mark.parametrize("number", [2, NUM_GRADIENTS])
@pytest.mark.parametrize("length", [1.0, 30.0])
def test_heat_is_the_noise_variance_along_a_direction_of_any_length(case, number, length):
    mean, root, covariance = case
    along = mean / mean.norm()
    found = heat(estimates(mean, root, number=number), length * mean)
    assert found.shape == (20_000,)
    assert float(found.mean()) == pytest.approx(FACTOR * float(along @ covariance @ along), rel=0.02)


def test_direction_may_differ_from_the_gradients(case):
    mean, root, covariance = case
    along = torch.zeros(6, dtype=torch.float64)
    along[2] = 1
    assert float(heat(estimates(mean, root), along).mean()) == pytest.approx(FACTOR * float(covariance[2, 2]), rel=0.02)


@pytest.mark.parametrize("name", ["diagonal", "kronecker"])
def test_preconditioned_heat_is_along_the_preconditioned_direction(case, name):
    """u' P S P u over u' P u."""
    mean, root, covariance = case
    p = preconditioners()[name]
    matrix = p.times(torch.eye(6, dtype=torch.float64))
    u = torch.tensor([3.0, 0, 0, 0, 0, 1], dtype=torch.float64)
    want = float(u @ matrix @ covariance @ matrix @ u / (u @ matrix @ u))
    assert float(heat(estimates(mean, root), u, preconditioner=p).mean()) == pytest.approx(FACTOR * want, rel=0.02)


def test_each_chain_may_have_its_own_diagonal(case):
    mean, root, _ = case
    gradients = estimates(mean, root, repetitions=2)
    both = heat(gradients, mean, preconditioner=Diagonal(torch.tensor([[1.0] * 6, [2.0] * 6], dtype=torch.float64)))
    torch.testing.assert_close(both, heat(gradients, mean) * torch.tensor([1.0, 2.0], dtype=torch.float64))


def test_heat_follows_the_step_and_the_square_of_nbeta(case):
    mean, root, _ = case
    gradients = estimates(mean, root, repetitions=3)
    at = mean.expand_as(gradients[0])
    torch.testing.assert_close(minibatch_heat(gradients, at, lr=3 * LR, nbeta=NBETA), 3 * heat(gradients, mean))
    torch.testing.assert_close(minibatch_heat(gradients, at, lr=LR, nbeta=2 * NBETA), 4 * heat(gradients, mean))
    assert minibatch_heat(gradients, at, lr=LR, nbeta=0).tolist() == [0, 0, 0]


def test_heat_is_zero_for_equal_estimates_or_a_zero_direction():
    gradient = torch.randn(2, 5)
    assert heat([gradient] * 4, torch.ones(5)).tolist() == [0, 0]
    assert heat([torch.randn(2, 5) for _ in range(3)], torch.zeros(5)).tolist() == [0, 0]


def test_heat_does_not_change_the_estimates(case):
    mean, root, _ = case
    gradients = estimates(mean, root, repetitions=2)
    before = [gradient.clone() for gradient in gradients]
    heat(gradients, mean)
    assert all(torch.equal(one, other) for one, other in zip(gradients, before, strict=True))


def test_heat_detects_noise_along_the_losses_that_a_mean_over_weights_misses():
    size = 10_000
    mean, root = torch.zeros(size, dtype=torch.float64), torch.zeros(size, 1, dtype=torch.float64)
    mean[17], root[17] = 5.0, 1.0
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(NUM_GRADIENTS, 400, 1, generator=generator, dtype=torch.float64)
    gradients = list(mean + noise @ root.T)
    over_weights = FACTOR * float(torch.stack(gradients).var(dim=0).mean())
    assert over_weights == pytest.approx(FACTOR / size, rel=0.1)
    assert float(heat(gradients, mean).mean()) == pytest.approx(FACTOR, rel=0.1)


def test_measured_heat_is_the_relative_excess_variance_of_a_loss():
    """A loss that is linear in one steep direction, the only one with minibatch noise; nearly flat target."""
    generator = torch.Generator().manual_seed(0)
    x = torch.zeros(60, 8)
    x[:, 0] = 1 + 0.5 * torch.randn(60, generator=generator)
    module = nn.Linear(8, 1, bias=False)
    nn.init.zeros_(module.weight)
    settings = {"lr": 0.12, "nbeta": 6.0, "localization": 10.0, "num_chains": 200, "num_draws": 40}
    found = {}
    for size in (4, 60):
        config = SGLDConfig(**settings, batch_size=size, drift="plain", engine="batched", max_loss_rise=100.0)
        data = {"observed": (x[:1],), "sampling": (x,)}
        trace = run_chains(module, lambda m, b: m(b[0])[:, 0], **data, config=config)
        found[size] = (trace.loss.astype(np.float64).var(), trace.minibatch_noise)
    assert found[60][1] == 0
    reach = 0.12 * 10
    assert found[4][0] / found[60][0] - 1 == pytest.approx(found[4][1] / (1 - reach / 4), rel=0.2)
    variance = float(x[:, 0].var()) / 4 * (1 - 4 / 60)
    assert found[4][1] == pytest.approx(0.12 * 6**2 / 4 * variance, rel=0.1)
    assert found[4][1] > 0.04


def test_control_variates_of_a_loss_without_curvature_are_cold():
    x = torch.randn(30, 8)
    config = SGLDConfig(lr=0.01, nbeta=60.0, localization=10.0, num_draws=2, num_burnin_steps=0, batch_size=4)
    trace = run_chains(nn.Linear(8, 1), lambda m, b: m(b[0])[:, 0], observed=(x[:1],), sampling=(x,), config=config)
    assert trace.minibatch_noise == pytest.approx(0, abs=1e-9)


def test_every_engine_measures_the_heat_of_a_run():
    module, batch = nn.Linear(3, 1), (torch.randn(10, 3), torch.randn(10, 1))
    config = SGLDConfig(lr=0.01, nbeta=60.0, localization=10.0, num_chains=2, num_draws=2, batch_size=4)
    for engine in ("sequential", "batched"):
        trace = run_chains(
            module, squared, observed=batch, sampling=batch,
            config=SGLDConfig(**{**vars(config), "engine": engine, "drift": "plain"}),
        )  # fmt: skip
        assert trace.minibatch_noise > 0


def test_a_long_vector_is_summed_in_few_blocks(monkeypatch):
    from stagewise.sampling import heat

    # 100,000 weights: blocks of two weights each took minutes in every measurement of curvature.
    vector = torch.ones(100_000)
    blocks = []
    split = torch.Tensor.split
    monkeypatch.setattr(torch.Tensor, "split", lambda self, size, dim=0: blocks.append(size) or split(self, size, dim))
    found = heat.minibatch_heat([vector, 3 * vector], vector, lr=1.0, nbeta=2.0)
    assert float(found) == pytest.approx(2 * 100_000**2 / 100_000)
    assert min(blocks) >= 10_000
