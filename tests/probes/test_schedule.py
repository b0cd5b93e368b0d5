from itertools import pairwise

import pytest

from stagewise.errors import InputError
from stagewise.probes.schedule import LogSpaced, ProbeSchedule


def steps_of(schedule, last, stride=1):
    previous, found = -1, []
    for step in range(0, last + 1, stride):
        if schedule.due(previous, step):
            found.append(step)
        previous = step
    return found


def test_every_n_steps_leaves_the_initial_weights_out():
    assert steps_of(ProbeSchedule(every_n_steps=4), 13) == [4, 8, 12]


def test_default_is_every_50_steps():
    assert steps_of(ProbeSchedule(), 120) == [50, 100]


def test_budget_goes_with_any_way_and_changes_no_due_step():
    assert steps_of(ProbeSchedule(max_overhead=0.1), 120) == [50, 100]
    assert steps_of(ProbeSchedule(at_steps=[0, 3], max_overhead=2.0), 12) == [0, 3]


def test_listed_steps_may_include_the_initial_weights():
    assert steps_of(ProbeSchedule(at_steps=[0, 3, 9]), 12) == [0, 3, 9]


def test_log_spaced_steps_have_nearly_constant_ratios():
    steps = LogSpaced(10, 1000, 21).steps()
    assert (steps[0], steps[-1]) == (10, 1000)
    assert all(later / earlier == pytest.approx(10**0.1, rel=0.1) for earlier, later in pairwise(steps))
    assert steps_of(ProbeSchedule(log_spaced=LogSpaced(10, 1000, 21)), 1000) == steps


def test_log_spaced_steps_that_round_together_are_one():
    assert LogSpaced(1, 10, 30).steps() == list(range(1, 11))


def test_a_step_that_is_jumped_over_is_due_once_at_the_next():
    assert steps_of(ProbeSchedule(at_steps=[3, 8]), 12, stride=2) == [4, 8]
    assert steps_of(ProbeSchedule(every_n_steps=5), 20, stride=2) == [6, 10, 16, 20]


@pytest.mark.parametrize(
    "make",
    [
        lambda: ProbeSchedule(every_n_steps=5, at_steps=[1]),
        lambda: ProbeSchedule(every_n_steps=0),
        lambda: ProbeSchedule(at_steps=[]),
        lambda: ProbeSchedule(at_steps=[3, 1]),
        lambda: ProbeSchedule(at_steps=[1, 1]),
        lambda: ProbeSchedule(at_steps=[-1]),
        lambda: ProbeSchedule(max_overhead=0.0),
        lambda: ProbeSchedule(max_overhead=-0.1),
        lambda: ProbeSchedule(max_overhead=float("nan")),
        lambda: ProbeSchedule(max_overhead=float("inf")),
        lambda: LogSpaced(0, 10, 5),
        lambda: LogSpaced(10, 10, 5),
        lambda: LogSpaced(1, 10, 1),
    ],
)
def test_schedules_that_mean_nothing_are_refused(make):
    with pytest.raises(InputError, match=r"got .*; expected "):
        make()


@pytest.mark.parametrize(
    "schedule",
    [
        ProbeSchedule(every_n_steps=101),
        ProbeSchedule(at_steps=[101, 102]),
        ProbeSchedule(log_spaced=LogSpaced(101, 1001, 3)),
    ],
)
def test_schedule_of_which_nothing_is_left_is_refused(schedule):
    with pytest.raises(InputError, match=r"101.* in a run of 100 steps; expected .*; lower"):
        schedule.check(100)
    schedule.check(101)
    assert schedule.check(float("inf")) == 0


@pytest.mark.parametrize(
    ("schedule", "num_beyond"),
    [
        (ProbeSchedule(at_steps=[5, 100, 101]), 1),
        (ProbeSchedule(at_steps=[0, 101, 102, 5000]), 3),
        (ProbeSchedule(log_spaced=LogSpaced(1, 10_000, 5)), 2),
        (ProbeSchedule(at_steps=[5, 100]), 0),
        (ProbeSchedule(every_n_steps=7), 0),
    ],
)
def test_listed_steps_beyond_the_run_are_counted_and_never_due(schedule, num_beyond):
    assert schedule.check(100) == num_beyond
    if schedule.listed_steps is not None:
        assert len(steps_of(schedule, 100)) == len(schedule.listed_steps) - num_beyond


@pytest.mark.parametrize(
    ("schedule", "last", "words"),
    [
        (
            ProbeSchedule(),
            100,
            "only 2 probes will be made in 100 steps, one every 50 steps, and a peak takes 3 or more",
        ),
        (ProbeSchedule(every_n_steps=4), 7, "only 1 probe will be made in 7 steps, one every 4 steps"),
        (ProbeSchedule(), 150, None),
        (ProbeSchedule(), float("inf"), None),
        (ProbeSchedule(at_steps=[3]), 100, None),
    ],
)
def test_few_probes_are_told_of_with_a_schedule_that_has_more(schedule, last, words):
    told = schedule.few_words(last)
    assert told is None if words is None else told.startswith(words)
    if told is not None:
        assert len(steps_of(ProbeSchedule(every_n_steps=max(1, last // 10)), last)) >= 3
        assert f"ProbeSchedule(every_n_steps={max(1, last // 10)})" in told


def test_a_run_shorter_than_the_interval_is_refused_with_one_that_fits():
    with pytest.raises(
        InputError, match=r"every 50 steps in a run of 30 steps.*such as ProbeSchedule\(every_n_steps=3\)"
    ):
        ProbeSchedule().check(30)
