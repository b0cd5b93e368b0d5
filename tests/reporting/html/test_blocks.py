"""Our Markdown becomes the same words in HTML, and nothing in it is obeyed."""

import re

import pytest

from stagewise.checks.group_names import markdown_text
from stagewise.reporting.html.blocks import Heading, Items, Table, Text, inline, of_markdown, with_breaks


@pytest.mark.parametrize(
    ("words", "html"),
    [
        ("**a** and `b` and *c d*", "<strong>a</strong> and <code>b</code> and <em>c d</em>"),
        ("2 * 3 * 4", "2 * 3 * 4"),
        ("<b> & &lt;b>", "&lt;b&gt; &amp; &lt;b&gt;"),
        ("**<i>**", "<strong>&lt;i&gt;</strong>"),
        (markdown_text("a*b* <i> `x`"), "a*b* &lt;i&gt; `x`"),
        (3, "3"),
    ],
)
def test_a_line_is_shown_as_it_was_meant(words, html):
    assert str(inline(words)) == html


@pytest.mark.parametrize(
    ("name", "html"),
    [
        ("repeated_other_follower", "repeated_<wbr>other_<wbr>follower"),
        ("layer0.head1/up", "layer0.<wbr>head1/<wbr>up"),
        ("_a_", "_<wbr>a_"),
        ("plain words", "plain words"),
        ("<b>_x", "&lt;b&gt;_<wbr>x"),
    ],
)
def test_a_name_breaks_at_its_joints_and_not_between_letters(name, html):
    assert str(with_breaks(name)) == html


def test_paragraphs_lists_tables_and_headings_are_told_apart():
    text = "One\nline.\n\n## Head\n\n- a\n- b\n\n| x | y |\n|---|---|\n| 1 | a\\|b |\n\n![picture](x.png)\n\n*words*"
    assert of_markdown(text) == [
        Text("One line."),
        Heading("Head"),
        Items(("a", "b")),
        Table(("x", "y"), (("1", "a\\|b"),)),
        Text("*words*"),
    ]


def test_numbers_with_a_sign_or_an_exponent_stay_on_one_line():
    found = str(inline("-1.90e-03 to -3.32e-04, ± 6.8e-04, 5 of 6, a-3, step 1,000"))
    assert re.findall(r'<span class="number">(.*?)</span>', found) == ["-1.90e-03", "-3.32e-04", "± 6.8e-04"]
    assert re.sub("<[^>]+>", "", found) == "-1.90e-03 to -3.32e-04, ± 6.8e-04, 5 of 6, a-3, step 1,000"
    assert "<b>" not in inline("<b>-1e-3</b>")
