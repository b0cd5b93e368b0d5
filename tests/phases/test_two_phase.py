import numpy as np
import pytest

from stagewise.errors import InputError
from stagewise.phases.two_phase import two_phase

START, END = np.array([3.0, 1.0, 2.0]), np.array([1.0, 1.5, 2.0])


def test_known_path_along_the_segment_is_read_back():
    share = np.array([0.0, 0.1, 0.5, 0.9, 1.0])
    reading = two_phase(START + share[:, None] * (END - START))
    np.testing.assert_allclose(reading.pi, share, atol=1e-12)
    np.testing.assert_allclose(reading.residual, 0, atol=1e-12)
    assert reading.length == pytest.approx(np.sqrt(4.25))


def test_known_detour_is_the_residual_in_lengths_of_the_segment():
    across = np.array([0.5, 2.0, 0.0]) / np.sqrt(4.25)
    assert across @ (END - START) == pytest.approx(0)
    middle = (START + END) / 2 + 0.3 * across
    reading = two_phase([START, middle, END])
    assert reading.pi[1] == pytest.approx(0.5)
    assert reading.residual[1] == pytest.approx(0.3 / np.sqrt(4.25))


def test_beyond_both_ends_is_clipped_and_counts_as_beside():
    way = END - START
    reading = two_phase([START, START - 0.2 * way, END + 0.4 * way, END])
    assert reading.pi.tolist() == [0, 0, 1, 1]
    np.testing.assert_allclose(reading.residual, [0, 0.2, 0.4, 0], atol=1e-12)


def test_constants_of_the_samples_and_turns_of_the_axes_do_not_matter():
    rng = np.random.default_rng(0)
    means = rng.standard_normal((6, 4))
    turn, _ = np.linalg.qr(rng.standard_normal((4, 4)))
    first, second = two_phase(means), two_phase(means @ turn + rng.standard_normal(4))
    np.testing.assert_allclose(first.pi, second.pi, atol=1e-10)
    np.testing.assert_allclose(first.residual, second.residual, atol=1e-10)


def test_residual_is_the_least_distance_to_the_segment():
    means = np.random.default_rng(1).standard_normal((7, 3))
    shares = np.linspace(0, 1, 20001)[:, None]
    points = means[0] + shares * (means[-1] - means[0])
    least = [np.linalg.norm(points - mean, axis=1).min() for mean in means]
    reading = two_phase(means)
    np.testing.assert_allclose(reading.residual * reading.length, least, atol=1e-6)


@pytest.mark.parametrize(
    ("means", "words"),
    [
        ([1.0, 2.0], "two probes"),
        ([[1.0, 2.0]], "two probes"),
        ([[1.0], [np.nan], [2.0]], "not finite"),
        ([[1.0], [2.0], [1.0]], "same losses"),
    ],
)
def test_windows_without_two_phases_are_refused(means, words):
    with pytest.raises(InputError, match=words):
        two_phase(means)
