import json
import os
import shutil
import zipfile

import numpy as np
import pytest
import torch
import xarray as xr
import zarr

from stagewise.errors import InputError
from stagewise.influence.stored_matrices import SampleMatrices, to_store
from stagewise.probes.config import ProbeConfig
from stagewise.probes.prober import Prober
from stagewise.runs import store as store_module
from stagewise.runs.open import open_run
from stagewise.runs.store import ProbeStore, write_summary
from stagewise.sampling.data import ProbeData
from tests.probes.test_prober import SGLD
from tests.sampling.test_chains import squared


@pytest.fixture(scope="module")
def probes():
    torch.manual_seed(0)
    module = torch.nn.Linear(3, 1)
    data = ProbeData((torch.randn(5, 3), torch.randn(5, 1)))
    prober = Prober(module, squared, data, sgld=SGLD, config=ProbeConfig(save_trace=True))
    return [prober.probe(module, step)[0] for step in (5, 10, 100)]


def fill(folder, probes):
    store = ProbeStore(folder / "influence.zarr")
    for probe in probes:
        store.write(probe)
    return store


def fill_as_format_1(folder, probes):
    """Writes probes like earlier versions: a folder for each, without a version."""
    store = folder / "influence.zarr"
    zarr.open_group(store, mode="a")
    for probe in probes:
        probe.to_zarr(store / f"step{probe.attrs['step']}", mode="w", consolidated=False)
    return ProbeStore(store)


def steps_of(folder, **settings):
    return open_run(folder, **settings)["step"].values.tolist()


def test_a_run_opens_completely_in_order_of_training(tmp_path, probes):
    fill(tmp_path, [probes[2], probes[0], probes[1]])
    run = open_run(tmp_path)
    assert run["step"].values.tolist() == [5, 10, 100]
    assert run["reference_step"].values.tolist() == [5, 5, 10]
    assert run["bif"].dims == ("step", "part", "sample", "sample_j")
    np.testing.assert_array_equal(run["bif"].values[2], probes[2]["bif"].values)
    assert run["bif"].attrs["sign"].startswith("negative = helpful")
    assert "loss" not in run
    assert "format_version" not in run.attrs
    assert open_run(tmp_path / "influence.zarr", trace=True)["loss"].dims == ("step", "chain", "draw", "sample")


def test_a_probe_is_one_file_that_plain_xarray_opens_and_its_parts_add_up(tmp_path, probes):
    store = fill(tmp_path, probes)
    assert sorted(item.name for item in store.path.iterdir()) == ["step10.zip", "step100.zip", "step5.zip", "zarr.json"]
    assert zarr.open_group(store.path, mode="r").attrs["format_version"] == 2
    one = xr.open_zarr(zarr.storage.ZipStore(store.path / "step10.zip", mode="r"), chunks=None)
    assert one.attrs["format_version"] == 2
    for name in ("bif", "group_bif"):
        parts = one[name].sel(part=["within", "drift", "between"]).sum("part")
        np.testing.assert_allclose(parts, one[name].sel(part="total"), atol=1e-10)
    assert one["loss"].dtype == np.float32


def test_an_unzipped_probe_is_a_zarr_folder_that_opens_in_its_place(tmp_path, probes):
    store = fill(tmp_path, probes)
    whole = open_run(tmp_path)
    with zipfile.ZipFile(store.path / "step10.zip") as archive:
        archive.extractall(store.path / "step10")
    (store.path / "step10.zip").unlink()
    xr.testing.assert_equal(open_run(tmp_path), whole)


@pytest.mark.filterwarnings("error")
def test_writing_and_reading_cause_no_warning(tmp_path, probes):
    fill(tmp_path, probes[:1])
    open_run(tmp_path)


class Kill(BaseException):
    """Error that nothing catches, like a signal."""


def dies(*args, **kwargs):
    raise Kill


