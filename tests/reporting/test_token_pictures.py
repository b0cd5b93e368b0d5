"""Text coloured by token influence: what is helpful is blue, and nothing in a text can break the page."""

import re
from html.parser import HTMLParser

import numpy as np
import pytest

from stagewise.errors import InputError
from stagewise.influence.token_bif import token_bif
from stagewise.reporting.token_html import token_html, write_token_html
from stagewise.reporting.token_influence import TokenInfluence, token_markdown, visible

TEXTS = [["def", " f", "(", "<b>", "\n"], ["a&b", "\t", '"x"', "", " |y|"]]
QUERY = (0, 2)


@pytest.fixture
def bif():
    loss = np.random.default_rng(0).normal(size=(3, 20, 2, 4))
    loss[:, :, 1, 0] = loss[:, :, 0, 1]  # moves with the query: helpful
    loss[:, :, 1, 1] = -0.5 * loss[:, :, 0, 1]  # moves against it: harmful
    loss[:, :, 1, 2] = 0  # masked
    return token_bif(loss)


class Spans(HTMLParser):
    """Attributes and text of each token of a page."""

    def __init__(self):
        super().__init__()
        self.found, self.words, self.tags, self._span, self._deep = [], "", set(), None, 0

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        if tag == "span" and "title" in dict(attrs):
            self._span = [dict(attrs), ""]

    def handle_data(self, data):
        self.words += data
        if self._span is not None:
            self._span[1] += data

    def handle_endtag(self, tag):
        if tag == "span" and self._span is not None:
            self.found.append(tuple(self._span))
            self._span = None


def parsed(page):
    parser = Spans()
    parser.feed(page)
    return parser


def colour(attributes):
    return tuple(int(group, 16) for group in re.search(r"background:#(..)(..)(..)", attributes["style"]).groups())


def test_helpful_tokens_are_blue_harmful_ones_red_and_the_query_is_outlined(bif):
    page = parsed(token_html(TokenInfluence.of(bif, TEXTS, QUERY)))
    at = {attributes["title"].split(":")[0]: attributes for attributes, _ in page.found}
    assert len(at) == 10
    red, _, blue = colour(at["sample 1, token 1"])
    assert blue > red
    red, _, blue = colour(at["sample 1, token 2"])
    assert red > blue
    assert colour(at["sample 1, token 3"]) == (255, 255, 255)
    assert [place for place, item in at.items() if item.get("class") == "query"] == ["sample 0, token 2"]
    assert {place for place, item in at.items() if item.get("class") == "none"} == {
        "sample 0, token 0",
        "sample 1, token 0",
    }
    assert at["sample 1, token 1"]["title"].endswith("helpful")
    assert at["sample 1, token 2"]["title"].endswith("harmful")
    assert "Blue = negative = helpful" in page.words
    assert "Red = positive = harmful" in page.words


def test_values_are_the_row_of_the_query_and_colours_go_linearly_to_the_limit(bif):
    found = TokenInfluence.of(bif, TEXTS, QUERY, limit=2.0)
    np.testing.assert_array_equal(found.values[:, 1:], bif.values[0, 1])
    assert np.isnan(found.values[:, 0]).all()
    page = parsed(token_html(found))
    for attributes, _ in page.found:
        place = re.match(r"sample (\d), token (\d)", attributes["title"])
        value = found.values[int(place[1]), int(place[2])]
        if np.isfinite(value):
            full = np.array((33, 102, 172) if value < 0 else (178, 24, 43))
            want = 255 + min(1, abs(value) / 2) * (full - 255)
            assert colour(attributes) == pytest.approx(want, abs=0.51)
    assert "-2 helpful" in page.words
    assert "harmful +2 (minus the covariance, nats²)" in page.words


def test_the_default_limit_leaves_out_the_query_itself_and_what_is_masked(bif):
    found = TokenInfluence.of(bif, TEXTS, QUERY)
    others = np.abs(np.delete(bif.values[0, 1].ravel(), 1))
    assert found.limit == pytest.approx(np.percentile(others[others > 0], 99))
    assert found.limit < abs(found.values[QUERY]) * 1.001
    assert "colours: 1;" in parsed(token_html(found)).words


