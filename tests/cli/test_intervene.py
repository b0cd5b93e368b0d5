"""The command of the intervention experiment, in-process, on an experiment of seconds."""

import json
from dataclasses import asdict

import pyarrow.parquet as pq
import pytest
import yaml

from stagewise.cli.main import main
from tests.studies.intervention.tiny import DATA, MODEL, tiny_config

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture
def config(tmp_path):
    tiny = tiny_config("unused")
    settings = {
        "model": MODEL,
        "data": DATA,
        "seeds": [1, 2],
        "output": str(tmp_path / "out"),
        "num_workers": 1,
        "arms": ["none", "inside", "placebo", "live"],
        "sweep": [0, 10],
        "training": asdict(tiny.training),
        "influence": {
            "schedule": {"every_n_steps": 5, "log_spaced": None},
            "sgld": {
                "lr": 1e-4,
                "nbeta": 10.0,
                "localization": 100.0,
                "num_chains": 2,
                "num_draws": 3,
                "num_burnin_steps": 2,
                "num_steps_bw_draws": 1,
                "drift": "plain",
                "engine": "sequential",
            },
            "probe": {"draw_matrices": False},
        },
        "weights": {"length": 5, "lead": 5, "onset": {"ratio": 1e-9}},
    }
    path = tmp_path / "intervention.yaml"
    path.write_text(yaml.safe_dump(settings))
    return path


@pytest.mark.slow
def test_intervene_writes_results_table_report_and_figures_and_resumes(config, tmp_path, capsys):
    assert main(["intervene", "-c", str(config)]) == 0
    output = tmp_path / "out"
    first = capsys.readouterr().out
    assert "[12/12]" in first
    results = json.loads((output / "results.json").read_text())
    # 20 steps form no head: nothing is said of acceleration, and the seeds are named.
    assert results["left_out"] == [1, 2]
    assert results["missing"] == []
    assert set(results["arms"]) == {"inside", "placebo", "live", "start_0", "start_10"}
    table = pq.read_table(output / "results.parquet")
    assert table.num_rows == 12
    assert set(table["name"].to_pylist()) == {"none", *results["arms"]}
    report = (output / "report.md").read_text()
    for picture in (output / "figures").glob("*.png"):
        assert f"figures/{picture.name}" in report
    assert "Left out, as `none` forms no head: seeds [1, 2]" in report

    # Again, with a cell lost: it alone is computed, and the table is the same.
    (output / "cells" / "seed-2" / "inside.json").unlink()
    assert main(["intervene", "-c", str(config)]) == 0
    second = capsys.readouterr().out
    assert "11 of 12 cells are there already" in second
    assert second.count(" left\n") == 1
    assert json.loads((output / "results.json").read_text()) == results
    assert first[first.index("\n| arm") :] == second[second.index("\n| arm") :]


@pytest.mark.parametrize(
    ("override", "words"),
    [
        (["--seeds", "[]"], "at least one seed"),
        (["--seeds", "[1,1]"], "each once"),
        (["--arms", "[inside,outside]"], "outside"),
        (["--sweep", "[18]"], "starts of windows of 5 steps within the run, 0 to 15"),
        (["--weights.factor", "-1"], "expected a finite number >= 0"),
        (["--weights.group", "verbs"], "weights.group='verbs'"),
        (["--weights.onset.against", "nouns"], "weights.onset.against='nouns'"),
        (["--weights.within_onset.against", "nouns"], "weights.within_onset.against='nouns'"),
        (["--weights.mechanisms", "[magic]"], "one or both of"),
        (["--live.signal", "within/verbs~verbs"], "within/verbs~verbs"),
        (["--training.measure_every", "7"], "a divisor of"),
        (["--model.class_path", "no.such.Model"], "no.such.Model"),
        (["--data.num_sequences", "80"], "num_sequences"),
        (["--influence.sgld.lr", "-1.0"], "lr"),
    ],
)
def test_mistakes_are_told_in_one_line_before_any_work(config, tmp_path, capsys, override, words):
    assert main(["intervene", "-c", str(config), *override]) == 2
    error = capsys.readouterr().err
    assert words in error
    assert error.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_a_configuration_is_needed(capsys):
    assert main(["intervene"]) == 2
    assert "expected stagewise intervene -c FILE" in capsys.readouterr().err