@pytest.mark.parametrize("moment", ["content", "sync", "rename", "remove"])
@pytest.mark.parametrize("earlier", ["nothing", "file", "folder"])
def test_a_kill_during_a_write_neither_loses_nor_duplicates_probes(tmp_path, probes, monkeypatch, moment, earlier):
    old, new = probes[1], probes[1].assign(seconds=77.0)
    store = fill(tmp_path, probes[:1])
    if earlier == "file":
        store.write(old)
    if earlier == "folder":
        fill_as_format_1(tmp_path, [old])
    where = {
        "content": (store_module, "write_zarr_file"),
        "sync": (os, "fsync"),
        "rename": (os, "replace"),
        "remove": (ProbeStore, "_remove"),
    }
    monkeypatch.setattr(*where[moment], dies)
    reached = moment != "remove" or earlier == "folder"
    if reached:
        with pytest.raises(Kill):
            store.write(new)
    else:
        store.write(new)
    monkeypatch.undo()

    run = open_run(tmp_path, damaged="raise")
    written = moment == "remove"
    expected = [5] if earlier == "nothing" and not written else [5, 10]
    assert run["step"].values.tolist() == expected
    if len(expected) == 2:
        assert run["seconds"].values[1] == (77.0 if written else float(old["seconds"]))
    store.set_aside_after(5)  # as a resumed run starts
    assert steps_of(tmp_path) == [5]
    store.write(new)
    assert steps_of(tmp_path) == [5, 10]
    assert {item.name for item in store.path.iterdir()} == {"zarr.json", "step5.zip", "step10.zip"}
    assert [item.name for item in tmp_path.iterdir()] == ["influence.zarr"]


def test_remains_of_a_killed_process_are_removed_on_resume(tmp_path, probes):
    store = fill(tmp_path, probes)
    (store.path / "step200.zip.unfinished").write_bytes(b"half")
    shutil.copy(store.path / "step10.zip", tmp_path / ".influence.zarr.step200.zip.removed")
    (tmp_path / ".influence.zarr.step300.unfinished").mkdir()
    assert steps_of(tmp_path) == [5, 10, 100]
    store.set_aside_after(100)
    assert [item.name for item in tmp_path.iterdir()] == ["influence.zarr"]
    assert not list(store.path.glob("*.unfinished"))


def test_a_full_disk_leaves_existing_probes_and_no_remains(tmp_path, probes, monkeypatch):
    store = fill(tmp_path, probes[:2])

    def full(path, dataset):
        path.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(store_module, "write_zarr_file", full)
    for probe in (probes[1], probes[2]):
        with pytest.raises(OSError, match="No space left"):
            store.write(probe)
    assert store.steps() == [5, 10]
    assert not list(store.path.glob("*.unfinished"))
    xr.testing.assert_equal(open_run(tmp_path)["bif"][1].drop_vars(["step", "reference_step"]), probes[1]["bif"])


def test_content_is_synced_before_the_rename(tmp_path, probes, monkeypatch):
    store, done = fill(tmp_path, probes[:1]), []
    for name in ("fsync", "replace"):
        real = getattr(os, name)
        monkeypatch.setattr(os, name, lambda *given, real=real, name=name: (done.append(name), real(*given))[1])
    store.write(probes[1])
    assert done == ["fsync", "replace", "fsync"]  # file, name, folder


def test_a_probe_of_the_same_step_replaces_the_old_one(tmp_path, probes):
    store = fill(tmp_path, [probes[0], probes[0]])
    assert store.steps() == [5]


@pytest.mark.parametrize("filler", [fill, fill_as_format_1])
def test_earlier_probes_are_adopted_and_later_ones_set_aside(tmp_path, probes, filler):
    old = filler(tmp_path / "old", probes)
    new = ProbeStore(tmp_path / "new" / "influence.zarr")
    assert new.adopt(old.path, 10)
    assert new.steps() == [5, 10]
    assert new.adopt(old.path, 10)
    xr.testing.assert_equal(open_run(tmp_path / "new"), open_run(tmp_path / "old").sel(step=[5, 10]))
    assert not ProbeStore(tmp_path / "x.zarr").adopt(tmp_path / "nowhere", 10)
    assert old.set_aside_after(5) == [10, 100]
    assert old.steps() == [5]


