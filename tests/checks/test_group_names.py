import html
import re
import unicodedata

import markdown
import numpy as np
import pytest
import torch
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

from stagewise.callbacks.intervention import InterventionCallback
from stagewise.callbacks.intervention_plan import resolve_groups
from stagewise.checks.group_names import FORBIDDEN, check_group_names, markdown_text, plain_names
from stagewise.errors import InputError
from stagewise.influence.groups import Groups
from stagewise.interventions.grouped_rows import GroupedRows
from stagewise.interventions.policy import ConstantFactor
from stagewise.interventions.strata import Strata
from stagewise.interventions.window_sources import Spans
from stagewise.lm.classes.coverage import class_coverage
from stagewise.lm.classes.reading import read_specs
from stagewise.reporting import tags
from stagewise.reporting.intervention import report_markdown
from stagewise.runs.words import with_plain_names
from stagewise.sampling.data import ProbeData
from tests.outcomes import outcome

BAD = {
    "HTML": "<script>alert(1)</script>",
    "an entity": "a&amp;b",
    "a pipe": "a|b",
    "a newline": "a\nb",
    "a carriage return": "a\rb",
    "a tab": "a\tb",
    "a line separator": "a\u2028b",
    "a null": "a\0b",
    "an escape sequence": "\x1b[31mred",
    "right-to-left override": "a\u202eb",
    "a zero width space": "a\u200bb",
    "a no-break space": "a\u00a0b",
    "half a character": "a\ud800b",
    "a slash": "a/b",
    "a backslash": "a\\b",
    "a pair": "a~b",
    "mathematics": "$x$",
    "a link": "[a](b)",
    "emphasis": "*a*",
    "code": "`a`",
    "a quotation mark": 'a"b',
    "empty": "",
    "only a space": " ",
    "a space before": " a",
    "a space behind": "a ",
    "long": "x" * 101,
    "a number": 3,
    "None": None,
    "a truth value": True,
    "a pair of names": ("a", "b"),
}
GOOD = ["induction", "not_induction", "living thing", "length 128+", "Zürich", "日本語", "a.b-c:d=(e), f's", "x" * 100]
ANY = st.text(max_size=20) | st.text('ab ~/\\|<>&"`*[]$_#\n\t\u202e\x1b', max_size=12)


@pytest.mark.parametrize("name", BAD.values(), ids=BAD.keys())
def test_names_that_cannot_be_shown_are_refused_wherever_groups_come_from(name):
    mask = torch.tensor([True, False])
    ways = {
        "names": lambda: check_group_names([name]),
        "probe data": lambda: ProbeData((torch.zeros(2, 1),), groups={name: mask}),
        "groups": lambda: Groups({name: np.ones(3, dtype=bool)}, np.ones(3, dtype=bool)),
        "strata": lambda: Strata({name: np.array([True, False])}),
        "rows": lambda: GroupedRows([{"x": 1}, {"x": 2}], {name: mask}),
        "weights": lambda: ConstantFactor({name: 2.0}),
        "classes": lambda: read_specs({name: {"pattern": "x"}}),
        "intervention": lambda: resolve_groups([name], None, ConstantFactor({"a": 2.0})),
    }
    for way, call in ways.items():
        _, refused = outcome(call)
        assert refused is not None, way
        assert "name" in refused
        assert refused.isprintable() or "\ud800" in refused


@pytest.mark.parametrize(
    "pair",
    [("a", "a"), ("Å", "A\u030a"), ("fi", "\ufb01"), ("x2", "x²")],
    ids=["same", "composed", "ligature", "raised"],
)
def test_two_names_that_are_one_tag_to_a_reader_are_refused(pair):
    with pytest.raises(InputError, match="expected names that differ"):
        check_group_names(pair)


def test_good_names_stay_as_they_are_in_tags_and_in_markdown():
    assert check_group_names(GOOD) == tuple(GOOD)
    for name in GOOD:
        assert rendered(name) == name
        assert tags.influence("within", name, name).count("/") == 2
        assert tags.influence("within", name, name).split("~") == [f"influence/within/{name}", name]


