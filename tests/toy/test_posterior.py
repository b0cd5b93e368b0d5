"""Against dense matrices, and against long chains of the package's own sampler."""

import numpy as np
import pytest
import torch
from torch import nn

from stagewise.errors import InputError
from stagewise.sampling.chains import ChainSampler
from stagewise.sampling.config import SGLDConfig
from stagewise.sampling.target import Target
from stagewise.toy.curvature import lowest_curvature, mean_hessian, precision_at
from stagewise.toy.descent import Weights, item_losses, trajectory
from stagewise.toy.initialisation import gaussian_weights
from stagewise.toy.posterior import local_gaussian
from tests.toy.test_curvature import covariance_by_inverse, dense, flat
from tests.toy.trees import balanced

TARGETS = torch.tensor(balanced(2, 2).features.T.copy())  # 7 properties, 4 items


def generator(seed=100):
    return torch.Generator().manual_seed(seed)


def trained(num_steps):
    """A start of 5 hidden units, so many steps on: 30, 60 and 110 are saddles, 260 is nearly learned."""
    start = gaussian_weights(4, 7, hidden=5, std=0.05, generator=generator())
    run = trajectory(start, TARGETS, lr=0.05, num_steps=num_steps)
    return Weights(run.first[-1], run.second[-1])


def relative(got, want):
    return np.linalg.norm(got - want) / np.linalg.norm(want)


@pytest.mark.parametrize(("num_steps", "nbeta"), [(0, 100.0), (30, 1000.0), (110, 100.0), (260, 300.0)])
def test_the_gaussian_is_that_of_dense_newton_and_the_plain_inverse(num_steps, nbeta):
    weights = trained(num_steps)
    localization = -2 * nbeta * lowest_curvature(weights, TARGETS)
    gaussian = local_gaussian(weights, TARGETS, nbeta=nbeta, localization=localization)

    vector, anchor, shape = flat(weights), flat(weights), weights.first.shape
    cut, eye = weights.first.numel(), torch.eye(flat(weights).numel(), dtype=torch.float64)
    for _ in range(40):
        here = Weights(vector[:cut].view(shape), vector[cut:].view(-1, shape[0]))
        gradients, hessians = dense(here, TARGETS)
        slope = nbeta * gradients.mean(dim=0) + localization * (vector - anchor)
        vector = vector - torch.linalg.solve(nbeta * hessians.mean(dim=0) + localization * eye, slope)
    assert float(slope.norm()) < 1e-10
    torch.testing.assert_close(flat(gaussian.mode), vector, rtol=1e-10, atol=1e-12)

    first, second, spread = (item.numpy() for item in covariance_by_inverse(here, nbeta, localization, TARGETS))
    np.testing.assert_allclose(gaussian.first_order, first, rtol=1e-8, atol=1e-14)
    np.testing.assert_allclose(gaussian.covariance, first + second / 2, rtol=1e-8, atol=1e-14)
    np.testing.assert_allclose(gaussian.mean_losses, item_losses(here, TARGETS).numpy() + spread / 2, rtol=1e-9)
    lowest = torch.linalg.eigvalsh(dense(here, TARGETS)[1].mean(dim=0))[0]
    assert gaussian.lowest_curvature == pytest.approx(float(lowest), abs=1e-12)


class DeepLinear(nn.Module):
    def __init__(self, weights):
        super().__init__()
        self.first = nn.Parameter(weights.first.clone())
        self.second = nn.Parameter(weights.second.clone())

    def forward(self, items):
        return items @ self.first.T @ self.second.T


def squared(module, batch):
    return (module(batch[0]) - batch[1]).square().sum(dim=1) / 2


def sampled(weights, *, nbeta, localization):
    """[draw, item]: losses along 128 chains, steps a tenth of what the stiffest direction allows."""
    mode = local_gaussian(weights, TARGETS, nbeta=nbeta, localization=localization).mode
    stiffest = nbeta * float(torch.linalg.eigvalsh(mean_hessian(mode, TARGETS))[-1]) + localization
    config = SGLDConfig(
        lr=0.1 / stiffest,
        nbeta=nbeta,
        localization=localization,
        num_chains=128,
        num_draws=300,
        num_burnin_steps=300,
        num_steps_bw_draws=4,
        batch_size=4,
        seed=1,
        engine="batched",
    )
    batch = torch.eye(4, dtype=torch.float64), TARGETS.T.contiguous()
    trace = ChainSampler(DeepLinear(weights), Target(squared, batch), config).run()
    assert len(trace.loss) == 128
    return trace.loss.astype(np.float64).reshape(-1, 4)


@pytest.mark.slow
@pytest.mark.parametrize(("num_steps", "nbeta", "strength"), [(60, 1000.0, 1.5), (110, 1000.0, 1.5), (260, 300.0, 3.0)])
def test_chains_have_this_mean_and_covariance(num_steps, nbeta, strength):
    weights = trained(num_steps)
    localization = -strength * nbeta * lowest_curvature(weights, TARGETS)
    losses = sampled(weights, nbeta=nbeta, localization=localization)
    gaussian = local_gaussian(weights, TARGETS, nbeta=nbeta, localization=localization)
    covariance = np.cov(losses.T)
    assert relative(gaussian.covariance, covariance) < 0.1
    np.testing.assert_allclose(gaussian.mean_losses, losses.mean(axis=0), rtol=0.06)
    if num_steps == 260:  # gradients have nearly gone: curvature makes the losses go together
        assert relative(gaussian.first_order, covariance) > 0.5
        return
    # Expanded at the training weights, which slope, it is another matrix.
    first, second, _ = precision_at(weights, TARGETS, nbeta, localization).loss_covariance()
    assert relative((first + second / 2).numpy(), covariance) > 0.2


