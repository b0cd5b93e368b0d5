import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stagewise.errors import InputError
from stagewise.files.json_input import parse_json, read_json
from stagewise.runs.probe_files import SUMMARY_NAME
from stagewise.runs.summary_file import summary_text
from tests.outcomes import outcome

WORDS = {"what": "the summary of a run", "advice": "name another"}
FINITE = st.floats(allow_nan=False, allow_infinity=False)
PLAIN = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


def refusal(tmp_path, raw, **options):
    path = tmp_path / "their.json"
    path.write_bytes(raw)
    with pytest.raises(InputError) as caught:
        read_json(path, **WORDS, **options)
    words = str(caught.value)
    assert words.startswith(f"got {path}")
    assert "expected the summary of a run" in words
    assert "name another" in words
    assert "\n" not in words
    assert len(words) < 500
    return words


@pytest.mark.parametrize(
    ("raw", "place"),
    [
        (b'{"a": {"b": [1, NaN]}}', r"NaN at a.b[1]"),
        (b'{"a": -Infinity}', "an infinite number at a"),
        (b'{"a": 1e999}', "an infinite number at a"),
        (b'{"a": 1,\n "b": }', "line 2, column 7"),
        (b"", "line 1, column 1"),
        (b"[" * 200_000, "nested deeper than 100"),
        (b"[" * 150 + b"]" * 150, "nested deeper than 100"),
        (b'{"a":' * 50_000, "nested deeper than 100"),
        (b"9" * 5000, "thousands of digits"),
        (b'{"a": "caf\xe9"}', "not UTF-8 at byte 10"),
        (b"\x89PNG\r\n\x1a\n\x00", "not UTF-8 at byte 0"),
        (b"\xff\xfe{\x00}\x00", "not UTF-8 at byte 0"),
        (b"[1]", "a list at its top"),
        (b"null", "null at its top"),
        (b"3", "a number at its top"),
        (b"true", "true or false at its top"),
        (b'"a"', "text at its top"),
        (b'{"b": 1}', "has no 'a'"),
        (b'{"' + b"x" * 5000 + b'": NaN}', "NaN at xxxx"),
        (b'{"\\n\\u001b[2J": NaN}', "NaN at \\n\\x1b[2J"),
    ],
)
def test_what_is_no_such_file_is_refused_with_its_place(tmp_path, raw, place):
    assert place in refusal(tmp_path, raw, keys=["a"])


def test_paths_that_cannot_be_read_are_refused(tmp_path):
    for path in (tmp_path, tmp_path / "nowhere", "a\0b", "x" * 5000):
        with pytest.raises(InputError, match="expected the summary of a run"):
            read_json(path, **WORDS)


def test_a_byte_order_mark_is_no_fault(tmp_path):
    (tmp_path / "a.json").write_bytes(b'\xef\xbb\xbf{"a": 1}')
    assert read_json(tmp_path / "a.json", **WORDS) == {"a": 1}


@settings(max_examples=80, deadline=None)
@given(st.dictionaries(st.text(), PLAIN, max_size=4))
def test_what_python_writes_is_read_as_it_was(content):
    assert parse_json(json.dumps(content), source="s", **WORDS) == content


@settings(max_examples=300, deadline=None)
@given(st.text() | st.text('[]{}",:0123456789.eE+-nulltrefasNIiy \n\\', max_size=40))
def test_any_text_is_read_or_refused_in_one_line(text):
    found, refused = outcome(lambda: parse_json(text, source="s", **WORDS))
    if refused is None:
        assert isinstance(found, dict)
        # What is let through can be written again, which NaN cannot.
        json.dumps(found, allow_nan=False)


KINDS = {"probes": int, "probes_flagged": int, "flags": dict, "transitions": list, "min_prominence": (int, float)}
SUMMARY = {
    "probes": 3,
    "probes_flagged": 1,
    "flags": {"ess": 1},
    "transitions": [{"start": 1, "peak": 2, "end": 3, "value": 0.5}],
    "min_prominence": 0.2,
    "component": None,
    "verdict": {"text": "nothing moved"},
}


@settings(max_examples=200, deadline=None)
@given(st.sampled_from(sorted(SUMMARY)), PLAIN)
def test_a_summary_of_another_shape_is_refused_by_name(tmp_path_factory, name, value):
    path = tmp_path_factory.mktemp("run") / SUMMARY_NAME
    path.write_text(json.dumps({**SUMMARY, name: value}))
    text, refused = outcome(lambda: summary_text(path))
    if refused is not None:
        assert name in refused
        assert str(path) in refused
        return
    kept = json.loads(text)[name]
    assert kept == value
    if name in KINDS:
        assert isinstance(kept, KINDS[name])
        assert not isinstance(kept, bool)


@pytest.mark.parametrize("row", [{}, {"start": 1}, {"start": "1", "peak": 2, "end": 3, "value": 1.0}, 5, None, []])
def test_a_window_that_is_none_is_refused_by_its_number(tmp_path, row):
    path = tmp_path / SUMMARY_NAME
    path.write_text(json.dumps({**SUMMARY, "transitions": [*SUMMARY["transitions"], row]}))
    with pytest.raises(InputError, match=r"transitions(\[1\])?"):
        summary_text(path)
