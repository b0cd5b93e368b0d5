import re

import pytest

from stagewise.experiments.toy.claims import CLAIMS, CONDITION, HOLDS, NOT, sorted_claims
from stagewise.experiments.toy.table import ROWS, table_rows, validation_markdown, validation_table


def figure(median, low=None, high=None):
    low, high = median if low is None else low, median if high is None else high
    return {"median": median, "min": low, "max": high, "seeds": [1, 2, 3], "values": [low, median, high]}


NAMES = sorted({name for claim in CLAIMS for name in claim.needs})


def test_claims_move_where_the_figures_contradict_them():
    good = {"tangent_error": figure(0.01)}
    bad = {"tangent_error": figure(0.05, low=0.01)}
    assert list(sorted_claims(good)) == [HOLDS]
    assert list(sorted_claims(bad)) == ["not borne out here"]


def test_a_claim_without_its_figures_is_left_out():
    assert sorted_claims({}) == {}
    assert sorted_claims({"sibling_flips": figure(1.0)}) == {}


def test_claims_show_medians_with_their_range():
    shown = sorted_claims(
        {"full_loo_r": figure(0.6, 0.5, 0.7), "full_loo_sign": figure(0.8), "tangent_full_drop_r": figure(0.81)}
    )
    (words,) = shown[NOT]
    assert "0.60 [0.50, 0.70]" in words
    assert "0.80 of the pairs" in words


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_every_claim_can_be_worded_and_contradicted(value):
    found = sorted_claims({name: figure(value) for name in NAMES})
    assert sum(len(claims) for claims in found.values()) == len(CLAIMS)
    assert not any(re.search(r"\{\w+\}", words) for claims in found.values() for words in claims)
    assert {CONDITION, "not borne out here"} & set(found)


def test_no_claim_holds_whatever_the_figures_are():
    for claim in CLAIMS:
        outcomes = {
            claim.borne_out({name: figure(value) for name in claim.needs})
            for value in (0.0, 0.005, 0.5, 0.7, 0.93, 1.0)
        }
        for other in (0, len(claim.needs) - 1):
            mixed = {name: figure(0.95 if row == other else 0.1) for row, name in enumerate(claim.needs)}
            outcomes.add(claim.borne_out(mixed))
        assert outcomes == {True, False}, claim.words


def test_tables_have_the_figures_that_are_there_with_their_aims():
    summary = {"tangent_error": figure(0.0098, 0.0095, 0.0102), "far_flips": figure(0.0)}
    rows = table_rows(summary)
    assert rows == [
        ("unrolled influence against weight .99, relative error", "<= .02", "0.010", "0.009 to 0.010"),
        ("far pairs, share", "", "0.000", "0.000 to 0.000"),
    ]
    assert "range over 3 seeds" in validation_table(summary)
    assert len({row.name for row in ROWS}) == len(ROWS)


def test_bars_within_cells_do_not_break_the_markdown_table():
    table = validation_markdown({row.name: figure(0.5) for row in ROWS})
    assert all(len(re.findall(r"(?<!\\)\|", line)) == 5 for line in table.splitlines())
