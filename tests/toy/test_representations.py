from itertools import pairwise

import numpy as np
import pytest
import torch
from scipy.spatial.distance import pdist, squareform

from stagewise.errors import InputError
from stagewise.toy.hierarchy import Hierarchy
from stagewise.toy.representations import branching_times, classical_mds, mds_over_time
from tests.toy.trees import balanced


def learned(hierarchy, times, *, start=1e-4):
    """Representations of a balanced linear network with one hidden layer and time constant 1: sqrt(a_k(t)) of mode k.

    a(t) = s E / (E - 1 + s / a0) with E = exp(2 s t).
    """
    modes = hierarchy.modes()
    growth = np.exp(2 * np.outer(times, modes.strengths))
    learned = modes.strengths * growth / (growth - 1 + modes.strengths / start)
    return np.sqrt(learned)[:, None, :] * modes.right


def turns(count, size, seed):
    generator = np.random.default_rng(seed)
    return np.stack([np.linalg.qr(generator.normal(size=(size, size)))[0] for _ in range(count)])


def test_full_rank_reproduces_the_distances():
    points = np.random.default_rng(0).normal(size=(6, 9))
    coordinates, share = classical_mds(points, 6)
    np.testing.assert_allclose(pdist(coordinates), pdist(points), rtol=1e-12)
    assert share == pytest.approx(1.0, abs=1e-12)


def test_values_that_are_nearly_equal_keep_the_distances():
    generator = np.random.default_rng(9)
    axes = np.linalg.qr(np.hstack([np.ones((7, 1)), generator.normal(size=(7, 4))]))[0][:, 1:]
    points = axes * [2, 1, 1 - 2e-7, 1 - 4e-7]
    np.testing.assert_allclose(pdist(classical_mds(points, 4).coordinates), pdist(points), rtol=1e-12)


@pytest.mark.parametrize("num_dimensions", [1, 2, 4])
def test_coordinates_are_principal_components_up_to_sign(num_dimensions):
    points = np.random.default_rng(1).normal(size=(7, 5)) * [3, 2, 1.5, 1, 0.5]
    coordinates, share = classical_mds(points, num_dimensions)
    left, lengths, _ = np.linalg.svd(points - points.mean(axis=0), full_matrices=False)
    expected = (left * lengths)[:, :num_dimensions]
    np.testing.assert_allclose(np.abs(coordinates), np.abs(expected), atol=1e-10)
    np.testing.assert_allclose(np.abs((coordinates * expected).sum(0)), lengths[:num_dimensions] ** 2, rtol=1e-10)
    assert share == pytest.approx((lengths[:num_dimensions] ** 2).sum() / (lengths**2).sum())
    assert (coordinates[0] > 0).all()


def test_coordinates_diagonalize_the_doubly_centred_squared_distances():
    points = np.random.default_rng(2).normal(size=(6, 4))
    centring = np.eye(6) - 1 / 6
    gram = -centring @ squareform(pdist(points, "sqeuclidean")) @ centring / 2
    coordinates = classical_mds(points, 3).coordinates
    np.testing.assert_allclose(gram @ coordinates, coordinates * (coordinates**2).sum(0), atol=1e-10)
    np.testing.assert_allclose((coordinates**2).sum(0), np.linalg.eigvalsh(gram)[:-4:-1], rtol=1e-10)


def test_equal_parts_of_tied_branches_are_shown():
    # Of the default tree mammals against birds and trees against flowers tie for the second dimension.
    modes = Hierarchy().modes()
    points = modes.right * np.sqrt(modes.strengths)
    coordinates, share = classical_mds(points)
    kingdom = np.repeat([1, -1], 4) * np.sqrt(7**0.5 / 8)
    family = np.tile([1, 1, -1, -1], 2) * np.sqrt(3**0.5 / 8)
    np.testing.assert_allclose(coordinates, np.stack([kingdom, family], axis=1), atol=1e-10)
    assert share == pytest.approx((7**0.5 + 3**0.5) / (7**0.5 + 2 * 3**0.5 + 4))
    np.testing.assert_allclose(classical_mds(points @ turns(1, 8, 0)[0]).coordinates, coordinates, atol=1e-10)


def test_points_that_are_one_show_all_they_have():
    coordinates, share = classical_mds(np.ones((4, 3)), 3)
    assert not coordinates.any()
    assert coordinates.shape == (4, 3)
    assert share == 1.0


def test_lines_and_few_hidden_units_leave_further_dimensions_empty():
    coordinates, share = classical_mds(np.array([[0.0], [1.0], [5.0]]), 3)
    np.testing.assert_allclose(pdist(coordinates[:, :1]), [1, 5, 4])
    assert not coordinates[:, 1:].any()
    assert share == pytest.approx(1.0)


