import csv
import io
import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from stagewise.runs.open import open_run
from stagewise.sweep import measure
from stagewise.sweep.circuits import Circuits
from stagewise.sweep.config import CircuitSettings
from stagewise.sweep.results import write_results
from stagewise.sweep.study import prepare_sweep, run_cells
from stagewise.sweep.tables import CIRCUIT_COLUMNS, GROUP_COLUMNS, circuit_rows, write_table
from tests.sweep.tiny import SGLD, model, swept, tiny_config


@pytest.fixture(scope="module")
def output(checkpoints, tmp_path_factory):
    config = tiny_config(tmp_path_factory.mktemp("results"), checkpoints)
    sweep = prepare_sweep(config)
    run_cells(sweep, lambda _: None)
    written = write_results(sweep)
    assert all(path.exists() for path in written)
    return Path(config.output)


def rows_of(path):
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def test_the_table_of_groups_holds_every_number_of_the_store(output):
    run, rows = open_run(output), rows_of(output / "groups.csv")
    assert tuple(rows[0]) == GROUP_COLUMNS
    size = run.sizes
    assert len(rows) == size["step"] * size["part"] * size["group"] ** 2
    columns = {"bif": "group_bif", "se": "group_bif_se", "z": "group_bif_z", "correlation": "group_bif_correlation"}
    for row in rows:
        probe = run.sel(step=int(row["step"]))
        place = {name: row[name] for name in ("part", "group", "group_j")}
        for column, name in columns.items():
            expected = float(probe[name].sel(place))
            assert row[column] == "" if np.isnan(expected) else float(row[column]) == expected
        own = probe.sel(group=row["group"])
        for column, value in {
            "llc": own["group_llc"],
            "llc_se": own["group_llc_se"],
            "llc_all": probe["llc"],
            "llc_all_se": probe["llc_se"],
            "llc_localized_share": probe["llc_localized_share"],
        }.items():
            assert row[column] == "" if np.isnan(value) else float(row[column]) == float(value)
        assert int(row["reference_step"]) == int(probe["reference_step"])
        assert row["flags"].split() == str(probe["flag_names"].item()).split(", ")
        assert (row["component"], row["num_chains"], row["num_draws"]) == ("all", "2", "3")


def test_the_table_of_circuits_has_a_line_for_each_head(output):
    rows = rows_of(output / "circuits.csv")
    assert tuple(rows[0]) == CIRCUIT_COLUMNS
    assert [(row["step"], row["layer"], row["head"]) for row in rows] == [
        (step, layer, head) for step in "124" for layer in "01" for head in "01"
    ]
    assert all(0 <= float(row["prefix_matching"]) <= 1 and -1 <= float(row["copying"]) <= 1 for row in rows)
    assert len({row["icl_score"] for row in rows if row["step"] == "2"}) == 1


def test_scores_that_a_model_has_not_are_left_empty(tmp_path):
    circuits = Circuits({"prefix_matching": ((0.5, None),)}, {"icl_score": -1.0, "loss_gap": None})
    path = write_table(tmp_path / "circuits.csv", CIRCUIT_COLUMNS, [circuit_rows(3, circuits)])
    assert path.read_text().splitlines()[1:] == ["3,0,0,0.5,,,-1.0,", "3,0,1,,,,-1.0,"]
    assert circuit_rows(3, Circuits(note="no attention")).empty


def test_tables_are_written_as_the_csv_module_writes_them(tmp_path):
    values = np.array([1 / 3, 1e-5, 1e16, -0.0, 123456.789, np.nan, np.inf])
    names = ["plain", "a,b", 'quo"te', "", "ä", "two\nlines", " space"]
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(["step", "name", "value"])
    for step, (name, value) in enumerate(zip(names, values.tolist(), strict=True)):
        table.writerow([step, name, repr(value) if np.isfinite(value) else ""])
    halves = [slice(0, 3), slice(3, 7)]
    frames = [pd.DataFrame({"step": range(7)[at], "name": names[at], "value": values[at]}) for at in halves]
    path = write_table(tmp_path / "a.csv", ["step", "name", "value"], frames)
    assert path.read_text(encoding="utf-8") == text.getvalue()
    assert write_table(path, ["step", "name"], []).read_text() == "step,name\n"


