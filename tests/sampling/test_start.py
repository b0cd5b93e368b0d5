"""Starting points and burn-in of chains, before which nothing is recorded."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from stagewise.errors import InputError
from stagewise.sampling.chains import ChainSampler, run_chains
from stagewise.sampling.config import Integrator, SGLDConfig, Start
from stagewise.sampling.preconditioners.diagonal import AdamMoments, RMSprop
from stagewise.sampling.preconditioners.ekfac import EKFAC
from stagewise.sampling.target import Target
from tests.sampling.test_chains import linear, regression, squared

WIDE = (torch.zeros(4, 2000), torch.zeros(4, 1))


def squared_distance(**changes):
    """Of chains without loss in 2,000 weights, over the exact 2,000 / localization, by draw."""
    settings = {"nbeta": 0.0, "localization": 10.0, "num_chains": 10, "num_draws": 4, "num_burnin_steps": 0}
    config = SGLDConfig(**{**settings, "engine": "sequential", "drift": "plain", **changes})
    trace = run_chains(nn.Linear(2000, 1, bias=False), squared, observed=WIDE, sampling=WIDE, config=config)
    return (trace.distance.astype(np.float64) ** 2).mean(axis=0) * 10 / 2000


@pytest.mark.parametrize("reach", [0.05, 0.8, 2.5, 3.5])
@pytest.mark.parametrize("preconditioner", [None, AdamMoments()])
def test_chains_without_loss_have_the_right_variance_from_the_first_draw_on(reach, preconditioner):
    """Without moments Adam's P is one, but the start does not know: only a burn-in makes its first draws exact."""
    steps = 0 if preconditioner is None else 40
    found = squared_distance(lr=reach / 10, preconditioner=preconditioner, num_burnin_steps=steps)
    # 20,000 numbers: a spread of 1 %.
    np.testing.assert_allclose(found, 1, atol=0.04)


@pytest.mark.parametrize("reach", [0.3, 1.0])
def test_euler_chains_relax_from_the_gaussian_to_their_wider_law(reach):
    found = squared_distance(lr=reach / 10, integrator="euler", num_draws=60)
    a = 1 - reach / 2
    want = [a ** (2 * n) + (1 - a ** (2 * n)) / (1 - reach / 4) for n in range(1, 61)]
    np.testing.assert_allclose(found, want, atol=0.05)


@pytest.mark.parametrize("integrator", Integrator)
def test_anchor_is_the_training_weights(integrator):
    """After one step without loss the variance is that of its noise: lr, half of it for two noises averaged."""
    found = squared_distance(lr=0.08, start="anchor", integrator=integrator, num_draws=2)
    assert found[0] == pytest.approx(0.8 / (1 if integrator is Integrator.euler else 2), abs=0.03)
    nearly = squared_distance(lr=1e-9, start="anchor", integrator=integrator, num_draws=2)
    assert nearly.max() < 1e-7


def readable(module, batch):
    """Loss whose values on the observed set, recognised by its size of four, are the weights."""
    return module.weight[0] + 0 * batch[0][:, 0] if len(batch[0]) == 4 else squared(module, batch)


def test_a_curvature_preconditioner_starts_in_its_own_gaussian_and_is_exact_from_the_first_draw_on():
    """Linear regression: EK-FAC is exact, P is the covariance of the posterior."""
    pytest.importorskip("curvlinops")
    generator = torch.Generator().manual_seed(2)
    x = torch.randn(20, 4, generator=generator, dtype=torch.float64) * torch.tensor([4.0, 1.0, 1.0, 0.3])
    y = torch.randn(20, 1, generator=generator, dtype=torch.float64)
    module = linear(x, y)
    covariance = torch.linalg.inv(70 * x.T @ x / 20 + 3 * torch.eye(4, dtype=torch.float64)).numpy()
    for lr in (1e-9, 1.5):
        config = SGLDConfig(
            lr=lr, nbeta=70, localization=3, num_chains=3000, num_draws=2, num_burnin_steps=0, batch_size=20,
            preconditioner=EKFAC(loss="mse"), engine="batched",
        )  # fmt: skip
        trace = run_chains(module, readable, observed=(x[:4], y[:4]), sampling=(x, y), config=config)
        scale = np.sqrt(np.diag(covariance))
        for draw in range(2):
            found = np.cov(trace.loss[:, draw].astype(np.float64).T) / scale / scale[:, None]
            # 3,000 chains: a spread of 2.6 % on the diagonal.
            np.testing.assert_allclose(found, covariance / scale / scale[:, None], atol=0.1)


