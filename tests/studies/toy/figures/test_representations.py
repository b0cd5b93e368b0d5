from dataclasses import replace

import numpy as np

from stagewise.studies.toy.figures.representations import near_groups, nearest_branch, representations
from stagewise.toy.hierarchy import Hierarchy
from tests.studies.toy.figures.synthetic import LOPSIDED, config_of, results_of
from tests.toy.trees import balanced


def test_items_belong_to_the_lowest_node_that_parts_above_them():
    assert nearest_branch(Hierarchy()) == [name for name in ("mammal", "bird", "tree", "flower") for _ in range(2)]
    assert nearest_branch(Hierarchy(LOPSIDED)) == ["thing", "animal", "bird", "bird", "owl", "owl"]
    # A node with one child does not part.
    assert nearest_branch(Hierarchy({"top": {"left": ["a"], "right": ["b", "c"]}})) == ["top", "right", "right"]


def test_points_are_grouped_where_both_coordinates_are_near():
    places = np.array([[0.0, 0.0], [0.09, 0.19], [0.2, 0.0], [0.0, 0.3], [0.21, 0.01]])
    assert near_groups(places, (0.1, 0.2)) == [[0, 1], [2, 4], [3]]


def test_paths_are_those_of_the_items_in_both_views(results, config):
    figure = representations(results, config)
    path = results[0].exact["representation"].values
    for axes, second in zip(figure.axes, (1, 2), strict=False):
        lines = [line for line in axes.lines if line.get_linestyle() == "-"]
        drawn = [np.array(line.get_data()) for line in lines if len(line.get_xdata()) == len(path)]
        assert len(drawn) == 8
        for item, line in enumerate(drawn):
            np.testing.assert_array_equal(line, path[:, item][:, [0, second]].T)
        named = ", ".join(text.get_text().replace("\n", " ") for text in axes.texts)
        assert sorted(named.replace(",", "").split()) == sorted(config.hierarchy.items)
    assert [get_text.get_text() for get_text in figure.legends[0].get_texts()] == ["mammal", "bird", "tree", "flower"]


def test_each_node_of_each_seed_is_a_dot_beside_the_diagonal(results, config):
    axes = representations(results, config).axes[2]
    dots = [line for line in axes.lines if line.get_marker() == "o"]
    drawn = {dot for line in dots for dot in zip(*line.get_data(), strict=True)}
    assert drawn == {(branch.branching_step, branch.peak_step) for result in results for branch in result.branches}
    assert [line.get_label() for line in dots] == ["8 items below", "4 items below", "2 items below"]
    (diagonal,) = [line for line in axes.lines if line.get_label() == "y = x"]
    np.testing.assert_array_equal(*diagonal.get_data())
    assert "14 of 14 nodes" in axes.get_title()
    ratios = [branch.ratio for result in results for branch in result.branches]
    assert f"{np.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})" in axes.get_title()


def test_nodes_without_a_sure_peak_or_a_branching_time_are_left_out():
    config = config_of(seeds=(3,))
    (result,) = results_of(config)
    branches = list(result.branches)
    branches[0] = replace(branches[0], peak_step=None)
    branches[1] = replace(branches[1], branching_step=float("nan"))
    axes = representations([replace(result, branches=branches)], config).axes[2]
    assert "5 of 7 nodes" in axes.get_title()
    assert sum(len(line.get_xdata()) for line in axes.lines if line.get_marker() == "o") == 5


def test_many_items_go_without_names():
    config = config_of(balanced(4, 2), seeds=(3,))
    figure = representations(results_of(config), config)
    assert [len(axes.texts) for axes in figure.axes[:2]] == [0, 0]
    assert len(figure.legends[0].get_texts()) == 8
