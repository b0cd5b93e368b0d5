import numpy as np
import pytest
from matplotlib.figure import Figure

from stagewise.studies.toy.figures.style import count_seeds, dots_of_seeds, say_range, share_axis, values_of


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ([0.5], "0.50"),
        ([0.5, 0.5], "0.50"),
        ([0.1, 0.9, 0.4], "0.40 (0.10 to 0.90)"),
        ([np.nan, 0.25], "0.25"),
        ([np.nan], "none"),
        ([], "none"),
    ],
)
def test_a_range_is_said_where_there_is_one(values, words):
    assert say_range(values) == words


def test_one_dot_for_each_seed_and_a_bar_at_the_median():
    axes = Figure().subplots()
    dots_of_seeds(axes, 2, [0.3, np.nan, 0.1, 0.7], color="black")
    x, y = axes.lines[0].get_data()
    assert y.tolist() == [0.3, 0.1, 0.7]
    assert abs(x - 2).max() < 0.25
    assert len(set(x)) == 3
    (bar,) = axes.collections[0].get_segments()
    assert bar[:, 1] == pytest.approx([0.3, 0.3])
    dots_of_seeds(axes, 3, [np.nan], color="black")
    assert len(axes.lines) == 1


def test_the_axis_of_shares_has_room_for_negative_values():
    axes = Figure().subplots()
    dots_of_seeds(axes, 0, [-0.4, 0.2], color="black")
    share_axis(axes, 1)
    low, high = axes.get_ylim()
    assert low < -0.4
    assert high >= 1
    axes = Figure().subplots()
    share_axis(axes, 2)
    assert axes.get_ylim()[0] == 0


def test_a_figure_that_a_seed_lacks_is_not_a_number(results):
    assert values_of(results, "unrolled_r") == [result.figures["unrolled_r"] for result in results]
    assert np.isnan(values_of(results, "no such figure")).tolist() == [True, True]
    assert [count_seeds(results), count_seeds(results[:1])] == ["2 seeds", "1 seed"]
