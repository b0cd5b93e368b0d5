from hypothesis import given
from hypothesis import strategies as st

from stagewise.reporting.short_names import short_name, short_names


def test_the_middle_is_left_out():
    assert short_name("abc") == "abc"
    assert short_name("a" * 20 + "b" * 20, 9) == "aaaa…bbbb"
    assert [len(short_name("x" * 99, size)) for size in (5, 8, 26)] == [5, 8, 26]


def test_names_that_would_be_the_same_show_where_they_part():
    names = [f"{'very ' * 9}{number} many letters and more" for number in ("one", "two")]
    assert list(short_names(names).values()) == ["very ver…y one many lette…", "very ver…y two many lette…"]
    assert short_names(["a", "b"]) == {"a": "a", "b": "b"}


@given(st.lists(st.text("ab ", min_size=1, max_size=60), unique=True, max_size=12), st.sampled_from([12, 26]))
def test_short_names_differ_and_fit(names, longest):
    found = short_names(names, longest)
    assert list(found) == names
    assert len(set(found.values())) == len(names)
    assert all(len(short) <= longest for short in found.values())