@pytest.mark.parametrize("num_dimensions", [2, 3, 5])
def test_rotations_of_the_hidden_space_leave_the_paths_as_they_are(num_dimensions):
    times = np.linspace(0, 8, 40)
    for representations in (
        learned(Hierarchy(), times),
        learned(balanced(2, 3), times),
        np.random.default_rng(3).normal(size=(40, 6, 8)).cumsum(axis=0),
    ):
        path = mds_over_time(representations, num_dimensions=num_dimensions)
        turned = representations @ turns(40, representations.shape[2], 4)
        assert np.abs(turned - representations).max() > 0.1
        np.testing.assert_allclose(mds_over_time(turned, num_dimensions=num_dimensions), path, atol=1e-7)


def test_paths_end_at_the_view_of_the_last_step_and_each_step_is_its_own_view():
    representations = np.random.default_rng(5).normal(size=(12, 6, 8)).cumsum(axis=0)
    path = mds_over_time(representations)
    np.testing.assert_array_equal(path[-1], classical_mds(representations[-1]).coordinates)
    for places, shown in zip(representations, path, strict=True):
        np.testing.assert_allclose(pdist(shown), pdist(classical_mds(places).coordinates), rtol=1e-9)


def test_no_turn_or_reflection_of_a_step_lies_closer_to_the_next():
    path = mds_over_time(np.random.default_rng(6).normal(size=(8, 6, 8)).cumsum(axis=0))
    angles = np.linspace(0, 2 * np.pi, 721)
    for here, later in pairwise(path):
        distance = np.linalg.norm(here - later)
        for angle in angles:
            turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
            assert np.linalg.norm(here @ turn - later) >= distance - 1e-9
            assert np.linalg.norm(here @ turn * [1, -1] - later) >= distance - 1e-9


def test_learning_moves_points_along_continuous_paths():
    # Two stages tie for the second dimension at every step: without a choice the view would jump between them.
    times = np.linspace(0, 10, 400)
    representations = learned(Hierarchy(), times)
    path = mds_over_time(representations)
    moved = np.linalg.norm(np.diff(path, axis=0), axis=(1, 2))
    truly = np.linalg.norm(np.diff(representations, axis=0), axis=(1, 2))
    assert (moved <= 1.001 * truly + 1e-9).all()
    # In the end four families lie at four corners; in the beginning all lie together.
    assert pdist(path[-1][::2]).min() > 0.9
    assert pdist(path[0]).max() < 0.05


def test_tied_directions_of_which_the_next_step_knows_nothing_are_shown_in_equal_parts():
    right = Hierarchy().modes().right
    representations = np.stack([np.pad(right[:, 4:], [(0, 0), (0, 1)]), np.pad(right[:, 1:4], [(0, 0), (0, 2)])])
    path = mds_over_time(representations)
    np.testing.assert_allclose(pdist(path[0]), pdist(classical_mds(representations[0]).coordinates), atol=1e-10)
    turned = representations @ turns(2, 5, 10)
    np.testing.assert_allclose(pdist(mds_over_time(turned)[0]), pdist(path[0]), atol=1e-7)


def test_points_at_rest_keep_their_view():
    places = learned(Hierarchy(), np.array([10.0]))[0] + np.random.default_rng(7).normal(size=(8, 8)) * 0.02
    path = mds_over_time(np.repeat(places[None], 200, axis=0))
    np.testing.assert_allclose(path, np.repeat(path[-1:], 200, axis=0), atol=1e-9)


def test_single_precision_tensors_are_taken():
    representations = learned(Hierarchy(), np.linspace(0, 10, 50))
    path = mds_over_time(torch.tensor(representations, dtype=torch.float32))
    np.testing.assert_allclose(path[25:], mds_over_time(representations)[25:], atol=1e-3)


def closed_form(hierarchy, level_strengths, *, start=1e-4):
    """Half of the way of sqrt(a) is a = s / 4: t = ln((s / a0 - 1) / 3) / (2 s)."""
    return {
        name: np.log((strength / start - 1) / 3) / (2 * strength)
        for name, strength in zip([b.name for b in hierarchy.branches()], level_strengths, strict=True)
    }


def test_branches_part_when_their_mode_is_learned():
    hierarchy = Hierarchy()
    times = np.linspace(0, 20, 20_001)
    found = branching_times(learned(hierarchy, times), times, hierarchy)
    strengths = np.sqrt([7, 3, 1, 1, 3, 1, 1])
    assert found == pytest.approx(closed_form(hierarchy, strengths), rel=1e-4)
    assert found["living thing"] < found["animal"] < found["mammal"]


