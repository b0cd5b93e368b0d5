import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stagewise.cli.detect import _pair
from stagewise.interventions.span import SUMMARY_NAME, Span, read_spans
from stagewise.interventions.window_sources import Spans
from tests.outcomes import outcome

NUMBERS = st.none() | st.booleans() | st.integers(-5, 10**19) | st.floats() | st.text(max_size=3)
PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=8,
)
ROWS = st.lists(st.fixed_dictionaries({}, optional={"start": NUMBERS, "peak": NUMBERS, "end": NUMBERS}), max_size=3)


@settings(max_examples=300, deadline=None)
@given(st.fixed_dictionaries({}, optional={"transitions": ROWS | PLAIN}) | PLAIN, st.sampled_from(["window", "onset"]))
def test_any_summary_gives_spans_or_is_refused_in_one_line(tmp_path_factory, content, part):
    path = tmp_path_factory.mktemp("run") / SUMMARY_NAME
    path.write_text(json.dumps(content))
    spans, refused = outcome(lambda: read_spans(path, part=part))
    if refused is None:
        assert spans
        assert all(span.end > span.start >= 0 for span in spans)
    else:
        assert str(path) in refused or "which overlap" in refused


@settings(max_examples=200, deadline=None)
@given(NUMBERS | st.lists(NUMBERS | st.lists(NUMBERS, max_size=3) | st.tuples(NUMBERS, NUMBERS), max_size=3))
def test_any_windows_of_yaml_are_spans_or_refused(windows):
    spans, refused = outcome(lambda: Spans(windows).resolve())
    if refused is None:
        assert len(spans) == len(windows)
        assert all(isinstance(span, Span) for span in spans)


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=10) | st.text("ab~", max_size=5))
def test_any_pair_of_the_command_line_is_two_names_or_refused(text):
    found, refused = outcome(lambda: _pair(text))
    if refused is None:
        assert "~".join(found) == text
        assert all(found)


@pytest.mark.parametrize("step", [10**30, "5", 1.5, True, None, [1]])
def test_a_step_that_is_none_is_refused_with_its_file(tmp_path, step):
    (tmp_path / SUMMARY_NAME).write_text(json.dumps({"transitions": [{"start": 1, "peak": 2, "end": step}]}))
    _, refused = outcome(lambda: read_spans(tmp_path))
    assert refused.startswith(f"got end of a transition in {tmp_path / SUMMARY_NAME}=")
