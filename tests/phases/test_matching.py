from itertools import combinations, permutations

import numpy as np
import pytest

from stagewise.errors import InputError
from stagewise.phases.matching import match_windows
from stagewise.phases.offline import find_windows
from stagewise.phases.window import Window


def windows_at(*peaks):
    return [Window(start=peak - 1, peak=peak, end=peak + 1, value=1.0, height=1.0) for peak in peaks]


def best_by_enumeration(peaks, truth, tolerance):
    """Number of pairs and sum of distances of the best of all one-to-one matchings, tried one by one."""
    best = (0, 0.0)
    for size in range(1, min(len(peaks), len(truth)) + 1):
        for rows in combinations(range(len(peaks)), size):
            for columns in permutations(range(len(truth)), size):
                gaps = [abs(np.log(peaks[i] / truth[j])) for i, j in zip(rows, columns, strict=True)]
                if max(gaps) <= tolerance:
                    best = min(best, (-size, sum(gaps)))
    return -best[0], best[1]


def test_known_agreement_is_counted():
    match = match_windows(windows_at(100, 300, 1000), [1050.0, 98.0], tolerance=0.1)
    assert match.pairs == ((0, 1), (2, 0))
    assert (match.precision, match.recall) == pytest.approx((2 / 3, 1.0))
    assert match.timing == pytest.approx((np.log(100 / 98) + np.log(1050 / 1000)) / 2)


def test_matching_is_the_best_of_all():
    generator = np.random.default_rng(0)
    counts, fewer_by_nearest = [], 0
    for _ in range(60):
        peaks = np.rint(np.exp(generator.uniform(4.0, 4.8, generator.integers(1, 5)))).astype(int)
        truth = np.exp(generator.uniform(4.0, 4.8, generator.integers(1, 5)))
        match = match_windows(windows_at(*peaks.tolist()), truth, tolerance=0.2)
        count, total = best_by_enumeration(peaks, truth, 0.2)
        gaps = [abs(np.log(peaks[i] / truth[j])) for i, j in match.pairs]
        assert len(gaps) == count
        assert sum(gaps) == pytest.approx(total)
        assert len({i for i, _ in match.pairs}) == len({j for _, j in match.pairs}) == count
        assert match.timing == pytest.approx(np.median(gaps), nan_ok=True) if gaps else np.isnan(match.timing)
        counts.append(count)
        nearest = {int(np.argmin(np.abs(np.log(peaks[i] / truth)))) for i in range(len(peaks))}
        fewer_by_nearest += len(nearest) < count
    assert set(counts) >= {0, 1, 2, 3}
    assert fewer_by_nearest > 0


def test_more_pairs_come_before_nearer_ones():
    """The nearest pair (104, 103) would leave 100 and 112 without one."""
    match = match_windows(windows_at(100, 104), [103.0, 112.0], tolerance=0.1)
    assert match.pairs == ((0, 0), (1, 1))


def test_one_transition_has_one_window():
    match = match_windows(windows_at(99, 100, 101), [100.5], tolerance=0.1)
    assert match.pairs == ((2, 0),)
    assert (match.precision, match.recall) == pytest.approx((1 / 3, 1.0))


@pytest.mark.parametrize(("tolerance", "count"), [(0.0953, 0), (0.0954, 1)])
def test_tolerance_is_a_difference_of_natural_logarithms(tolerance, count):
    for peak, truth in ((110, 100), (100, 110)):
        assert len(match_windows(windows_at(peak), [truth], tolerance=tolerance).pairs) == count


def test_without_windows_or_transitions_their_share_is_not_known():
    nothing = match_windows([], [])
    assert np.isnan([nothing.precision, nothing.recall, nothing.timing]).all()
    missed = match_windows([], [10.0])
    assert np.isnan(missed.precision)
    assert missed.recall == 0
    invented = match_windows(windows_at(10), [])
    assert np.isnan(invented.recall)
    assert invented.precision == 0
    far = match_windows(windows_at(10), [20.0])
    assert (far.precision, far.recall, far.pairs) == (0, 0, ())
    assert np.isnan(far.timing)


def test_windows_of_a_signal_agree_with_the_bumps_it_was_made_of():
    steps = np.unique(np.rint(np.geomspace(10, 3000, 60)).astype(int))
    truth = [60.0, 300.0, 1500.0]
    signal = sum(np.exp(-((np.log(steps / centre) / 0.1) ** 2) / 2) for centre in truth)
    match = match_windows(find_windows(steps, signal), truth)
    assert (match.precision, match.recall) == (1, 1)
    assert match.timing < 0.05  # half the spacing of the probes


@pytest.mark.parametrize(
    "bad",
    [
        {"truth": [0.0]},
        {"truth": [-3.0, 5.0]},
        {"truth": [np.nan]},
        {"truth": [np.inf]},
        {"truth": 5.0},
        {"truth": [[5.0]]},
        {"windows": windows_at(0)},
        {"tolerance": 0.0},
        {"tolerance": -0.1},
        {"tolerance": np.nan},
        {"tolerance": np.inf},
    ],
)
def test_bad_input_is_refused_in_one_line(bad):
    with pytest.raises(InputError, match=r"got .*; expected ") as caught:
        match_windows(**{"windows": windows_at(10), "truth": [10.0], **bad})
    assert "\n" not in str(caught.value)
