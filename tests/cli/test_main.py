"""The command line, in-process: what it runs, and the one line it answers to a mistake."""

import json
from pathlib import Path

import pytest
import yaml

from stagewise import __version__, open_run
from stagewise.cli.main import main

pytestmark = pytest.mark.filterwarnings("ignore")

CONFIGS = Path(__file__).parents[2] / "configs"


def write_config(folder):
    """The demo's configuration, made small; returns its path."""
    settings = yaml.safe_load((CONFIGS / "induction.yaml").read_text())
    settings["trainer"] |= {"max_steps": 4, "enable_progress_bar": False, "enable_model_summary": False}
    settings["trainer"]["logger"]["init_args"]["save_dir"] = str(folder / "runs")
    settings["model"]["init_args"]["config"] |= {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1}
    settings["data"]["init_args"] |= {"num_sequences": 256, "num_observed": 4, "num_sampling": 32, "num_val": 16}
    settings["influence"]["schedule"] = {"at_steps": [2, 4]}
    settings["influence"]["sgld"] |= {"num_chains": 2, "num_draws": 4}
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump(settings))
    return path


@pytest.fixture
def config(tmp_path):
    return write_config(tmp_path)


def run_of(tmp_path):
    return tmp_path / "runs" / "induction" / "version_0"


@pytest.fixture(scope="module")
def overridden(tmp_path_factory):
    """A run whose configuration is joined to its flag, with settings overridden by name; tests only read it."""
    folder = tmp_path_factory.mktemp("overridden")
    override = ["--influence.sgld.nbeta", "7", "--influence.probe.centering", "step", "--influence.sgld.num_chains=3"]
    override += ["--influence.probe.thresholds.ess_min", "null", "--influence.probe.thresholds.sample_ess_min=79"]
    override += ["--influence.schedule.max_overhead=1e6"]
    assert main(["fit", f"--config={write_config(folder)}", *override]) == 0
    return open_run(run_of(folder))


def test_fit_trains_and_writes_the_run(config, tmp_path):
    assert main(["fit", "-c", str(config)]) == 0
    run = open_run(run_of(tmp_path))
    assert run["step"].values.tolist() == [2, 4]
    assert run.attrs["nbeta"] == 300
    assert (run_of(tmp_path) / "summary.json").is_file()
    assert (run_of(tmp_path) / "config.yaml").is_file()


def test_configuration_may_be_joined_to_its_flag(overridden):
    assert overridden.sizes["step"] == 2


def test_settings_are_overridden_by_name(overridden):
    assert (overridden.attrs["nbeta"], overridden.attrs["centering"]) == (7, "step")
    assert overridden.attrs["sgld"]["num_chains"] == 3


def test_limits_and_budget_are_settings(overridden):
    summary = json.loads(overridden.attrs["summary"])
    assert summary["max_overhead"] == 1e6
    assert "ess" not in summary["flags"]
    assert summary["flags"]["sample_ess"] == 2


def test_fewer_steps_leave_the_probes_after_them_out_and_one_line_says_so(config, tmp_path, caplog):
    with caplog.at_level("INFO"):
        assert main(["fit", "-c", str(config), "--trainer.max_steps", "3"]) == 0
    assert open_run(run_of(tmp_path))["step"].values.tolist() == [2]
    lines = [line for line in caplog.messages if "left out" in line]
    assert lines == ["stagewise: 1 of 2 probes are after trainer.max_steps=3 and are left out"]


@pytest.mark.parametrize("way", [pytest.param("key", marks=pytest.mark.slow), "flag"])
def test_chains_move_the_component_of_the_configuration_and_the_report_says_so(config, tmp_path, capsys, way):
    settings = yaml.safe_load(config.read_text())
    if way == "key":
        settings["influence"]["component"] = "layer0.head1"
        config.write_text(yaml.safe_dump(settings))
    override = [] if way == "key" else ["--influence.component", "layer0.head1"]
    assert main(["fit", "-c", str(config), *override]) == 0
    run = open_run(run_of(tmp_path))
    assert run.attrs["component"] == "layer0.head1"
    # Width 16, 2 heads: 3 x 8 rows of 16 with their biases, and 8 columns of 16.
    assert run.attrs["moved_weights"] == 3 * 8 * 17 + 8 * 16
    assert main(["report", str(run_of(tmp_path))]) == 0
    report = (run_of(tmp_path) / "report" / "report.md").read_text()
    assert "**Chains move the weights of layer0.head1 alone** (536 of them)" in report
    # The groups of the data module.
    assert (run_of(tmp_path) / "classes.md").read_text() in report.replace("\n## Tokens", "\n# Tokens")


def test_the_callback_can_be_switched_off(config, tmp_path):
    assert main(["fit", "-c", str(config), "--influence.enabled", "false"]) == 0
    assert not (run_of(tmp_path) / "influence.zarr").exists()


def test_validate_runs_the_validation_loop(config, capsys):
    assert main(["validate", "-c", str(config)]) == 0
    assert "val/loss" in capsys.readouterr().out


LIVE = {
    "detector": {"min_plateau": 3, "num_probes": 1, "min_z": 0.001, "max_length": 2},
    "signal": "group_loss/induction",
}
WINDOWS = {
    "fixed": {"class_path": "stagewise.Spans", "init_args": {"spans": [[1, 3]]}},
    "live": {"class_path": "stagewise.Live", "init_args": LIVE},
}


