"""Means over seeds with intervals."""

import numpy as np
import pytest
from scipy import stats

from stagewise.errors import InputError
from stagewise.studies.intervention.statistics import interval_over_seeds, renewed


def test_mean_and_interval_are_those_of_scipy():
    values = [3.0, 5.0, 4.0, 9.0]
    found = interval_over_seeds(dict(enumerate(values)))
    low, high = stats.t.interval(0.95, 3, loc=np.mean(values), scale=stats.sem(values))
    assert (found.mean, found.low, found.high) == pytest.approx((5.25, low, high))


def coverage(values, truth):
    """Share of rows ``[repetition, seed]`` whose interval holds the truth."""
    found = [interval_over_seeds(dict(enumerate(row))) for row in values]
    return np.mean([item.low <= truth <= item.high for item in found])


def test_intervals_of_eight_normal_seeds_hold_the_truth_in_95_of_100_cases():
    rng = np.random.default_rng(0)
    assert 0.92 <= coverage(rng.normal(3.0, 2.0, (2000, 8)), 3.0) <= 0.98


def test_so_do_those_of_paired_differences_between_arms_that_share_their_seeds():
    """What a seed has in common is large beside what an arm does; arms of unlike spread."""
    rng = np.random.default_rng(1)
    shared = rng.normal(1000.0, 100.0, (2000, 8))
    first, second = (shared - gain + rng.normal(0.0, spread, shared.shape) for gain, spread in ((130, 40), (30, 15)))
    assert 0.92 <= coverage(second - first, 100.0) <= 0.98


def test_the_bootstrap_that_it_replaces_does_not():
    rng = np.random.default_rng(2)
    values = rng.standard_normal((1000, 8))
    means = values[:, rng.integers(8, size=(999, 8))].mean(axis=2)  # one set of resamples for all
    low, high = np.percentile(means, [2.5, 97.5], axis=1)
    assert np.mean((low <= 0) & (high >= 0)) < 0.92


def test_single_seed_has_no_interval_and_no_seed_no_mean():
    assert interval_over_seeds({7: 3.0}).low is None
    assert interval_over_seeds({}) is None


def test_equal_values_have_an_interval_of_no_width():
    found = interval_over_seeds({1: 0.1, 2: 0.1, 3: 0.1})
    assert found.low == found.high == found.mean == 0.1


def test_order_of_seeds_does_not_matter():
    assert interval_over_seeds({1: 1.0, 2: 5.0, 3: 2.0}) == interval_over_seeds({3: 2.0, 1: 1.0, 2: 5.0})


def test_value_that_is_not_finite_is_refused():
    with pytest.raises(InputError, match="finite"):
        interval_over_seeds({1: float("nan"), 2: 1.0})


def test_results_of_another_day_get_the_intervals_of_today_and_keep_the_rest():
    old = {"mean": 9.0, "low": 1.0, "high": 2.0, "t_low": 0.0, "t_high": 3.0, "n": 3, "per_seed": {"4": 1.0, "5": 3.0}}
    found = renewed({"arms": [{"steps": old, "notes": {"4": "x"}, "budget": None}], "seeds": [4, 5]})
    want = interval_over_seeds({4: 1.0, 5: 3.0}).as_dict()
    assert found == {"arms": [{"steps": want, "notes": {"4": "x"}, "budget": None}], "seeds": [4, 5]}
    assert "t_low" not in want
