import numpy as np
import pytest
import torch
from torch import nn

from stagewise.errors import InputError
from stagewise.isolation import with_weights
from stagewise.losses.contract import evaluate
from stagewise.sampling import chains
from stagewise.sampling.chains import run_chains
from stagewise.sampling.config import Drift, SGLDConfig
from stagewise.sampling.engines.sequential import SequentialEngine
from stagewise.sampling.gradients import DriftGradient, anchor_gradients
from stagewise.sampling.streams import Minibatches, partition
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


def test_plain_and_control_variates_are_unbiased_and_tilted_omits_the_slope(off_minimum):
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
        # The observed set is recognised by its size: its three "losses" are the weights themselves.
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


def test_control_variates_remove_the_heat_of_small_minibatches():
    module = linear(X, Y)
    settings = {"batch_size": 2, "nbeta": 600, "localization": 60, "lr": 4e-4, "num_draws": 2000}
    precision = np.linalg.eigvalsh(600 * (X.T @ X / len(X)).numpy() + 60 * np.eye(3))
    without_noise = np.sum(1 / precision)
    heat = {drift: np.trace(mean_shift(module, drift, **settings)[1]) / without_noise for drift in ESTIMATORS}
    assert heat[Drift.plain] > heat[Drift.control_variate] + 0.15
    assert heat[Drift.control_variate] == pytest.approx(1.0, abs=0.2)


def kept_and_explicit(module, drift, size, weight_decay=0.0):
    """A partition's estimates at w* + .1, from kept gradients and by the formula; the kept ones, and the full slope."""
    config = SGLDConfig(lr=1e-3, localization=10.0, batch_size=size)
    choices = partition(config, 40)
    weights = FlatWeights(module)

    def body():
        engine = SequentialEngine(weights, lambda batch: evaluate(squared, module, batch), (X, Y), [(X, Y)])
        kept = anchor_gradients(engine, choices)
        slope = kept.mean(dim=0)
        how = {"slope": slope, "kept": kept, "weight_decay": weight_decay}
        estimate = DriftGradient(drift, engine, **how)
        engine.state.add_(0.1)
        engine.moved()
        got, want = [], []
        for number, rows in enumerate(choices):
            got.append(estimate(Minibatches(rows[None], torch.tensor([number])))[0])
            formula = engine.gradient(rows[None])[0] - engine.anchor_gradient(rows[None])[0]
            formula = formula + slope if drift is Drift.control_variate else formula
            if weight_decay:
                pull = engine.state[0] - (engine.anchor if drift is Drift.tilted else 0)
                formula = formula + weight_decay * pull
            want.append(formula)
        return torch.stack(got), torch.stack(want), kept, engine.slope(40)

    return with_weights(module, weights.leaves, body)


