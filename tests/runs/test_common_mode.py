"""Common mode of pairs, reported only if almost all have one sign."""

import numpy as np
import pytest
import xarray as xr

from stagewise.runs.common_mode import common_mode, common_mode_of_groups, common_mode_of_samples

PARTS = ["within", "drift", "between", "total"]


def a_probe(losses):
    """Returns the influence of samples from draws of their losses ``[draw, sample]``."""
    return xr.Dataset({"bif_within": (("sample", "sample_j"), -np.cov(losses, rowvar=False))})


def groups(values, equilibrated):
    """Influence ``[step, group, group_j]`` within phases; the other parts have the other sign."""
    names = [f"g{row}" for row in range(values.shape[-1])]
    return xr.Dataset(
        {
            "group_bif": (("step", "part", "group", "group_j"), np.stack([values, -values, -values, -values], axis=1)),
            "equilibrated": ("step", np.array(equilibrated, dtype=float)),
        },
        coords={"step": np.arange(len(values)), "part": PARTS, "group": names, "group_j": names},
    )


def test_losses_that_move_together_are_a_common_mode_and_others_are_not():
    rng = np.random.default_rng(0)
    own, shared = rng.standard_normal((200, 20)), rng.standard_normal((200, 1))
    found = common_mode_of_samples(a_probe(own + 3 * shared))
    assert (found.helpful, found.harmful) == (190, 0)
    covariance = -np.cov(own + 3 * shared, rowvar=False)[np.triu_indices(20, k=1)]
    assert found.mean == pytest.approx(covariance.mean())
    assert found.spread == pytest.approx(covariance.std())
    assert "190 of 190 pairs of samples are helpful" in found.words()
    assert "common mode" in found.words()
    assert common_mode_of_samples(a_probe(own)) is None


@pytest.mark.parametrize(("harmful", "named"), [(0, True), (10, True), (11, False), (50, False), (90, True)])
def test_nine_in_ten_of_either_sign_are_almost_all(harmful, named):
    values = np.r_[np.ones(harmful), -np.ones(100 - harmful), np.nan, 0.0]
    found = common_mode(values, "pairs")
    assert (found is not None) == named
    if named:
        assert f"{max(harmful, 100 - harmful)} of 100 pairs are {'harmful' if harmful > 50 else 'helpful'}" in (
            found.words()
        )


def test_groups_are_judged_by_different_ones_within_phases_in_equilibrium():
    values = np.full((3, 4, 4), -1.0)
    values[:, np.arange(4), np.arange(4)] = 5.0  # of groups with themselves
    values[0] = 1.0  # out of equilibrium
    found = common_mode_of_groups(groups(values, [0, 1, 1]))
    assert (found.helpful, found.harmful) == (12, 0)
    assert common_mode_of_groups(groups(values, [1, 1, 1])) is None
    assert common_mode_of_groups(groups(values, [0, 0, 0])) is None


def test_few_samples_or_groups_and_missing_data_have_none():
    assert common_mode_of_samples(a_probe(np.random.default_rng(0).standard_normal((9, 6)))) is None
    assert common_mode_of_samples(xr.Dataset()) is None
    assert common_mode_of_groups(groups(np.full((2, 3, 3), -1.0), [1, 1])) is None
    assert common_mode_of_groups(xr.Dataset()) is None
    assert common_mode([], "pairs") is None
