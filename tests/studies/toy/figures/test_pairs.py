import numpy as np
import pytest
import xarray as xr
from matplotlib.figure import Figure

from stagewise.studies.toy.figures.style import at_relation, relations_of, scatter_pairs
from stagewise.toy.hierarchy import Hierarchy
from tests.studies.toy.figures.synthetic import LOPSIDED, config_of
from tests.toy.trees import balanced


@pytest.mark.parametrize(
    ("hierarchy", "expected"),
    [
        (Hierarchy(), ["sibling", "cousin", "far"]),
        (balanced(2, 2), ["sibling", "cousin"]),
        (balanced(1, 3), ["sibling"]),
        (Hierarchy({"root": {"a": {"b": ["x"]}, "c": {"d": ["y"]}}}), ["far"]),
    ],
)
def test_only_relations_that_occur_are_drawn_nearest_first(hierarchy, expected):
    assert relations_of(config_of(hierarchy)) == expected


def test_every_pair_of_different_items_is_one_dot_of_its_relation():
    config, rng = config_of(Hierarchy(LOPSIDED)), np.random.default_rng(0)
    items = len(config.hierarchy.items)
    x, y = (xr.DataArray(rng.random((3, items, items)), dims=("step", "item", "item_j")) for _ in range(2))
    axes = Figure().subplots()
    scatter_pairs(axes, x, y, config)
    drawn = {
        line.get_label(): set(zip(*line.get_data(), strict=True)) for line in axes.lines if line.get_marker() == "o"
    }
    expected = {"sibling": set(), "cousin": set(), "far": set()}
    for step in range(3):
        for i in range(items):
            for j in range(items):
                if i != j:
                    dot = (x.values[step, i, j], y.values[step, i, j])
                    expected[config.hierarchy.relation(i, j)].add(dot)
    assert drawn == expected
    assert all(expected.values())


def test_entries_of_a_relation_keep_the_leading_axes():
    config = config_of()
    curves = xr.DataArray(np.arange(2 * 64).reshape(2, 8, 8), dims=("step", "item", "item_j"))
    siblings = at_relation(curves, config, "sibling")
    assert siblings.shape == (2, 8)
    assert sorted(siblings[0].tolist()) == [1, 8, 19, 26, 37, 44, 55, 62]