def intervene(config, at_steps=(2,), **arguments):
    """Write an intervention into the configuration."""
    settings = yaml.safe_load(config.read_text())
    policy = {"class_path": "stagewise.ConstantFactor", "init_args": {"weights": {"induction": 4.0}}}
    callback = {"class_path": "stagewise.InterventionCallback", "init_args": {"policy": policy, **arguments}}
    settings["trainer"]["callbacks"].append(callback)
    settings["influence"]["schedule"] = {"at_steps": list(at_steps)}
    config.write_text(yaml.safe_dump(settings))


@pytest.mark.parametrize(
    ("kind", "mechanism"),
    [
        ("fixed", "sampling"),
        pytest.param("fixed", "loss", marks=pytest.mark.slow),
        pytest.param("live", "sampling", marks=pytest.mark.slow),
        ("live", "loss"),
    ],
)
def test_an_intervention_takes_only_a_callback_in_the_configuration(config, tmp_path, mechanism, kind):
    at_steps = range(5) if kind == "live" else (2,)  # a detector needs many probes
    intervene(config, at_steps, mechanism=mechanism, windows=WINDOWS[kind])
    assert main(["fit", "-c", str(config)]) == 0
    found = json.loads((run_of(tmp_path) / "intervention.json").read_text())
    assert found["groups"] == ["induction", "background"]
    if kind == "fixed":
        assert [(change["step"], change["weights"]["induction"]) for change in found["changes"]] == [(1, 4.0), (3, 1.0)]
        assert found["budget"]["groups"]["induction"] > 0
    else:
        assert found["windows"] == "live"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"windows": [[1, 3]]}, "windows: {class_path: stagewise.Spans, init_args: {spans: [[1, 3]]}}"),
        ({"windows": "runs/a", "part": "onset"}, "windows: {class_path: stagewise.FromRun, init_args: {...}}"),
        (LIVE, "windows: {class_path: stagewise.Live, init_args: {...}}"),
        ({"windows": {"class_path": "stagewise.Live", "init_args": {**LIVE, "signal": "betwen"}}}, "did you mean 'bet"),
        ({"windows": {"class_path": "stagewise.Live", "init_args": {**LIVE, "sgnal": "a"}}}, "sgnal"),
    ],
)
def test_windows_as_earlier_versions_had_them_get_one_line_with_the_new_spelling(config, capsys, arguments, words):
    intervene(config, **arguments)
    assert main(["fit", "-c", str(config)]) == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("stagewise fit: ")]
    assert words in line


MISTAKES = {
    "unknown option": (
        ["--influence.sgld.nbetaa", "3"],
        "got influence.sgld.nbetaa; expected a setting of",
    ),
    "schedule beyond max_steps": (["--influence.schedule.at_steps", "[5, 9]"], "at step 5, the first, in a run of 4"),
    "too few draws": (["--influence.sgld.num_draws", "1"], "got num_draws=1; expected a whole number >= 2"),
    "negative localization": (
        ["--influence.sgld.localization=-1"],
        "got localization=-1.0; expected a finite number >= 0",
    ),
    "memory": (["--influence.probe.memory_limit_gib", "1e-6"], "GiB"),
    "wrong type": (["--influence.sgld.lr", "fast"], "influence.sgld.lr"),
    "meaningless limit": (["--influence.probe.thresholds.rhat_max=0.5"], "got thresholds.rhat_max=0.5; expected"),
    "no budget at all": (["--influence.schedule.max_overhead=0"], "got max_overhead=0"),
    "unknown choice": (["--influence.probe.centering", "chian"], "centering"),
    "model setting": (["--model.init_args.config.hidden_sise", "3"], "hidden_sise"),
    "data setting": (["--data.init_args.context", "12"], "segments"),
    "trainer setting": (["--trainer.devices", "0"], "devices"),
    "missing checkpoint": (["--ckpt_path", "nowhere.ckpt"], "nowhere.ckpt"),
    "component of no model": (["--influence.component", "heads"], "got component 'heads'; expected a name such as"),
    "component that is not there": (["--influence.component", "layer0.head2"], "got head=2; expected 0 to 1"),
    "component beside parameters": (
        ["--influence.component", "layer0", "--influence.sgld.parameters", "['*dense*']"],
        "set sgld.parameters to null, or component",
    ),
    "empty observed set": (["--data.init_args.num_observed", "0"], "num_observed=0; expected a whole number >= 1"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_answered_by_one_line_and_status_2(config, tmp_path, capsys, mistake):
    arguments, words = MISTAKES[mistake]
    assert main(["fit", "-c", str(config), *arguments]) == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("stagewise fit: ")]
    assert len(lines) == 1
    assert words in lines[0]
    assert "Traceback" not in lines[0]
    assert not (run_of(tmp_path) / "influence.zarr").exists()


def test_unknown_key_inside_the_file(config, capsys):
    settings = yaml.safe_load(config.read_text())
    settings["influence"]["sgld"]["n_beta"] = 3
    config.write_text(yaml.safe_dump(settings))
    assert main(["fit", "-c", str(config)]) == 2
    assert "n_beta" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["fit"], "expected stagewise fit -c FILE"),
        (["fit", "-c", "nowhere.yaml"], "is no file"),
        (["train"], "expected one of fit, validate"),
        ([], ""),
    ],
)
def test_incomplete_commands(arguments, words, capsys):
    assert main(arguments) == 2
    assert words in capsys.readouterr().err


def test_version_and_usage(capsys):
    assert main(["--version"]) == 0
    assert __version__ in capsys.readouterr().out
    assert main(["--help"]) == 0
    assert "fit" in capsys.readouterr().out
