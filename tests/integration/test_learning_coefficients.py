"""Chains on models whose learning coefficients are known: in 95 % intervals, 200 repetitions of 4 chains."""

import numpy as np
import pytest

from stagewise.influence.uncertainty import t_interval
from tests.integration.learning_coefficients import (
    DeepLinear,
    Power,
    deep_linear_loss,
    power_loss,
    reduced_rank_coefficient,
    sampled,
)

pytestmark = pytest.mark.slow

REPETITIONS, CHAINS = 200, 4


def held(truth, value, error):
    low, high = t_interval(value, error, CHAINS)
    return float(((low <= truth) & (truth <= high)).mean())


def check(truth, found, *, bias=0.015):
    """In the intervals as often as they say; and right on the mean over all chains, up to a share for finite steps."""
    value, error, _ = found
    assert 0.9 <= held(truth, value, error) <= 0.98
    assert abs(value.mean() - truth) < 4 * value.std(ddof=1) / np.sqrt(REPETITIONS) + bias * truth


def run(module, loss_fn, **settings):
    return sampled(module, loss_fn, repetitions=REPETITIONS, chains=CHAINS, **settings)


def test_a_quadratic_in_ten_dimensions_has_five():
    found = run(
        Power(10, 2),
        power_loss,
        nbeta=1000.0,
        localization=1.0,
        lr=1.5e-3,
        num_draws=60,
        num_burnin_steps=20,
    )
    check(5.0, found)
    assert abs(found[2].mean()) < 0.05
    # Of a wrong number this would tell.
    assert held(4.0, *found[:2]) < 0.2


def test_where_the_localization_is_as_strong_as_the_loss_half_is_left_and_the_share_says_so():
    found = run(
        Power(10, 2),
        power_loss,
        nbeta=500.0,
        localization=500.0,
        lr=1.5e-3,
        num_draws=60,
    )
    check(2.5, found)
    assert found[2].mean() == pytest.approx(0.5, abs=0.03)
    assert (found[0] / (1 - found[2])).mean() == pytest.approx(5.0, rel=0.05)


def test_a_quartic_in_six_dimensions_has_one_and_a_half_and_no_localized_share():
    """Half of the quadratic's, exactly at any nbeta but for the localization, which is too weak to tell."""
    found = run(
        Power(6, 4),
        power_loss,
        nbeta=1000.0,
        localization=0.1,
        start="anchor",  # a draw of so wide a Gaussian would be where a quartic is too steep for the step
        lr=6e-4,
        num_draws=80,
        num_burnin_steps=300,
        num_steps_bw_draws=10,
    )
    check(1.5, found)
    assert abs(found[2].mean()) < 0.08
    assert held(3.0, *found[:2]) < 0.2


@pytest.mark.parametrize(
    ("shape", "parameters"),
    [
        pytest.param((3, 2, 3, 2), 12, id="as many hidden units as the rank: flat directions alone"),
        pytest.param((4, 2, 2, 1), 12, id="a hidden unit to spare: a singular point"),
    ],
)
def test_a_deep_linear_network_has_that_of_reduced_rank_regression(shape, parameters):
    truth, multiplicity = reduced_rank_coefficient(*shape)
    assert multiplicity == 1  # else it is approached as 1 / log nbeta
    assert truth < parameters / 2
    found = run(
        DeepLinear(*shape),
        deep_linear_loss,
        nbeta=400.0,
        localization=4.0,
        lr=1.5e-4,
        num_draws=60,
        num_burnin_steps=300,
        num_steps_bw_draws=8,
    )
    check(truth, found)
    assert abs(found[2].mean()) < 0.04
    assert held(parameters / 2, *found[:2]) < 0.1


@pytest.mark.parametrize(
    ("shape", "truth", "multiplicity"),
    [
        ((3, 2, 3, 2), 4.0, 1),  # rank-2 matrices: a manifold of 2 (3 + 3 - 2) dimensions
        ((5, 3, 4, 3), 9.0, 1),
        ((5, 1, 2, 0), 1.0, 1),  # |a|^2 |b|^2 in 5 and 2 dimensions
        ((2, 1, 5, 0), 1.0, 1),
        ((3, 1, 3, 0), 1.5, 2),
        ((2, 7, 3, 1), 3.0, 1),  # enough hidden units for any matrix
        ((4, 2, 2, 1), 3.0, 1),  # a rank-1 matrix, 5 / 2, and |a|^2 b^2
        ((3, 2, 3, 1), 3.5, 2),
        ((3, 2, 3, 0), 2.5, 1),  # where both have rank 1 the zeros have codimension 5
    ],
)
def test_the_formula_of_reduced_rank_regression_on_cases_known_otherwise(shape, truth, multiplicity):
    assert reduced_rank_coefficient(*shape) == (truth, multiplicity)
