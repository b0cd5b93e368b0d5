import numpy as np
import pytest

from stagewise.influence.control import control_influence
from stagewise.influence.group_draws import GroupDraws
from stagewise.influence.groups import Groups, Positions
from stagewise.influence.split import Centering

SAMPLES, DRAWS = 6, 30
GROUPS = Groups({"a": np.arange(SAMPLES) < 3, "b": np.arange(SAMPLES) >= 3}, np.ones(SAMPLES, dtype=bool))


def losses(seed, chains=5, common=1.0):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(chains, DRAWS, SAMPLES)) + common * rng.normal(size=(chains, DRAWS, 1))


def features(draws, chains):
    return GroupDraws(10, chains, draws, GROUPS.sums(draws))


def within(draws, centering):
    """Returns the covariance of a with b over pairs in different samples, by a plain loop."""
    axes = (0, 1) if centering == "pooled" else (1,)
    centred = draws - draws.mean(axis=axes, keepdims=True)
    pairs = [(i, j) for i in range(3) for j in range(3, 6)]
    return -np.mean([(centred[..., i] * centred[..., j]).mean() for i, j in pairs])


@pytest.mark.parametrize("centering", ["pooled", "chain"])
def test_values_and_errors_equal_a_loop_that_leaves_both_chains_out_together(centering):
    probe, control = losses(0), losses(1, common=0.5)
    chains = (0, 1, 2, 3, 4)
    found = control_influence(
        features(probe, chains), features(control, chains), GROUPS, centering=Centering(centering)
    ).sel(group="a", group_j="b")
    assert float(found["control_probe_bif"]) == pytest.approx(within(probe, centering))
    assert float(found["control_group_bif"]) == pytest.approx(within(control, centering))
    left_out = [
        within(np.delete(probe, skip, axis=0), centering) - within(np.delete(control, skip, axis=0), centering)
        for skip in range(5)
    ]
    error = np.sqrt(4 / 5 * np.sum((left_out - np.mean(left_out)) ** 2))
    assert float(found["control_difference"]) == pytest.approx(within(probe, centering) - within(control, centering))
    assert float(found["control_difference_se"]) == pytest.approx(error)
    assert int(found["control_chains"]) == 5
    assert found["control_difference"].attrs["units"] == "nats^2"
    assert found["control_group_bif"].attrs["sign"].startswith("negative = helpful")


def test_common_noise_makes_the_difference_more_precise_than_its_sides():
    shared = losses(0, chains=12)
    control = 0.9 * shared + 0.1 * losses(1, chains=12)
    found = control_influence(features(shared, tuple(range(12))), features(control, tuple(range(12))), GROUPS)
    independent = np.hypot(found["control_probe_bif_se"], found["control_group_bif_se"])
    assert (found["control_difference_se"] < 0.5 * independent).all()


def test_only_chains_kept_by_both_are_compared():
    probe, control = losses(0), losses(1)
    found = control_influence(features(probe[:4], (0, 1, 2, 4)), features(control[[0, 3, 4]], (0, 3, 4)), GROUPS)
    want = control_influence(features(probe[[0, 3]], (0, 4)), features(control[[0, 4]], (0, 4)), GROUPS)
    for name in want:
        np.testing.assert_array_equal(found[name], want[name])
    assert int(found["control_chains"]) == 2


def test_results_are_nan_without_a_common_chain_and_errors_without_a_second():
    probe, control = losses(0), losses(1)
    none = control_influence(features(probe[:2], (0, 1)), features(control[2:4], (2, 3)), GROUPS)
    assert all(none[name].isnull().all() for name in none if name != "control_chains")
    assert int(none["control_chains"]) == 0
    one = control_influence(features(probe[:1], (0,)), features(control[:1], (0,)), GROUPS)
    assert np.isfinite(one["control_difference"]).all()
    assert one["control_difference_se"].isnull().all()


def test_bins_after_the_groups_change_nothing():
    rng = np.random.default_rng(0)
    mask = np.ones((SAMPLES, 4), dtype=bool)
    groups = Groups({"a": np.arange(SAMPLES) < 3, "b": np.arange(SAMPLES) >= 3}, mask)
    joint = Positions(groups, mask, 2).joint
    draws = [rng.normal(size=(3, DRAWS, SAMPLES, 4)) for _ in range(2)]
    plain, binned = (
        [GroupDraws(1, (0, 1, 2), draw.sum(-1), kind.sums(draw)) for draw in draws] for kind in (groups, joint)
    )  # fmt: skip
    want, found = control_influence(*plain, groups), control_influence(*binned, groups)
    for name in want:
        np.testing.assert_allclose(found[name], want[name])