def test_steep_directions_relax_from_the_localizing_gaussian_into_the_posterior():
    x, y = regression(num=40)
    module = linear(x, y)
    hessian = (x.T @ x / 40).numpy()
    precision = 60 * hessian + 30 * np.eye(3)
    lr = 2.0 / np.linalg.eigvalsh(precision)[-1]
    config = SGLDConfig(lr=lr, nbeta=60, localization=30, num_chains=2000, num_draws=2, batch_size=40, engine="batched")
    assert config.burnin_steps > 0
    trace = run_chains(module, readable_three, observed=(x[:3], y[:3]), sampling=(x, y), config=config)
    found = np.cov(trace.loss[:, 0].astype(np.float64).T)
    np.testing.assert_allclose(found @ precision, np.eye(3), atol=0.13)


def readable_three(module, batch):
    return module.weight[0] + 0 * batch[0][:, 0] if len(batch[0]) == 3 else squared(module, batch)


def test_zero_localization_is_refused_with_a_gaussian_start():
    with pytest.raises(
        InputError, match=r"got localization=0; expected localization > 0 with start 'gaussian'.*anchor"
    ):
        SGLDConfig(lr=1e-3, localization=0)
    assert SGLDConfig(lr=1e-3, localization=0, start="anchor").start is Start.anchor


@pytest.mark.parametrize(
    ("settings", "steps"),
    [
        # The fewest n with |1 - lr localization / 2|^n <= .1.
        ({"lr": 0.08, "localization": 10.0}, 5),
        ({"lr": 0.2, "localization": 10.0}, 1),
        ({"lr": 0.3, "localization": 10.0}, 4),
        ({"lr": 1e-2, "localization": 10.0}, 45),
        ({"lr": 1e-6, "localization": 10.0}, 500),
        ({"lr": 1e-2, "localization": 0.0, "start": "anchor"}, 0),
        ({"lr": 0.08, "localization": 10.0, "num_burnin_steps": 3}, 3),
        ({"lr": 0.08, "localization": 10.0, "num_burnin_steps": 0}, 0),
        ({}, 5),
        ({"lr": 0.08}, 5),
        ({"lr": 1e-3, "localization": 10.0, "preconditioner": RMSprop()}, 100),
        ({"preconditioner": RMSprop()}, 100),
        ({"lr": 0.5, "localization": 1e5, "preconditioner": EKFAC()}, 9),
        ({"lr": 0.08, "localization": 10.0, "preconditioner": AdamMoments()}, 5),
    ],
)
def test_burnin_follows_from_the_step_size_unless_given(settings, steps):
    config = SGLDConfig(**settings)
    assert config.burnin_steps == steps
    assert config.num_steps == steps + config.num_draws
    reach = settings.get("lr", 0) * settings.get("localization", 0)
    if config.preconditioner is None and reach > 0 and steps < 500 and config.num_burnin_steps == "auto":
        assert abs(1 - reach / 2) ** steps <= 0.1
        assert steps == 1 or abs(1 - reach / 2) ** (steps - 1) > 0.1


def test_nothing_is_recorded_in_the_burnin():
    """The draws are the last ones of a chain that records every step."""
    x, y = regression(num=12)
    module = linear(x, y)
    settings = {"lr": 2e-2, "nbeta": 20, "localization": 10, "num_chains": 2, "batch_size": 5, "engine": "sequential"}

    def run(**changes):
        seen = []
        config = SGLDConfig(**settings, **changes)
        sampler = ChainSampler(module, Target(squared, (x, y)), config)
        trace = sampler.run(on_draw=lambda number, losses: seen.append(number))
        return config, trace, seen

    config, settled, seen = run(num_draws=4)
    assert config.burnin_steps == math.ceil(math.log(0.1) / math.log(0.9)) == 22
    assert seen == [0] * 4 + [1] * 4
    _, every, _ = run(num_draws=26, num_burnin_steps=0)
    np.testing.assert_array_equal(settled.loss, every.loss[:, 22:])
    _, thinned, _ = run(num_draws=4, num_burnin_steps=6, num_steps_bw_draws=5)
    np.testing.assert_array_equal(thinned.loss, every.loss[:, 10::5])
