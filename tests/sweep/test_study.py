import json
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr

from stagewise.errors import InputError
from stagewise.runs.open import open_run
from stagewise.sampling.chains import ChainSampler
from stagewise.sweep import study
from stagewise.sweep.cell import read_cell
from stagewise.sweep.config import CircuitSettings, Precision
from stagewise.sweep.sources import FolderCheckpoints
from stagewise.sweep.study import prepare_sweep, run_cells
from tests.sweep.tiny import SGLD, swept, tiny_config

NO_CIRCUITS = CircuitSettings(enabled=False)


def silent(_: str) -> None:
    pass


def run(config, progress=silent):
    swept(config, progress)
    return open_run(config.output)


def same(left: xr.Dataset, right: xr.Dataset) -> None:
    for item in (left, right):
        item.attrs.pop("summary")
    xr.testing.assert_identical(left.drop_vars("seconds"), right.drop_vars("seconds"))


@pytest.fixture(scope="module")
def finished(checkpoints, tmp_path_factory):
    """A whole sweep, that tests only read."""
    config = tiny_config(tmp_path_factory.mktemp("finished"), checkpoints)
    lines: list[str] = []
    return config, run(config, lines.append), lines


def test_cost_is_told_first_then_one_line_for_each_cell(finished):
    _, _, lines = finished
    # Two chains of two steps of burn-in and three draws.
    start = "3 cells of 14,720 parameters, each 2 chains x 3 draws: 10 gradients of 64 tokens and 6 evaluations of 64;"
    assert lines[0].startswith(start)
    assert [line[:13] for line in lines[1:]] == ["[1/3] step 1:", "[2/3] step 2:", "[3/3] step 4:"]


def test_each_checkpoint_is_held_against_the_one_before_it(finished):
    _, found, _ = finished
    assert found["reference_step"].values.tolist() == [1, 1, 2]
    parts = found["group_bif"]
    np.testing.assert_allclose(
        parts.sel(part=["within", "drift", "between"]).sum("part", skipna=False), parts.sel(part="total"), atol=1e-12
    )
    assert np.isnan(found["signal"].values[0])


def test_all_checkpoints_see_the_same_sequences(finished):
    config, _, _ = finished
    one, two = prepare_sweep(config).data, prepare_sweep(config).data
    assert torch.equal(one.observed["input_ids"], two.observed["input_ids"])
    assert torch.equal(one.sampling["input_ids"], two.sampling["input_ids"])
    other = prepare_sweep(replace(config, output=config.output + "2", data=replace(config.data, seed=1))).data
    assert not torch.equal(one.observed["input_ids"], other.observed["input_ids"])


def test_a_killed_sweep_goes_on_and_ends_with_the_same_results(checkpoints, finished, tmp_path):
    config = tiny_config(tmp_path, checkpoints)
    told = []

    def kill(line):
        told.append(line)
        if len(told) == 3:  # the cost, and two cells
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_cells(prepare_sweep(config), kill)
    kept = {path: path.stat().st_mtime_ns for path in (tmp_path / "out" / "cells").rglob("*.npz")}
    assert len(kept) == 2
    lines: list[str] = []
    resumed = run(config, lines.append)
    assert lines[0] == "2 of 3 cells are there already"
    assert [line[:13] for line in lines[2:]] == ["[3/3] step 4:"]
    assert all(path.stat().st_mtime_ns == at for path, at in kept.items())
    same(resumed, finished[1].copy())
    assert not list(tmp_path.rglob("*.unfinished"))


def test_a_finished_sweep_loads_no_checkpoint(finished, monkeypatch):
    config, expected, _ = finished
    monkeypatch.setattr(FolderCheckpoints, "load", lambda *_: pytest.fail("loaded"))
    same(run(config), expected.copy())


def test_steps_can_be_added_between_and_left_out(checkpoints, finished, tmp_path):
    config = tiny_config(tmp_path, checkpoints, steps=[1, 4])
    assert run(config)["reference_step"].values.tolist() == [1, 1]
    lines: list[str] = []
    same(run(replace(config, steps=[4, 2, 1]), lines.append), finished[1].copy())
    assert lines[0] == "2 of 3 cells are there already"
    assert run(replace(config, steps=[2]))["step"].values.tolist() == [2]
    assert not (tmp_path / "out" / "influence.zarr" / "step4.zip").exists()


