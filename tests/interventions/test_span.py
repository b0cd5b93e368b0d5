import json

import pytest

from stagewise.errors import InputError
from stagewise.interventions.span import Part, Span, check_spans, read_spans
from stagewise.runs.probe_files import SUMMARY_NAME
from stagewise.runs.store import write_summary

WINDOWS = [
    {"start": 90, "peak": 120, "end": 150, "signal": "sqrt_between_norm", "value": 1.0},
    {"start": 300, "peak": 310, "end": 400, "signal": "sqrt_between_norm", "value": 2.0},
]


@pytest.fixture
def folder(tmp_path):
    write_summary(tmp_path, {"transitions": WINDOWS})
    return tmp_path


def test_a_span_holds_its_start_and_not_its_end():
    span = Span(3, 6)
    assert [step for step in range(10) if step in span] == [3, 4, 5]
    assert len(span) == 3
    assert span.shifted(-3) == Span(0, 3)


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, [(90, 150), (300, 400)]),
        ({"part": Part.onset}, [(90, 120), (300, 310)]),
        ({"part": "onset", "shift": 5}, [(95, 125), (305, 315)]),
        ({"part": Part.fixed, "length": 40}, [(90, 130), (300, 340)]),
        ({"shift": -60}, [(30, 90), (240, 340)]),
    ],
)
def test_spans_are_read_from_a_finished_run(folder, settings, expected):
    assert read_spans(folder, **settings) == tuple(Span(*span) for span in expected)
    assert read_spans(folder / SUMMARY_NAME, **settings) == read_spans(folder, **settings)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"part": Part.fixed}, "length of 1 or more with part=fixed"),
        ({"length": 3}, "length of 1 or more with part=fixed"),
        ({"part": Part.fixed, "length": 0}, "length of 1 or more"),
        ({"part": Part.fixed, "length": 250}, "overlap"),
        ({"shift": -91}, "shift=-91 for window 1"),
    ],
)
def test_parts_that_cannot_be_had_are_refused(folder, settings, words):
    with pytest.raises(InputError, match=words) as caught:
        read_spans(folder, **settings)
    assert "\n" not in str(caught.value)


def test_an_empty_onset_is_refused(tmp_path):
    write_summary(tmp_path, {"transitions": [{"start": 5, "peak": 5, "end": 9}]})
    assert read_spans(tmp_path) == (Span(5, 9),)
    with pytest.raises(InputError, match=r"window 1 .* whose onset is empty"):
        read_spans(tmp_path, part=Part.onset)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ({"transitions": []}, "no transition window"),
        ({"probes": 3}, "has no 'transitions'; expected the summary of a run"),
        ({"transitions": [{"start": 1}]}, "peak of a transition in .*=None; expected a whole number"),
        ([], "a list at its top.*expected the summary of a run"),
    ],
)
def test_files_without_windows_are_refused(tmp_path, content, words):
    (tmp_path / SUMMARY_NAME).write_text(json.dumps(content))
    with pytest.raises(InputError, match=words):
        read_spans(tmp_path)


def test_a_missing_or_broken_file_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"no summary\.json is"):
        read_spans(tmp_path)
    (tmp_path / SUMMARY_NAME).write_text("{")
    with pytest.raises(InputError, match=r"not JSON \(line 1, column 2.*expected the summary of a run"):
        read_spans(tmp_path)


def test_spans_are_put_in_order_and_may_touch():
    assert check_spans([Span(5, 9), Span(0, 5)], 9) == (Span(0, 5), Span(5, 9))
    assert check_spans([]) == ()


@pytest.mark.parametrize(
    ("spans", "max_steps", "words"),
    [
        ([(4, 9), (0, 5)], None, r"spans \[0, 5\) and \[4, 9\), which overlap"),
        ([(0, 9), (2, 3)], None, "which overlap"),
        ([(0, 5), (6, 11)], 10, r"span \[6, 11\) for a run of 10 steps"),
    ],
)
def test_overlaps_and_spans_beyond_the_run_are_refused(spans, max_steps, words):
    with pytest.raises(InputError, match=words):
        check_spans([Span(*span) for span in spans], max_steps)


@pytest.mark.parametrize(("start", "end"), [(5, 5), (6, 5), (-1, 5), (0.5, 5), (True, 5)])
def test_reversed_empty_and_negative_spans_are_refused(start, end):
    with pytest.raises(InputError, match="got span"):
        Span(start, end)
