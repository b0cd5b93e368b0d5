import json

import numpy as np
import pytest
import torch
import xarray as xr

from stagewise.errors import InputError
from stagewise.probes.config import ProbeConfig
from stagewise.probes.prober import Prober
from stagewise.reporting.store import ProbeStore, open_run, write_summary
from stagewise.sampling.data import ProbeData
from tests.probes.test_prober import SGLD
from tests.sampling.test_chains import squared


@pytest.fixture(scope="module")
def probes():
    torch.manual_seed(0)
    module = torch.nn.Linear(3, 1)
    data = ProbeData((torch.randn(5, 3), torch.randn(5, 1)))
    prober = Prober(module, squared, data, sgld=SGLD, config=ProbeConfig())
    return [prober.probe(module, step)[0] for step in (5, 10, 100)]


def fill(folder, probes):
    store = ProbeStore(folder / "influence.zarr")
    for probe in probes:
        store.write(probe)
    return store


def test_run_opens_whole_in_order_of_training(tmp_path, probes):
    fill(tmp_path, [probes[2], probes[0], probes[1]])
    run = open_run(tmp_path)
    assert run["step"].values.tolist() == [5, 10, 100]
    assert run["reference_step"].values.tolist() == [5, 5, 10]
    assert run["bif"].dims == ("step", "part", "sample", "sample_j")
    np.testing.assert_array_equal(run["bif"].values[2], probes[2]["bif"].values)
    assert run["bif"].attrs["sign"].startswith("negative = helpful")
    assert "loss" not in run
    assert open_run(tmp_path / "influence.zarr", trace=True)["loss"].dims == ("step", "chain", "draw", "sample")


def test_store_opens_with_plain_xarray_and_its_parts_add_up(tmp_path, probes):
    fill(tmp_path, probes)
    tree = xr.open_datatree(tmp_path / "influence.zarr", engine="zarr", consolidated=False)
    assert sorted(tree.children) == ["step10", "step100", "step5"]
    one = xr.open_zarr(tmp_path / "influence.zarr" / "step10", consolidated=False, chunks=None)
    for name in ("bif", "group_bif"):
        parts = one[name].sel(part=["within", "drift", "between"]).sum("part")
        np.testing.assert_allclose(parts, one[name].sel(part="total"), atol=1e-10)
    assert one["loss"].dtype == np.float32


@pytest.mark.filterwarnings("error::zarr.errors.UnstableSpecificationWarning")
def test_writing_warns_of_nothing(tmp_path, probes):
    fill(tmp_path, probes[:1])


def test_crash_while_writing_leaves_no_half_probe(tmp_path, probes, monkeypatch):
    store = fill(tmp_path, probes[:1])

    def crash(self, *args, **kwargs):
        (tmp_path / ".influence.zarr.step10.unfinished").mkdir()
        raise OSError("disk full")

    monkeypatch.setattr(xr.Dataset, "to_zarr", crash)
    with pytest.raises(OSError, match="disk full"):
        store.write(probes[1])
    monkeypatch.undo()
    assert store.steps() == [5]
    assert open_run(tmp_path)["step"].values.tolist() == [5]
    store.write(probes[1])
    assert store.steps() == [5, 10]
    assert not list(tmp_path.glob(".influence*"))


def test_probe_of_the_same_step_replaces(tmp_path, probes):
    store = fill(tmp_path, [probes[0], probes[0]])
    assert store.steps() == [5]


def test_abandoned_future_is_dropped_and_the_past_adopted(tmp_path, probes):
    old = fill(tmp_path / "old", probes)
    new = ProbeStore(tmp_path / "new" / "influence.zarr")
    assert new.adopt(old.path, 10)
    assert new.steps() == [5, 10]
    assert not ProbeStore(tmp_path / "x.zarr").adopt(tmp_path / "nowhere", 10)
    old.drop_after(5)
    assert old.steps() == [5]


def test_dropped_chains_become_missing_values(tmp_path, probes):
    fewer = probes[1].isel(chain=[0, 2])
    fill(tmp_path, [probes[0], fewer])
    run = open_run(tmp_path, trace=True)
    assert run["chain"].values.tolist() == [0, 1, 2]
    assert np.isnan(run["loss"].sel(step=10, chain=1)).all()


def test_summary_is_whole_and_travels_with_the_run(tmp_path, probes):
    fill(tmp_path, probes)
    write_summary(tmp_path, {"probes": 3})
    assert json.loads(open_run(tmp_path).attrs["summary"]) == {"probes": 3}
    with pytest.raises(ValueError, match="JSON"):
        write_summary(tmp_path, {"probes": float("nan")})
    assert json.loads((tmp_path / "summary.json").read_text()) == {"probes": 3}


def test_wrong_folder_is_refused_with_a_hint(tmp_path, probes):
    fill(tmp_path / "runs" / "version_0", probes[:1])
    with pytest.raises(InputError, match="version_0"):
        open_run(tmp_path / "runs")
    with pytest.raises(InputError, match=r"influence\.zarr"):
        open_run(tmp_path / "nowhere")
    (tmp_path / "empty" / "influence.zarr").mkdir(parents=True)
    with pytest.raises(InputError, match="no finished probe"):
        open_run(tmp_path / "empty")
