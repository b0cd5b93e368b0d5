"""Where windows come from: what each class takes, and what it refuses."""

import json
from dataclasses import FrozenInstanceError

import pytest

from stagewise.errors import InputError
from stagewise.interventions.span import Part, Span
from stagewise.interventions.window_sources import FromRun, Live, Spans
from stagewise.phases.online_detector import DetectorConfig

LIMITED = DetectorConfig(max_length=5)


def test_spans_are_taken_as_spans_and_as_pairs_and_copied():
    given = [(3, 9), Span(12, 14), [20, 21]]
    windows = Spans(given)
    given.clear()
    assert windows.resolve() == (Span(3, 9), Span(12, 14), Span(20, 21))
    assert Spans(windows.resolve()) == windows
    with pytest.raises(FrozenInstanceError):
        windows.spans = ()


@pytest.mark.parametrize(
    ("spans", "words"),
    [
        ((), "expected at least one window"),
        (((9, 3),), "an end after the start"),
        ((5,), r"expected a Span or \(start, end\)"),
        ("ab", "expected a list of Span"),
        (None, "expected a list of Span"),
    ],
)
def test_what_are_no_spans_is_refused(spans, words):
    with pytest.raises(InputError, match=words):
        Spans(spans)


def test_windows_of_a_run_are_read_when_they_are_asked_for(tmp_path):
    window = {"start": 20, "peak": 60, "end": 90}
    run = FromRun(tmp_path, part="fixed", length=30, shift=-10)
    assert run.part is Part.fixed
    with pytest.raises(InputError, match=r"no summary\.json is"):
        run.resolve()
    (tmp_path / "summary.json").write_text(json.dumps({"transitions": [window]}))
    assert run.resolve() == (Span(10, 40),)
    assert FromRun(str(tmp_path / "summary.json"), Part.onset).resolve() == (Span(20, 60),)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"part": "middle"}, "got part='middle'; expected one of"),
        ({"part": "fixed"}, "length of 1 or more with part=fixed"),
        ({"length": 3}, "length of 1 or more with part=fixed"),
        ({"shift": 1.5}, "got shift=1.5; expected a whole number"),
        ({"influence": 3}, "got influence=3"),
    ],
)
def test_what_says_nothing_about_a_run_is_refused_before_it_is_read(settings, words):
    with pytest.raises(InputError, match=words):
        FromRun("nowhere", **settings)


@pytest.mark.parametrize(
    "signal", ["between", "losses_alone", "within/a~a", "total/a~b", "contrast/a~b", "group_loss/a"]
)
def test_signals_that_probes_tell_can_be_watched(signal):
    assert Live(LIMITED, signal).signal == signal


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"signal": None}, "got signal=None; expected text"),
        ({"signal": "chain_share"}, "got signal 'chain_share'; expected one of between, losses_alone"),
        ({"signal": "llc/a"}, "got signal 'llc/a'; expected one of between"),
        ({"signal": "contrats/a~b"}, "did you mean 'contrast/a~b'"),
        ({"max_windows": 0}, "got max_windows=0"),
        ({"detector": DetectorConfig(), "signal": "group_loss/a"}, "set detector.max_length"),
        ({"detector": None}, "got detector=None; expected a DetectorConfig"),
    ],
)
def test_what_no_detector_can_watch_is_refused(settings, words):
    with pytest.raises(InputError, match=words):
        Live(**{"detector": LIMITED, "signal": "between", **settings})
