"""``stagewise calibrate``, in-process, on the demo's configuration made small."""

import json
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path

import pytest
import torch
import yaml

from stagewise import open_run
from stagewise.cli.calibrate import CalibrationCLI
from stagewise.cli.main import main
from stagewise.cli.training import run_trainer
from stagewise.sampling.engines import compiled
from tests.blank_figures import drawn
from tests.cli.test_main import config, run_of, write_config  # noqa: F401

pytestmark = pytest.mark.filterwarnings("ignore")

SMALL = ["--calibration.num_draws", "8", "--calibration.num_chains", "2", "--calibration.num_steps", "2"]
ONE_STEP = ["--calibration.num_steps", "1"]


def folder_of(tmp_path, version=0) -> Path:
    return tmp_path / "runs" / "induction" / "calibration" / f"version_{version}"


@pytest.fixture(scope="module")
def calibrated(tmp_path_factory):
    """Folder, content of the file, output and model of one calibration, for tests that only read them."""
    folder, said, models = tmp_path_factory.mktemp("calibrated"), StringIO(), []
    with redirect_stdout(said), drawn(), pytest.MonkeyPatch.context() as patch:
        patch.setattr(CalibrationCLI, "after_instantiate_classes", lambda cli: models.append(cli.model))
        assert main(["calibrate", "-c", str(write_config(folder)), *SMALL]) == 0
    found = json.loads((folder_of(folder) / "calibration.json").read_text())
    return folder, found, said.getvalue(), models[0]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Folder and model of a run without probes."""
    folder = tmp_path_factory.mktemp("trained")
    return folder, run_trainer(["fit", "-c", str(write_config(folder)), "--influence.enabled", "false"]).model


def test_settings_are_proposed_that_hold_at_the_steps_looked_at(calibrated):
    folder, found, said, _ = calibrated
    given = yaml.safe_load((folder / "config.yaml").read_text())["influence"]["sgld"]
    assert [curvature["plain"]["step"] for curvature in found["curvatures"]] == [2, 4]
    lr, nbeta, localization = (found["proposed"][name] for name in ("lr", "nbeta", "localization"))
    assert nbeta == 300
    for curvature in found["curvatures"]:
        assert lr * (nbeta * curvature["plain"]["lam_max"] + localization) <= 2.5
        assert localization > nbeta * abs(min(0, curvature["plain"]["lam_min"]))
    assert [len(trace["mean_loss"]) for trace in found["traces"]] == [2, 2]
    assert all(len(chain) == 8 for trace in found["traces"] for chain in trace["mean_loss"])
    told = f"Given: lr {given['lr']:g}, nbeta 300, localization {given['localization']:g}"
    for words in ("Curvature of the mean loss", told, "Proposed: localization", "step 4: "):
        assert words in said


def test_printed_fragment_can_be_pasted(calibrated, config, tmp_path):  # noqa: F811
    _, found, said, _ = calibrated
    fragment = yaml.safe_load(said.split("Settings to paste:\n")[1].split("\nWritten:")[0])
    assert set(fragment["influence"]["sgld"]) == {"lr", "nbeta", "localization"}
    pasted = tmp_path / "pasted.yaml"
    pasted.write_text(yaml.safe_dump(fragment))
    assert main(["fit", "-c", str(config), "-c", str(pasted)]) == 0
    run = open_run(run_of(tmp_path))
    assert run.attrs["lr"] == found["proposed"]["lr"]
    assert run.attrs["localization"] == found["proposed"]["localization"]


def test_it_leaves_a_picture_and_no_run(calibrated):
    folder, *_ = calibrated
    assert (folder_of(folder) / "calibration.png").read_bytes().startswith(b"\x89PNG")
    assert [path.name for path in (folder / "runs" / "induction").iterdir()] == ["calibration"]


def test_careless_settings_of_the_file_are_named(config, capsys):  # noqa: F811
    arguments = ["--influence.sgld.localization", "0.5", "--influence.sgld.lr", "0.1"]
    assert main(["calibrate", "-c", str(config), *SMALL, *ONE_STEP, *arguments]) == 0
    said = capsys.readouterr().out
    assert "refuse: lr 0.1 is too large" in said
    assert "localization 0.5 is " in said


def test_training_is_that_of_the_configuration_without_probes(calibrated, trained):
    *_, model = calibrated
    plain = trained[1].state_dict()
    assert all(torch.equal(value, plain[name]) for name, value in model.state_dict().items())


def test_files_can_be_sent_elsewhere_and_settings_be_auto(config, tmp_path, capsys):  # noqa: F811
    folder = tmp_path / "elsewhere"
    arguments = ["--calibration.output_dir", str(folder), "--influence.sgld.lr", "auto"]
    arguments += ["--influence.sgld.localization", "auto"]
    assert main(["calibrate", "-c", str(config), *SMALL, *ONE_STEP, *arguments]) == 0
    found = json.loads((folder / "calibration.json").read_text())
    assert found["given"]["lr"] == "auto"
    assert found["findings"] == []
    assert [trace["step"] for trace in found["traces"]] == [4]
    assert "left to calibration" in capsys.readouterr().out


def test_chains_of_a_calibration_are_too_short_to_be_compiled(config, tmp_path, monkeypatch):  # noqa: F811
    monkeypatch.setattr(compiled, "BACKEND", lambda graph, inputs: pytest.fail("compiled"))
    folder = tmp_path / "mine"
    arguments = ["--calibration.output_dir", str(folder), "--influence.sgld.engine", "compiled"]
    assert main(["calibrate", "-c", str(config), *SMALL, *arguments, "--calibration.num_steps", "1"]) == 0
    assert json.loads((folder / "calibration.json").read_text())["given"]["engine"] == "compiled"


def test_large_rise_raises_the_localization_once(config, tmp_path, capsys):  # noqa: F811
    assert main(["calibrate", "-c", str(config), *SMALL, "--calibration.max_rise", "1e-3"]) == 0
    found = json.loads((folder_of(tmp_path) / "calibration.json").read_text())
    assert "localization was raised from" in found["raised"]
    assert found["raised"] in capsys.readouterr().out
    lr, nbeta, localization = (found["proposed"][name] for name in ("lr", "nbeta", "localization"))
    assert str(f"to {localization:g}") in found["raised"]
    for curvature in found["curvatures"]:
        assert lr * (nbeta * curvature["plain"]["lam_max"] + localization) <= 2.5


def test_preconditioned_chain_is_calibrated_by_its_own_curvature(config, tmp_path):  # noqa: F811
    settings = yaml.safe_load(config.read_text())
    settings["influence"]["sgld"] |= {"preconditioner": {"eps": 0.1}, "num_burnin_steps": 4}
    config.write_text(yaml.safe_dump(settings))
    assert main(["calibrate", "-c", str(config), *SMALL]) == 0
    found = json.loads((folder_of(tmp_path) / "calibration.json").read_text())
    for curvature in found["curvatures"]:
        assert found["proposed"]["lr"] * curvature["preconditioned"]["lam_max"] <= 2.5
        # P is at least 1 and at most 1 / eps.
        assert curvature["preconditioned"]["lam_max"] > curvature["plain"]["lam_max"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--calibration.num_draws", "3"], "got calibration.num_draws=3; expected a whole number >= 8"),
        (["--calibration.max_rise", "0"], "got calibration.max_rise"),
        (["--calibration.nothing", "3"], "nothing"),
        (["--trainer.max_steps", "-1", "--trainer.max_epochs", "-1"], "set --trainer.max_steps"),
        (["--influence.schedule.at_steps", "[9]"], "expected probes within the run"),
        (["--influence.sgld.lr", "fast"], "lr"),
        (["--influence.sgld.nbeta", "0"], "nbeta=0"),
        (["--influence.component", "layer0.head2"], "got head=2; expected 0 to 1"),
    ],
)
def test_a_mistake_is_answered_by_one_line_and_status_2(config, capsys, arguments, words):  # noqa: F811
    assert main(["calibrate", "-c", str(config), *arguments]) == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("stagewise calibrate: ")]
    assert len(lines) == 1
    assert words in lines[0]


def test_the_curvature_is_that_of_the_component(config, tmp_path, capsys):  # noqa: F811
    assert main(["calibrate", "-c", str(config), *SMALL, *ONE_STEP, "--influence.component", "layer0.head1"]) == 0
    found = json.loads((folder_of(tmp_path) / "calibration.json").read_text())
    assert found["component"] == "layer0.head1"
    said = capsys.readouterr().out
    assert "Curvature of the mean loss over the weights of layer0.head1" in said
    assert "influence:\n  component: layer0.head1\n  sgld:\n" in said  # to paste: settings of this component alone


def test_configuration_is_needed(capsys):
    assert main(["calibrate"]) == 2
    assert "expected stagewise calibrate -c FILE" in capsys.readouterr().err


def test_saved_configuration_of_a_run_is_taken(trained):
    folder, _ = trained
    assert main(["calibrate", "-c", str(run_of(folder) / "config.yaml"), *SMALL, *ONE_STEP]) == 0
    assert (folder_of(folder) / "calibration.json").is_file()
