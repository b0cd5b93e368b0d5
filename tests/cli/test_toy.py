"""The toy's command, in-process, on an experiment of seconds."""

import csv
import json

import pytest
import yaml

from stagewise.cli.main import main

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture
def config(tmp_path):
    settings = {
        "output": str(tmp_path / "toy"),
        "num_workers": 1,
        "hierarchy": {"tree": {"thing": {"animal": ["dog", "cat"], "rock": ["granite"]}}},
        "network": {"hidden": 8, "init_std": 0.01, "lr": 0.05, "num_steps": 150, "aligned_lr": 0.025},
        "influence": {
            "schedule": {"log_spaced": {"first": 20, "last": 150, "num": 6}},
            "sgld": {"lr": 3e-5, "nbeta": 2000.0, "localization": 10000.0, "num_chains": 4, "num_draws": 20},
            "probe": {"reference_ratio": 1.2, "draw_matrices": False},
        },
        "retraining": {"horizons": [5], "horizon": 5, "window_lengths": [10], "num_windows": 3},
    }
    path = tmp_path / "toy.yaml"
    path.write_text(yaml.safe_dump(settings))
    return path


def test_toy_writes_figures_report_and_validation_and_prints_the_table(config, tmp_path, capsys):
    assert main(["toy", "-c", str(config), "--seeds", "[3,4]"]) == 0
    output = tmp_path / "toy"
    validation = json.loads((output / "validation.json").read_text())
    assert validation["_about"]["seeds"] == validation["tangent_error"]["seeds"] == [3, 4]
    report = (output / "report.md").read_text()
    pictures = sorted(path.name for path in (output / "figures").glob("*.png"))
    assert len(pictures) == 8
    assert all(f"figures/{name}" in report for name in pictures)
    assert {path.name for path in output.iterdir()} == {
        "validation.json", "flips.csv", "report.md", "figures", "seed-3", "seed-4"
    }  # fmt: skip
    rows = list(csv.DictReader((output / "flips.csv").open()))
    assert {row["seed"] for row in rows} <= {"3", "4"}
    assert rows
    assert all(float(row["before"]) * float(row["after"]) < 0 for row in rows)
    # Only chains have a sampling error.
    assert all((row["z_before"] != "") == (row["method"] == "SGLD chains") for row in rows)
    printed = capsys.readouterr().out
    assert "range over 2 seeds" in printed
    assert "[4/4]" in printed


@pytest.mark.parametrize(
    ("override", "words"),
    [
        (["--seeds", "[]"], "at least one seed"),
        (["--seeds", "[1,1]"], "each once"),
        (["--network.num_steps", "30"], "run of 30 steps"),
        (["--hierarchy.tree", "{thing: [dog]}"], "a tree of 1 item"),
        (["--influence.sgld.num_chains", "1"], "3 or more"),
        (["--network.hidden", "2"], "hidden units"),
        (["--influence.sgld.localization", "1.0"], "localization"),
    ],
)
def test_mistakes_are_told_in_one_line_before_any_work(config, tmp_path, capsys, override, words):
    assert main(["toy", "-c", str(config), *override]) == 2
    error = capsys.readouterr().err
    assert words in error
    assert error.count("\n") == 1
    assert not (tmp_path / "toy").exists()


def test_a_configuration_is_needed(capsys):
    assert main(["toy"]) == 2
    assert "expected stagewise toy -c FILE" in capsys.readouterr().err


def test_an_output_that_is_a_file_is_refused(config, tmp_path, capsys):
    (tmp_path / "taken").write_text("mine")
    assert main(["toy", "-c", str(config), "--output", str(tmp_path / "taken")]) == 2
    assert "which is a file" in capsys.readouterr().err


def test_chains_that_fail_are_told_with_what_to_change(config, tmp_path, capsys):
    assert main(["toy", "-c", str(config), "--influence.sgld.lr", "3.9e-4"]) == 2
    error = capsys.readouterr().err
    assert "of its probes, the first at step" in error
    assert "lr" in error.split("callback says")[1]
    assert not list((tmp_path / "toy").glob("*"))
