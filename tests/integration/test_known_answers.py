"""Chains and influence together, against what is known exactly about the posterior that they sample."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.func import grad, hessian, jacrev

from stagewise.influence.baselines import damped_influence
from stagewise.influence.split import Centering, split
from stagewise.influence.token_bif import token_bif
from stagewise.sampling.chains import run_chains
from stagewise.sampling.config import Drift, SGLDConfig
from stagewise.sampling.posterior import LocalPosterior
from stagewise.sampling.target import Target
from tests.sampling.test_chains import linear, regression, squared

X, Y = regression(num=40)
HESSIAN = (X.T @ X / 40).numpy()
LOSSES = torch.full((40,), -1)
WEIGHTS = torch.arange(3)


def weights_or_losses(module, batch):
    """Weight k itself where the batch asks for it, so that the observed set records the weights of the chain."""
    x, y, asked = batch
    return torch.where(asked >= 0, module.weight[0, asked.clamp(min=0)], squared(module, (x, y)))


def stationary(precision, lr):
    """Exact covariance of full-batch Euler steps in a quadratic, the step size's share included: an AR(1) process."""
    return np.linalg.inv(precision @ (np.eye(len(precision)) - lr * precision / 4))


@pytest.mark.slow
def test_covariance_of_weights_and_losses_is_the_damped_influence_function_up_to_an_error_that_falls_as_one_over_root():
    """Bayesian linear regression, where Cov(w, l_j) = (nbeta H + g)^-1 grad l_j holds exactly."""
    module = linear(X, Y)
    # The three weights, then the losses of ten samples.
    observed = (X[:13], Y[:13], torch.cat([WEIGHTS, LOSSES[:10]]))
    sampling = (X, Y, LOSSES)
    # The second-order step is exact for a Gaussian at any stable lr: here about 2 over the curvatures of the target, at
    # which its draws are nearly independent.
    nbeta, localization, lr, chains = 150.0, 50.0, 1e-2, 12
    config = SGLDConfig(
        lr=lr,
        nbeta=nbeta,
        localization=localization,
        num_chains=chains,
        num_draws=800,
        num_burnin_steps=30,
        num_steps_bw_draws=1,
        batch_size=40,
        drift="plain",
    )
    loss = run_chains(module, weights_or_losses, observed=observed, sampling=sampling, config=config).loss

    exact = damped_influence(
        module, Target(weights_or_losses, observed, sampling), None, posterior=LocalPosterior(nbeta, localization)
    )
    gradients = ((X @ module.weight.T - Y) * X).detach().numpy()[3:13]
    precision = nbeta * HESSIAN + localization * np.eye(3)
    np.testing.assert_allclose(exact[:3, 3:], -nbeta * np.linalg.solve(precision, gradients.T), rtol=1e-6)

    want = exact[:3, 3:]

    def estimates(draws):
        """[chain, weight, loss], each chain on its own."""
        alone = [token_bif(loss[chain : chain + 1, :draws].astype(np.float64)).values for chain in range(chains)]
        return nbeta * np.stack(alone)[:, :3, 3:]

    whole = estimates(800)
    error = whole.std(axis=0, ddof=1) / np.sqrt(chains)
    assert (np.abs(whole.mean(axis=0) - want) < 4 * error).all()
    assert np.linalg.norm(whole.mean(axis=0) - want) < 0.05 * np.linalg.norm(want)
    few, many = (np.sqrt(np.square(estimates(draws) - want).mean()) for draws in (50, 800))
    assert few / many == pytest.approx(4, rel=0.25)


def test_step_centring_shows_the_noise_of_chains_that_are_on_their_way_and_nothing_of_their_way():
    """From far off the minimum, without burn-in: the mean slides, and the noise is that of an AR(1) process from 0."""
    module = nn.Linear(3, 1, bias=False).double()
    module.weight.data = torch.tensor([[0.0, 0.5, -1.0]], dtype=torch.float64)
    lr, chains, draws = 8e-3, 64, 40
    config = SGLDConfig(
        lr=lr,
        nbeta=60.0,
        localization=30.0,
        num_chains=chains,
        num_draws=draws,
        num_burnin_steps=0,
        batch_size=40,
        integrator="euler",
        start="anchor",
    )
    observed = (X[:3], Y[:3], WEIGHTS)
    trace = run_chains(module, weights_or_losses, observed=observed, sampling=(X, Y, LOSSES), config=config)
    loss = trace.loss.astype(np.float64)

    precision = 60 * HESSIAN + 30 * np.eye(3)
    factor = np.eye(3) - lr * precision / 2
    powers = [np.linalg.matrix_power(factor, 2 * step) for step in range(1, draws + 1)]
    noise = stationary(precision, lr) @ (np.eye(3) - np.mean(powers, axis=0))
    # Of C chains centring over chains shows 1 - 1/C.
    got = split(loss, centering=Centering.step).within / (1 - 1 / chains)
    assert np.linalg.norm(got - noise) < 0.15 * np.linalg.norm(noise)
    for other in (Centering.chain, Centering.pooled):
        assert np.trace(split(loss, centering=other).within) > 2 * np.trace(noise)