def test_branches_of_three_children_part_when_their_mode_is_learned():
    hierarchy = balanced(2, 3, root_property=False)
    times = np.linspace(0, 20, 20_001)
    # The root's children are learned with the all-ones mode, strength 2 = sqrt(4).
    found = branching_times(learned(hierarchy, times), times, hierarchy)
    assert found == pytest.approx(closed_form(hierarchy, [2, 1, 1, 1]), rel=1e-4)


def test_distance_is_the_mean_over_pairs_of_childrens_means():
    hierarchy = Hierarchy({"r": [{"a": ["x", "y"]}, "z", "w"]})
    steps = np.array([1, 3, 10, 40, 100])
    representations = np.random.default_rng(8).normal(size=(5, 4, 3)) * np.array([0.1, 0.5, 1, 2, 4])[:, None, None]
    means = [(places[0] + places[1]) / 2 for places in representations]
    distance = np.array(
        [
            (np.linalg.norm(m - p[2]) + np.linalg.norm(m - p[3]) + np.linalg.norm(p[2] - p[3])) / 3
            for m, p in zip(means, representations, strict=True)
        ]
    )
    at = next(i for i, value in enumerate(distance) if value >= distance[-1] / 2)
    assert at > 0
    expected = np.exp(np.interp(distance[-1] / 2, distance[at - 1 : at + 1], np.log(steps[at - 1 : at + 1])))
    assert branching_times(representations, steps, hierarchy)["r"] == pytest.approx(expected)


PAIR = Hierarchy({"r": ["x", "y"]})


def apart(*distances):
    return np.array([[[0.0], [distance]] for distance in distances])


@pytest.mark.parametrize(
    ("distances", "steps", "expected"),
    [
        ((0, 1, 4, 4), (0, 10, 1000, 2000), 10 * 100 ** (1 / 3)),  # a third of the way on the log axis
        ((0, 4, 4), (0, 10, 100), 5.0),  # step 0 has no logarithm: half of the way to the first step
        ((3, 4), (0, 10), 0.0),  # apart from the start
        ((3, 4), (5, 10), 5.0),
        ((0, 2, 4), (0, 10, 100), 10.0),  # at a step exactly
        ((0, 3, 1, 4), (1, 10, 100, 1000), 10 ** (2 / 3)),  # the first of several passages
    ],
)
def test_half_of_the_way_is_interpolated_over_the_log_of_the_step(distances, steps, expected):
    assert branching_times(apart(*distances), steps, PAIR) == {"r": pytest.approx(expected)}


def test_children_that_end_together_have_no_time():
    assert np.isnan(branching_times(apart(0, 1, 0), [0, 1, 2], PAIR)["r"])


@pytest.mark.parametrize(
    ("points", "num_dimensions", "message"),
    [
        (np.ones(3), 2, r"shape \[3\]"),
        (np.ones((3, 0)), 2, r"shape \[3, 0\]"),
        (np.ones((1, 3)), 1, "number of items=1"),
        (np.ones((3, 3)), 0, "num_dimensions=0"),
        (np.ones((3, 3)), 4, "num_dimensions=4; expected 1 to 3"),
        ([[0.0, np.nan], [1.0, 2.0]], 2, "not finite"),
    ],
)
def test_points_that_cannot_be_shown_are_refused(points, num_dimensions, message):
    with pytest.raises(InputError, match=message):
        classical_mds(points, num_dimensions)
    with pytest.raises(InputError, match=message.replace("[3", "[2, 3")):
        mds_over_time(np.stack([points, points]), num_dimensions=num_dimensions)


@pytest.mark.parametrize(
    ("representations", "steps", "message"),
    [
        (apart(0, 1)[0], [0, 1], "expected \\[step, item, hidden\\]"),
        (apart(0, 1, 2), [0, 1], "3 steps and 2 items; expected 2 steps and 2 items"),
        (np.ones((2, 3, 4)), [0, 1], "2 steps and 3 items; expected 2 steps and 2 items"),
        (apart(0, np.inf), [0, 1], "not finite"),
        (apart(1), [0], "got steps"),
        (apart(0, 1), [-1, 1], "got steps"),
        (apart(0, 1), [1, 1], "got steps"),
        (apart(0, 1), [0, np.nan], "got steps"),
        (apart(0, 1), [[0, 1]], "got steps"),
    ],
)
def test_bad_representations_and_steps_are_refused(representations, steps, message):
    with pytest.raises(InputError, match=message):
        branching_times(representations, steps, PAIR)