@settings(max_examples=300, deadline=None)
@given(st.lists(ANY, max_size=4))
def test_names_are_shown_as_they_are_or_refused(names):
    found, refused = outcome(lambda: check_group_names(names))
    if refused is not None:
        return
    assert list(found) == names
    assert len({unicodedata.normalize("NFKC", name) for name in names}) == len(names)
    for name in names:
        assert html.escape(name, quote=False) == name
        assert name.isprintable()
        assert not set(name) & set(FORBIDDEN)


@settings(max_examples=200, deadline=None)
@given(st.lists(ANY, max_size=5))
def test_names_of_others_become_names_that_can_be_shown_and_differ(names):
    found = plain_names(names)
    assert len(found) == len(names)
    for before, after in zip(names, found, strict=True):
        assert outcome(lambda after=after: check_group_names([after]))[1] is None
        if outcome(lambda before=before: check_group_names([before]))[1] is None:
            assert after == before
    changed = [after for before, after in zip(names, found, strict=True) if before != after]
    assert len(set(changed)) == len(changed)


def rendered(text: str) -> str:
    """What a reader of the Markdown sees, by a renderer that stagewise has no part in."""
    page = markdown.markdown(f"| head |\n|---|\n| x{text}x |", extensions=["tables"])
    cell = re.search(r"<td>x(.*)x</td>", page, re.DOTALL)
    assert cell is not None, page
    assert "<" not in cell[1], page
    return html.unescape(cell[1])


@settings(max_examples=300, deadline=None)
@given(st.text(max_size=30) | st.text("ab|<>&*_`[]()!#~$\\ \n\x1b/:h", max_size=30))
def test_any_text_in_a_table_shows_itself(text):
    # The renderer keeps two control characters for itself; here they are spaces anyway.
    expected = " ".join("".join(item if item.isprintable() else " " for item in text).split())
    # A backslash before what Markdown cannot escape shows, in this dialect: GitHub's takes it away.
    assert rendered(markdown_text(text)).replace("\\", "") == expected.replace("\\", "")
    assert "<" not in markdown_text(text)
    assert markdown_text(text).isprintable()


def test_reasons_and_policies_of_others_cannot_leave_their_cell():
    change = {"step": 1, "inside": True, "weights": {"a": 2.0}, "reason": "x | y\n\n<img src=x>"}
    report = {
        "mechanism": "loss",
        "windows": "live",
        "policy": "m.<locals>.<lambda>",
        "prefetch_lag": 0,
        "groups": ["a"],
        "changes": [change],
        "budget": None,
        "steps": 5,
    }
    text = report_markdown(report)
    assert "<" not in text
    assert len([line for line in text.splitlines() if line.startswith("| 1 |")]) == 1
    page = markdown.markdown(text, extensions=["tables"])
    assert "<img" not in page
    assert page.count("<td") == 4


def test_a_run_of_others_is_reported_under_names_that_can_be_shown():
    names = ["a", "<b>", "a|b", "a_b"]
    run = xr.Dataset({"group_bif": (("group", "group_j"), np.zeros((4, 4)))}, coords={"group": names, "group_j": names})
    found = with_plain_names(run)
    assert found["group"].values.tolist() == ["a", "_b_", "a_b 2", "a_b"]
    assert found["group_j"].values.tolist() == found["group"].values.tolist()
    assert run["group"].values.tolist() == names


def test_a_coverage_table_has_as_many_cells_as_it_should():
    table = class_coverage({"a": torch.tensor([[True, False]]), "b": torch.tensor([[True, True]])}).markdown()
    assert markdown.markdown(table, extensions=["tables"]).count("<td") == 5 * 3 + 2 * 3


def test_a_name_as_text_is_no_list_of_letters():
    with pytest.raises(InputError, match="groups='abc'; expected a mapping"):
        InterventionCallback(ConstantFactor({"a": 2.0}), Spans([(1, 2)]), mechanism="loss", groups="abc")
