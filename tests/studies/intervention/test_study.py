import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from stagewise.errors import InputError
from stagewise.runs.open import open_run
from stagewise.studies.intervention.cell import cell_path
from stagewise.studies.intervention.config import Backend, WeightSettings
from stagewise.studies.intervention.study import run_cells
from tests.studies.intervention.tiny import DATA, MODEL, tiny_config

WALL_CLOCK = {"seconds", "branched_at"}


FEW = {**DATA, "init_args": {**DATA["init_args"], "num_sequences": 160}}
"""Enough for 20 steps of 8, and not for a window in which a quarter of them is drawn more."""


def silent(_: str) -> None:
    pass


def outcome(cell):
    return replace(cell, seconds=0.0, branched_at=0)


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    config = tiny_config(
        tmp_path_factory.mktemp("study"),
        arms=["none", "inside", "random", "whole", "placebo"],
        sweep=[10],
        weights=WeightSettings(
            length=5, lead=5, mechanisms=["sampling", "loss"], onset=replace(tiny_config("x").weights.onset)
        ),
    )
    return config, {cell.name: cell for cell in run_cells(config, silent)}


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """The undisturbed run alone: its settings, and the global state before it and after it. Not to be written to."""
    torch.manual_seed(5)
    states = [(torch.get_rng_state(), torch.get_num_threads())]
    config = tiny_config(tmp_path_factory.mktemp("alone"), arms=["none"], data=FEW)
    run_cells(config, silent)
    return config, [*states, (torch.get_rng_state(), torch.get_num_threads())]


@pytest.fixture
def copied(alone, tmp_path):
    """Settings of a copy of it, for tests that go on from there."""
    config, _ = alone
    return replace(config, output=str(shutil.copytree(config.output, tmp_path / "copied")))


def test_arms_run_under_every_mechanism_and_the_sweep_under_the_first(study):
    _, cells = study
    weighted = {"inside", "random", "whole"}
    assert set(cells) == {"none", "placebo", "start_10"} | weighted | {f"{name}_loss" for name in weighted}


def test_cells_hold_the_whole_curve_and_measures(study):
    _, cells = study
    for cell in cells.values():
        if cell.curve is None:
            assert cell.note
            continue
        assert cell.curve.steps == (0, 5, 10, 15, 20)
        assert set(cell.final_losses) == {"induction", "background", "first_copy"}
        assert cell.ablation is not None
        assert cell.ablation.loss == cell.final_losses["induction"]


def test_windows_change_nothing_before_they_open(study):
    _, cells = study
    for name in ("start_10", "inside", "inside_loss"):
        cell = cells[name]
        start = cell.windows[0][0]
        assert cell.windows == ((start, start + 5),)
        assert cell.branched_at == start
        before = start // 5 + 1
        assert cell.curve.prefix_matching[:before] == cells["none"].curve.prefix_matching[:before]
        assert cell.final_losses != cells["none"].final_losses


def test_the_placebo_has_the_same_start_and_another_order(study):
    _, cells = study
    none, placebo = cells["none"], cells["placebo"]
    assert placebo.curve.prefix_matching[0] == none.curve.prefix_matching[0]
    assert placebo.curve.prefix_matching[1:] != none.curve.prefix_matching[1:]
    assert placebo.windows == ()
    assert placebo.moved == 0


def test_arms_of_one_study_move_as_much_mass(study):
    _, cells = study
    assert cells["start_10"].moved == pytest.approx(cells["whole"].moved, rel=0.02)
    assert cells["inside"].moved == cells["inside_loss"].moved


def test_the_observed_run_is_stored_with_its_probes(study):
    config, cells = study
    run = open_run(Path(config.output) / "runs" / "seed-1" / "none")
    assert run["step"].values.tolist() == [5, 10, 15, 20]
    assert cells["none"].timeline["peak"] in (5, 10, 15, 20)


def test_a_branch_equals_the_run_from_the_start(study, tmp_path):
    """Bit for bit, with dropout, for both mechanisms; the truth is a run without checkpoints."""
    config, cells = study
    whole = tiny_config(
        tmp_path,
        arms=["none", "inside"],
        sweep=[10],
        training=replace(config.training, branch_every=0),
        weights=config.weights,
    )
    for cell in run_cells(whole, silent):
        assert cell.branched_at == 0
        assert outcome(cell) == outcome(cells[cell.name])


def test_checkpoints_are_gone_and_no_unfinished_folder_is_left(study):
    config, _ = study
    assert not (Path(config.output) / "checkpoints").exists()
    assert not list(Path(config.output).rglob("*.unfinished"))


