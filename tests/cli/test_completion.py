"""The script that completes in a shell, as bash reads it."""

import shutil
import subprocess

import pytest

from stagewise.cli.commands import COMMANDS
from stagewise.cli.completion import completion_script
from stagewise.cli.main import main
from stagewise.cli.parsers import all_parsers

pytestmark = pytest.mark.skipif(shutil.which("bash") is None, reason="bash is not installed")


@pytest.fixture(scope="module")
def script():
    return completion_script("bash", all_parsers())


def completed(script, *words):
    """Offers of bash for the last of some words."""
    code = (
        f'{script}\nCOMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _stagewise; printf "%s\\n" "${{COMPREPLY[@]}}"\n'
        "complete -p stagewise >&2"
    )
    done = subprocess.run(["bash", "-c", code, "bash", *words], capture_output=True, text=True, check=True)
    assert done.stderr == "complete -o default -F _stagewise stagewise\n"
    return done.stdout.split()


def test_all_commands_are_offered(script):
    assert completed(script, "stagewise", "") == [*COMMANDS, "--help", "--version", "--print-completion"]
    assert completed(script, "stagewise", "in") == ["intervene"]


@pytest.mark.parametrize(
    ("words", "found"),
    [
        (["fit", "--influence.sgld.num_ch"], ["--influence.sgld.num_chains"]),
        (["calibrate", "--calibration.num_st"], ["--calibration.num_steps"]),
        (["detect", "--num"], ["--num_critical"]),
        (["report", "--ch"], ["--chance"]),
        (["toy", "--see"], ["--seeds"]),
        (["fit", "-c", "a.yaml", "--influence.sgld.drift", "c"], ["control_variate"]),
        (["fit", "--influence.probe.centering", "=", "po"], ["pooled"]),
        (["fit", "--influence.probe.centering", "="], ["chain", "step", "pooled"]),
        (["validate", "--influence.enabled", ""], ["true", "false"]),
        (["sweep", "--help", "prob"], ["probe", "probe.thresholds", "probe.llc"]),
        (["toy", "--influence.sgld.lr", ""], ["auto"]),
        # File names: bash's own.
        (["fit", "-c", ""], []),
        (["report", ""], []),
    ],
)
def test_settings_and_choices_are_completed(script, words, found):
    assert completed(script, "stagewise", *words) == found


def test_zsh_reads_the_same_script_through_its_own_translation(capsys):
    assert main(["--print-completion", "zsh"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("autoload -Uz compinit bashcompinit\ncompinit\nbashcompinit\n")
    assert out.endswith("complete -o default -F _stagewise stagewise\n")


@pytest.mark.parametrize(("arguments", "shell"), [([], "nothing"), (["fish"], "fish")])
def test_other_shells_get_one_line(arguments, shell, capsys):
    assert main(["--print-completion", *arguments]) == 2
    assert f"got --print-completion {shell}; expected bash or zsh" in capsys.readouterr().err
