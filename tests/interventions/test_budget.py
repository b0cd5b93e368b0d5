import numpy as np
import pytest

from stagewise.interventions.budget import budget
from stagewise.interventions.strata import Strata

STRATA = Strata({"a": np.arange(12) < 3, "b": (np.arange(12) >= 2) & (np.arange(12) < 6)})
CHANGES = [(5, {"a": 4.0}), (9, {"a": 4.0, "b": 0.5}), (11, {}), (20, {"b": 2.0})]


@pytest.mark.parametrize(("start", "end"), [(0, 30), (0, 10), (7, 21), (12, 15), (0, 0)])
def test_a_budget_is_the_sum_over_steps(start, end):
    total, moved, steps = dict.fromkeys("ab", 0.0), 0.0, 0
    for step in range(start, end):
        current = {}
        for since, weights in CHANGES:
            if since <= step:
                current = weights
        rho = STRATA.rho(current)
        for name, factor in STRATA.group_rho(rho).items():
            total[name] += factor - 1.0
        moved += STRATA.moved(rho)
        steps += any(value != 1.0 for value in rho)
    found = budget(STRATA, CHANGES, end=end, start=start)
    assert found.groups == pytest.approx(total)
    assert found.moved == pytest.approx(moved)
    assert found.steps == steps


def test_no_change_and_a_placebo_cost_nothing():
    for changes in ([], [(0, {"a": 1.0, "b": 1.0})]):
        found = budget(STRATA, changes, end=50)
        assert (found.groups, found.moved, found.steps) == ({"a": 0.0, "b": 0.0}, 0.0, 0)
