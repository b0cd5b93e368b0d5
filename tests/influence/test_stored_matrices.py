import numpy as np
import pytest
import xarray as xr

from stagewise.errors import InputError
from stagewise.influence.bif import bif
from stagewise.influence.group_draws import GroupDraws
from stagewise.influence.groups import Groups
from stagewise.influence.stored_matrices import SampleMatrices, sample_matrix, to_store

NAMES = ("bif", "bif_se", "bif_correlation", "bif_correlation_se")


@pytest.fixture
def probe():
    rng = np.random.default_rng(0)
    groups = Groups({}, np.ones(6, dtype=bool))

    def features(step):
        losses = rng.standard_normal((4, 10, 6)) * np.geomspace(1e-4, 1e2, 6)
        return GroupDraws(step, (0, 1, 2, 3), losses, groups.sums(losses))

    return bif(features(20), features(10), groups)


def with_within(values):
    matrix = np.zeros((4, len(values), len(values)))
    matrix[0] = values
    named = {name: (("part", "sample", "sample_j"), matrix) for name in ("bif", "bif_se")}
    return xr.Dataset(named, coords={"part": np.array(["within", "drift", "between", "total"], dtype=object)})


def test_within_and_its_error_are_rounded_and_nothing_else_changes(probe):
    stored = to_store(probe, SampleMatrices.within)
    assert not [name for name in NAMES if name in stored]
    for name, error in (("bif", 2.0**-11), ("bif_se", 2.0**-8)):
        found = stored[name.replace("bif", "bif_within")]
        exact = probe[name].sel(part="within").values
        assert found.dims == ("sample", "sample_j")
        assert found.dtype == np.float32
        assert found.attrs["units"] == "nats^2"
        assert np.abs(found.values / exact - 1).max() <= error * (1 + 1e-6)
        assert np.abs(found.values / exact - 1).max() > error / 16  # digits were dropped, that is how it is small
    others = [name for name in probe.data_vars if name not in NAMES]
    xr.testing.assert_identical(stored[others], probe[others])
    assert all(name in probe for name in NAMES)


def test_signs_and_zeros_are_preserved_over_the_whole_range():
    scale = np.array([1e-30, 1e-8, 1.0, 1e4, 1e30])
    values = np.outer([1, -1, 1, -1, 1], scale)
    values[2, 2] = 0.0
    found = to_store(with_within(values), SampleMatrices.within)["bif_within"].values
    np.testing.assert_array_equal(np.sign(found), np.sign(values))
    assert np.isfinite(found).all()
    np.testing.assert_allclose(found, values, rtol=2.0**-11)
    odd = with_within(np.array([[np.nan, -np.inf], [np.inf, 1.0]]))
    np.testing.assert_array_equal(
        to_store(odd, SampleMatrices.within)["bif_within"].values, np.array([[np.nan, -np.inf], [np.inf, 1.0]])
    )


def test_all_stores_every_matrix_and_none_stores_no_matrix(probe):
    assert to_store(probe, SampleMatrices.all) is probe
    stored = to_store(probe, SampleMatrices.none)
    assert not [name for name in stored.data_vars if str(name).startswith("bif")]
    assert "group_bif" in stored
    bare = probe.drop_vars(NAMES)
    xr.testing.assert_identical(to_store(bare, SampleMatrices.within), bare)


def test_a_part_is_found_in_any_form_and_refused_if_not_stored(probe):
    within, full = to_store(probe, SampleMatrices.within), probe
    for error in (False, True):
        np.testing.assert_allclose(sample_matrix(within, error=error), sample_matrix(full, error=error), rtol=2.0**-8)
    np.testing.assert_array_equal(sample_matrix(full, "total"), probe["bif"].sel(part="total"))
    with pytest.raises(InputError, match=r"without the total part .* probe\.sample_matrices: all"):
        sample_matrix(within, "total")
    with pytest.raises(InputError, match=r"without the within part .* probe\.sample_matrices: within"):
        sample_matrix(to_store(probe, SampleMatrices.none))
    with pytest.raises(InputError, match="got part='all'; expected one of within, drift, between, total"):
        sample_matrix(full, "all")


def test_between_follows_from_the_stored_shift(probe):
    shift = to_store(probe, SampleMatrices.within)["shift"].values
    np.testing.assert_allclose(-np.outer(shift, shift) / 4, sample_matrix(probe, "between"), rtol=1e-9)