TARGETS = torch.tensor(
    [[1, 1, 0, 1, 0], [1, 1, 0, 0, 1], [1, 0, 1, 1, 0], [1, 0, 1, 0, 1]], dtype=torch.float64
)  # a tree of four items, five features


class DeepLinear(nn.Module):
    """W2 W1 on one-hot items, part of the way through training from small weights: a saddle."""

    def __init__(self):
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.w1 = nn.Parameter(0.3 * torch.randn(3, 4, generator=generator, dtype=torch.float64))
        self.w2 = nn.Parameter(0.3 * torch.randn(5, 3, generator=generator, dtype=torch.float64))
        optimizer = torch.optim.SGD(self.parameters(), lr=0.3)
        for _ in range(30):
            optimizer.zero_grad()
            feature_losses(self, (torch.eye(4, dtype=torch.float64), TARGETS)).mean().backward()
            optimizer.step()


def feature_losses(module, batch):
    """[item, feature]."""
    return (batch[0] @ module.w1.T @ module.w2.T - batch[1]) ** 2 / 2


def flat_losses(weights):
    """The same as a function of flat weights: [item * feature]."""
    return ((weights[:12].view(3, 4).T @ weights[12:].view(5, 3).T - TARGETS) ** 2 / 2).flatten()


def laplace(anchor, drift, nbeta, localization, *, at_mode):
    """Second-order covariance of the losses, g_i^T S g_j + tr(H_i S H_j S) / 2, by torch.func and dense algebra."""
    slope = grad(lambda w: flat_losses(w).mean())(anchor)
    tilt = slope if drift is Drift.tilted else torch.zeros_like(slope)

    def energy(w):
        return nbeta * (flat_losses(w).mean() - tilt @ (w - anchor)) + localization / 2 * (w - anchor).square().sum()

    w = anchor.clone()
    for _ in range(20 if at_mode else 0):
        w = w - torch.linalg.solve(hessian(energy)(w), grad(energy)(w))
    spread = torch.linalg.inv(hessian(energy)(w))
    gradients, curved = jacrev(flat_losses)(w), hessian(flat_losses)(w) @ spread
    return (gradients @ spread @ gradients.T + torch.einsum("iab,jba->ij", curved, curved) / 2).numpy()


@pytest.mark.slow
@pytest.mark.parametrize("drift", [Drift.plain, Drift.tilted])
def test_covariance_at_a_saddle_is_laplaces_at_the_localized_mode(drift):
    """Of the plain target the mode is off the training weights; of the tilted one it is there."""
    module = DeepLinear()
    anchor = torch.cat([value.detach().flatten() for value in module.parameters()])
    curvatures = torch.linalg.eigvalsh(hessian(lambda w: flat_losses(w).mean())(anchor))
    nbeta, localization = 2000.0, 800.0
    assert curvatures[0] < -0.1  # a saddle
    assert localization > 3 * nbeta * -curvatures[0]
    batch = (torch.eye(4, dtype=torch.float64), TARGETS)
    config = SGLDConfig(
        lr=7e-4,
        nbeta=nbeta,
        localization=localization,
        num_chains=4,
        num_draws=1500,
        num_burnin_steps=100,
        batch_size=4,
        drift=drift,
        seed=1,
    )
    trace = run_chains(module, feature_losses, observed=batch, sampling=batch, config=config)
    got = -token_bif(trace.loss).values.reshape(20, 20)

    def relative_error(at_mode):
        want = laplace(anchor, drift, nbeta, localization, at_mode=at_mode)
        return np.linalg.norm(got - want) / np.linalg.norm(want)

    assert relative_error(at_mode=True) < 0.1
    if drift is Drift.plain:
        assert relative_error(at_mode=False) > 0.13
