"""Sure signs by Student's t; the stretches before and after are unresolved."""

import numpy as np
import pytest
from scipy import stats

from stagewise.errors import InputError
from stagewise.runs.sign_changes import find_sign_changes
from stagewise.runs.sure_signs import sure_signs
from tests.runs.flipping_run import STEPS, flipping_run


def with_curve(values, **settings):
    run = flipping_run(**settings).copy(deep=True)
    run["group_bif"].loc[{"part": "within", "group": "cat", "group_j": "cat"}] = values
    return run


def limit(chance, probes, degrees):
    """Returns two-sided Student's t at the Sidak share of the chance."""
    return stats.t.isf((1 - (1 - chance) ** (1 / probes)) / 2, degrees)


@pytest.mark.parametrize("chance", [0.05, 0.3])
def test_the_limit_is_students_t_at_the_share_of_one_probe(chance):
    edge = 0.1 * limit(chance, 10, 7)
    values = np.zeros(10)
    values[4] = 1.001 * edge
    (found,) = sure_signs(with_curve(values), [("cat", "cat")], chance=chance)
    assert (found.side, found.first, found.last, found.before, found.after) == ("harmful", 500, 500, True, True)
    values[4] = 0.999 * edge
    assert sure_signs(with_curve(values), [("cat", "cat")], chance=chance) == []


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        (slice(5, None), "surely helpful from step 600; sign before that unresolved"),
        (slice(None, 4), "surely helpful up to step 400; sign after that unresolved"),
        (slice(2, 4), "surely helpful from step 300 to 400; sign before and after that unresolved"),
        (slice(None), "surely helpful from the first probe to the last"),
    ],
)
def test_unresolved_stretches_are_described(rows, words):
    values = np.zeros(10)
    values[rows] = -5.0
    (found,) = sure_signs(with_curve(values), [("cat", "cat")])
    assert found.words == f"cat: {words}"


def test_curves_that_turn_and_curves_of_noise_are_left_out():
    run = flipping_run()
    assert sure_signs(run, [("cat", "cat"), ("cat", "dog"), ("dog", "dog")]) == []
    # Out of equilibrium nothing is sure; nor with a single chain.
    values = np.full(10, -5.0)
    out = with_curve(values).assign(equilibrated=("step", np.r_[np.ones(5), np.zeros(5)]))
    assert sure_signs(out, [("cat", "cat")])[0].last == 500
    assert sure_signs(with_curve(values, chains=1), [("cat", "cat")]) == []
    with pytest.raises(InputError, match="chance"):
        sure_signs(run, [], chance=0)


def test_noise_alone_makes_a_sure_sign_as_often_as_stated():
    generator = np.random.default_rng(0)
    run, found, tries = flipping_run(), 0, 300
    for _ in range(tries):
        draws = generator.standard_normal((8, len(STEPS)))
        run["group_bif"].loc[{"part": "within", "group": "cat", "group_j": "cat"}] = draws.mean(0)
        run["group_bif_se"].loc[{"part": "within", "group": "cat", "group_j": "cat"}] = draws.std(0, ddof=1) / 8**0.5
        found += len(sure_signs(run, [("cat", "cat")], chance=0.2))
    # Curves sure of both signs are not counted.
    assert stats.binomtest(found, tries, 0.19).pvalue > 0.01


def test_the_report_of_sign_changes_lists_one_sided_curves_and_explains_a_lack_of_changes():
    values = np.where(STEPS >= 500, 5.0, 0.0)
    text = find_sign_changes(with_curve(values)).markdown()
    assert "- cat: surely harmful from step 500; sign before that unresolved" in text
    assert "**No sign change was found.** Why: a side is sure beyond" in text
    assert "1 of 3 curves is surely of one sign somewhere" in text
    nothing = find_sign_changes(flipping_run(chains=1)).markdown()
    assert "Why: no probe has an error that means something" in nothing
    whole = find_sign_changes(flipping_run(error=2.0))
    (limit_of_change, smallest) = (whole.limit, whole.smallest)
    assert smallest == pytest.approx(2.0 * limit_of_change)
