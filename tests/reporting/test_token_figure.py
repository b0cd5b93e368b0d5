"""The figure of coloured text has what the HTML page has, and stays within its size."""

import re
import warnings

import numpy as np
import pytest
from matplotlib.colors import to_hex
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch.utils.tensorboard import SummaryWriter

from stagewise.errors import InputError
from stagewise.reporting.tensorboard import rasterize, write_token_influence
from stagewise.reporting.token_figure import token_figure
from stagewise.reporting.token_html import token_html
from stagewise.reporting.token_influence import TokenInfluence
from tests.reporting.test_token_pictures import parsed

pytestmark = pytest.mark.drawn


def an_influence(texts, query=(0, 2), limit=0.5, units="nats^2"):
    values = np.random.default_rng(0).normal(0, 0.4, (len(texts), len(texts[0])))
    values[:, 0] = np.nan
    values[query] = -3
    return TokenInfluence(values, tuple(map(tuple, texts)), *query, limit, units)


@pytest.fixture
def influence():
    texts = [[f"w{sample}", *(f" t{item}" for item in range(18)), "\n"] for sample in range(3)]
    found = an_influence(texts)
    found.values[1, 1:4] = 0.0, 0.5, -0.5
    found.values[1, 4:6] = 0.5001, -7.0
    return found


def words_of(figure):
    return " ".join(text.get_text() for axes in figure.axes for text in axes.texts)


def patches_of(figure, gid):
    return [patch for patch in figure.axes[0].patches if patch.get_gid() == gid]


def letters_of(figure, gid):
    return [text for text in figure.axes[0].texts if text.get_gid() == gid]


def test_colours_and_letters_are_those_of_the_html_page(influence):
    figure = token_figure(influence)
    spans = [attributes for attributes, _ in parsed(token_html(influence)).found]
    assert len(spans) == 60
    for attributes in spans:
        place = attributes["title"].split(":")[0]
        style = attributes.get("style", "")
        wanted = re.findall(r"background:(#\w{6})", style)
        assert [to_hex(item.get_facecolor()) for item in patches_of(figure, place)] == wanted
        shade = "#ffffff" if "color:#fff" in style else "#111111" if style else "#999999"
        assert {to_hex(item.get_color()) for item in letters_of(figure, place)} == {shade}


def test_helpful_is_blue_harmful_red_zero_white_and_colours_end_at_the_limit(influence):
    figure = token_figure(influence)
    faces = [to_hex(patches_of(figure, f"sample 1, token {token}")[0].get_facecolor()) for token in range(1, 6)]
    assert faces == ["#ffffff", "#b2182b", "#2166ac", "#b2182b", "#2166ac"]
    bar = figure.axes[1]
    assert [get_xticklabel.get_text() for get_xticklabel in bar.get_xticklabels()] == ["-0.5", "0", "+0.5"]
    assert bar.get_xlim() == (-0.5, 0.5)
    (mesh,) = (collection for collection in bar.collections if collection.get_array() is not None)
    assert [to_hex(mesh.to_rgba(value)) for value in (-0.5, 0, 0.5)] == ["#2166ac", "#ffffff", "#b2182b"]
    helpful, harmful = bar.texts
    assert helpful.get_text() == "helpful"
    assert helpful.get_position()[0] < 0
    assert harmful.get_text().startswith("harmful")
    assert harmful.get_text().endswith("minus the covariance, nats²")
    assert harmful.get_position()[0] > 1


def test_pixels_behind_a_token_have_its_colour(influence):
    figure = token_figure(influence)
    pixels = rasterize(figure)
    for token in (2, 3, 9):
        (patch,) = patches_of(figure, f"sample 1, token {token}")
        left, top = round(patch.get_x()), round(patch.get_y())
        assert to_hex(pixels[top + 1, left + 2] / 255) == to_hex(patch.get_facecolor())


def test_the_sign_convention_stands_in_words(influence):
    words = words_of(token_figure(influence, title="Step 7"))
    for name in ("Step 7", "Blue = negative = helpful", "more weight on a token lowers the loss", "Red = positive ="):
        assert name in words
    assert "token 2 of sample 0, “·t1”" in words
    beyond = (np.abs(influence.values) > 0.5).sum() - 1
    assert f"which have their colours: {beyond};" in words
    correlations = an_influence([["a"] * 4], limit=1.0, units="1")
    assert "minus the correlation, a pure number" in words_of(token_figure(correlations))


def test_the_query_is_outlined_in_each_line_that_it_is_in():
    long = an_influence([["a", "b", "Q" * 150, "d"], ["e"] * 4])
    figure = token_figure(long, columns=64)
    outlines = patches_of(figure, "query")
    behind = patches_of(figure, "sample 0, token 2")
    assert [to_hex(item.get_edgecolor()) for item in outlines] == ["#111111"] * 3
    for outline, patch in zip(outlines, behind, strict=True):
        inner, outer = patch.get_bbox(), outline.get_bbox()
        assert outer.x0 < inner.x0 < inner.x1 < outer.x1
        assert outer.y0 < inner.y0 < inner.y1 < outer.y1
    assert "".join(item.get_text() for item in letters_of(figure, "sample 0, token 2")) == "Q" * 150


def test_tokens_without_a_loss_have_grey_letters_and_no_colour(influence):
    figure = token_figure(influence)
    assert patches_of(figure, "sample 1, token 0") == []
    (text,) = letters_of(figure, "sample 1, token 0")
    assert (text.get_text(), to_hex(text.get_color())) == ("w1", "#999999")