def test_rotating_the_hidden_units_changes_nothing():
    weights = trained(60)
    turn = torch.linalg.qr(torch.randn(5, 5, generator=generator(), dtype=torch.float64)).Q
    turned = Weights(turn @ weights.first, weights.second @ turn.T)
    one, two = (local_gaussian(item, TARGETS, nbeta=100.0, localization=90.0) for item in (weights, turned))
    np.testing.assert_allclose(one.covariance, two.covariance, rtol=1e-9)
    torch.testing.assert_close(turn @ one.mode.first, two.mode.first)


def test_strong_localization_leaves_the_gradient_dot_product():
    weights = trained(60)
    gaussian = local_gaussian(weights, TARGETS, nbeta=10.0, localization=1e7)
    gradients = dense(weights, TARGETS)[0]
    np.testing.assert_allclose(gaussian.covariance * 1e7, gradients @ gradients.T, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(gaussian.mode.first, weights.first, rtol=0, atol=1e-5)


def test_without_the_loss_only_the_localization_is_left():
    weights = trained(60)
    gaussian = local_gaussian(weights, TARGETS, nbeta=0.0, localization=50.0)
    assert all(torch.equal(a, b) for a, b in zip(gaussian.mode, weights, strict=True))
    gradients = dense(weights, TARGETS)[0]
    np.testing.assert_allclose(gaussian.first_order, gradients @ gradients.T / 50, rtol=1e-10, atol=1e-14)


def test_weights_stay_as_they_were_and_single_precision_is_raised():
    weights = trained(60)
    single = Weights(*(part.float().requires_grad_() for part in weights))
    before = flat(single).detach().clone()
    gaussian = local_gaussian(single, TARGETS.float(), nbeta=100.0, localization=90.0)
    assert torch.equal(flat(single), before)
    assert gaussian.mode.first.dtype == torch.float64
    exact = local_gaussian(weights, TARGETS, nbeta=100.0, localization=90.0)
    np.testing.assert_allclose(gaussian.covariance, exact.covariance, rtol=1e-4)


def test_a_localization_that_leaves_a_saddle_is_refused_with_the_number_it_must_exceed():
    weights = trained(30)
    needed = -100 * lowest_curvature(weights, TARGETS)
    local_gaussian(weights, TARGETS, nbeta=100.0, localization=1.01 * needed)
    with pytest.raises(InputError) as refused:
        local_gaussian(weights, TARGETS, nbeta=100.0, localization=0.99 * needed)
    for words in (
        f"got localization={0.99 * needed:g}",
        f"more than nbeta times the most negative curvature = {needed:.4g}",
        "at the training weights",
    ):
        assert words in str(refused.value)


def scalar(first, second):
    """One item, one hidden unit, one property."""
    return Weights(*(torch.tensor([[value]], dtype=torch.float64) for value in (first, second)))


def test_a_saddle_met_on_the_way_is_refused_too():
    with pytest.raises(InputError, match=r"expected more than .* on the way"):
        local_gaussian(scalar(-1.122, -3.69), torch.tensor([[12.044]]), nbeta=1.0, localization=2.518)


def test_a_newton_step_that_goes_uphill_is_shortened():
    anchor, target, localization = scalar(3.6406, -1.1693), torch.tensor([[-11.8319]], dtype=torch.float64), 2.50123

    def energy(vector):
        distance = (vector - flat(anchor)).square().sum()
        return (vector[0] * vector[1] - target[0, 0]).square() / 2 + localization / 2 * distance

    slope, hessian = torch.func.grad(energy), torch.func.hessian(energy)
    step = torch.linalg.solve(hessian(flat(anchor)), slope(flat(anchor)))
    assert energy(flat(anchor) - step) > energy(flat(anchor))
    mode = flat(local_gaussian(anchor, target, nbeta=1.0, localization=localization).mode)
    assert float(slope(mode).norm()) < 1e-12
    assert (torch.linalg.eigvalsh(hessian(mode)) > 0).all()
    assert energy(mode) < energy(flat(anchor))


def test_bad_settings_and_shapes_are_refused():
    weights = trained(0)
    for nbeta in (-1.0, float("nan"), float("inf")):
        with pytest.raises(InputError, match="nbeta"):
            local_gaussian(weights, TARGETS, nbeta=nbeta, localization=10.0)
    for localization in (0.0, -1.0, float("nan"), float("inf")):
        with pytest.raises(InputError, match="localization"):
            local_gaussian(weights, TARGETS, nbeta=1.0, localization=localization)
    for targets in (TARGETS.T, TARGETS[:-1], TARGETS[0]):
        with pytest.raises(InputError, match="shapes"):
            local_gaussian(weights, targets, nbeta=1.0, localization=10.0)
    with pytest.raises(InputError, match="shapes"):
        local_gaussian(weights.repeat(2), TARGETS, nbeta=1.0, localization=10.0)
    with pytest.raises(InputError, match="finite"):
        local_gaussian(Weights(weights.first * torch.nan, weights.second), TARGETS, nbeta=1.0, localization=10.0)
