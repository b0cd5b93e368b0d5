import numpy as np
import pytest
import xarray as xr

from stagewise.errors import InputError
from stagewise.influence.group_draws import GroupDraws
from stagewise.probes.assembly import Measured
from stagewise.sweep.cell import Cell, cell_folder, has_cells, is_finished, read_cell, write_cell


def measured():
    generator = np.random.default_rng(0)
    own = xr.Dataset(
        {
            "group_loss": ("group", generator.normal(size=2), {"units": "nats"}),
            "loss": (("chain", "draw", "sample"), generator.normal(size=(2, 5, 3)).astype(np.float32)),
            "mask": ("sample", np.array([True, False, True])),
            "flag_names": ((), np.array("ess, drift", dtype=object)),
            "rhat_max": np.nan,
        },
        coords={"chain": [0, 3]},
        attrs={"nbeta": 10.0, "flags": {"ess": "words"}},
    )
    features = GroupDraws(7, (0, 3), generator.normal(size=(2, 5, 3)), generator.normal(size=(2, 5, 6)))
    return Measured(features, own, usable=True)


def cell(**changed):
    given = {
        "step": 7,
        "component": "all",
        "measured": measured(),
        "dropped": {1: "rose"},
        "seconds": 1.5,
    }
    return Cell(**{**given, **changed})


def test_a_cell_is_read_as_it_was_written_to_the_last_bit(tmp_path):
    written = cell()
    write_cell(tmp_path, written)
    found = read_cell(tmp_path, 7, "all")
    assert (found.dropped, found.seconds) == (written.dropped, written.seconds)
    for name in ("samples", "groups"):
        np.testing.assert_array_equal(getattr(found.measured.features, name), getattr(written.measured.features, name))
    assert (found.measured.step, found.measured.features.chains) == (7, (0, 3))
    xr.testing.assert_identical(found.measured.own, written.measured.own)


def test_a_cell_without_draws_is_finished_too(tmp_path):
    write_cell(tmp_path, cell(measured=None))
    assert is_finished(tmp_path, 7, "all")
    assert read_cell(tmp_path, 7, "all").measured is None


def test_cells_are_keyed_by_step_and_component(tmp_path):
    assert not has_cells(tmp_path)
    write_cell(tmp_path, cell())
    write_cell(tmp_path, cell(component="head", seconds=9.0))
    assert has_cells(tmp_path)
    assert [read_cell(tmp_path, 7, name).seconds for name in ("all", "head")] == [1.5, 9.0]
    assert not is_finished(tmp_path, 8, "all")


def test_a_cell_that_fails_on_the_way_is_not_there(tmp_path, monkeypatch):
    def full(*_, **__):
        raise OSError("no space left")

    monkeypatch.setattr(xr.Dataset, "to_zarr", full)
    with pytest.raises(OSError, match="no space"):
        write_cell(tmp_path, cell())
    assert not is_finished(tmp_path, 7, "all")
    assert not list(tmp_path.rglob("*.unfinished"))


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"usable": true}'])
def test_a_folder_that_is_no_cell_is_named(tmp_path, text):
    folder = cell_folder(tmp_path, 7, "all")
    folder.mkdir(parents=True)
    (folder / "cell.json").write_text(text)
    with pytest.raises(InputError, match=r"step7, which is no finished cell.*delete it"):
        read_cell(tmp_path, 7, "all")
