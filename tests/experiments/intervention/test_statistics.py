"""Means over seeds with intervals."""

import numpy as np
import pytest
from scipy import stats

from stagewise.errors import InputError
from stagewise.experiments.intervention.statistics import interval_over_seeds


def test_mean_and_t_interval_are_those_of_scipy():
    values = [3.0, 5.0, 4.0, 9.0]
    found = interval_over_seeds(dict(enumerate(values)))
    low, high = stats.t.interval(0.95, 3, loc=np.mean(values), scale=stats.sem(values))
    assert (found.mean, found.t_low, found.t_high) == pytest.approx((5.25, low, high))
    assert found.t_low < found.low < found.mean < found.high < found.t_high


def test_coverage_over_eight_normal_seeds_is_what_the_docstring_says():
    rng = np.random.default_rng(0)
    draws = rng.standard_normal((400, 8))
    found = [interval_over_seeds(dict(enumerate(row))) for row in draws]
    assert 0.85 < np.mean([it.low <= 0 <= it.high for it in found]) < 0.94
    assert 0.92 < np.mean([it.t_low <= 0 <= it.t_high for it in found]) < 0.98


def test_single_seed_has_no_interval_and_no_seed_no_mean():
    assert interval_over_seeds({7: 3.0}).low is None
    assert interval_over_seeds({}) is None


def test_equal_values_have_an_interval_of_no_width():
    found = interval_over_seeds({1: 0.1, 2: 0.1, 3: 0.1})
    assert found.low == found.high == found.mean == found.t_low == 0.1


def test_order_of_seeds_does_not_matter():
    assert interval_over_seeds({1: 1.0, 2: 5.0, 3: 2.0}) == interval_over_seeds({3: 2.0, 1: 1.0, 2: 5.0})


def test_value_that_is_not_finite_is_refused():
    with pytest.raises(InputError, match="finite"):
        interval_over_seeds({1: float("nan"), 2: 1.0})
