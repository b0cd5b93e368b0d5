import numpy as np
import pytest

from stagewise.toy.hierarchy import Hierarchy
from stagewise.toy.modes import modes_of
from tests.toy.trees import balanced

ASYMMETRIC = {"life": [{"animal": {"mammal": ["dog", "cat", "bat"], "bird": ["wren"]}}, {"plant": ["oak"]}, "virus"]}


def check_decomposition(features, modes):
    np.testing.assert_allclose(modes.left * modes.strengths @ modes.right.T, features.T, atol=1e-12)
    identity = np.eye(len(modes.strengths))
    np.testing.assert_allclose(modes.left.T @ modes.left, identity, atol=1e-12)
    np.testing.assert_allclose(modes.right.T @ modes.right, identity, atol=1e-12)
    assert (np.diff(modes.strengths) <= 0).all()
    assert [index for group in modes.groups for index in group] == list(range(len(modes.strengths)))


def test_the_default_tree_has_four_stages():
    hierarchy = Hierarchy()
    modes = hierarchy.modes()
    check_decomposition(hierarchy.features, modes)
    np.testing.assert_allclose(modes.strengths**2, [15, 7, 3, 3, 1, 1, 1, 1], rtol=1e-12)
    assert modes.groups == ((0,), (1,), (2, 3), (4, 5, 6, 7))


def test_modes_of_the_default_tree_are_contrasts_of_branches():
    right = Hierarchy().modes().right
    half, contrast = np.full(4, 0.5), np.array([0.5, 0.5, -0.5, -0.5])
    np.testing.assert_allclose(right[:, 0], np.full(8, 8**-0.5), atol=1e-12)
    np.testing.assert_allclose(right[:, 1], np.concatenate([half, -half]) / 2**0.5, atol=1e-12)
    np.testing.assert_allclose(right[:, 2], np.concatenate([contrast, 0 * contrast]), atol=1e-12)
    np.testing.assert_allclose(right[:, 3], np.concatenate([0 * contrast, contrast]), atol=1e-12)


def test_without_the_root_property_the_first_two_stages_are_one():
    hierarchy = Hierarchy(root_property=False)
    modes = hierarchy.modes()
    check_decomposition(hierarchy.features, modes)
    np.testing.assert_allclose(modes.strengths**2, [7, 7, 3, 3, 1, 1, 1, 1], rtol=1e-12)
    assert modes.groups[0] == (0, 1)
    ones = np.full(8, 8**-0.5)
    plane = modes.right[:, :2]
    np.testing.assert_allclose(plane @ (plane.T @ ones), ones, atol=1e-12)


@pytest.mark.parametrize(("depth", "branching"), [(1, 2), (1, 5), (2, 3), (4, 2), (3, 4)])
def test_strengths_of_balanced_trees_are_the_closed_form(depth, branching):
    hierarchy = balanced(depth, branching)
    modes = hierarchy.modes()
    check_decomposition(hierarchy.features, modes)
    # An item-by-item contrast within a node at level l sees the nodes below it: 1 + b + ... + b^(depth - l - 1).
    expected = [sum(branching**power for power in range(depth + 1))]
    sizes = [1]
    for level in range(depth):
        sizes.append(branching**level * (branching - 1))
        expected += [sum(branching**power for power in range(depth - level))] * sizes[-1]
    np.testing.assert_allclose(modes.strengths**2, expected, rtol=1e-12)
    assert [len(group) for group in modes.groups] == sizes


@pytest.mark.parametrize("root_property", [True, False])
def test_strengths_of_an_asymmetric_tree_are_those_of_the_shared_properties(root_property):
    hierarchy = Hierarchy(ASYMMETRIC, root_property)
    modes = hierarchy.modes()
    check_decomposition(hierarchy.features, modes)
    above = {
        "dog": {"animal", "mammal", "dog"},
        "cat": {"animal", "mammal", "cat"},
        "bat": {"animal", "mammal", "bat"},
        "wren": {"animal", "bird", "wren"},
        "oak": {"plant", "oak"},
        "virus": {"virus"},
    }
    gram = [[len(above[a] & above[b]) + root_property for b in hierarchy.items] for a in hierarchy.items]
    values = np.linalg.eigvalsh(np.array(gram, dtype=float))[::-1]
    np.testing.assert_allclose(modes.strengths**2, values, rtol=1e-11)
    for group in modes.groups:
        rank = np.linalg.matrix_rank(np.array(gram) - values[group[0]] * np.eye(6), tol=1e-8)
        assert len(group) == 6 - rank


def test_signs_and_bases_do_not_depend_on_how_the_decomposition_came_out():
    features = balanced(3, 2).features
    modes = modes_of(features)
    # Another order of the properties gives the linear algebra another matrix with the same item modes.
    shuffled = modes_of(features[:, np.random.default_rng(0).permutation(features.shape[1])])
    np.testing.assert_allclose(shuffled.right, modes.right, atol=1e-12)
    for vector in modes.right.T:
        assert vector[np.flatnonzero(np.abs(vector) > 1e-9)[0]] > 0


def test_modes_of_strength_zero_are_left_out():
    features = np.array([[1.0, 0.0, 2.0], [2.0, 0.0, 4.0], [0.0, 3.0, 0.0]])
    modes = modes_of(features)
    check_decomposition(features, modes)
    np.testing.assert_allclose(modes.strengths, [5.0, 3.0], rtol=1e-12)


def test_modes_are_read_only():
    modes = Hierarchy().modes()
    for array in (modes.strengths, modes.left, modes.right):
        with pytest.raises(ValueError, match="read-only"):
            array[...] = 0.0
