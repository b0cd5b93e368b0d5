import numpy as np
import pytest

from stagewise.interventions.policy import ConstantFactor
from stagewise.interventions.span import Span
from stagewise.interventions.strata import Strata
from stagewise.interventions.weight_plan import Plan
from stagewise.studies.intervention.arms import Arm, Placed, place, spread_factor, sweep_name, sweep_start

TIMELINE = {"onset": 450, "within_onset": 600, "peak": 700}


def span(name, timeline=TIMELINE, **changed):
    settings = {"length": 100, "lead": 300, "max_steps": 1000, **changed}
    return place(name, timeline, **settings)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("none", None),
        ("placebo", None),
        ("live", None),
        ("inside", Span(450, 550)),
        ("inside_within", Span(600, 700)),
        ("just_before", Span(350, 450)),
        ("far_before", Span(150, 250)),
        ("earliest", Span(0, 100)),
        ("just_after", Span(550, 650)),
        ("after", Span(700, 800)),
        ("random", Span(450, 550)),
        ("whole", Span(0, 1000)),
        ("start_300", Span(300, 400)),
    ],
)
def test_each_arm_has_its_window(name, expected):
    assert span(name) == Placed(expected)


def test_every_arm_is_placed():
    assert all(span(str(arm)).possible for arm in Arm)


def test_windows_of_one_length_but_for_whole():
    for arm in set(Arm) - {Arm.none, Arm.placebo, Arm.live, Arm.whole}:
        assert len(span(str(arm), length=70).span) == 70


def test_a_window_before_the_start_is_moved_to_it_and_said():
    placed = span("far_before", {"onset": 120, "peak": 700})
    assert placed.span == Span(0, 100)
    assert "-180" in placed.note


def test_a_window_beyond_the_end_is_cut_off_and_said():
    placed = span("after", {"onset": 450, "peak": 950})
    assert placed.span == Span(950, 1000)
    assert "cut off" in placed.note


@pytest.mark.parametrize("name", ["inside", "just_before", "random", "inside_within"])
def test_an_onset_that_may_lie_before_the_first_probe_is_said(name):
    placed = span(name, {"onset": 450, "within_onset": 450, "peak": 450, "first_probe": 450})
    assert "may lie before it" in placed.note
    assert not span("after", {"onset": 450, "peak": 450, "first_probe": 450}).note


@pytest.mark.parametrize("name", ["inside", "just_before", "far_before", "just_after", "random"])
def test_arms_that_need_an_onset_cannot_be_run_without(name):
    placed = span(name, {"onset": None, "peak": 700})
    assert not placed.possible
    assert "no onset" in placed.note


def test_after_needs_the_peak_alone():
    assert span("after", {"onset": None, "peak": 700}).span == Span(700, 800)
    assert not span("after", {"onset": 450, "peak": None}).possible
    assert not span("after", {"onset": 450, "peak": 1000}).possible


def test_sweep_names_are_read_back_and_are_no_arms():
    assert sweep_start(sweep_name(250)) == 250
    assert all(sweep_start(str(arm)) is None for arm in Arm)
    assert sweep_start("start_early") is None


@pytest.mark.parametrize("factor", [4.0, 0.5, 0.0])
def test_the_spread_factor_moves_as_much_mass_over_the_run_as_the_factor_in_the_window(factor):
    mask = np.arange(40) < 10
    strata = Strata({"induction": mask, "background": ~mask})
    window = Plan.from_spans(strata.names, [Span(300, 400)], ConstantFactor({"induction": factor}))
    spread = spread_factor(factor, 0.25, length=100, max_steps=1000)
    whole = Plan.from_spans(strata.names, [Span(0, 1000)], ConstantFactor({"induction": spread}))
    expected = window.budget(strata, end=1000).groups["induction"]
    assert whole.budget(strata, end=1000).groups["induction"] == pytest.approx(expected)