def test_aligned_tokens_need_no_first_one(bif):
    found = TokenInfluence.of(bif, [row[1:] for row in TEXTS], (0, 1))
    np.testing.assert_array_equal(found.values, bif.values[0, 1])


def test_nothing_in_a_text_breaks_the_page_and_white_space_is_seen(bif):
    title = "</title><script>x</script>"
    page = token_html(TokenInfluence.of(bif, TEXTS, QUERY), title=title)
    found = parsed(page)
    assert [text for _, text in found.found] == [
        "def", "·f", "(", "<b>", "⏎\n", "a&b", "⇥", '"x"', "∅", "·|y|",
    ]  # fmt: skip
    assert "script" not in found.tags
    assert title in found.words
    assert not re.search(r"(?:src|href|url|@import|http)", page)
    assert visible("\x07é中 \u200b") == "\\x07é中·\\u200b"


def test_lines_end_where_the_text_does_and_indentation_begins_the_next():
    bif = token_bif(np.random.default_rng(0).normal(size=(2, 9, 1, 4)))
    page = token_html(TokenInfluence.of(bif, [["a", ":", "\n\n   ", " b", "⏎"]], (0, 1)))
    shown = "".join(text for _, text in parsed(page).found)
    assert shown.split("\n") == ["a:⏎⏎", "····b⏎"]


def test_texts_are_shown_as_they_are_asked_for_the_one_of_the_query_first(bif, tmp_path):
    influence = TokenInfluence.of(bif, TEXTS, (1, 3))
    assert re.findall(r"<h2>sample (\d)", token_html(influence)) == ["1", "0"]
    assert re.findall(r"<h2>sample (\d)", token_html(influence, samples=[0])) == ["0"]
    path = write_token_html(tmp_path / "deep" / "page.html", influence, title="step 3", samples=[1])
    assert path.read_text(encoding="utf-8") == token_html(influence, title="step 3", samples=[1])


def test_correlations_are_called_by_their_name():
    bif = token_bif(np.random.default_rng(0).normal(size=(2, 9, 1, 3)), correlate=True)
    assert (
        "minus the correlation, a pure number" in parsed(token_html(TokenInfluence.of(bif, [["a"] * 4], (0, 1)))).words
    )


def test_the_table_ranks_tokens_and_is_safe_in_markdown(bif):
    influence = TokenInfluence.of(bif, TEXTS, QUERY)
    found = influence.extremes(2)
    values = [value for *_, value in found]
    flat = bif.values[0, 1].ravel()
    flat = np.delete(flat, 1)
    flat = np.sort(flat[flat != 0])
    assert values == flat[flat < 0][:2].tolist() + flat[flat > 0][-2:].tolist()
    rows = token_markdown(influence, count=9).splitlines()
    assert sum(row.startswith("|") for row in rows) == 2 + len(flat)
    assert all(row.count("|") == 6 for row in rows if row.startswith("|"))
    assert "negative = helpful" in rows[0]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"tokens": TEXTS[:1]}, r"got 1 texts of \[5\] tokens for 2 samples of 4 losses"),
        ({"tokens": [TEXTS[0], TEXTS[1][:4]]}, r"texts of \[4, 5\]"),
        ({"tokens": [[*row, "x"] for row in TEXTS]}, r"texts of \[6\]"),
        ({"query": (0, 0)}, "a token from 1 to 4"),
        ({"query": (2, 1)}, "a sample from 0 to 1"),
        ({"limit": 0.0}, "got limit=0.0"),
    ],
)
def test_what_does_not_fit_is_refused(bif, changes, words):
    given = {"tokens": TEXTS, "query": QUERY, **changes}
    with pytest.raises(InputError, match=words):
        TokenInfluence.of(bif, **given)
    with pytest.raises(InputError, match=r"expected \[sample, token, sample_j, token_j\]"):
        TokenInfluence.of(bif[0, 1], TEXTS, QUERY)
    with pytest.raises(InputError, match=r"got samples=\[2\]"):
        token_html(TokenInfluence.of(bif, TEXTS, QUERY), samples=[2])
