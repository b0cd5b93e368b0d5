"""Concatenation of probes, compared with xarray's own of one data set per probe."""

import numpy as np
import pytest
import xarray as xr

from stagewise.files.zarr_file import read_content
from stagewise.influence.stored_matrices import to_store
from stagewise.probes.config import ProbeConfig
from stagewise.runs.joining import joined
from stagewise.runs.open import open_run
from stagewise.runs.store import ProbeStore
from tests.runs.full_run import full_probes, write_full_run

BESIDE = ("format_version",)


def by_xarray(folder):
    """Joins one data set per probe with xarray."""
    parts = []
    for path in sorted(folder.glob("influence.zarr/*.zip"), key=lambda path: int(path.stem[4:])):
        probe = read_content(path).dataset()
        probe = probe[sorted(map(str, probe.data_vars))]
        reference = int(probe.attrs["reference_step"])
        probe = probe.expand_dims(step=[probe.attrs["step"]]).assign_coords(reference_step=("step", [reference]))
        parts.append(probe)
    return xr.concat(parts, dim="step", join="outer", combine_attrs="drop_conflicts", data_vars="all", coords="minimal")


def same(found, want):
    xr.testing.assert_equal(found, want)
    for name, values in want.variables.items():
        assert found[name].dtype == values.dtype, name
        assert found[name].dims == values.dims, name
        assert dict(found[name].attrs, **values.attrs) == found[name].attrs, name
    attributes = {name: value for name, value in want.attrs.items() if name not in BESIDE}
    assert {name: value for name, value in found.attrs.items() if name not in BESIDE} == attributes


def test_probes_with_different_variables_are_joined_as_by_xarray(tmp_path):
    # The second probe has no control, the first no TracIn.
    write_full_run(tmp_path)
    same(open_run(tmp_path, trace=True).drop_vars(["sample_words", "in_group"]), by_xarray(tmp_path))


@pytest.mark.parametrize("lost", [[0], [1], [2], [0, 2]])
def test_missing_chains_of_probes_are_filled(tmp_path, lost):
    store = ProbeStore(tmp_path / "influence.zarr")
    for place, probe in enumerate(full_probes()):
        kept = [chain for chain in range(3) if place != 1 or chain not in lost]
        store.write(to_store(probe.isel(chain=kept), ProbeConfig().sample_matrices))
    run = open_run(tmp_path, trace=True)
    same(run, by_xarray(tmp_path))
    assert run["chain"].values.tolist() == [0, 1, 2]
    assert np.isnan(run["loss"].sel(step=20, chain=lost)).all()
    assert np.isfinite(run["loss"].sel(step=10)).all()


def test_variables_of_another_type_and_text_are_joined(tmp_path):
    first, second, third = full_probes()
    store = ProbeStore(tmp_path / "influence.zarr")
    for probe in (first, second.assign(llc_chains_dropped=np.nan, flag_names=((), "rhat")), third):
        store.write(probe)
    run = open_run(tmp_path)
    assert run["flag_names"].values[1] == "rhat"
    assert run["llc_chains_dropped"].dtype == np.float64
    assert np.isnan(run["llc_chains_dropped"].values).tolist() == [False, True, False]


def test_attributes_that_differ_between_probes_are_dropped(tmp_path):
    write_full_run(tmp_path)
    contents = {step: read_content(tmp_path / "influence.zarr" / f"step{step}.zip") for step in (10, 20, 40)}
    contents[20].attributes["odd"] = 1
    contents[40].attributes["nan"] = float("nan")
    contents[10].attributes["nan"] = float("nan")
    run = joined(contents)
    assert "step" not in run.attrs
    assert run.attrs["nbeta"] == 10
    assert run.attrs["odd"] == 1
    assert np.isnan(run.attrs["nan"])


def test_a_single_probe_is_a_run(tmp_path):
    ProbeStore(tmp_path / "influence.zarr").write(full_probes()[0])
    run = open_run(tmp_path)
    assert run["step"].values.tolist() == [10]
    assert run.attrs["step"] == 10
    np.testing.assert_array_equal(run["bif"].values[0], full_probes()[0]["bif"].values)
