"""The gradient dot product stands beside influence with the same sign: negative = helpful."""

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg

from stagewise.errors import InputError
from stagewise.reporting.gradient_curves import gradient_curves, has_gradients
from tests.reporting.test_run_pictures import STEPS, a_run

pytestmark = pytest.mark.drawn


def run_with_gradients():
    run = a_run()
    values = np.random.default_rng(1).normal(2, 1, (len(STEPS), 3, 3))
    return run.assign(graddot=(("step", "group", "group_j"), values + values.swapaxes(1, 2)))


def drawn(figure):
    FigureCanvasAgg(figure).draw()
    left = [axes for axes in figure.axes if axes.get_title()]
    right = [axes for axes in figure.axes if axes not in left and axes.lines]
    return left, right


def test_each_panel_has_influence_and_minus_the_gradient_dot_product_on_one_zero_line():
    run = run_with_gradients()
    left, right = drawn(gradient_curves(run, [("a", "a"), ("a", "b")]))
    assert [axes.get_title() for axes in left] == ["a", "a ~ b"]
    for one, other, name in zip(left, right, ("a", "b"), strict=True):
        want = run["group_bif"].sel(part="within", group="a", group_j=name).values
        np.testing.assert_array_equal(one.lines[1].get_ydata(), want)
        np.testing.assert_array_equal(other.lines[0].get_ydata(), -run["graddot"].sel(group="a", group_j=name).values)
        for axes in (one, other):
            low, high = axes.get_ylim()
            assert low == -high
    assert "minus the gradient dot product" in gradient_curves(run).get_suptitle()
    assert "negative = helpful in both" in gradient_curves(run).get_suptitle()


def test_all_pairs_of_few_groups_are_shown_by_default():
    left, right = drawn(gradient_curves(run_with_gradients()))
    assert [axes.get_title() for axes in left] == ["a ~ b", "a ~ c", "a", "c", "b"]
    assert len(right) == 5


def test_runs_without_gradients_and_unknown_groups_are_refused():
    run = run_with_gradients()
    assert has_gradients(run)
    assert not has_gradients(a_run())
    assert not has_gradients(run.assign(graddot=run["graddot"] * np.nan))
    with pytest.raises(InputError, match=r"leave probe\.gradient_dot on"):
        gradient_curves(a_run())
    with pytest.raises(InputError, match="'z'"):
        gradient_curves(run, [("a", "z")])
    with pytest.raises(InputError, match="no pair"):
        gradient_curves(run, [])
    with pytest.raises(InputError, match="confidence=2"):
        gradient_curves(run, confidence=2)