@pytest.mark.parametrize("filler", [fill, fill_as_format_1])
def test_probes_set_aside_stay_until_passed_and_can_be_brought_back(tmp_path, probes, filler):
    store = filler(tmp_path, probes)
    whole = open_run(tmp_path)
    assert store.set_aside_after(5) == [10, 100]
    store.write(probes[1])  # step 10 again
    assert store.steps() == [5, 10]
    assert [item.stem for item in store.aside.iterdir()] == ["step100"]
    assert store.bring_back([5, 10]) == []
    assert store.bring_back([5, 10, 100]) == [100]
    xr.testing.assert_equal(open_run(tmp_path), whole)
    store.set_aside_after(5)
    store.write(probes[2])
    assert not store.aside.exists()
    assert store.steps() == [5, 100]


def test_a_store_of_format_1_opens_and_can_be_continued(tmp_path, probes):
    store = fill_as_format_1(tmp_path / "old", probes[:2])
    fill(tmp_path / "new", probes[:2])
    old, new = open_run(tmp_path / "old", trace=True), open_run(tmp_path / "new", trace=True)
    xr.testing.assert_equal(old, new)
    store.write(probes[2])
    fill(tmp_path / "new", probes[2:])
    xr.testing.assert_equal(open_run(tmp_path / "old", trace=True), open_run(tmp_path / "new", trace=True))
    # One that is measured again takes the place of its folder.
    store.write(probes[0])
    assert not (store.path / "step5").exists()
    assert store.steps() == [5, 10, 100]


@pytest.mark.parametrize("damaged", ["skip", "raise"])
def test_a_newer_format_is_refused_in_one_line_with_both_versions(tmp_path, probes, damaged, monkeypatch):
    store = fill(tmp_path, probes[:2])
    group = store.path / "zarr.json"
    told = json.loads(group.read_text())
    group.write_text(json.dumps(told | {"attributes": {"format_version": 7}}))
    words = r"got .*influence.zarr in format 7; expected 2 or older, which stagewise .* reads; update stagewise.*$"
    with pytest.raises(InputError, match=words):
        open_run(tmp_path, damaged=damaged)
    with pytest.raises(InputError, match="format 7"):
        store.write(probes[2])
    with pytest.raises(InputError, match="format 7"):
        ProbeStore(tmp_path / "other.zarr").adopt(store.path, 10)
    group.write_text(json.dumps(told))
    monkeypatch.setattr(store_module, "FORMAT_VERSION", 3)
    store.write(probes[2])
    group.write_text(json.dumps(told))
    with pytest.raises(InputError, match=r"step100.zip in format 3"):
        open_run(tmp_path, damaged=damaged)


