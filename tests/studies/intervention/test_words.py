"""Tables and claims follow the sign of the figures."""

from stagewise.studies.intervention.claims import answers
from stagewise.studies.intervention.results import summarize
from stagewise.studies.intervention.table import results_markdown
from tests.studies.intervention.fake_cells import config_of, fake_cell


def found(inside, earliest):
    some = []
    for seed, (one, two) in enumerate(zip(inside, earliest, strict=True), start=1):
        some += [fake_cell(seed, "none", 600), fake_cell(seed, "inside", one), fake_cell(seed, "earliest", two)]
    return summarize(config_of(range(1, len(inside) + 1)), some)


def said(summary):
    return " ".join(line for answer in answers(summary) for line in answer.lines)


def test_words_turn_with_the_data():
    ahead, behind = found([400, 410, 420], [500, 500, 500]), found([500, 500, 500], [400, 410, 420])
    assert "`inside` beats `earliest`" in said(ahead)
    assert "`inside` loses to `earliest`" in said(behind)
    assert "`inside` ties with `earliest`" in said(found([400, 500, 410], [500, 400, 420]))
    assert "`inside` has the head earlier than `none`" in said(ahead)
    assert "`inside` has the head later than `none`" in said(found([700, 710, 720], [500, 500, 500]))
    assert "`inside` makes no difference" in said(found([500, 700, 600], [500, 500, 500]))


def test_censored_and_single_seeds_claim_nothing():
    assert "`inside` cannot be told" in said(found([400], [500]))
    censored = said(found([400, None], [500, 500]))
    assert "`inside` has the head earlier" not in censored
    assert "`inside` cannot be distinguished from `earliest`" in said(found([400, None], [500, 510]))


def test_seeds_without_any_spread_claim_nothing_unless_all_are_zero():
    """Steps are measured every ten: equal values are no proof of certainty."""
    assert "`inside` cannot be told" in said(found([400, 400], [500, 510]))
    assert "`inside` makes no difference" in said(found([600, 600], [500, 510]))


def test_questions_without_cells_are_not_asked():
    questions = [answer.question for answer in answers(found([400, 410], [500, 500]))]
    assert "Can a detector find it while the model trains?" not in questions
    assert "Does it matter when?" in questions


def test_tables_fit_a_terminal_and_mark_upper_bounds():
    text = results_markdown(found([400, None], [500, 510]))
    assert "at most -600" in text
    assert max(map(len, text.splitlines())) <= 120
