import re
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stagewise.checks.patterns import compiled, found_in, whole_match
from stagewise.errors import InputError
from stagewise.lm.classes.defaults import DEFAULT_CLASSES
from tests.outcomes import outcome

WORDS = {"expected": "a regular expression", "advice": "see re"}
PATTERNS = [
    getattr(spec, name)
    for spec in DEFAULT_CLASSES.values()
    for name in ("pattern", "followed_by", "not_followed_by")
    if getattr(spec, name) is not None
]


@pytest.mark.parametrize(
    ("pattern", "place"),
    [
        ("(a", r"missing \) at character 3"),
        ("*a", "at character 1"),
        ("[b-a]", "bad character range at character 5"),
        ("a)", "character 2"),
        ("[", "character 2"),
        ("\\", "at character"),
        ("(" * 5000, "too deep"),
        ("x" * 20_000, "of 20,000 characters"),
        ("(?:a{1000000}){1000000}", "multiply to more than 100,000"),
        ("a{99999999999999}", "multiply to more than 100,000"),
        (3, "=3"),
        (None, "=None"),
        (["a"], r"=\['a'\]"),
    ],
)
def test_what_is_no_pattern_is_refused_with_its_place(pattern, place):
    start = time.perf_counter()
    with pytest.raises(InputError, match=place) as caught:
        compiled(pattern, **WORDS)
    assert "expected a regular expression" in str(caught.value)
    assert len(str(caught.value)) < 500
    assert time.perf_counter() - start < 2


@pytest.mark.parametrize("pattern", [r"(a|aa)+$", r"^(a|aa|aaa)+\d"])
def test_a_pattern_without_end_is_stopped(pattern):
    start = time.perf_counter()
    with pytest.raises(InputError, match="repeats within repeats"):
        found_in(compiled(pattern, **WORDS), ["short", "a" * 60 + "!"] * 50, seconds=0.2)
    assert time.perf_counter() - start < 5
    with pytest.raises(InputError, match="still searching"):
        whole_match(compiled(pattern, **WORDS), "a" * 60 + "!", seconds=0.2)


def test_the_limit_is_of_all_strings_together():
    with pytest.raises(InputError, match="still searching"):
        found_in(compiled(r"(a|aa)+$", **WORDS), ["a" * 28 + "!"] * 10_000, seconds=0.3)


@settings(max_examples=200, deadline=None)
@given(st.sampled_from(PATTERNS), st.text() | st.text(" \n\t([{\"'`<>/#*-=~aZ09.,;:)]}", max_size=8))
def test_default_classes_mean_what_they_mean_to_re(pattern, text):
    assert found_in(compiled(pattern, **WORDS), [text]) == [re.search(pattern, text) is not None]


@settings(max_examples=300, deadline=None)
@given(st.text() | st.text("()[]{}|*+?.\\^$ab01-,:<>=!PsdwpLN&", max_size=25), st.text("ab01 ", max_size=15))
def test_any_text_is_a_pattern_or_refused_in_one_line(pattern, text):
    found, refused = outcome(lambda: found_in(compiled(pattern, **WORDS), [text], seconds=0.5))
    assert refused is not None or found in ([True], [False])