@pytest.mark.parametrize("drift", [Drift.control_variate, Drift.tilted])
@pytest.mark.parametrize("size", [1, 5, 7, 39])
def test_kept_gradients_give_the_explicit_formula_bit_for_bit(off_minimum, drift, size):
    got, want, kept, _ = kept_and_explicit(off_minimum, drift, size)
    assert torch.equal(got, want)
    assert len(kept) == -(-40 // size)


@pytest.mark.parametrize("drift", [Drift.control_variate, Drift.tilted])
def test_kept_gradients_include_weight_decay(off_minimum, drift):
    got, want, _, _ = kept_and_explicit(off_minimum, drift, 5, weight_decay=0.3)
    torch.testing.assert_close(got, want, rtol=1e-12, atol=1e-12)


def test_kept_gradients_average_to_the_full_gradient_if_minibatches_divide_the_set(off_minimum):
    _, _, kept, full = kept_and_explicit(off_minimum, Drift.control_variate, 5)
    torch.testing.assert_close(kept.mean(dim=0), full)
    # 40 samples in two minibatches of 20, for a size of 39.
    _, _, kept, full = kept_and_explicit(off_minimum, Drift.control_variate, 39)
    torch.testing.assert_close(kept.mean(dim=0), full)


def test_an_engine_of_many_chains_keeps_the_same_partition_gradients(off_minimum):
    """More minibatches than chains, and not a multiple of them."""
    choices = partition(SGLDConfig(lr=1e-3, localization=10.0, batch_size=6), 40)
    want = torch.stack([((X[rows] @ off_minimum.weight.T - Y[rows]) * X[rows]).mean(0) for rows in choices]).detach()

    class Many:
        """Engine of three chains, none of them at w*."""

        anchor = off_minimum.weight.detach()[0]
        state = torch.zeros(3, 3, dtype=torch.float64)

        def anchor_gradient(self, rows):
            assert rows.shape == (3, choices.shape[1])
            slopes = X[rows] @ self.anchor[:, None] - Y[rows]
            return (slopes * X[rows]).mean(1)

    torch.testing.assert_close(anchor_gradients(Many(), choices), want)


@pytest.mark.parametrize(
    ("drift", "engine"),
    [
        (Drift.control_variate, "sequential"),
        (Drift.tilted, "batched"),
        pytest.param(Drift.control_variate, "batched", marks=pytest.mark.slow),
        pytest.param(Drift.tilted, "sequential", marks=pytest.mark.slow),
    ],
)
def test_chains_have_the_same_law_with_and_without_kept_gradients(drift, engine, monkeypatch):
    """At the minimum, where control variates are cool: the heat of one partition is that of the others on average only.

    Where chains slide far from w* the covariance of one partition of eight may be off by a half.
    """
    module = linear(X, Y)
    settings = {"batch_size": 5, "num_draws": 1000, "num_chains": 8, "lr": 8e-3, "engine": engine}
    few = engine == "sequential"
    if few:
        settings |= {"num_draws": 300, "num_chains": 4}
    kept = mean_shift(module, drift, **settings)
    asked = []
    whole = SequentialEngine.anchor_gradient
    monkeypatch.setattr(SequentialEngine, "anchor_gradient", lambda self, rows: asked.append(1) or whole(self, rows))
    monkeypatch.setattr(chains, "KEPT_BYTES", 0)
    anew = mean_shift(module, drift, **settings)
    assert not few or len(asked) > 1200  # a second gradient at each step
    scale = np.sqrt(np.trace(kept[1]) / 3)
    # Thousands of draws, correlated over some steps where the posterior is flat.
    np.testing.assert_allclose(kept[0], anew[0], atol=(0.2 if few else 0.08) * scale)
    np.testing.assert_allclose(kept[1], anew[1], atol=(0.25 if few else 0.1) * scale**2)


def test_gradient_estimates_do_not_move_the_chain(off_minimum):
    weights = FlatWeights(off_minimum)
    weights.state.add_(0.5)
    before = weights.state.clone()
    with weights.at_anchor():
        assert torch.equal(weights.state, weights.anchor)
    assert torch.equal(weights.state, before)


def small(**changes):
    settings = {"lr": 1e-3, "nbeta": 10, "localization": 10, "num_chains": 2, "num_draws": 3, "batch_size": 5}
    return SGLDConfig(**{**settings, "num_burnin_steps": 0, "engine": "sequential", **changes})


def test_only_parameters_matched_by_a_pattern_move():
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 4), nn.Linear(4, 1)).double()
    seen = []

    def loss(module, batch):
        seen.append({name: value.detach().clone() for name, value in module.named_parameters()})
        return squared(module, batch)

    run_chains(module, loss, observed=(X, Y), sampling=(X, Y), config=small(parameters=["1.*", "*2.bias"]))
    moved = {name for name in seen[0] if not torch.equal(seen[0][name], seen[-1][name])}
    assert moved == {"1.weight", "1.bias", "2.bias"}


def test_pattern_without_a_match_is_refused():
    with pytest.raises(InputError, match=r"got parameters='nothing\*'.*; expected a pattern such as 'weight'"):
        run_chains(linear(X, Y), squared, observed=(X, Y), sampling=(X, Y), config=small(parameters=["nothing*"]))
    with pytest.raises(InputError, match="at least one pattern"):
        small(parameters=[])
