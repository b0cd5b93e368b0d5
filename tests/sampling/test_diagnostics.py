import numpy as np
import pytest
from arviz_stats.base import array_stats
from scipy.stats import ttest_1samp

from stagewise.influence.split import Centering, split
from stagewise.sampling.diagnostics import Diagnostics, _rhat, diagnose, label_shares, rhat_by_chance, slide_chance
from stagewise.sampling.trace import Trace


def trace_of(loss, anchor=None, **fields):
    loss = np.asarray(loss, dtype=np.float32)
    anchor = np.zeros(loss.shape[2], dtype=np.float32) if anchor is None else anchor
    return Trace(
        **{
            "loss": loss,
            "anchor_loss": anchor,
            "mask": np.ones(anchor.shape, dtype=bool),
            "distance": np.zeros(loss.shape[:2], dtype=np.float32),
            "chains": tuple(range(len(loss))),
            "dropped": {},
            "step": 0,
            **fields,
        }
    )


def noise(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape)


def autoregressive(num_chains, num_draws, phi):
    """Stationary chains of unit variance."""
    shocks = noise(num_chains, num_draws)
    chains = np.empty_like(shocks)
    chains[:, 0] = shocks[:, 0]
    for draw in range(1, num_draws):
        chains[:, draw] = phi * chains[:, draw - 1] + np.sqrt(1 - phi**2) * shocks[:, draw]
    return chains[:, :, None]


def test_independent_draws_look_converged():
    found = diagnose(trace_of(noise(4, 200, 3)))
    assert found.finite
    assert found.rhat_max < 1.05
    assert 500 < found.ess_min < 1000
    assert found.drift < 0.05
    assert found.chain_share < 0.01
    assert found.draw_share < 0.05


@pytest.mark.parametrize("shape", [(3, 5, 20), (2, 4, 9), (4, 30, 8), (4, 33, 8), (1, 9, 5)])
def test_statistics_equal_those_of_arviz_stats_curve_by_curve(shape):
    loss = np.cumsum(noise(*shape), axis=1)
    loss[..., 3] = np.round(loss[..., 3])  # with ties
    loss = loss.astype(np.float32)
    found = diagnose(trace_of(loss))
    axes = {"chain_axis": 0, "draw_axis": 1}
    rhat, ess = array_stats.rhat(loss.astype(float), **axes), array_stats.ess(loss.astype(float), **axes)
    np.testing.assert_equal(found.rhat_max, rhat.max())  # NaN with one chain
    assert found.ess_min == ess.min()


def test_chains_in_different_places_raise_rhat():
    assert diagnose(trace_of(noise(4, 100, 2) + 10 * np.arange(4)[:, None, None])).rhat_max > 2


def test_groups_may_have_converged_where_a_sample_has_not():
    loss = noise(4, 50, 3)
    loss[..., 2] += 10 * np.arange(4)[:, None]
    found = diagnose(trace_of(loss), group_losses=loss[..., :2])
    assert found.rhat_max > 2
    assert found.rhat_groups < 1.1
    assert found.rhat_groups == pytest.approx(array_stats.rhat(loss[..., :2], chain_axis=0, draw_axis=1).max())
    assert found.ess_groups == pytest.approx(array_stats.ess(loss[..., :2], chain_axis=0, draw_axis=1).min())


def test_without_groups_the_mean_loss_is_the_group():
    loss = noise(3, 40, 5)
    mean = loss.astype(np.float32).mean(axis=2, dtype=np.float64)
    assert diagnose(trace_of(loss)).ess_groups == pytest.approx(float(array_stats.ess(mean, chain_axis=0, draw_axis=1)))


def test_error_of_the_mean_equals_that_of_an_autoregressive_process():
    """Var(mean) = sd^2 (1 + phi) / (1 - phi) / draws for phi^lag autocorrelations."""
    phi, draws = 0.8, 4 * 4000
    found = diagnose(trace_of(autoregressive(4, 4000, phi)))
    assert found.mcse_mean == pytest.approx(np.sqrt((1 + phi) / (1 - phi) / draws), rel=0.1)
    assert found.mcse_max == pytest.approx(found.mcse_mean, rel=1e-3)


def test_mcse_max_is_that_of_the_slowest_sample():
    loss = np.concatenate([noise(4, 1000, 1), autoregressive(4, 1000, 0.9)], axis=2)
    found = diagnose(trace_of(loss))
    assert found.mcse_max == pytest.approx(np.sqrt(19 / 4000), rel=0.2)
    assert found.mcse_mean < 0.8 * found.mcse_max


