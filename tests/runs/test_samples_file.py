"""Words of samples, written once, and of the right samples whatever was left out."""

import numpy as np
import pytest
import torch
import xarray as xr
import zarr

from stagewise.errors import InputError
from stagewise.files.zarr_file import write_zarr_file
from stagewise.runs.open import open_run
from stagewise.runs.sample_names import SampleNames
from stagewise.runs.samples_file import SAMPLES_NAME, samples_dataset, write_samples
from tests.runs.full_run import write_full_run

WORDS = [f"text {number} <b>" for number in range(8)]
GROUPS = {"few": torch.arange(8) < 3, "many": torch.arange(8) >= 2, "gone": torch.zeros(8, dtype=torch.bool)}


@pytest.fixture
def folder(tmp_path):
    write_full_run(tmp_path)
    write_samples(tmp_path, samples_dataset(WORDS, "text", GROUPS))
    return tmp_path


def test_a_run_has_the_words_and_groups_of_its_samples(folder):
    run = open_run(folder)
    assert run["sample_words"].dims == ("sample",)
    assert run["sample_words"].values.tolist() == WORDS
    assert run["sample_words"].attrs["kind"] == "text"
    assert run["sample_words"].attrs["long_name"]
    for name in run["group"].values:
        assert run["in_group"].sel(group=name).values.tolist() == GROUPS[name].tolist()
    assert run["shift"].sel(step=20).coords["sample_words"].values.tolist() == WORDS
    probed = open_run(folder, variables=["shift"])
    assert probed["sample_words"].values.tolist() == WORDS


def test_a_run_without_words_is_unchanged(folder, tmp_path):
    with_words = open_run(folder)
    (folder / SAMPLES_NAME).unlink()
    without = open_run(folder)
    assert "sample_words" not in without.coords
    xr.testing.assert_identical(without, with_words.drop_vars(["sample_words", "in_group"]))


def test_token_masks_determine_the_samples_of_a_group():
    mask = torch.zeros(4, 3, dtype=torch.bool)
    mask[1, 2] = mask[3, 0] = True
    made = samples_dataset(["a"] * 4, "text", {"it": mask, "dense": mask[:, :, None].expand(4, 3, 2)})
    assert made["in_group"].values.tolist() == [[False, True, False, True]] * 2


def test_words_follow_the_numbers_of_samples_if_some_were_left_out(folder):
    store = folder / "influence.zarr"
    for path in store.glob("step*.zip"):
        probe = xr.open_zarr(zarr.storage.ZipStore(path, mode="r"), consolidated=False).load()
        kept = [row for row in range(8) if row not in (1, 5)] if "step10" not in path.name else list(range(8))
        numbers = {axis: kept for axis in ("sample", "sample_j") if axis in probe.dims}
        part = probe.isel(numbers)
        if len(kept) < 8:
            part = part.assign_coords({axis: np.array(kept) for axis in numbers})
        path.unlink()
        write_zarr_file(path, part)
    assert open_run(folder)["sample_words"].values.tolist() == WORDS
    (store / "step10.zip").unlink()
    run = open_run(folder)
    assert run["sample_words"].values.tolist() == [WORDS[row] for row in (0, 2, 3, 4, 6, 7)]
    assert run["in_group"].sel(group="few").values.tolist() == [True, True, False, False, False, False]
    half = np.isin(run["sample"], (2, 3, 4))
    names = SampleNames(
        run.assign_coords(group=["few", "half"], in_group=(("group", "sample"), [run["sample"] < 3, half]))
    )
    assert names(2) == "sample 2 “text 2 <b>” (in few, half)"
    assert names(1) == "sample 1 of the observed set"


def test_words_of_another_set_are_left_out(folder):
    write_samples(folder, samples_dataset(WORDS[:7], "text", {}))
    assert "sample_words" not in open_run(folder).coords


def test_a_damaged_file_loses_only_the_words(folder):
    path = folder / SAMPLES_NAME
    path.write_bytes(path.read_bytes()[:100])
    with pytest.warns(UserWarning, match="samples have numbers alone"):
        assert "sample_words" not in open_run(folder).coords
    with pytest.raises(InputError, match=SAMPLES_NAME):
        open_run(folder, damaged="raise")


def test_the_file_is_plain_zarr_and_small(folder):
    path = folder / SAMPLES_NAME
    assert path.stat().st_size < 4000
    opened = xr.open_zarr(zarr.storage.ZipStore(path, mode="r"), consolidated=False)
    assert opened["sample_words"].values.tolist() == WORDS


@pytest.mark.parametrize(
    ("words", "kind", "name"),
    [
        ("def f", "text", "sample 2 “def f” (in few, half)"),
        ("label 3", "label", "sample 2 (label 3, in few, half)"),
        ("few", "label", "sample 2 (few, in half)"),
        ("index 70", "index", "sample 2 (index 70, in few, half)"),
        ("sample 2", "number", "sample 2 (in few, half)"),
    ],
)
def test_names_have_words_and_distinguishing_groups(words, kind, name):
    made = samples_dataset(
        [words] * 8, kind, {"few": GROUPS["few"], "half": torch.arange(8) % 2 == 0, "many": GROUPS["many"]}
    )
    run = xr.Dataset(coords={"group": list(made["group"].values), "sample_words": made["sample_words"]})
    assert SampleNames(run.assign_coords(in_group=made["in_group"]))(2) == name


def test_many_groups_are_counted_and_runs_of_earlier_versions_have_numbers():
    groups = {f"g{row}": torch.arange(8) == 1 for row in range(5)}
    made = samples_dataset([f"sample {row}" for row in range(8)], "number", groups)
    run = xr.Dataset(coords={"group": list(groups), "sample_words": made["sample_words"], "in_group": made["in_group"]})
    assert SampleNames(run)(1) == "sample 1 (in g0, g1, g2, 2 more)"
    assert SampleNames(run)(1234) == "sample 1,234 of the observed set"
    assert SampleNames(xr.Dataset({"shift": ("sample", np.zeros(3))}))(1) == "sample 1 of the observed set"
