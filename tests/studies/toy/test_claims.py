import re
from string import Formatter

import pytest

from stagewise.studies.toy.claims import CLAIMS, CONTRADICTED, HOLDS, NOT, sorted_claims
from stagewise.studies.toy.table import AIMS, ROWS, Aim, table_rows, validation_markdown, validation_table

each_claim = pytest.mark.parametrize("claim", CLAIMS, ids=lambda claim: claim.words[2:30])


def figure(median, low=None, high=None):
    low, high = median if low is None else low, median if high is None else high
    return {"median": median, "min": low, "max": high, "seeds": [1, 2, 3], "values": [low, median, high]}


def meeting(claim):
    return {name: figure(aim.value) for name, aim in claim.needs.items()} | {name: figure(0.5) for name in claim.shown}


@each_claim
def test_a_claim_names_every_figure_of_its_words(claim):
    named = {name for _, name, _, _ in Formatter().parse(claim.words) if name}
    assert named == set(claim.needs) | set(claim.shown)


@each_claim
def test_each_condition_can_contradict_its_claim(claim):
    good = meeting(claim)
    assert claim.borne_out(good)
    for name, aim in claim.needs.items():
        assert not claim.borne_out(good | {name: figure(aim.value + (-0.01 if aim.least else 0.01))})


@each_claim
def test_contradicted_claims_are_moved(claim):
    (kind,) = sorted_claims(meeting(claim)) or {None}
    assert claim.kind == kind
    for name, aim in claim.needs.items():
        bad = meeting(claim) | {name: figure(aim.value + (-0.01 if aim.least else 0.01))}
        assert CONTRADICTED in sorted_claims(bad)


def test_a_claim_without_its_figures_is_left_out():
    assert sorted_claims({}) == {}
    assert sorted_claims({"sibling_flips": figure(1.0)}) == {}


def test_claims_show_medians_with_their_range():
    shown = sorted_claims({"tangent_error": figure(0.011, 0.009, 0.013)})
    assert "within 0.011 [0.009, 0.013] (relative)" in shown[HOLDS][0]
    assert NOT not in shown


def test_tables_have_the_figures_that_are_there_and_count_the_seeds_that_meet_the_aim():
    summary = {"tangent_error": figure(0.0098, 0.0095, 0.0302), "far_flips": figure(0.0)}
    summary["far_flips"] |= {"seeds": [1], "values": [0.0]}
    assert table_rows(summary)[1:] == [
        ("unrolled influence against weight .99, relative error", "<= 0.02", "0.010", "0.009 to 0.030", "2 of 3"),
        ("far pairs, share", "", "0.000", "0.000 to 0.000 (1 of 3 seeds)", ""),
    ]
    assert "range over 3 seeds" in validation_table(summary)
    assert len({row.name for row in ROWS}) == len(ROWS)


def test_aims_are_limits_on_the_right_side():
    assert Aim(0.5).met(0.5)
    assert not Aim(0.5).met(0.49)
    assert Aim(0.5, least=False).met(0.5)
    assert not Aim(0.5, least=False).met(0.51)
    assert str(AIMS["tangent_error"]) == "<= 0.02"


def test_bars_within_cells_do_not_break_the_markdown_table():
    table = validation_markdown({row.name: figure(0.5) for row in ROWS})
    assert all(len(re.findall(r"(?<!\\)\|", line)) == 6 for line in table.splitlines())
