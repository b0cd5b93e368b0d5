import numpy as np
import pytest

from stagewise.phases.between_norm import between_norm


def test_without_noise_it_is_half_the_length_of_the_shift():
    signal = between_norm([3.0, -4.0], [0.0, 0.0], 0.0)
    assert signal.value == pytest.approx(2.5)
    assert signal.error == 0
    assert signal.threshold == 0


def test_its_square_is_the_norm_of_the_between_part():
    shift = np.random.default_rng(0).normal(size=7)
    assert between_norm(shift, np.zeros(7), 0.0).value ** 2 == pytest.approx(np.linalg.norm(np.outer(shift, shift)) / 4)


def test_noise_alone_gives_nothing_on_average():
    generator = np.random.default_rng(0)
    error = generator.random(30)
    squares = [between_norm(generator.normal(size=30) * error, error, 0.0) for _ in range(3000)]
    assert np.mean([s.value == 0 for s in squares]) == pytest.approx(0.5, abs=0.1)
    assert squares[0].threshold == pytest.approx(np.sqrt((error**2).sum()) / 2)


def test_error_is_half_that_of_the_length():
    assert between_norm([3.0, -4.0], [0.1, 0.1], 0.6).error == pytest.approx(0.3)


def test_unknown_errors_leave_the_value():
    signal = between_norm([2.0], [np.nan], np.nan)
    assert signal.value == pytest.approx(1.0)
    assert np.isnan(signal.error)
