import numpy as np
import pytest

from stagewise.studies.toy.figures.showcase import first_pairs, showcase
from stagewise.toy.hierarchy import Hierarchy
from tests.studies.toy.figures.synthetic import LOPSIDED, config_of
from tests.toy.trees import balanced


@pytest.mark.parametrize(
    ("hierarchy", "expected"),
    [
        (Hierarchy(), [("dog", "cat", "sibling"), ("dog", "sparrow", "cousin"), ("dog", "oak", "far")]),
        (balanced(1, 3), [("item 0", "item 1", "sibling")]),
        # The rock has no sibling.
        (Hierarchy(LOPSIDED), [("sparrow", "eagle", "sibling"), ("rock", "dog", "cousin"), ("rock", "sparrow", "far")]),
    ],
)
def test_the_first_pair_of_each_relation_that_occurs(hierarchy, expected):
    items = hierarchy.items
    assert [(items[i], items[j], relation) for i, j, relation in first_pairs(config_of(hierarchy))] == expected


def test_each_method_is_drawn_over_its_own_largest_value(results, config):
    figure = showcase(results, config)
    chains, exact = results[0].chains, results[0].exact
    curves = {
        "SGLD chains": chains["bif"],
        "local Gaussian": exact["gaussian"],
        "drop for 10 steps": exact["horizon_effect"].sel(horizon=10),
        "unrolled": exact["unrolled"],
        "full leave-one-out": exact["leave_one_out"],
        "closed form": exact["closed_form"],
        "minus gradient dot product": -chains["graddot"],
    }
    for axes, other in zip(figure.axes[::2], (1, 2, 4), strict=True):
        lines = {line.get_label(): line for line in axes.lines}
        for name, curve in curves.items():
            values = curve.values[:, 0, other]
            np.testing.assert_allclose(lines[name].get_ydata(), values / np.abs(values).max(), rtol=1e-12)
        assert "largest absolute value" in axes.get_ylabel()
        assert {text.get_text() for text in axes.texts} == {"helpful", "harmful"}
    assert figure.axes[2].get_title() == "dog → sparrow (cousin): weight of dog, loss of sparrow"


def test_the_band_is_two_standard_errors(results, config):
    axes = showcase(results, config).axes[0]
    bif, error = (results[0].chains[name].values[:, 0, 1] for name in ("bif", "bif_se"))
    corners = axes.collections[0].get_paths()[0].vertices[:, 1]
    assert corners.max() == pytest.approx((bif + 2 * error).max() / np.abs(bif).max())
    assert corners.min() == pytest.approx((bif - 2 * error).min() / np.abs(bif).max())


def test_flips_have_a_row_for_each_method_with_their_bounds(results, config):
    strip = showcase(results, config).axes[3]
    found = [item.from_helpful for item in results[0].flips if (item.item, item.item_j) == ("dog", "sparrow")]
    assert len(found) == 5
    dots = [line.get_data() for line in strip.lines if line.get_marker() == "o"]
    assert [(float(x[0]), int(y[0])) for x, y in dots] == [(flip.step, row) for row, flip in enumerate(found)]
    bars = [collection.get_segments()[0][:, 0].tolist() for collection in strip.collections]
    assert bars == [[flip.earliest, flip.latest] for flip in found]
