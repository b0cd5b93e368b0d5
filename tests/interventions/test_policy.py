import numpy as np
import pytest

from stagewise.errors import InputError
from stagewise.interventions.influence_table import InfluenceTable
from stagewise.interventions.policy import (
    ConstantFactor,
    ProportionalToInfluence,
    check_policy,
    decide_weights,
    from_path,
)

NAMES = ("a", "b", "c", "d")


def _table(column):
    values = np.zeros((4, 4))
    values[:, 0] = column
    return InfluenceTable(NAMES, values, 7)


def later_windows_weigh_more(names, *, window, step, influence):
    return {names[0]: 1.0 + window}


def wrong(names, *, window, step, influence):
    return {"e": 2.0}


not_a_policy = 3


def test_a_constant_factor_is_the_same_in_every_window():
    policy = ConstantFactor({"b": 4.0})
    for window in range(2):
        assert decide_weights(policy, NAMES, window=window, step=9) == {"a": 1, "b": 4, "c": 1, "d": 1}


def test_weights_grow_with_helpfulness_and_are_clipped():
    """Negative influence is helpful; half of the largest influence moves the weight by half of the strength."""
    table = _table([-2.0, -1.0, 0.0, 2.0])
    wide = ProportionalToInfluence("a", 0.8, lowest=0.0, highest=10.0)
    assert decide_weights(wide, NAMES, window=0, step=9, influence=table) == pytest.approx(
        {"a": 1.8, "b": 1.4, "c": 1.0, "d": 0.2}
    )
    narrow = ProportionalToInfluence("a", 3.0, lowest=0.5, highest=2.0)
    assert decide_weights(narrow, NAMES, window=0, step=9, influence=table) == {"a": 2, "b": 2, "c": 1, "d": 0.5}
    turned = ProportionalToInfluence("a", -0.8)
    assert decide_weights(turned, NAMES, window=0, step=9, influence=table)["d"] == pytest.approx(1.8)


def test_the_unit_of_influence_does_not_matter():
    policy = ProportionalToInfluence("a", 2.0)
    one, other = (_table(scale * np.array([-3.0, 1.0, 2.0, 0.5])) for scale in (1.0, 1e-6))
    assert policy(NAMES, window=0, step=0, influence=one) == pytest.approx(
        policy(NAMES, window=0, step=0, influence=other)
    )


def test_groups_without_known_influence_keep_weight_1():
    policy = ProportionalToInfluence("a", 2.0)
    table = _table([np.nan, -1.0, 0.0, np.nan])
    assert decide_weights(policy, NAMES, window=0, step=0, influence=table) == {"a": 1, "b": 3, "c": 1, "d": 1}
    no_influence = decide_weights(policy, NAMES, window=0, step=0, influence=_table(np.zeros(4)))
    assert set(no_influence.values()) == {1.0}


def test_influence_that_is_not_there_is_refused():
    policy = ProportionalToInfluence("a", 2.0)
    with pytest.raises(InputError, match="no influence when window 1 opened at step 5"):
        policy(NAMES, window=1, step=5, influence=None)
    with pytest.raises(InputError, match="no finite influence on 'a' at step 7"):
        policy(NAMES, window=1, step=5, influence=_table(np.full(4, np.nan)))


def test_a_function_is_found_by_its_path():
    policy = from_path(f"{__name__}.later_windows_weigh_more")
    assert decide_weights(policy, NAMES, window=2, step=0)["a"] == 3.0
    check_policy(policy, NAMES)
    with pytest.raises(InputError, match="got group 'e'"):
        decide_weights(from_path(f"{__name__}.wrong"), NAMES, window=0, step=0)


@pytest.mark.parametrize("path", ["", "function", "no.such.module", f"{__name__}.absent", f"{__name__}.not_a_policy"])
def test_paths_that_lead_nowhere_are_refused(path):
    with pytest.raises(InputError, match="got policy"):
        from_path(path)


def test_policies_are_checked_before_training():
    check_policy(ConstantFactor({"a": 2.0}), NAMES)
    for policy in (ConstantFactor({"e": 2.0}), ProportionalToInfluence("e")):
        with pytest.raises(InputError, match="got group 'e'; expected one of 'a', 'b', 'c', 'd'"):
            check_policy(policy, NAMES)


@pytest.mark.parametrize("weights", [{}, {"a": -1.0}, {"a": float("nan")}])
def test_bad_constant_factors_are_refused(weights):
    with pytest.raises(InputError):
        ConstantFactor(weights)


@pytest.mark.parametrize(
    "settings",
    [
        {"strength": 0.0},
        {"strength": float("inf")},
        {"lowest": -0.1},
        {"lowest": 1.5},
        {"highest": 0.5},
        {"highest": float("inf")},
    ],
)
def test_bad_ranges_and_strengths_are_refused(settings):
    with pytest.raises(InputError):
        ProportionalToInfluence("a", **settings)
