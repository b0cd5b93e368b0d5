import json

import numpy as np
import pytest

from stagewise.errors import InputError
from stagewise.interventions.policy import ConstantFactor, ProportionalToInfluence
from stagewise.interventions.span import Span
from stagewise.interventions.strata import Strata
from stagewise.interventions.weight_plan import Plan

NAMES = ("a", "b")
ONES = {"a": 1.0, "b": 1.0}


def by_window(names, *, window, step, influence):
    return {"a": 2.0 + window, "b": float(step)}


def test_a_fixed_plan_changes_weights_inside_its_spans_alone():
    plan = Plan.from_spans(NAMES, [Span(8, 9), Span(2, 5), Span(5, 6)], by_window, max_steps=9)
    expected = {2: (2.0, 2.0), 3: (2.0, 2.0), 4: (2.0, 2.0), 5: (3.0, 5.0), 8: (4.0, 8.0)}
    for step in range(12):
        a, b = expected.get(step, (1.0, 1.0))
        assert plan.weights_at(step) == {"a": a, "b": b}
        assert plan.inside_at(step) == (step in expected)
    assert plan.fixed
    assert plan.windows == 3
    assert [change.step for change in plan.changes] == [2, 5, 5, 6, 8, 9]
    assert plan.changes[0].reason == "window 0 [2, 5) opens"


def test_a_live_plan_opens_updates_and_closes():
    plan = Plan(NAMES)
    assert plan.weights_at(100) == ONES
    plan.open(4, {"a": 3.0}, reason="the signal rose")
    plan.update(6, {"a": 3.0})
    assert len(plan.changes) == 1
    plan.update(7, {"a": 5.0})
    assert plan.is_open
    plan.close(9)
    assert not plan.is_open
    assert [plan.weights_at(step)["a"] for step in (3, 4, 6, 7, 8, 9)] == [1, 3, 3, 5, 5, 1]
    assert [(change.step, change.reason) for change in plan.changes] == [
        (4, "the signal rose"),
        (7, "weights change"),
        (9, "window closes"),
    ]


def test_a_placebo_is_inside_with_weights_of_1():
    plan = Plan.from_spans(NAMES, [Span(1, 3)], ConstantFactor({"a": 1.0}))
    assert [plan.inside_at(step) for step in range(4)] == [False, True, True, False]
    assert all(plan.weights_at(step) == ONES for step in range(4))


def test_what_cannot_be_planned_is_refused():
    plan = Plan(NAMES)
    plan.open(4, {})
    with pytest.raises(InputError, match="while one is open since step 4"):
        plan.open(5, {})
    with pytest.raises(InputError, match="got a change at step 3; expected one at step 4 or later"):
        plan.close(3)
    with pytest.raises(InputError, match="got group 'c'"):
        plan.update(5, {"c": 1.0})
    plan.close(6)
    with pytest.raises(InputError, match="while none is open"):
        plan.close(7)
    with pytest.raises(InputError, match="while none is open"):
        plan.update(7, {})
    fixed = Plan.from_spans(NAMES, [Span(1, 3)], ConstantFactor({"a": 2.0}))
    with pytest.raises(InputError, match="a plan with fixed windows"):
        fixed.open(9, {})


@pytest.mark.parametrize(
    ("spans", "policy", "settings", "words"),
    [
        ([(0, 4), (3, 6)], ConstantFactor({"a": 2.0}), {}, "overlap"),
        ([(0, 4)], ConstantFactor({"a": 2.0}), {"max_steps": 3}, "run of 3 steps"),
        ([(0, 4)], ConstantFactor({"c": 2.0}), {}, "got group 'c'"),
        ([], ProportionalToInfluence("c"), {}, "got group 'c'"),
        ([(0, 4)], ProportionalToInfluence("a"), {}, "no influence when window 0 opened"),
        ([(0, 4)], ProportionalToInfluence("a"), {"influence": []}, "0 influence tables for 1 spans"),
        ([(0, 4)], lambda names, **_: {"a": -1.0}, {}, "weight -1.0"),
    ],
)
def test_bad_fixed_plans_are_refused_in_one_line(spans, policy, settings, words):
    with pytest.raises(InputError, match=words) as caught:
        Plan.from_spans(NAMES, [Span(*span) for span in spans], policy, **settings)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("batches_per_step", "batches_per_epoch"), [(1, None), (3, None), (1, 5), (2, 5)])
def test_batches_have_the_weights_of_their_step(batches_per_step, batches_per_epoch):
    plan = Plan.from_spans(NAMES, [Span(2, 4)], ConstantFactor({"a": 2.0}))
    weights_for = plan.by_batch(batches_per_step=batches_per_step, batches_per_epoch=batches_per_epoch)
    step, pending = 0, 0
    for number in range(25):
        assert weights_for(number) == plan.weights_at(step)
        pending += 1
        ends = batches_per_epoch is not None and (number + 1) % batches_per_epoch == 0
        if pending == batches_per_step or ends:  # as Lightning steps
            step, pending = step + 1, 0
    with pytest.raises(InputError, match="batches_per_step=0"):
        plan.by_batch(batches_per_step=0)


def test_a_live_plan_goes_on_from_its_state():
    plan = Plan(NAMES)
    plan.open(4, {"a": 3.0})
    state = json.loads(json.dumps(plan.state_dict()))
    resumed = Plan(NAMES)
    resumed.load_state_dict(state)
    for item in (plan, resumed):
        item.close(8)
        item.open(10, {"b": 2.0})
    assert resumed.changes == plan.changes
    assert resumed.windows == plan.windows == 2
    assert resumed.state_dict() == plan.state_dict()


def test_a_state_of_another_plan_is_refused():
    def fixed(factor, end=4):
        return Plan.from_spans(NAMES, [Span(2, end)], ConstantFactor({"a": factor}))

    fixed(2.0).load_state_dict(fixed(2.0).state_dict())
    worded = fixed(2.0).state_dict()
    worded["changes"] = [change | {"reason": "as an earlier version told it"} for change in worded["changes"]]
    fixed(2.0).load_state_dict(worded)
    inside = fixed(1.0).state_dict()
    inside["changes"] = [change | {"inside": False} for change in inside["changes"]]
    with pytest.raises(InputError, match="expected the same steps and weights"):
        fixed(1.0).load_state_dict(inside)
    for other in (fixed(3.0), fixed(2.0, 5)):
        with pytest.raises(InputError, match="expected the same steps and weights"):
            other.load_state_dict(fixed(2.0).state_dict())
    with pytest.raises(InputError, match="fixed windows and a plan with live windows"):
        Plan(NAMES).load_state_dict(fixed(2.0).state_dict())
    with pytest.raises(InputError, match="change the groups back"):
        Plan(("a",)).load_state_dict(Plan(NAMES).state_dict())


def test_the_budget_of_a_constant_factor_has_a_closed_form():
    """A share p at weight w has rho = w / (1 + p (w - 1)); the others 1 / (1 + p (w - 1))."""
    strata = Strata({"a": np.arange(20) < 5, "b": np.arange(20) >= 5})
    plan = Plan.from_spans(NAMES, [Span(10, 30)], ConstantFactor({"a": 4.0}))
    found = plan.budget(strata, end=25)
    assert found.groups["a"] == pytest.approx(15 * (4 / 1.75 - 1))
    assert found.groups["b"] == pytest.approx(15 * (1 / 1.75 - 1))
    assert found.moved == pytest.approx(15 * 0.25 * (4 / 1.75 - 1))
    assert found.steps == 15
