import numpy as np
import pytest

from stagewise.influence.bif import bif
from stagewise.influence.group_draws import GroupDraws
from stagewise.influence.groups import Groups
from stagewise.influence.sign import SIGN
from stagewise.influence.split import PARTS, Centering
from stagewise.influence.uncertainty import length_error

SAMPLES = 6
GROUPS = Groups({"a": np.arange(SAMPLES) < 3, "b": np.arange(SAMPLES) >= 2}, np.ones(SAMPLES, dtype=bool))


def features(seed=0, step=10, chains=(0, 1, 2), shift=0.0, common=1.0):
    generator = np.random.default_rng(seed)
    shared = common * generator.normal(size=(len(chains), 40, 1))
    losses = generator.normal(size=(len(chains), 40, SAMPLES)) + shared + shift
    return GroupDraws(step, chains, losses, GROUPS.sums(losses))


def test_bif_is_minus_the_covariance_negative_where_losses_move_together():
    current = features(common=3.0)
    result = bif(current, None, GROUPS, centering=Centering.pooled)
    want = -np.cov(current.samples.reshape(-1, SAMPLES).T, ddof=0)
    np.testing.assert_allclose(result["bif"].sel(part="within"), want, atol=1e-12)
    assert (result["bif"].sel(part="within").values < 0).all()
    assert result.attrs["sign"] == SIGN
    assert result["bif"].attrs["units"] == "nats^2"


def test_all_parts_add_up_for_samples_and_groups_and_correlations():
    result = bif(features(1, 20, shift=2.0), features(2, 10), GROUPS)
    for name in ("bif", "group_bif", "bif_correlation", "group_bif_correlation"):
        parts = result[name]
        summed = parts.sel(part=list(PARTS[:3])).sum("part").values
        np.testing.assert_allclose(summed, parts.sel(part="total").values, atol=1e-10)


def test_total_correlation_equals_numpy():
    current = features(3)
    result = bif(current, None, GROUPS, centering=Centering.pooled)
    want = -np.corrcoef(current.samples.reshape(-1, SAMPLES).T)
    np.testing.assert_allclose(result["bif_correlation"].sel(part="total"), want, atol=1e-12)


def test_group_bif_is_the_mean_over_pairs_of_different_samples():
    result = bif(features(4), None, GROUPS)
    matrix = result["bif"].sel(part="within").values
    pairs = [(i, j) for i in range(3) for j in range(2, 6) if i != j]
    assert result["group_bif"].sel(part="within", group="a", group_j="b") == pytest.approx(
        np.mean([matrix[pair] for pair in pairs])
    )


def test_errors_of_within_over_chains_equal_those_of_a_mean():
    current = features(5, chains=(0, 1, 2, 3))
    alone = [
        float(bif(current.only((chain,)), None, GROUPS)["group_bif"].sel(part="within", group="a", group_j="b"))
        for chain in range(4)
    ]
    chain = bif(current, None, GROUPS, centering=Centering.chain)
    got = float(chain["group_bif_se"].sel(part="within", group="a", group_j="b"))
    assert got == pytest.approx(np.std(alone, ddof=1) / 2)


def test_correlations_have_errors():
    result = bif(features(1, 20, chains=(0, 1, 2, 3)), None, GROUPS)
    error = result["group_bif_correlation_se"]
    assert error.dims == ("part", "group", "group_j")
    assert error.attrs == {"sign": SIGN, "units": "1"}
    assert (error.sel(part="total") > 0).all()


def test_z_scores_have_the_sign_of_influence():
    result = bif(features(1, 20, common=2.0), features(2, 10, common=2.0), GROUPS)
    known = result.sel(part=["within", "between", "total"])
    np.testing.assert_allclose(known["group_bif_z"], known["group_bif"] / known["group_bif_se"])
    # The drift of pooled draws is zero by construction.
    assert not result["group_bif_z"].sel(part="drift").any()
    assert (result["group_bif_z"].sel(part="within") < -2).all()
    assert result["group_bif_z"].attrs == {"sign": SIGN, "units": "1"}


def test_shift_is_negative_where_the_loss_fell_and_has_a_z_score():
    result = bif(features(1, 20, shift=-2.0, common=0.1), features(2, 10, common=0.1), GROUPS)
    assert (result["shift"] < -1).all()
    assert result["z_median"] > 5
    assert result.attrs["reference_step"] == 10
    assert result["between_share"] > 0.3


def test_error_of_the_length_of_the_shift_follows_from_chain_means():
    current, reference = features(1, 20, shift=-2.0), features(2, 10)
    result = bif(current, reference, GROUPS)
    assert result["shift_norm_se"] == length_error((current.samples - reference.samples).mean(axis=1)) > 0


def test_without_a_reference_between_is_zero_and_z_median_is_nan():
    result = bif(features(), None, GROUPS)
    assert not result["bif"].sel(part="between").values.any()
    assert result.attrs["reference_step"] == result.attrs["step"]
    assert np.isnan(result["z_median"])
    assert result["flip_fraction"] == 0


def test_only_chains_kept_by_both_probes_are_used():
    current, reference = features(1, 20, chains=(0, 2, 3)), features(2, 10, chains=(0, 1, 2))
    got = bif(current, reference, GROUPS)
    want = bif(current.only((0, 2)), reference.only((0, 2)), GROUPS)
    np.testing.assert_array_equal(got["bif"], want["bif"])


def test_probes_without_a_common_chain_are_not_compared():
    assert bif(features(1, 20, chains=(0,)), features(2, 10, chains=(1,)), GROUPS).attrs["reference_step"] == 20


@pytest.mark.parametrize(("chains", "centering"), [((0,), Centering.chain), ((0, 1), Centering.step)])
def test_too_few_chains_give_no_error(chains, centering):
    result = bif(features(chains=chains), None, GROUPS, centering=centering)
    assert np.isnan(result["group_bif_se"]).all()
    assert np.isfinite(result["group_bif"]).all()


def test_flip_fraction_counts_pairs_whose_sign_the_between_part_turns():
    current, reference = features(1, 20, common=0.0), features(2, 10, common=0.0)
    losses = current.samples.copy()
    losses[..., 0] += 50.0
    losses[..., 1] -= 50.0
    current = GroupDraws(20, current.chains, losses, GROUPS.sums(losses))
    result = bif(current, reference, GROUPS)
    total, within = result["bif"].sel(part="total").values, result["bif"].sel(part="within").values
    off = ~np.eye(SAMPLES, dtype=bool)
    assert result["flip_fraction"] == pytest.approx(np.mean(np.sign(total[off]) != np.sign(within[off])))
    assert 0 < result["flip_fraction"] < 1


def test_features_survive_a_checkpoint():
    before = features(7, 30, chains=(1, 4))
    after = GroupDraws.from_state_dict(before.state_dict())
    assert (after.step, after.chains) == (30, (1, 4))
    np.testing.assert_array_equal(after.samples, before.samples)
    np.testing.assert_array_equal(after.groups, before.groups)
