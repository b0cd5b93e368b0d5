import numpy as np
import pytest

from stagewise.phases.signal import between_signal


def test_without_noise_it_is_half_the_length_of_the_shift():
    signal = between_signal([3.0, -4.0], [0.0, 0.0])
    assert signal.value == pytest.approx(2.5)
    assert signal.error == 0
    assert signal.threshold == 0


def test_its_square_is_the_norm_of_the_between_part():
    shift = np.random.default_rng(0).normal(size=7)
    assert between_signal(shift, np.zeros(7)).value ** 2 == pytest.approx(np.linalg.norm(np.outer(shift, shift)) / 4)


def test_noise_alone_gives_nothing_on_average():
    generator = np.random.default_rng(0)
    error = generator.random(30)
    squares = [between_signal(generator.normal(size=30) * error, error) for _ in range(3000)]
    assert np.mean([s.value == 0 for s in squares]) == pytest.approx(0.5, abs=0.1)
    assert squares[0].threshold == pytest.approx(np.sqrt((error**2).sum()) / 2)


def test_error_matches_the_spread_over_repetitions():
    generator = np.random.default_rng(1)
    shift, error = generator.normal(size=10) * 3, np.full(10, 0.2)
    values = [between_signal(shift + error * generator.normal(size=10), error).value for _ in range(4000)]
    assert between_signal(shift, error).error == pytest.approx(np.std(values), rel=0.05)


def test_unknown_errors_leave_the_value():
    signal = between_signal([2.0], [np.nan])
    assert signal.value == pytest.approx(1.0)
    assert np.isnan(signal.error)
