import numpy as np
import pytest

from stagewise.errors import InputError
from stagewise.phases.offline import find_windows

STEPS = np.unique(np.rint(np.geomspace(10, 3000, 60)).astype(int))


def bump(centre, width=0.1, height=1.0):
    return height * np.exp(-((np.log(STEPS / centre) / width) ** 2) / 2)


def test_two_transitions_are_found_where_they_are():
    windows = find_windows(STEPS, 0.05 + bump(100) + bump(1000, height=0.7))
    assert [abs(np.log(window.peak / centre)) < 0.06 for window, centre in zip(windows, (100, 1000), strict=True)]
    for window in windows:
        assert window.start < window.peak < window.end


def test_window_reaches_to_half_of_the_prominence():
    (window,) = find_windows(STEPS, bump(300))
    half_width = 0.1 * np.sqrt(2 * np.log(2))
    assert np.log(window.end / window.start) == pytest.approx(2 * half_width, rel=0.1)


def test_small_bumps_are_no_transitions():
    noise = 0.02 * np.random.default_rng(0).normal(size=len(STEPS))
    assert len(find_windows(STEPS, bump(300) + noise)) == 1
    assert len(find_windows(STEPS, bump(300) + bump(1500, height=0.1))) == 1
    assert len(find_windows(STEPS, bump(300) + bump(1500, height=0.1), min_prominence=0.05)) == 2


def test_peak_within_its_errors_is_none():
    assert not find_windows(STEPS, 1 + bump(300), np.full(len(STEPS), 0.5))
    assert len(find_windows(STEPS, 1 + bump(300), np.full(len(STEPS), 0.1))) == 1


def test_unknown_errors_are_passed_over():
    assert len(find_windows(STEPS, bump(300), np.full(len(STEPS), np.nan))) == 1


@pytest.mark.parametrize("values", [np.zeros(len(STEPS)), np.linspace(0, 1, len(STEPS))])
def test_flat_and_monotone_signals_have_no_window(values):
    assert not find_windows(STEPS, values)


def test_short_runs_have_no_window():
    assert not find_windows([1, 2], [1.0, 2.0])
    assert not find_windows([], [])


@pytest.mark.parametrize(
    ("steps", "values", "prominence"),
    [
        ([1, 2, 3], [1, 2], 0.1),
        ([1, 3, 2], [1, 2, 1], 0.1),
        ([1, 2, 3], [1, np.nan, 1], 0.1),
        ([1, 2, 3], [1, 2, 1], 0),
    ],
)
def test_bad_signals_are_refused(steps, values, prominence):
    with pytest.raises(InputError, match=r"expected|leave"):
        find_windows(steps, values, min_prominence=prominence)