def test_the_summary_is_that_of_a_run_and_says_what_was_swept(output):
    summary = json.loads((output / "summary.json").read_text())
    run = json.loads(open_run(output).attrs["summary"])
    assert run == summary
    assert summary["probe_steps"] == [1, 2, 4]
    assert (summary["nbeta"], summary["localization"], summary["lr"]) == (10.0, 100.0, 1e-4)
    assert summary["transitions"] == []
    assert summary["probe_seconds"] > 0
    assert summary["sweep"]["steps"] == [1, 2, 4]
    assert sum(summary["sweep"]["tokens"].values()) >= 4 * 15
    assert summary["sweep"]["circuits_left_out"] == []


def test_the_verdict_of_a_fresh_sweep_tells_the_checkpoints_that_lost_all_their_chains(checkpoints, tmp_path):
    sgld = replace(SGLD, lr=0.035, max_loss_rise=1e-6)
    config = tiny_config(tmp_path, checkpoints, sgld=sgld, circuits=CircuitSettings(enabled=False))
    swept(config)
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert summary["failed_steps"] == [1, 2, 4]
    assert "3 probes, steps 1 to 4, lost all their chains" in summary["verdict"]["text"]


def test_without_attention_there_is_no_table_and_a_note(checkpoints, tmp_path, monkeypatch):
    monkeypatch.setattr(measure, "measure_circuits", lambda *_, **__: Circuits(note="it returns none"))
    sweep = prepare_sweep(tiny_config(tmp_path, checkpoints, steps=[1, 4]))
    run_cells(sweep, lambda _: None)
    write_results(sweep)
    assert not (tmp_path / "out" / "circuits.csv").exists()
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert summary["sweep"]["circuits_left_out"] == [{"why": "it returns none", "steps": [1, 4]}]


@pytest.fixture
def measured(monkeypatch):
    """Settings of each measurement of the scores of heads."""
    real, calls = measure.measure_circuits, []

    def counted(module, settings, **given):
        calls.append(settings)
        return real(module, settings, **given)

    monkeypatch.setattr(measure, "measure_circuits", counted)
    return calls


def test_scores_of_heads_are_measured_once_for_each_checkpoint_whatever_the_components(
    output, checkpoints, tmp_path, measured
):
    scores = [row for row in rows_of(output / "circuits.csv") if row["step"] == "2"]
    for components in (["layer0.head1"], ["layer0.head1", "all"], ["all", "layer1"]):
        swept(tiny_config(tmp_path, checkpoints, components=components, steps=[2]))
        assert rows_of(tmp_path / "out" / "circuits.csv") == scores
    assert len(measured) == 1


def test_scores_of_heads_whose_file_was_deleted_are_measured_again(output, checkpoints, tmp_path, measured):
    copied = shutil.copytree(output, tmp_path / "out")
    (copied / "circuits" / "step2.json").unlink()
    swept(replace(tiny_config(output.parent, checkpoints), output=str(copied)))
    assert len(measured) == 1
    assert rows_of(copied / "circuits.csv") == rows_of(output / "circuits.csv")


def test_scores_of_heads_can_be_asked_for_otherwise_later_and_cells_stay(checkpoints, tmp_path, measured):
    off = tiny_config(tmp_path, checkpoints, steps=[1], circuits=CircuitSettings(enabled=False))
    one, two = (
        replace(off, circuits=CircuitSettings(num_sequences=2, segment_length=4, seed=number)) for number in (0, 1)
    )
    tables = []
    for config in (off, one, two):
        swept(config)
        path = tmp_path / "out" / "circuits.csv"
        tables.append(path.read_text() if path.exists() else None)
    assert [item.seed for item in measured] == [0, 1]
    assert tables[0] is None
    assert tables[1] != tables[2]
    swept(off)
    assert not path.exists()


def test_scores_of_heads_of_a_checkpoint_that_was_replaced_are_measured_again(checkpoints, tmp_path):
    folder = tmp_path / "checkpoints"
    shutil.copytree(checkpoints, folder)
    config = tiny_config(tmp_path, folder, steps=[1, 2])
    swept(config)
    before = rows_of(tmp_path / "out" / "circuits.csv")
    # As a sweep leaves it that was killed after the scores, or one whose broken cell was deleted.
    shutil.rmtree(tmp_path / "out" / "cells" / "all" / "step2")
    model(seed=9).save_pretrained(folder / "step2")
    swept(config)
    after = rows_of(tmp_path / "out" / "circuits.csv")
    assert [row for row in after if row["step"] == "1"] == [row for row in before if row["step"] == "1"]
    assert not any(row in before for row in after if row["step"] == "2")
