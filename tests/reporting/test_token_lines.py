"""Lines of a text lose no sign, and excerpts keep within their room."""

import numpy as np
import pytest

from stagewise.reporting.token_influence import TokenInfluence, visible
from stagewise.reporting.token_lines import excerpts, wrapped


def as_text(lines):
    return ["".join(piece.text for piece in line) for line in lines]


def influence_of(texts, query=(0, 1)):
    values = np.ones((len(texts), len(texts[0])))
    return TokenInfluence(values, tuple(map(tuple, texts)), *query, 1.0, "nats^2")


def test_lines_end_at_newlines_whose_sign_stays():
    assert as_text(wrapped(["a", "\n", "b\n\n", "\n  ", "c", "\r\n"], 20)) == ["a⏎", "b⏎⏎", "⏎", "··c←⏎"]
    assert as_text(wrapped(["\n"], 20)) == ["⏎"]
    assert wrapped([], 20) == []


def test_a_token_that_does_not_fit_goes_to_the_next_line_and_a_long_one_is_split():
    assert as_text(wrapped(["abc", "def", "gh"], 5)) == ["abc", "defgh"]
    assert as_text(wrapped(["ab", "cdefghijklmn", "op"], 5)) == ["ab", "cdefg", "hijkl", "mnop"]
    assert as_text(wrapped(["abcde", "\n", "f"], 5)) == ["abcde", "⏎", "f"]
    assert as_text(wrapped(["abcdef\nghi"], 4)) == ["abcd", "ef⏎", "ghi"]


def test_no_sign_is_lost_and_none_is_beyond_the_columns():
    generator = np.random.default_rng(0)
    alphabet = list("ab \n\t\r$é中\x07")
    tokens = ["".join(generator.choice(alphabet, size=generator.integers(0, 30))) for _ in range(300)]
    lines = wrapped(tokens, 12)
    assert "".join(as_text(lines)) == "".join(map(visible, tokens))
    for line in lines:
        column = 0
        for piece in line:
            assert piece.column == column
            column += len(piece.text)
        assert 0 < column <= 12
    for token, text in enumerate(tokens):
        assert "".join(item.text for line in lines for item in line if item.token == token) == visible(text)


def test_texts_are_taken_in_order_while_there_is_room():
    influence = influence_of([["a\n"] * 10] * 4)
    found = excerpts(influence, [0, 1, 2, 3], columns=40, room=24)
    assert [(item.sample, item.first, len(item.lines), item.total) for item in found] == [
        (0, 0, 10, 10),
        (1, 0, 10, 10),
    ]
    found = excerpts(influence, [3, 0, 1, 2], columns=40, room=32)
    assert [(item.sample, item.first, len(item.lines)) for item in found] == [(3, 0, 10), (0, 0, 10), (1, 0, 9)]
    assert [item.is_whole for item in found] == [True, True, False]


@pytest.mark.parametrize(("query", "first"), [(0, 0), (50, 40), (99, 80)])
def test_a_long_text_of_the_query_is_cut_around_it_and_leaves_half_of_the_room(query, first):
    influence = influence_of([["a\n"] * 100] * 2, (0, query))
    own, other = excerpts(influence, [0, 1], columns=40, room=40)
    assert (own.first, len(own.lines)) == (first, 20)
    assert own.first <= query < own.first + len(own.lines)
    assert (other.first, len(other.lines)) == (0, 18)
    (alone,) = excerpts(influence, [0], columns=40, room=40)
    assert len(alone.lines) == 39


@pytest.mark.parametrize("room", [10, 17, 40, 200])
@pytest.mark.parametrize("samples", [[0], [0, 1, 2], [2, 1, 0], [1, 1]])
def test_excerpts_and_their_headings_keep_within_the_room(room, samples):
    influence = influence_of([["a\n"] * 30, ["b"] * 30, ["c" * 50] * 30])
    found = excerpts(influence, samples, columns=40, room=room)
    assert [item.sample for item in found] == samples[: len(found)]
    assert found
    assert all(item.lines for item in found)
    assert sum(1 + len(item.lines) for item in found) <= room
