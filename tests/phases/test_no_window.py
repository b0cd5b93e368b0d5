"""The reason that is told is the one that the detector had: with a window there is none."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stagewise.errors import InputError
from stagewise.phases.no_window import why_no_window
from stagewise.phases.offline import find_windows

STEPS = [10, 20, 40, 80, 160]
NAN = float("nan")


@pytest.mark.parametrize(
    ("values", "errors", "words"),
    [
        ([], [], "no probe was kept"),
        ([NAN], None, "a single probe was kept"),
        ([NAN] * 5, None, "none of 5 probes has a signal"),
        ([NAN, 1.0, 2.0], None, "2 of 3 probes have a signal"),
        ([NAN, NAN, 2.0], None, "1 of 3 probes has a signal"),
        ([-1.0, -2.0, 0.0, -1.0, -3.0], None, "nowhere above its noise floor, at none of 5 probes"),
        ([NAN, 5.0, 3.0, 2.0, 1.0], None, "largest at its first probe (step 20) and falls from there"),
        ([1.0, 2.0, 3.0, 4.0, 5.0], None, "largest at its last probe (step 160)"),
        (
            [1.0, 2.0, 1.0, 1.0, 1.0],
            [0.5] * 5,
            "indistinguishable from noise: its most prominent peak (step 20) stands out by 1 nats",
        ),
        (
            [9.0, 2.0, 3.0, 1.0, 1.0],
            None,
            "largest at its first probe (step 10) and falls from there, so what changes began before",
        ),
        ([10.0, 9.0, 10.5, 10.0, 10.0], None, "5 % of its largest value, where min_prominence asks for 15 %"),
        ([1.0, 2.0, 1.0, 1.0, 1.0], [0.1] * 5, None),
        ([1.0, 2.0, 1.0, 1.0, 1.0], None, None),
    ],
)
def test_each_cause_has_its_own_words(values, errors, words):
    found = why_no_window(STEPS[: len(values)], values, errors)
    assert found is None if words is None else words in found


def test_the_unit_and_the_least_prominence_are_those_that_were_asked_for():
    found = why_no_window(STEPS, [10.0, 9.0, 12.0, 10.0, 10.0], min_prominence=0.5, unit="nats^2")
    assert "stands out by 2 nats^2, 17 % of its largest value, where min_prominence asks for 50 %" in found


numbers = st.floats(-5, 5).map(lambda item: round(item, 2)) | st.just(NAN)


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.tuples(numbers, st.sampled_from([0.0, 0.1, 1.0, NAN])), max_size=9), st.sampled_from([0.1, 0.5, 1.0])
)
def test_a_reason_is_told_exactly_where_no_window_is_found(rows, prominence):
    values, errors = np.array([row[0] for row in rows]), np.array([row[1] for row in rows])
    steps = np.arange(1, len(rows) + 1)
    known = np.isfinite(values)
    found = find_windows(steps[known], values[known], errors[known], min_prominence=prominence)
    assert (why_no_window(steps, values, errors, min_prominence=prominence) is None) == bool(found)


def test_unequal_lengths_are_refused():
    with pytest.raises(InputError, match="expected equal lengths"):
        why_no_window([1, 2, 3], [1.0, 2.0])


@pytest.mark.parametrize("values", [[5.0, 4.0, 3.0, 2.0, 1.0], [90.0, 2.0, 3.0, 1.0, 1.0]])
def test_before_probing_earlier_the_settings_are_to_be_fixed(values):
    found = why_no_window(STEPS, values)
    assert "probe earlier (schedule of the callback)" in found
    assert found.endswith(
        "Before probing earlier, set sgld.lr and sgld.localization to the resolved values of this run: auto is "
        "resolved at the first probe, where curvature may be far smaller"
    )
    assert "resolved" not in why_no_window(STEPS, values[::-1])
