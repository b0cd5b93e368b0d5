import json

import numpy as np
import pytest

from stagewise.errors import InputError
from stagewise.phases.flips import find_flips, min_z_for_chance, sure_limit
from stagewise.runs.sign_changes import find_sign_changes
from tests.runs.flipping_run import STEPS, flipping_run


def test_the_curve_that_turns_is_found_and_the_noise_is_not():
    changes = find_sign_changes(flipping_run())
    assert [(item.group, item.group_j) for item in changes.found] == [("cat", "cat")]
    assert changes.num_curves == 3
    assert changes.num_probes == len(STEPS)
    for item in changes.found:
        assert item.flip.words == "helpful, then harmful"
        assert 500 < item.flip.step < 600
        assert item.over_all


def test_the_limit_is_that_of_the_chance_with_students_t_over_chains():
    run = flipping_run(error=0.4, chains=4)
    limit = min_z_for_chance(len(STEPS), 0.05)
    values, errors = (
        run[name].sel(part="within", group="cat", group_j="cat").values for name in ("group_bif", "group_bif_se")
    )
    by_hand = find_flips(STEPS, values, errors, min_z=limit, degrees=3)
    found = [item.flip for item in find_sign_changes(run).found]
    assert found == by_hand


def test_a_change_significant_alone_may_not_be_so_over_all_curves():
    one, three = (min_z_for_chance(len(STEPS), chance) for chance in (0.05, 0.05 / 3))
    error = 2 / (one + three)  # the curve begins at -1 and ends at 1
    changes = find_sign_changes(flipping_run(error=error, chains=2000))
    assert [item.over_all for item in changes.found] == [False]
    assert all(item.over_all for item in find_sign_changes(flipping_run(error=error / 2, chains=200)).found)


def test_words_state_the_number_expected_by_chance():
    said = find_sign_changes(flipping_run(), chance=0.1).markdown()
    assert "3 curves of 10 probes" in said
    assert "0.3 changes are to be expected by chance" in said
    assert "| cat ~ cat | helpful, then harmful |" in said
    none = find_sign_changes(flipping_run(), [("dog", "dog")]).markdown()
    assert "**No sign change was found.**" in none


def test_records_are_plain_json():
    (first,) = find_sign_changes(flipping_run()).found
    record = json.loads(json.dumps(first.record(), allow_nan=False))
    assert record["group"] == "cat"
    assert record["earliest"] < record["step"] < record["latest"]


def test_unknown_groups_and_other_data_are_refused():
    with pytest.raises(InputError, match="cow"):
        find_sign_changes(flipping_run(), [("cat", "cow")])
    with pytest.raises(InputError, match="not a run"):
        find_sign_changes(flipping_run().drop_vars("group_bif"))


def test_the_sign_of_total_is_ignored():
    """Between has the sign of two losses' changes since the reference, with training noise that no chain shows."""
    run = flipping_run()
    run["group_bif"].loc[{"part": "total"}] *= -5
    run["group_bif"].loc[{"part": "within", "group": "cat"}] = -1.0
    assert find_sign_changes(run).found == ()


def test_a_flip_between_weak_stretches_is_not_significant_over_all_curves():
    """Two weak stretches lie between two that are always sure; neither of them is as sure."""
    run = flipping_run(error=1.0, chains=4)
    values = np.zeros(len(STEPS))
    limits = [sure_limit(min_z_for_chance(len(STEPS), chance), 3) for chance in (0.05, 0.05 / 3)]
    weak = sum(limits) / 2
    values[[0, 3, 6, 9]] = 10 * weak, -weak, weak, -10 * weak
    run["group_bif"].loc[{"part": "within", "group": "cat", "group_j": "cat"}] = values
    found = find_sign_changes(run).found
    assert [item.flip.words for item in found] == [
        "harmful, then helpful", "helpful, then harmful", "harmful, then helpful"
    ]  # fmt: skip
    assert [item.over_all for item in found] == [False, False, False]