def test_a_newline_is_seen_and_ends_its_line():
    figure = token_figure(an_influence([["a", "b", "c", "\n", " d"]]))
    before, sign, after = (patches_of(figure, f"sample 0, token {number}")[0] for number in (2, 3, 4))
    assert [item.get_text() for item in letters_of(figure, "sample 0, token 3")] == ["⏎"]
    assert sign.get_y() == before.get_y() < after.get_y()
    assert after.get_x() < before.get_x()
    assert [(item.get_text(), item.get_alpha()) for item in letters_of(figure, "sample 0, token 4")] == [
        ("·", 0.5),
        ("d", 1),
    ]


def test_signs_are_as_wide_as_their_cells_so_that_tokens_do_not_overlap():
    figure = token_figure(an_influence([["a", "W" * 60, "mmmmmm", "iiiiii", "fifi"]], (0, 1)))
    rasterize(figure)
    for token in (1, 2, 3, 4):
        (patch,) = patches_of(figure, f"sample 0, token {token}")
        (text,) = letters_of(figure, f"sample 0, token {token}")
        box, letters = patch.get_window_extent(), text.get_window_extent()
        assert box.x0 - 1 <= letters.x0 < letters.x1 <= box.x1 + 2
        assert box.y0 <= letters.y0 < letters.y1 <= box.y1


def test_odd_characters_are_drawn_as_they_are_or_as_boxes_without_a_warning():
    tokens = [
        "<s>",
        "$x^2$",
        "中文",
        "\U0001f600",
        "",
        "\x07",
        r"\frac{",
        "$",
        "\ufffd",
        "\ud800",
        "\r",
        "%_",
        "e\u0301",
    ]
    found = an_influence([tokens, tokens[::-1]], (0, 2))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        figure = token_figure(found, title="$a$ 中 $")
        pixels = rasterize(figure)
    assert pixels.std() > 0
    shown = ["".join(item.get_text() for item in letters_of(figure, f"sample 0, token {place}")) for place in range(13)]
    assert shown == [
        "<s>", "$x^2$", "□□", "□", "∅", "\\x07", "\\frac{", "$", "\ufffd", "\\ud800", "←", "%_", "e\u0301",
    ]  # fmt: skip
    assert not any(text.get_parse_math() for text in figure.axes[0].texts)
    assert "$a$ □ $" in words_of(figure)


def test_what_there_is_no_room_for_is_said_and_the_size_is_bounded():
    texts = [[f"{item % 7}\n" for item in range(512)]] * 5
    found = an_influence(texts, (0, 300))
    figure = token_figure(found, lines=120)
    words = words_of(figure)
    assert "sample 0, with the outlined token (▶): lines 271 to 330 of 512" in words
    assert "sample 1: lines 1 to 58 of 512" in words
    assert "see the HTML page: the other lines of sample 0 and 1 and 3 more samples." in words
    assert patches_of(figure, "query")
    height, width, _ = rasterize(figure).shape
    assert (height < 2600, width) == (True, 832)


def test_nothing_is_said_to_be_left_out_where_all_is_shown(influence):
    figure = token_figure(influence)
    assert "HTML" not in words_of(figure)
    for sample, row in enumerate(influence.tokens):
        for token in range(1, len(row)):
            assert patches_of(figure, f"sample {sample}, token {token}")
    short = an_influence([["a", "b\n", "c\n", "d\n", "e\n", "f"]] * 2)
    assert "see the HTML page: 1 more sample." in words_of(token_figure(short, lines=10))


def test_samples_are_shown_as_they_are_asked_for(influence):
    figure = token_figure(influence, samples=[2, 1])
    headings = [text for text in figure.axes[0].texts if re.match(r"sample \d", text.get_text())]
    assert [heading.get_text() for heading in headings] == ["sample 2", "sample 1"]
    assert patches_of(figure, "query") == []
    assert "HTML" not in words_of(figure)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"samples": [3]}, r"got samples=\[3\]; expected 0 to 2"),
        ({"samples": [0, -1]}, r"got samples=\[-1\]"),
        ({"samples": []}, r"got samples=\[\]; expected at least one"),
        ({"columns": 10}, "got columns=10; expected 64 to 400"),
        ({"lines": 2}, "got lines=2; expected 10 to 1000"),
    ],
)
def test_what_cannot_be_drawn_is_refused(influence, changes, words):
    with pytest.raises(InputError, match=words):
        token_figure(influence, **changes)


def test_tensorboard_has_the_image_under_a_tag_of_its_own_beside_the_table(influence, tmp_path):
    with SummaryWriter(tmp_path) as writer:
        write_token_influence([writer], influence, 7)
    write_token_influence([], influence, 7)
    events = EventAccumulator(str(tmp_path), size_guidance={"images": 0, "tensors": 0})
    events.Reload()
    assert events.Tags()["images"] == ["influence/token_colours"]
    assert events.Tags()["tensors"] == ["influence/token_bif/text_summary"]
    (event,) = events.Images("influence/token_colours")
    assert event.step == 7
    (tmp_path / "image.png").write_bytes(event.encoded_image_string)
    with Image.open(tmp_path / "image.png") as image:
        pixels = np.asarray(image)[..., :3]
    np.testing.assert_array_equal(pixels, rasterize(token_figure(influence, title="Token influence at step 7")))
