import numpy as np
import pytest
import xarray as xr

from stagewise.studies.toy.ablation import window_means
from stagewise.studies.toy.agreement import (
    cancellation,
    pooled_correlation,
    pooled_slope,
    relative_error,
    residual_correlation,
    sign_agreement,
)


@pytest.fixture
def pair():
    rng = np.random.default_rng(0)
    left = rng.standard_normal((5, 4, 4))
    return left, left + 0.3 * rng.standard_normal((5, 4, 4))


def entries(left, right):
    return zip(
        *[(left[step, i, j], right[step, i, j]) for step in range(5) for i in range(4) for j in range(4) if i != j],
        strict=True,
    )


def test_correlation_and_slope_are_over_pairs_of_different_items(pair):
    left, right = pair
    left[:, range(4), range(4)] = 1e6  # must not matter
    x, y = entries(left, right)
    assert pooled_correlation(left, right) == pytest.approx(np.corrcoef(x, y)[0, 1])
    assert pooled_slope(left, right) == pytest.approx(np.cov(x, y)[0, 1] / np.var(y, ddof=1))


def test_without_variation_there_is_no_correlation(pair):
    assert np.isnan(pooled_correlation(pair[0], np.ones_like(pair[0])))


def test_residual_correlation_does_not_see_the_mean_curves_of_relations():
    rng = np.random.default_rng(1)
    relations = np.array([["self", "near", "far", "far"], ["near", "self", "far", "far"]] * 2)
    relations[2:] = relations[2:, [2, 3, 0, 1]]
    curves = np.where(relations == "near", 5.0, -5.0) * rng.standard_normal((6, 1, 1))
    left, right = (curves + 0.1 * rng.standard_normal((6, 4, 4)) for _ in range(2))
    assert pooled_correlation(left, right) > 0.99
    assert abs(residual_correlation(left, right, relations)) < 0.4
    shared = 0.1 * rng.standard_normal((6, 4, 4))
    assert residual_correlation(left + 10 * shared, right + 10 * shared, relations) > 0.98


def test_signs_are_counted_among_those_kept(pair):
    left, right = pair
    x, y = entries(left, right)
    expected = np.mean(np.sign(x) == np.sign(y))
    assert sign_agreement(left, right, np.ones_like(left, dtype=bool)) == pytest.approx(expected)
    assert np.isnan(sign_agreement(left, right, np.zeros_like(left, dtype=bool)))


def test_relative_error_is_that_of_the_norms(pair):
    left, right = pair
    x, y = (np.array(entry) for entry in entries(left, right))
    assert relative_error(left, right) == pytest.approx(np.sqrt(((x - y) ** 2).sum() / (y**2).sum()))


def test_window_means_are_exact_for_influence_that_is_linear_in_the_step():
    steps = np.array([10.0, 25.0, 40.0, 100.0])
    slope = np.arange(4.0).reshape(2, 2)
    bif = 3 + steps[:, None, None] * slope
    for start, end in [(12.0, 20.0), (10.0, 100.0), (20.0, 70.0)]:
        np.testing.assert_allclose(window_means(steps, bif, start, end), 3 + (start + end) / 2 * slope)


def test_cancellation_is_one_without_a_change_of_sign_and_zero_if_all_cancels():
    increments = np.array([[1.0, 1.0, 2.0], [1.0, -1.0, 0.0], [2.0, -1.0, 0.5]])
    tracin = np.cumsum(increments, axis=1).T[:, :, None] * np.ones(3)
    tracin[:, 0, 0] = np.nan  # an item with itself has no pair
    share = cancellation(xr.Dataset({"tracin": (("step", "item", "item_j"), tracin)})).values
    np.testing.assert_allclose(share[:, 1], [1.0, 0.0, 1.5 / 3.5])
    assert np.isnan(share[0, 0])
