"""A misspelt key or option: one line with the setting that was meant, status 2, for every command."""

from pathlib import Path

import pytest
import yaml
from jsonargparse import ArgumentParser

from stagewise.cli.main import main
from stagewise.cli.suggestions import unknown_setting

pytestmark = pytest.mark.filterwarnings("ignore")

CONFIGS = Path(__file__).parents[2] / "configs"
INDUCTION = str(CONFIGS / "induction.yaml")


def changed(tmp_path, name, keys, value):
    """A shipped configuration with one more entry."""
    settings = yaml.safe_load((CONFIGS / name).read_text())
    inner = settings
    for key in keys[:-1]:
        inner = inner.setdefault(key, {}) if isinstance(inner, dict) else inner[key]
    inner[keys[-1]] = value
    path = tmp_path / "changed.yaml"
    path.write_text(yaml.safe_dump(settings))
    return str(path)


def refused(capsys, command, *arguments):
    assert main([command, *arguments]) == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("stagewise ")]
    assert len(lines) == 1
    return lines[0].removeprefix(f"stagewise {command}: ")


KEYS = {
    "nested": (
        "toy",
        "toy.yaml",
        ["influence", "sgld", "num_chain"],
        "got influence.sgld.num_chain; expected a setting of influence.sgld; did you mean num_chains?",
    ),
    "of fit": (
        "fit",
        "induction.yaml",
        ["influence", "sgld", "num_chain"],
        "got influence.sgld.num_chain; expected a setting of influence.sgld; did you mean num_chains?",
    ),
    "of validate": (
        "validate",
        "induction.yaml",
        ["trainer", "max_stpes"],
        "got trainer.max_stpes; expected a setting of trainer; did you mean max_steps?",
    ),
    "of a data module": (
        "fit",
        "induction.yaml",
        ["data", "init_args", "num_observd"],
        "got data.init_args.num_observd; expected an argument of stagewise.lm.data.SyntheticData; did you mean "
        "num_observed?",
    ),
    "of a model, like none": (
        "calibrate",
        "induction.yaml",
        ["model", "init_args", "learning_rate"],
        "got model.init_args.learning_rate; expected an argument of stagewise.lm.module.CausalLM: model_type, config, "
        "pretrained, lr, betas, weight_decay, warmup_steps, init_std; correct it",
    ),
    "of a callback": (
        "fit",
        "induction.yaml",
        ["trainer", "callbacks", 0, "init_args", "every_n_step"],
        "got trainer.callbacks.init_args.every_n_step; expected an argument of "
        "stagewise.callbacks.induction.InductionCallback; did you mean every_n_steps?",
    ),
}


@pytest.mark.parametrize("name", KEYS)
def test_a_misspelt_key_of_a_file(tmp_path, capsys, name):
    command, config, keys, words = KEYS[name]
    path = changed(tmp_path, config, keys, 3)
    assert refused(capsys, command, "-c", path) == words


OPTIONS = {
    "toy": (["-c", str(CONFIGS / "toy.yaml"), "--network.hiden=3"], "network.hiden", "network", "hidden"),
    "abbreviated": (["-c", str(CONFIGS / "toy.yaml"), "--network.hid=3"], "network.hid", "network", "hidden"),
    "section": (["-c", INDUCTION, "--influnce.sgld.lr", "3"], "influnce.sgld.lr", "stagewise fit", "influence"),
    "wrong place": (["-c", INDUCTION, "--sgld.lr=0.1"], "sgld.lr", "stagewise fit", "influence.sgld.lr"),
    "calibrate": (["-c", INDUCTION, "--calibration.num_step=3"], "calibration.num_step", "calibration", "num_steps"),
    "detect": (["run", "--detector.mni_z=3"], "detector.mni_z", "detector", "min_z"),
    "report": (["run", "--cahnce=3"], "cahnce", "stagewise report", "chance"),
    "sweep": (["-c", str(CONFIGS / "pythia-14m.yaml"), "--data.contxt=3"], "data.contxt", "data", "context"),
    "intervene": (
        ["-c", str(CONFIGS / "intervention.yaml"), "--weights.onset.ration=3"],
        "weights.onset.ration",
        "weights.onset",
        "ratio",
    ),
}
COMMANDS = {"abbreviated": "toy", "section": "fit", "wrong place": "fit"}


@pytest.mark.parametrize("name", OPTIONS)
def test_a_misspelt_option(capsys, name):
    arguments, got, of, near = OPTIONS[name]
    found = refused(capsys, COMMANDS.get(name, name), *arguments)
    assert found == f"got {got}; expected a setting of {of}; did you mean {near}?"


def test_a_misspelt_option_of_a_class_and_of_one_of_several_classes(capsys):
    data = refused(capsys, "intervene", "-c", str(CONFIGS / "intervention.yaml"), "--data.init_args.num_observd=3")
    assert data.endswith("expected an argument of stagewise.lm.data.SyntheticData; did you mean num_observed?")
    way = "--sgld.preconditioner"
    config = str(CONFIGS / "pythia-14m.yaml")
    scale = refused(capsys, "sweep", "-c", config, f"{way}=stagewise.RMSprop", f"{way}.alfa=0.3")
    assert (
        scale
        == "got sgld.preconditioner.init_args.alfa; expected an argument of stagewise.RMSprop; did you mean alpha?"
    )


def test_a_class_within_a_class(tmp_path, capsys):
    policy = {"class_path": "stagewise.ProportionalToInfluence", "init_args": {"target": "a", "strenght": 2}}
    path = changed(tmp_path, "induction.yaml", ["trainer", "callbacks", 0], {
        "class_path": "stagewise.InterventionCallback", "init_args": {"policy": policy}
    })  # fmt: skip
    assert refused(capsys, "fit", "-c", path) == (
        "got trainer.callbacks.init_args.policy.init_args.strenght; expected an argument of "
        "stagewise.ProportionalToInfluence; did you mean strength?"
    )


@pytest.mark.parametrize(
    "words",
    [
        "Unrecognized arguments: --network.hiden=3",
        "Group 'network' does not accept nested key 'hiden'",
        "Key 'network.hiden' is not expected",
        "Subcommand 'zoo' does not accept nested key 'network.hiden'",
    ],
)
def test_the_words_of_earlier_versions_of_jsonargparse_are_known_too(words):
    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--network.hidden", type=int)
    found = unknown_setting(ValueError(words), parser, "zoo")
    assert str(found) == "got network.hiden; expected a setting of network; did you mean hidden?"


def test_another_error_is_none_of_its_business():
    words = "Parser key \"size\": Expected a <class 'int'>. Got value: big"
    assert unknown_setting(ValueError(words), ArgumentParser(exit_on_error=False), "zoo") is None