def test_a_slide_raises_the_drift_share_and_the_draw_share():
    slide = noise(2, 100, 2) * 0.1 + np.linspace(0, 1, 100)[None, :, None]
    found = diagnose(trace_of(slide))
    assert found.drift > 0.6
    assert found.draw_share > 0.8
    assert found.chain_share < 0.01


def test_drift_share_of_a_ramp_is_three_quarters():
    ramp = np.broadcast_to(np.linspace(0, 1, 1000)[None, :, None], (1, 1000, 1))
    assert diagnose(trace_of(ramp)).drift == pytest.approx(0.75, abs=0.01)


def test_label_shares_are_the_split_by_labels_less_the_share_of_independent_draws():
    """The drift part of the split is the covariance of the means over chains, or over draw indices."""
    loss = noise(3, 8, 4) + noise(3, 1, 4, seed=1) + noise(1, 8, 4, seed=2)
    by_chain, by_draw = (split(loss, centering=labels) for labels in (Centering.chain, Centering.step))
    total = np.trace(by_chain.total)
    rest = total - np.trace(by_chain.drift) - np.trace(by_draw.drift)
    chain_share, draw_share = label_shares(loss)
    assert chain_share == pytest.approx((np.trace(by_chain.drift) - rest / 7) / total)
    assert draw_share == pytest.approx((np.trace(by_draw.drift) - rest / 2) / total)


@pytest.mark.parametrize("num_chains", [2, 3, 8])
def test_label_shares_are_those_of_planted_components(num_chains):
    """Many samples with independent components in the ratio chain : draw : rest = 2 : 1 : 1."""
    samples = 20_000
    loss = (
        np.sqrt(2) * noise(num_chains, 1, samples)
        + noise(1, 6, samples, seed=1)
        + noise(num_chains, 6, samples, seed=2)
    )
    chain_share, draw_share = label_shares(loss)
    # Means over chains and over draws take 1 / num_chains and 1 / 6 of the variance.
    seen = np.array([2 * (1 - 1 / num_chains), 1 - 1 / 6, 1 - 1 / (6 * num_chains)])
    np.testing.assert_allclose([chain_share, draw_share], seen[:2] / seen.sum(), rtol=0.03)


def test_label_shares_need_two_chains():
    found = diagnose(trace_of(noise(1, 50, 2)))
    assert found.chain_share is None
    assert found.draw_share is None
    assert label_shares(np.ones((2, 5, 3))) == (0.0, 0.0)


def test_loss_rise_compares_second_halves_with_the_anchor():
    loss = np.concatenate([np.full((2, 5, 3), 9.0), np.full((2, 5, 3), 2.5)], axis=1)
    assert diagnose(trace_of(loss, np.full(3, 2.0, dtype=np.float32))).loss_rise == pytest.approx(0.5)


def test_distance_is_taken_at_the_last_draw():
    distance = np.array([[1.0, 3.0], [2.0, 5.0]], dtype=np.float32)
    assert diagnose(trace_of(noise(2, 2, 3), distance=distance)).distance == 4.0


def test_gradient_is_compared_with_eps_for_rmsprop_only():
    trace = trace_of(noise(2, 5, 3), gradient_rms=np.array([0.03, 0.04]), minibatch_noise=0.25)
    assert diagnose(trace, rmsprop_eps=0.1).gradient_over_eps == pytest.approx(np.sqrt(0.00125) / 0.1)
    assert diagnose(trace).gradient_over_eps is None
    assert diagnose(trace_of(noise(2, 5, 3)), rmsprop_eps=0.1).gradient_over_eps is None
    assert diagnose(trace).minibatch_noise == 0.25


def test_statistics_are_none_with_too_few_draws():
    found = diagnose(trace_of(noise(2, 3, 2)))
    for name in ("rhat_max", "ess_min", "rhat_groups", "ess_groups", "mcse_mean", "mcse_max"):
        assert getattr(found, name) is None


def test_a_constant_loss_is_ignored():
    loss = noise(2, 50, 2)
    loss[..., 1] = 0
    found = diagnose(trace_of(loss))
    assert np.isfinite(found.rhat_max)
    assert np.isfinite(found.mcse_max)


def test_token_losses_are_summed_over_samples():
    tokens = noise(3, 30, 4, 5).astype(np.float32)
    trace = trace_of(tokens, np.zeros((4, 5), dtype=np.float32))
    summed = trace_of(tokens.astype(np.float64).sum(axis=3))
    assert diagnose(trace).ess_min == pytest.approx(diagnose(summed).ess_min)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_losses_that_are_not_finite_give_no_diagnostics(bad):
    loss = noise(2, 10, 3)
    loss[1, 4, 2] = bad
    assert diagnose(trace_of(loss)) == Diagnostics(finite=False)
    assert not diagnose(trace_of(noise(2, 10, 3), distance=np.full((2, 10), bad, dtype=np.float32))).finite


