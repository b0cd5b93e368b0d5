"""Heat of minibatches: what their noise adds, over what is injected, where losses move."""

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
def test_heat_is_the_variance_of_the_noise_in_the_direction_whatever_its_length(case, number, length):
    mean, root, covariance = case
    along = mean / mean.norm()
    found = heat(estimates(mean, root, number=number), length * mean)
    assert found.shape == (20_000,)
    assert float(found.mean()) == pytest.approx(FACTOR * float(along @ covariance @ along), rel=0.02)


def test_direction_need_not_be_that_of_the_gradients(case):
    mean, root, covariance = case
    along = torch.zeros(6, dtype=torch.float64)
    along[2] = 1
    assert float(heat(estimates(mean, root), along).mean()) == pytest.approx(FACTOR * float(covariance[2, 2]), rel=0.02)


@pytest.mark.parametrize("name", ["diagonal", "kronecker"])
def test_preconditioned_heat_is_along_what_the_step_makes_of_the_direction(case, name):
    """u' P S P u over u' P u."""
    mean, root, covariance = case
    p = preconditioners()[name]
    matrix = p.times(torch.eye(6, dtype=torch.float64))
    u = torch.tensor([3.0, 0, 0, 0, 0, 1], dtype=torch.float64)
    want = float(u @ matrix @ covariance @ matrix @ u / (u @ matrix @ u))
    assert float(heat(estimates(mean, root), u, preconditioner=p).mean()) == pytest.approx(FACTOR * want, rel=0.02)


def test_a_diagonal_for_each_chain_is_its_own(case):
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


def test_equal_estimates_are_cold_and_so_is_no_direction():
    gradient = torch.randn(2, 5)
    assert heat([gradient] * 4, torch.ones(5)).tolist() == [0, 0]
    assert heat([torch.randn(2, 5) for _ in range(3)], torch.zeros(5)).tolist() == [0, 0]


def test_estimates_are_left_as_they_are(case):
    mean, root, _ = case
    gradients = estimates(mean, root, repetitions=2)
    before = [gradient.clone() for gradient in gradients]
    heat(gradients, mean)
    assert all(torch.equal(one, other) for one, other in zip(gradients, before, strict=True))


def test_noise_in_the_one_direction_where_losses_move_is_seen_where_a_mean_over_weights_calls_it_tiny():
    size = 10_000
    mean, root = torch.zeros(size, dtype=torch.float64), torch.zeros(size, 1, dtype=torch.float64)
    mean[17], root[17] = 5.0, 1.0
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(NUM_GRADIENTS, 400, 1, generator=generator, dtype=torch.float64)
    gradients = list(mean + noise @ root.T)
    over_weights = FACTOR * float(torch.stack(gradients).var(dim=0).mean())
    assert over_weights == pytest.approx(FACTOR / size, rel=0.1)
    assert float(heat(gradients, mean).mean()) == pytest.approx(FACTOR, rel=0.1)


def test_heat_that_a_probe_tells_is_what_the_variance_of_a_loss_is_too_large_by():
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


def test_heat_does_not_change_the_draws_and_each_run_measures_it_in_one_chain_at_least():
    module, batch = nn.Linear(3, 1), (torch.randn(10, 3), torch.randn(10, 1))
    config = SGLDConfig(lr=0.01, nbeta=60.0, localization=10.0, num_chains=2, num_draws=2, batch_size=4)
    for engine in ("sequential", "batched"):
        trace = run_chains(
            module, squared, observed=batch, sampling=batch,
            config=SGLDConfig(**{**vars(config), "engine": engine, "drift": "plain"}),
        )  # fmt: skip
        assert trace.minibatch_noise > 0


def test_a_vector_of_many_weights_is_summed_in_few_blocks(monkeypatch):
    from stagewise.sampling import heat

    # 100,000 weights: blocks of two weights each took minutes of every look at the curvature.
    vector = torch.ones(100_000)
    blocks = []
    split = torch.Tensor.split
    monkeypatch.setattr(torch.Tensor, "split", lambda self, size, dim=0: blocks.append(size) or split(self, size, dim))
    found = heat.minibatch_heat([vector, 3 * vector], vector, lr=1.0, nbeta=2.0)
    assert float(found) == pytest.approx(2 * 100_000**2 / 100_000)
    assert min(blocks) >= 10_000
