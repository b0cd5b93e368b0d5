import numpy as np
import pytest
from scipy.stats import t

from stagewise.errors import InputError
from stagewise.influence.uncertainty import mean_error, t_interval


def test_interval_of_a_mean_equals_scipy():
    values = np.random.default_rng(0).normal(size=(5, 3))
    got = t_interval(values.mean(axis=0), mean_error(values), 5, level=0.9)
    want = t.interval(0.9, 4, loc=values.mean(axis=0), scale=values.std(axis=0, ddof=1) / np.sqrt(5))
    np.testing.assert_allclose(got, want)


def test_95_percent_and_three_degrees_of_freedom_match_the_table():
    low, high = t_interval(1.0, 2.0, 4)
    assert (low, high) == (pytest.approx(1 - 2 * 3.18245, abs=1e-4), pytest.approx(1 + 2 * 3.18245, abs=1e-4))


def test_unknown_values_give_unknown_intervals():
    low, high = t_interval([1.0, np.nan, 0.0], [np.nan, 1.0, 0.0], 4)
    np.testing.assert_array_equal(low, [np.nan, np.nan, 0.0])
    np.testing.assert_array_equal(high, low)


@pytest.mark.parametrize(
    "bad",
    [
        {"num_chains": 1},
        {"level": 1.0},
        {"level": 0.0},
        {"error": [-1.0, 1.0]},
        {"error": [1.0]},
    ],
)
def test_bad_input_is_refused(bad):
    with pytest.raises(InputError, match=r"got .*; expected "):
        t_interval(**{"value": [1.0, 2.0], "error": [1.0, 1.0], "num_chains": 4, **bad})