def cut_short(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def flipped(path):
    content = bytearray(path.read_bytes())
    with zipfile.ZipFile(path) as archive:
        at = archive.getinfo("group_bif/c/0/0/0").header_offset + 30 + len("group_bif/c/0/0/0") + 12
    content[at] ^= 0xFF
    path.write_bytes(content)


def emptied(path):
    path.write_bytes(b"")


def no_json(path):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("zarr.json", "{")


def folder_instead(path):
    path.unlink()
    path.mkdir()


def of_another_step(path):
    shutil.copy(path.with_name("step5.zip"), path)


@pytest.mark.parametrize("damage", [cut_short, flipped, emptied, no_json, folder_instead, of_another_step])
def test_a_damaged_probe_is_named_and_skipped_or_refused(tmp_path, probes, damage):
    store = fill(tmp_path, probes)
    damage(store.path / "step10.zip")
    with pytest.warns(UserWarning, match=r"skipped .*step10\.zip, which cannot be read: .*; read 2 probes"):
        assert steps_of(tmp_path) == [5, 100]
    with pytest.raises(InputError, match=r"got .*step10\.zip, which cannot be read.*damaged='skip'"):
        open_run(tmp_path, damaged="raise")


@pytest.fixture(scope="module")
def of_format_1(probes, tmp_path_factory):
    """Folder with a store of that format, to be copied."""
    folder = tmp_path_factory.mktemp("format_1")
    fill_as_format_1(folder, probes)
    return folder


@pytest.mark.parametrize("lost", ["zarr.json", "group_bif/zarr.json", "group_bif/c", "group_bif", "seconds/zarr.json"])
def test_a_half_copied_folder_of_format_1_is_named_and_skipped(tmp_path, of_format_1, lost):
    shutil.copytree(of_format_1, tmp_path, dirs_exist_ok=True)
    path = tmp_path / "influence.zarr" / "step10" / lost
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    with pytest.warns(UserWarning, match=r"skipped .*step10, which cannot be read: "):
        assert steps_of(tmp_path) == [5, 100]


def test_missing_probes_counted_by_the_summary_are_reported(tmp_path, probes):
    fill(tmp_path, probes[:2])
    write_summary(tmp_path, {"probes": 3})
    with pytest.warns(UserWarning, match=r"lacks 1 of the 3 probes that summary.json counts"):
        assert steps_of(tmp_path) == [5, 10]
    with pytest.raises(InputError, match="lacks 1 of the 3 probes"):
        open_run(tmp_path, damaged="raise")


def test_a_run_of_damaged_probes_alone_is_refused(tmp_path, probes):
    store = fill(tmp_path, probes[:1])
    cut_short(store.path / "step5.zip")
    with pytest.raises(InputError, match=r"step5\.zip, which cannot be read"):
        open_run(tmp_path)
    with pytest.raises(InputError, match=r"damaged='warn'; expected one of"):
        open_run(tmp_path, damaged="warn")


def test_a_store_with_a_broken_description_opens(tmp_path, probes):
    store = fill(tmp_path, probes[:2])
    for text in ("{", "[]", '{"attributes": {"format_version": null}}'):
        (store.path / "zarr.json").write_text(text)
        assert steps_of(tmp_path) == [5, 10]
    store.write(probes[2])
    assert zarr.open_group(store.path, mode="r").attrs["format_version"] == 2


def test_only_requested_variables_are_loaded(tmp_path, probes):
    fill(tmp_path, probes)
    run = open_run(tmp_path, variables=["signal", "group_bif"])
    assert set(run.data_vars) == {"signal", "group_bif"}
    assert run["part"].values.tolist() == ["within", "drift", "between", "total"]


def test_missing_draws_are_refused_with_the_setting_that_stores_them(tmp_path, probes):
    fill(tmp_path, [probe.drop_vars(["loss", "distance", "chain"]) for probe in probes])
    with pytest.raises(InputError, match=r"probe\.save_trace: true"):
        open_run(tmp_path, trace=True)


def test_dropped_chains_become_missing_values(tmp_path, probes):
    fewer = probes[1].isel(chain=[0, 2])
    fill(tmp_path, [probes[0], fewer])
    run = open_run(tmp_path, trace=True)
    assert run["chain"].values.tolist() == [0, 1, 2]
    assert np.isnan(run["loss"].sel(step=10, chain=1)).all()


def test_the_summary_is_complete_and_part_of_the_opened_run(tmp_path, probes):
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


def test_a_probe_of_the_demo_s_sizes_takes_at_most_133_kb(tmp_path):
    """A run of 1,500 probes then takes at most 200 MB, in 1,500 files."""
    torch.manual_seed(0)
    module = torch.nn.Linear(8, 31)

    def losses(module, batch):
        return torch.nn.functional.softplus(module(batch[0]))

    data = ProbeData(
        (torch.randn(128, 8),), groups={f"group {number}": torch.arange(128) % 6 == number for number in range(6)}
    )
    sgld = type(SGLD)(lr=1e-3, localization=100.0, nbeta=30.0, num_chains=8, num_draws=10)
    config = ProbeConfig(check_curvature=False)
    prober = Prober(module, losses, data, sgld=sgld, config=config)
    found = [prober.probe(module, step)[0] for step in (10, 20)][1]
    path = ProbeStore(tmp_path / "influence.zarr").write(to_store(found, config.sample_matrices))
    assert found["anchor_loss"].shape == (128, 31)
    assert path.stat().st_size <= 133_000
    whole = ProbeStore(tmp_path / "all.zarr").write(to_store(found, SampleMatrices.all))
    assert whole.stat().st_size > 3 * path.stat().st_size
