import numpy as np
import pytest

from stagewise.influence.uncertainty import jackknife_error, length_error, mean_error, z_scores


def test_jackknife_of_a_mean_is_its_standard_error():
    values = np.random.default_rng(0).normal(size=(6, 3))
    got = jackknife_error(lambda rows: values[rows].mean(axis=0), 6)
    np.testing.assert_allclose(got, values.std(axis=0, ddof=1) / np.sqrt(6))
    np.testing.assert_allclose(got, mean_error(values))


def test_jackknife_of_a_square_matches_the_spread_over_repetitions():
    generator = np.random.default_rng(1)
    samples = generator.normal(loc=2.0, size=(2000, 8))
    truth = (samples.mean(axis=1) ** 2).std()
    errors = [jackknife_error(lambda rows, x=x: np.array(x[rows].mean() ** 2), 8) for x in samples]
    assert np.sqrt(np.mean(np.square(errors))) == pytest.approx(truth, rel=0.05)


def test_jackknife_of_a_large_and_stable_estimate_keeps_its_digits():
    values = 1e8 + np.random.default_rng(2).normal(size=(5, 3))
    got = jackknife_error(lambda rows: values[rows].mean(axis=0), 5)
    np.testing.assert_allclose(got, values.std(axis=0, ddof=1) / np.sqrt(5), rtol=1e-6)


def test_one_chain_has_no_error():
    assert jackknife_error(lambda rows: np.zeros(1), 1) is None
    assert mean_error(np.zeros((1, 2))) is None


@pytest.mark.parametrize("common", [0.0, 3.0])
def test_error_of_a_length_includes_correlations_of_features(common):
    """Against the spread over repetitions; with a common movement independent errors would be far too small."""
    generator = np.random.default_rng(0)
    moved = np.linspace(1, 3, 6) * 5
    means = generator.normal(size=(2000, 4, 6)) + common * generator.normal(size=(2000, 4, 1)) + moved
    lengths = np.linalg.norm(means.mean(axis=1), axis=1)
    squares = [length_error(chains) ** 2 for chains in means]
    assert np.sqrt(np.mean(squares)) == pytest.approx(np.std(lengths), rel=0.05)


def test_error_of_a_length_is_zero_for_length_zero_or_one_chain():
    assert length_error(np.zeros((3, 2))) == length_error(np.ones((1, 2))) == 0


def test_z_scores_are_nan_where_the_error_is_unknown():
    value = np.array([3.0, -2.0, 0.0, 0.0, 1.0, 0.0])
    error = np.array([1.5, 4.0, 0.0, 2.0, 0.0, np.nan])
    np.testing.assert_array_equal(z_scores(value, error), [2.0, -0.5, 0.0, 0.0, np.nan, np.nan])