def test_the_global_state_is_left(alone):
    _, ((before, threads), (after, threads_after)) = alone
    assert torch.equal(after, before)
    assert threads_after == threads


@pytest.mark.slow
def test_a_study_that_was_killed_goes_on_and_ends_with_the_same_cells(tmp_path):
    config = tiny_config(tmp_path / "killed", sweep=[10])
    told = []

    def kill(line):
        told.append(line)
        if len(told) == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_cells(config, kill)
    kept = {path: path.stat().st_mtime_ns for path in (tmp_path / "killed" / "cells").rglob("*.json")}
    assert len(kept) == 2
    lines: list[str] = []
    resumed = run_cells(config, lines.append)
    assert lines[0] == "2 of 4 cells are there already"
    assert all(path.stat().st_mtime_ns == at for path, at in kept.items())
    whole = run_cells(replace(config, output=str(tmp_path / "whole")), silent)
    assert [outcome(cell) for cell in resumed] == [outcome(cell) for cell in whole]


@pytest.mark.slow
def test_two_processes_find_what_one_finds(tmp_path):
    one = run_cells(tiny_config(tmp_path / "one", seeds=[1, 2]), silent)
    two = run_cells(tiny_config(tmp_path / "two", seeds=[1, 2], num_workers=2), silent)
    assert [outcome(cell) for cell in one] == [outcome(cell) for cell in two]


def test_seeds_and_arms_can_be_added_and_other_settings_not(copied):
    """Arms without a window need no more data than the run itself."""
    lines: list[str] = []
    run_cells(replace(copied, arms=["none", "placebo"]), lines.append)
    assert lines[0] == "1 of 2 cells are there already"
    other = replace(copied, training=replace(copied.training, max_steps=15))
    with pytest.raises(InputError, match=r"training.max_steps 15 \(was 20\)"):
        run_cells(other, silent)


@pytest.mark.slow
def test_the_time_left_is_a_bound_until_each_kind_of_cell_is_known(tmp_path):
    lines: list[str] = []
    run_cells(tiny_config(tmp_path, arms=["none", "placebo"], seeds=[1, 2]), lines.append)
    assert [line.rsplit(", ", 1)[1].split()[0] for line in lines] == ["at", "at", "about", "about"]
    assert [line.split()[0] for line in lines] == ["[1/4]", "[2/4]", "[3/4]", "[4/4]"]
    assert lines[-1].endswith("about 0:00 left")


def test_a_cell_that_cannot_be_read_is_named(copied):
    cell_path(Path(copied.output), 1, "none").write_text("{")
    with pytest.raises(InputError, match="delete it"):
        run_cells(copied, silent)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"model": {**MODEL, "class_path": "no.such.Thing"}}, "got model no.such.Thing"),
        ({"model": {"class_path": "stagewise.toy.module.DeepLinear"}}, "got model stagewise.toy.module.DeepLinear"),
        ({"data": {**DATA, "init_args": {"contxt": 8}}}, "got data stagewise.lm.data.SyntheticData"),
        ({"data": {**DATA, "init_args": {**DATA["init_args"], "context": 1}}}, "got context=1"),
        ({"weights": WeightSettings(group="verbs", length=5)}, "got weights.group='verbs'"),
        (
            {"data": {**DATA, "init_args": {**DATA["init_args"], "induction_fraction": 0.0}}},
            "weights.group='induction'",
        ),
        ({"data": {**DATA, "init_args": {**DATA["init_args"], "num_sequences": 80}}}, "num_sequences"),
        ({"backend": Backend.ray}, "ray"),
    ],
)
def test_bad_input_is_refused_before_the_work(tmp_path, changed, message):
    with pytest.raises(InputError, match=message):
        run_cells(tiny_config(tmp_path / "out", **changed), silent)
    assert not (tmp_path / "out").exists()


def test_an_output_that_is_a_file_is_refused(tmp_path):
    (tmp_path / "out").write_text("mine")
    with pytest.raises(InputError, match="which is a file"):
        run_cells(tiny_config(tmp_path / "out"), silent)


def test_settings_are_plain_json(study):
    config, _ = study
    settings = json.loads((Path(config.output) / "settings.json").read_text())
    assert settings["training"]["max_steps"] == 20
    assert "seeds" not in settings


@pytest.mark.parametrize("arms", [["inside"], ["random"], ["whole"]])
def test_data_that_a_window_would_use_up_are_refused_before_the_work(tmp_path, arms):
    with pytest.raises(InputError, match=r"samples .*, of which an epoch needs .* raise data.init_args.num_sequences"):
        run_cells(tiny_config(tmp_path / "out", data=FEW, arms=arms), silent)
    assert not (tmp_path / "out").exists()
