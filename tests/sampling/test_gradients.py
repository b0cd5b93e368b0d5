import numpy as np
import pytest
import torch
from torch import nn

from stagewise.errors import InputError
from stagewise.isolation import with_weights
from stagewise.losses import evaluate
from stagewise.sampling.chains import run_chains
from stagewise.sampling.config import Drift, SGLDConfig
from stagewise.sampling.gradients import DriftGradient
from stagewise.sampling.sequential import SequentialEngine
from stagewise.sampling.streams import Minibatches
from stagewise.sampling.weights import FlatWeights
from tests.sampling.test_chains import linear, regression, squared

X, Y = regression(num=40)


def estimates(drift, module, rows):
    """Gradients at w* + 0.1 from each of the minibatches, and the exact one."""
    weights = FlatWeights(module)

    def body():
        engine = SequentialEngine(weights, lambda batch: evaluate(squared, module, batch), (X, Y), [(X, Y)])
        estimate = DriftGradient(drift, engine, slope=engine.slope(7))
        engine.state.add_(0.1)
        engine.moved()
        found = torch.stack([estimate(Minibatches(batch[None]))[0] for batch in rows])
        torch.testing.assert_close(estimate(Minibatches(None))[0], found.mean(0))
        return found, engine.gradient(None)[0]

    return with_weights(module, weights.leaves, body)


@pytest.fixture
def off_minimum():
    module = nn.Linear(3, 1, bias=False).double()
    module.weight.data = torch.tensor([[0.0, 0.5, -1.0]], dtype=torch.float64)
    return module


def full_gradient(weight):
    return ((X @ weight.T - Y) * X).mean(0)


ESTIMATORS = [Drift.plain, Drift.control_variate, Drift.tilted]
ROWS = torch.arange(40).view(8, 5)  # disjoint minibatches of equal size: their mean is the whole set


def test_plain_and_control_variates_are_unbiased_and_tilted_leaves_out_the_slope(off_minimum):
    for drift in (Drift.plain, Drift.control_variate):
        found, exact = estimates(drift, off_minimum, ROWS)
        torch.testing.assert_close(found.mean(0), exact)
    found, exact = estimates(Drift.tilted, off_minimum, ROWS)
    torch.testing.assert_close(found.mean(0), exact - full_gradient(off_minimum.weight.detach()))


def test_control_variates_have_less_minibatch_noise_near_the_anchor(off_minimum):
    noise = {drift: estimates(drift, off_minimum, ROWS)[0].std(0).norm() for drift in ESTIMATORS}
    assert noise[Drift.control_variate] < 0.3 * noise[Drift.plain]
    torch.testing.assert_close(noise[Drift.control_variate], noise[Drift.tilted])


def mean_shift(module, drift, **changes):
    """Mean of the chain's weights minus w*, read from a loss that returns the weights."""
    settings = {"lr": 2e-3, "nbeta": 60, "localization": 60, "num_chains": 4, "num_draws": 1500, "batch_size": 40}
    config = SGLDConfig(**{**settings, "num_burnin_steps": 60, "drift": drift, **changes})

    def loss(module, batch):
        # The observed set is told apart by its size: its three "losses" are the weights themselves.
        return module.weight[0] + 0 * batch[0][:, 0] if len(batch[0]) == 3 else squared(module, batch)

    trace = run_chains(module, loss, observed=(X[:3], Y[:3]), sampling=(X, Y), config=config)
    draws = trace.loss.astype(np.float64).reshape(-1, 3)
    return draws.mean(0) - module.weight.detach()[0].numpy(), np.cov(draws.T)


def test_tilting_removes_the_drift_that_plain_chains_show_off_a_minimum(off_minimum):
    hessian = (X.T @ X / len(X)).numpy()
    precision = 60 * hessian + 60 * np.eye(3)
    slide = -np.linalg.solve(precision, 60 * full_gradient(off_minimum.weight.detach()).numpy())
    plain, _ = mean_shift(off_minimum, Drift.plain)
    tilted, covariance = mean_shift(off_minimum, Drift.tilted)
    np.testing.assert_allclose(plain, slide, atol=0.02)
    assert np.abs(slide).max() > 0.3
    np.testing.assert_allclose(tilted, 0, atol=0.02)
    # The fluctuation is the same: the target differs by its slope alone.
    assert np.trace(covariance) == pytest.approx(np.trace(np.linalg.inv(precision)), rel=0.15)


def test_control_variates_take_out_the_heat_of_small_minibatches():
    module = linear(X, Y)
    settings = {"batch_size": 2, "nbeta": 600, "localization": 60, "lr": 4e-4, "num_draws": 2000}
    precision = np.linalg.eigvalsh(600 * (X.T @ X / len(X)).numpy() + 60 * np.eye(3))
    without_noise = np.sum(1 / precision)
    heat = {drift: np.trace(mean_shift(module, drift, **settings)[1]) / without_noise for drift in ESTIMATORS}
    assert heat[Drift.plain] > heat[Drift.control_variate] + 0.15
    assert heat[Drift.control_variate] == pytest.approx(1.0, abs=0.2)


def test_estimates_leave_the_chain_where_it_is(off_minimum):
    weights = FlatWeights(off_minimum)
    weights.state.add_(0.5)
    before = weights.state.clone()
    with weights.at_anchor():
        assert torch.equal(weights.state, weights.anchor)
    assert torch.equal(weights.state, before)


def small(**changes):
    settings = {"lr": 1e-3, "nbeta": 10, "localization": 10, "num_chains": 2, "num_draws": 3, "batch_size": 5}
    return SGLDConfig(**{**settings, "num_burnin_steps": 0, "engine": "sequential", **changes})


def test_only_parameters_that_a_pattern_matches_move():
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 4), nn.Linear(4, 1)).double()
    seen = []

    def loss(module, batch):
        seen.append({name: value.detach().clone() for name, value in module.named_parameters()})
        return squared(module, batch)

    run_chains(module, loss, observed=(X, Y), sampling=(X, Y), config=small(parameters=["1.*", "*2.bias"]))
    moved = {name for name in seen[0] if not torch.equal(seen[0][name], seen[-1][name])}
    assert moved == {"1.weight", "1.bias", "2.bias"}


def test_pattern_that_matches_nothing_is_refused():
    with pytest.raises(InputError, match=r"got parameters='nothing\*'.*; expected a pattern such as 'weight'"):
        run_chains(linear(X, Y), squared, observed=(X, Y), sampling=(X, Y), config=small(parameters=["nothing*"]))
    with pytest.raises(InputError, match="at least one pattern"):
        small(parameters=[])
