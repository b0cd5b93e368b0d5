import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from stagewise.reporting.style import mark_sides, round_steps, step_axis

pytestmark = pytest.mark.drawn


@pytest.mark.parametrize(
    ("first", "last", "expected"),
    [
        (200, 3800, [200, 500, 1000, 2000]),
        (1, 1000, [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000]),
        (300, 900, [300, 400, 500, 700]),
        (1000, 1350, [1000, 1100, 1200, 1300]),
        (41, 42, [41, 42]),
        (137.5, 137.9, [138, 138]),
    ],
)
def test_ticks_are_round_and_three_or_more_where_there_is_room(first, last, expected):
    assert round_steps(first, last) == expected


@pytest.mark.parametrize("vertical", [False, True])
def test_a_step_axis_is_logarithmic_with_plain_words(vertical):
    figure = Figure()
    axes = figure.subplots()
    step_axis(axes, 200, 3800, vertical=vertical)
    FigureCanvasAgg(figure).draw()
    axis = axes.yaxis if vertical else axes.xaxis
    other = axes.xaxis if vertical else axes.yaxis
    assert axis.get_scale() == "log"
    assert other.get_scale() == "linear"
    assert [get_ticklabel.get_text() for get_ticklabel in axis.get_ticklabels()] == ["200", "500", "1,000", "2,000"]
    assert len(axis.get_minorticklocs()) == 0
    assert axis.get_view_interval() == pytest.approx([200, 3800])


def test_helpful_is_below_the_zero_line_and_harmful_above():
    axes = Figure().subplots()
    axes.set_ylim(-1, 3)
    mark_sides(axes)
    places = {text.get_text(): text.get_position()[1] for text in axes.texts}
    assert places["helpful"] < 0.25 < places["harmful"]
    assert any(np.allclose(line.get_ydata(), 0) for line in axes.lines)
    shade = axes.patches[0].get_extents().transformed(axes.transData.inverted())
    assert (shade.y0, shade.y1) == pytest.approx((axes.get_ylim()[0], 0))
    assert axes.get_ylim()[0] < -1


def test_words_for_the_sides_stand_clear_of_the_curve():
    figure = Figure(figsize=(3.5, 2.0))
    axes = figure.subplots()
    axes.plot([0, 1, 2], [-1.0, 0.5, 1.0], "o")
    axes.plot([0], [1.0], "o")
    mark_sides(axes)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    for words in axes.texts:
        box = words.get_window_extent(canvas.get_renderer())
        for value in (-1.0, 1.0):
            x, y = axes.transData.transform((0, value))
            assert not (box.x0 <= x <= box.x1 and box.y0 <= y <= box.y1)
