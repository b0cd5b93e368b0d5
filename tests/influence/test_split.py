import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stagewise.influence.split import PARTS, Centering, split


def draws(chains, num, features, seed=0, shift=0.0):
    generator = np.random.default_rng(seed)
    chain_effect = generator.normal(size=(chains, 1, features))
    slide = np.linspace(0, 1, num)[None, :, None] * generator.normal(size=features)
    return generator.normal(size=(chains, num, features)) + chain_effect + slide + shift


@settings(max_examples=40, deadline=None)
@given(
    st.sampled_from(list(Centering)),
    st.integers(1, 4),
    st.integers(1, 4),
    st.integers(2, 9),
    st.floats(-1e3, 1e3),
)
def test_parts_add_up_to_the_total_of_the_pooled_draws(centering, chains, past_chains, num, shift):
    current, reference = draws(chains, num, 3, 1, shift), draws(past_chains, num, 3, 2)
    parts = split(current, reference, centering=centering)
    np.testing.assert_allclose(
        parts.within + parts.drift + parts.between, parts.total, rtol=1e-10, atol=1e-10 * (1 + abs(shift)) ** 2
    )


def test_total_equals_numpy_covariance_of_the_pooled_draws_with_ddof_0():
    current, reference = draws(3, 5, 4, 1, 2.0), draws(3, 5, 4, 2)
    pooled = np.concatenate([current.reshape(-1, 4), reference.reshape(-1, 4)])
    parts = split(current, reference)
    np.testing.assert_allclose(parts.total, np.cov(pooled.T, ddof=0), atol=1e-12)
    assert not np.allclose(parts.within + parts.drift + parts.between, np.cov(pooled.T, ddof=1), atol=1e-3)


def test_between_is_a_quarter_of_the_outer_product_of_the_shift():
    current, reference = draws(2, 6, 3, 1, 5.0), draws(2, 6, 3, 2)
    shift = current.mean((0, 1)) - reference.mean((0, 1))
    np.testing.assert_allclose(split(current, reference).between, np.outer(shift, shift) / 4, atol=1e-12)


def test_phases_count_equally_for_any_number_of_draws():
    current, reference = draws(4, 9, 2, 1, 3.0), draws(1, 5, 2, 2)
    parts = split(current, reference)
    alone = [split(phase) for phase in (current, reference)]
    np.testing.assert_allclose(parts.within, (alone[0].within + alone[1].within) / 2, atol=1e-12)


def test_without_a_reference_between_is_zero():
    parts = split(draws(2, 6, 3))
    assert not parts.between.any()
    np.testing.assert_allclose(parts.within + parts.drift, parts.total, atol=1e-12)


@pytest.mark.parametrize(
    ("centering", "within"),
    [
        (Centering.pooled, lambda x: np.cov(x.reshape(-1, 3).T, ddof=0)),
        (Centering.chain, lambda x: np.mean([np.cov(chain.T, ddof=0) for chain in x], axis=0)),
        (Centering.step, lambda x: np.mean([np.cov(step.T, ddof=0) for step in x.transpose(1, 0, 2)], axis=0)),
    ],
)
def test_within_equals_a_plain_loop(centering, within):
    current = draws(4, 7, 3)
    np.testing.assert_allclose(split(current, centering=centering).within, within(current), atol=1e-12)


def test_step_centring_removes_a_common_slide_from_within():
    slide = np.linspace(0, 5, 50)[None, :, None] * np.ones((4, 1, 2))
    noise = np.random.default_rng(0).normal(size=(4, 50, 2))
    parts = split(noise + slide, centering=Centering.step)
    np.testing.assert_allclose(parts.within, split(noise, centering=Centering.step).within, atol=1e-12)
    assert parts.drift[0, 1] > 1.5


def test_pooling_leaves_no_drift():
    assert np.allclose(split(draws(3, 5, 2), centering=Centering.pooled).drift, 0)


def test_parts_are_named_in_order():
    assert tuple(split(draws(1, 3, 1)).parts()) == PARTS == ("within", "drift", "between", "total")


def test_pooled_centring_is_unbiased_in_equilibrium_and_chain_centring_far_too_low_for_short_chains():
    generator, phi = np.random.default_rng(5), 0.9
    found = {centering: [] for centering in (Centering.pooled, Centering.chain)}
    for _ in range(400):
        chains = generator.normal(size=(8, 20, 1))
        for draw in range(1, 20):
            chains[:, draw] = phi * chains[:, draw - 1] + np.sqrt(1 - phi**2) * chains[:, draw]
        for centering, values in found.items():
            values.append(split(chains, centering=centering).within.item())
    # Variance of the mean of 20 such draws, .55; of eight chains, an eighth of it.
    lags = np.arange(1, 20)
    of_mean = (20 + 2 * ((20 - lags) * phi**lags).sum()) / 400
    assert np.mean(found[Centering.chain]) == pytest.approx(1 - of_mean, abs=0.03)
    assert 1 - of_mean == pytest.approx(0.45, abs=0.01)
    assert np.mean(found[Centering.pooled]) == pytest.approx(1 - of_mean / 8, abs=0.04)
