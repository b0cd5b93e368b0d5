"""Statistics over seeds of the script of real text."""

import runpy
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

SCRIPT = runpy.run_path(str(Path(__file__).parents[2] / "benchmarks" / "code_seeds.py"), run_name="code_seeds")


def stages(before, rising, after):
    return {"means": {"curve": {"before": before, "rising": rising, "after": after}, "control": CONTROL}}


CONTROL = {"before": 2.0, "rising": 3.0, "after": 4.0}
HEADS = [(1.0, 2.0, 4.0), (-2.0, -5.0, -6.0), (3.0, 9.0, 6.0)]
ROWS = [{"stages": stages(*values), "at_rises_of_others": []} for values in HEADS]
WITHOUT = {"stages": None, "at_rises_of_others": [stages(1.0, 1.5, 3.0), stages(1.0, 1.25, 5.0)]}


def test_means_over_seeds_are_geometric_with_students_interval():
    while_it_rises, *_ = SCRIPT["over_seeds"](ROWS, "curve")
    logs = np.log([2.0, 2.5, 3.0])
    low, high = np.exp(stats.t.interval(0.95, 2, loc=logs.mean(), scale=stats.sem(logs)))
    assert while_it_rises == f"{np.exp(logs.mean()):.2f} [{low:.2f}, {high:.2f}]"


def test_a_control_curve_divides_the_ratio_of_each_seed():
    alone = SCRIPT["over_seeds"](ROWS[:1], "curve", "control")
    assert alone[:2] == ["1.33", "2.00"]  # 2 / 1.5 and 4 / 2


def test_seeds_without_a_head_are_compared_at_the_steps_of_the_others():
    cells = SCRIPT["over_seeds"]([*ROWS, WITHOUT], "curve")
    assert cells[2:] == ["1.25 to 1.50", "3.00 to 5.00"]
    assert SCRIPT["over_seeds"](ROWS, "curve")[2:] == ["-", "-"]


@pytest.mark.parametrize("values", [(1.0, -2.0, 4.0), (0.0, 2.0, 4.0), (1.0, None, 4.0)])
def test_a_ratio_without_a_meaning_is_left_out(values):
    rows = [*ROWS, {"stages": stages(*values), "at_rises_of_others": []}]
    assert SCRIPT["over_seeds"](rows, "curve")[0] == "-"