@pytest.mark.parametrize("correlation", [0.0, pytest.param(0.2, marks=pytest.mark.slow), 0.4])
@pytest.mark.parametrize(
    ("num_chains", "num_draws", "num_curves"),
    [(8, 12, 3), (4, 20, 1), *(pytest.param(*item, marks=pytest.mark.slow) for item in ((2, 40, 5), (8, 10, 8)))],
)
def test_rhat_in_equilibrium_exceeds_its_limit_in_about_one_of_a_hundred_probes(
    num_chains, num_draws, num_curves, correlation
):
    draws = np.random.default_rng(0).standard_normal((num_chains, num_draws, num_curves * 600))
    for draw in range(1, num_draws):
        draws[:, draw] = correlation * draws[:, draw - 1] + np.sqrt(1 - correlation**2) * draws[:, draw]
    rhat = _rhat(draws, chain_axis=0, draw_axis=1).reshape(600, num_curves).max(axis=1)
    exceeded = float((rhat > rhat_by_chance(num_chains, num_draws, num_curves, correlation=correlation)).mean())
    # Bonferroni and Fisher's F for correlated draws are conservative.
    if correlation == 0 and num_curves < 8:
        assert exceeded >= 0.001
    assert exceeded <= 0.025
    assert float((rhat > 0.97 * rhat_by_chance(num_chains, num_draws, num_curves, correlation=correlation)).mean()) > 0


def chains_of(num_chains, num_draws, num_curves, phi, rng):
    """Stationary AR(1) chains of unit variance, the curves of a chain correlated."""
    shocks = rng.normal(size=(num_chains, num_draws, num_curves)) + rng.normal(size=(num_chains, num_draws, 1))
    shocks /= np.sqrt(2)
    chains = shocks.copy()
    for draw in range(1, num_draws):
        chains[:, draw] = phi * chains[:, draw - 1] + np.sqrt(1 - phi**2) * shocks[:, draw]
    return chains


def test_slide_chance_equals_a_t_test_of_halves_over_chains():
    curves = noise(5, 7, 3, seed=4)
    curves[:, :, 2] += np.linspace(0, 2, 7)
    # Of seven draws the middle one belongs to neither half.
    moved = curves[:, 4:].mean(axis=1) - curves[:, :3].mean(axis=1)
    want = 3 * ttest_1samp(moved, 0.0, axis=0).pvalue.min()
    assert slide_chance(curves) == pytest.approx(want)
    # A constant loss does not count in the Bonferroni correction.
    still = np.concatenate([curves, np.full((5, 7, 1), 2.5)], axis=2)
    assert slide_chance(still) == pytest.approx(want)


@pytest.mark.parametrize(("num_chains", "num_draws", "phi"), [(4, 12, 0.0), (8, 16, 0.3), (3, 4, 0.9), (8, 2, 0.5)])
def test_chains_in_equilibrium_rarely_seem_to_slide_for_any_number_and_correlation_of_draws(num_chains, num_draws, phi):
    rng = np.random.default_rng(1)
    found = [slide_chance(chains_of(num_chains, num_draws, 3, phi, rng)) for _ in range(2000)]
    for level in (0.01, 0.1):
        # Three standard errors of a share over 2,000 repetitions.
        assert np.mean(np.array(found) < level) <= level + 3 * np.sqrt(level / 2000)


def test_a_slide_of_one_standard_deviation_is_detected_with_few_draws():
    rng = np.random.default_rng(2)
    slide = np.exp(-np.arange(12) / 4)[None, :, None] * 2.0
    found = [slide_chance(chains_of(8, 12, 3, 0.0, rng) + slide) for _ in range(200)]
    assert np.mean(np.array(found) < 0.01) > 0.8


def test_slide_chance_needs_two_chains_and_two_draws_and_is_zero_for_a_certain_slide():
    assert slide_chance(noise(1, 20, 2)) is None
    assert slide_chance(noise(4, 1, 2)) is None
    assert slide_chance(np.ones((3, 6, 2))) == 1.0
    assert slide_chance(np.broadcast_to(np.arange(6.0)[None, :, None], (3, 6, 1))) == 0.0
    assert diagnose(trace_of(noise(3, 20, 4))).slide_chance > 0.01
