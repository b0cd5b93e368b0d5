import math

import numpy as np
import pytest
from scipy import stats

from stagewise.phases.plateau import EFFICIENCY, Plateau

VALUES = [0.3, -1.2, 0.8, 2.1, -0.4, 0.1, -0.9, 1.3, 0.6]


def test_level_and_spread_are_those_of_scipy():
    plateau = Plateau(VALUES)
    assert plateau.level == pytest.approx(np.median(VALUES))
    assert plateau.spread == pytest.approx(stats.median_abs_deviation(VALUES, scale="normal"), rel=1e-4)


def test_half_of_wild_probes_do_not_move_level_and_spread_beyond_the_rest():
    plateau = Plateau([*VALUES, *[1e6] * 4])
    assert plateau.level < max(VALUES)
    assert plateau.spread < 2 * 1.4826 * (max(VALUES) - min(VALUES))


def test_signal_that_is_mostly_cut_off_at_zero_still_has_a_spread():
    values = [0.0] * 6 + [0.5, 0.2, 0.9]
    assert Plateau(values).spread == pytest.approx(np.mean(values) * math.sqrt(math.pi / 2), rel=1e-3)


@pytest.mark.parametrize("min_z", [2.0, 3.0, 4.5])
@pytest.mark.parametrize("error", [math.nan, 0.1, 1.0, 50.0])
def test_limit_is_students_for_the_spread_and_normal_for_the_own_error(min_z, error):
    plateau = Plateau(VALUES)
    degrees = EFFICIENCY * (len(VALUES) - 1)
    student = stats.t.isf(stats.norm.sf(min_z), degrees) * plateau.spread
    own = 0.0 if math.isnan(error) else min_z * error
    limit = math.sqrt(max(student, own) ** 2 + student**2 * math.pi / 2 / len(VALUES))
    for side in (-1, 1):
        assert plateau.departs(plateau.level + side * limit * 1.0001, error, min_z=min_z)
        assert not plateau.departs(plateau.level + side * limit * 0.9999, error, min_z=min_z)


def test_many_probes_need_no_more_than_min_z():
    plateau = Plateau(np.random.default_rng(0).standard_normal(4000))
    limit = 3.0 * plateau.spread
    assert plateau.departs(plateau.level + limit * 1.01, min_z=3.0)
    assert not plateau.departs(plateau.level + limit * 0.99, min_z=3.0)


def test_z_is_distance_over_the_combined_error():
    plateau = Plateau(VALUES)
    of_level = plateau.spread**2 * math.pi / 2 / len(VALUES)
    assert plateau.z(plateau.level + 5, 2.0) == pytest.approx(5 / math.sqrt(4.0 + of_level))
    assert plateau.z(plateau.level - 5) == pytest.approx(-5 / math.sqrt(plateau.spread**2 + of_level))


def test_without_any_error_all_that_moves_departs():
    plateau = Plateau([2.0] * 8)
    assert plateau.z(2.0) == 0
    assert plateau.z(1.5) == -math.inf
    assert plateau.departs(2.1, min_z=3)
    assert not plateau.departs(2.0, min_z=3)
    assert not plateau.departs(2.1, 0.5, min_z=3)


def test_further_probes_are_taken_in():
    plateau = Plateau(VALUES[:4])
    assert plateau.level == pytest.approx(np.median(VALUES[:4]))
    plateau.extend(VALUES[4:])
    assert (len(plateau), plateau.level) == (len(VALUES), np.median(VALUES))
    assert not Plateau().departs(1.0, min_z=3)