@pytest.mark.slow
def test_two_processes_find_what_one_finds(checkpoints, finished, tmp_path):
    same(run(tiny_config(tmp_path, checkpoints, num_workers=2)), finished[1].copy())


def test_the_next_checkpoint_is_fetched_in_a_thread_while_one_is_computed(checkpoints, tmp_path, monkeypatch):
    events = []
    fetched = threading.Event()
    load, measure = FolderCheckpoints.load, study.measure_cells

    def noted_load(self, step):
        events.append((step, threading.current_thread() is threading.main_thread()))
        found = load(self, step)
        if step == 2:
            fetched.set()
        return found

    def waiting(config, data, module, task, **settings):
        if task.step == 1:
            assert fetched.wait(30)  # without the thread nobody would ever fetch it
        return measure(config, data, module, task, **settings)

    monkeypatch.setattr(FolderCheckpoints, "load", noted_load)
    monkeypatch.setattr(study, "measure_cells", waiting)
    run_cells(prepare_sweep(tiny_config(tmp_path, checkpoints, circuits=NO_CIRCUITS)), silent)
    assert events == [(1, True), (2, False), (4, False)]


def test_the_global_state_is_left(checkpoints, tmp_path):
    torch.manual_seed(5)
    before, threads = torch.get_rng_state(), torch.get_num_threads()
    run(tiny_config(tmp_path, checkpoints, steps=[1], circuits=NO_CIRCUITS))
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.get_num_threads() == threads


def test_other_settings_and_other_data_are_refused(finished, tmp_path):
    config, _, _ = finished
    for changed, words in (
        ({"sgld": replace(SGLD, nbeta=3.0)}, r"sgld.nbeta 3.0 \(was 10\)"),
        ({"data": replace(config.data, seed=4)}, r"data.seed 4 \(was 0\)"),
    ):
        with pytest.raises(InputError, match=words):
            prepare_sweep(replace(config, **changed))
    (tmp_path / "corpus.txt").write_text("other (words)\n" * 300)
    with pytest.raises(InputError, match="corpus"):
        prepare_sweep(replace(config, corpus=str(tmp_path / "corpus.txt")))


def test_a_corpus_that_changed_under_its_name_is_refused(checkpoints, tmp_path):
    config = tiny_config(tmp_path, checkpoints, steps=[1], circuits=NO_CIRCUITS)
    run(config)
    Path(config.corpus).write_text("other (words)\n" * 300)
    with pytest.raises(InputError, match="data_sha256"):
        prepare_sweep(config)


def test_centring_can_be_changed_afterwards(finished, tmp_path):
    config, _, _ = finished
    sweep = prepare_sweep(replace(config, probe=replace(config.probe, centering="step", min_prominence=0.5)))
    assert sweep.config.probe.centering == "step"


def test_a_checkpoint_whose_chains_all_fail_is_left_out_and_is_no_reference(checkpoints, tmp_path, monkeypatch):
    real = ChainSampler.run

    def wild_at_2(self, step=0, second_moments=None, **settings):
        if step == 2:
            self._config = replace(self._config, lr=0.03, nbeta=1e7)
        return real(self, step, second_moments, **settings)

    monkeypatch.setattr(ChainSampler, "run", wild_at_2)
    config = tiny_config(tmp_path, checkpoints, circuits=NO_CIRCUITS)
    lines: list[str] = []
    found = run(config, lines.append)
    assert found["step"].values.tolist() == [1, 4]
    assert found["reference_step"].values.tolist() == [1, 1]
    summary = json.loads(found.attrs["summary"])
    assert (summary["failed_steps"], summary["chains_dropped"]) == ([2], 2)
    assert "lost all its chains" in lines[2]
    assert read_cell(tmp_path / "out", 2, "all").measured is None


def test_half_precision_forward_passes_give_nearly_the_same(checkpoints, finished, tmp_path):
    config = tiny_config(tmp_path, checkpoints, steps=[1], precision=Precision.bf16, circuits=NO_CIRCUITS)
    loss = run(config)["group_loss"].values[0]
    exact = finished[1]["group_loss"].values[0]
    assert np.abs(loss - exact).max() > 0
    np.testing.assert_allclose(loss, exact, rtol=0.01)
