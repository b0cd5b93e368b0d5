import numpy as np
import pytest

from stagewise.errors import InputError
from stagewise.studies.intervention.outcomes import Ablation, Curve


def curve(scores, gaps=None, steps=None):
    steps = tuple(range(0, 10 * len(scores), 10)) if steps is None else steps
    return Curve(steps, tuple(scores), tuple(gaps or [0.0] * len(scores)))


def test_the_head_is_there_at_the_first_measurement_above_a_half():
    found = curve([0.1, 0.5, 0.51, 0.4, 0.9])
    assert found.score_step == 20
    assert found.step_at_score(0.45) == 10
    assert curve([0.1, 0.5]).score_step is None


def test_the_gap_has_passed_when_the_second_copy_is_cheaper_by_one_and_a_half_nats():
    assert curve([0, 0, 0, 0], [0.2, -1.5, -1.6, -3.0]).gap_step == 20
    assert curve([0, 0], [2.0, 2.0]).gap_step is None


def test_other_thresholds_move_both_steps_and_are_kept_by_a_part_of_the_curve():
    scores, gaps = (0.1, 0.25, 0.3, 0.6), (0.0, -0.4, -0.3, -0.5)
    found = Curve((0, 10, 20, 30), scores, gaps, score_threshold=0.25, gap_threshold=0.4)
    assert (found.score_step, found.gap_step, found.formed_step) == (20, 30, 30)
    assert found.until(20) == Curve((0, 10, 20), scores[:3], gaps[:3], score_threshold=0.25, gap_threshold=0.4)
    assert found.until(20).formed_step is None


def test_mean_score_is_the_area_over_the_steps_also_with_uneven_steps():
    steps, scores = (0, 10, 50), (0.0, 0.2, 1.0)
    fine = np.linspace(0, 50, 50_001)
    assert curve(scores, steps=steps).mean_score == pytest.approx(np.interp(fine, steps, scores).mean(), abs=1e-5)
    assert curve([0.3]).mean_score == 0.3


@pytest.mark.parametrize(
    ("steps", "scores", "gaps"),
    [((), (), ()), ((0, 10), (0.1,), (0.0, 0.0)), ((0, 0), (0.1, 0.1), (0.0, 0.0)), ((10, 0), (0.1, 0.1), (0.0, 0.0))],
)
def test_curves_that_are_none_are_refused(steps, scores, gaps):
    with pytest.raises(InputError, match="increasing steps"):
        Curve(steps, scores, gaps)


def test_a_head_bears_a_load_where_the_loss_rises_without_it():
    assert Ablation(1, 0, 1.25, 3.0).rise == 1.75
