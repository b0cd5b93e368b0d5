"""Help by sections: short, with an example, and in full for what is asked."""

import shlex
from pathlib import Path

import pytest

from stagewise.cli.commands import COMMANDS
from stagewise.cli.help import command_help, section_help, section_names
from stagewise.cli.main import main
from stagewise.cli.parsers import all_parsers

CONFIGS = Path(__file__).parents[2] / "configs"


@pytest.fixture(scope="module")
def parsers():
    return all_parsers()


def settings_of(parser):
    """Names that can be set, without those that stand for a whole section."""
    names = [
        action.dest for action in parser._actions if not action.dest.endswith("help") and action.dest != "print_shtab"
    ]
    return [name for name in names if not any(other.startswith(f"{name}.") for other in names)]


@pytest.mark.parametrize("command", COMMANDS)
def test_help_is_short_and_names_every_setting(command, parsers):
    page = command_help(parsers[command], command)
    lines = page.splitlines()
    assert len(lines) < 150
    assert max(map(len, lines)) <= 130
    words = set(page.replace("--", " ").replace(",", " ").split())
    missing = [name for name in settings_of(parsers[command]) if not {name, name.rpartition(".")[2]} & words]
    assert set(missing) <= {"config", "print_config"}


@pytest.mark.parametrize("command", COMMANDS)
def test_the_example_stands_at_the_top_and_can_be_parsed(command, parsers, monkeypatch):
    top = command_help(parsers[command], command).splitlines()[:8]
    example = next(line.strip() for line in top if line.startswith(f"  stagewise {command} "))
    monkeypatch.chdir(CONFIGS.parent)
    parsers[command].parse_args(shlex.split(example)[2:])


@pytest.mark.parametrize("command", COMMANDS)
def test_every_section_and_setting_has_help_of_its_own(command, parsers):
    for section in section_names(parsers[command]):
        page = section_help(parsers[command], command, section)
        inside = [name for name in settings_of(parsers[command]) if name.startswith(f"{section}.")]
        assert inside
        assert all(f"--{name} " in page or f"--{name}\n" in page for name in inside)
        assert "usage:" not in page


def test_a_single_setting_tells_type_default_and_what_it_is(parsers):
    page = section_help(parsers["fit"], "fit", "influence.sgld.nbeta")
    assert "inverse temperature" in page
    assert "300.0" in page
    assert page.count("--") == 1


@pytest.mark.parametrize("way", [["--help", "sgld"], ["--help=sgld"], ["--sgld.help"], ["--output", "a", "-h", "sgld"]])
def test_ways_to_ask_for_a_section(way, capsys):
    with pytest.raises(SystemExit) as left:
        main(["sweep", *way])
    out = capsys.readouterr().out
    assert left.value.code == 0
    assert "--sgld.num_chains" in out
    assert "--probe.centering" not in out


@pytest.mark.parametrize("way", [["--help"], ["-h"], ["--help", "--output", "a"]])
def test_ways_to_ask_for_the_whole(way, capsys):
    with pytest.raises(SystemExit) as left:
        main(["toy", *way])
    assert left.value.code == 0
    assert capsys.readouterr().out.startswith("usage: stagewise toy -c FILE")


def test_help_of_a_class_needs_no_configuration(capsys):
    with pytest.raises(SystemExit) as left:
        main(["sweep", "--model.help", "stagewise.lm.module.CausalLM"])
    assert left.value.code == 0
    assert "warmup_steps" in capsys.readouterr().out


def test_a_misspelt_section_gets_one_line(capsys):
    assert main(["toy", "--help", "influence.sgdl"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("stagewise toy: got --help influence.sgdl; expected a section of stagewise toy: hierarchy, ")
    assert line.endswith("did you mean influence.sgld?")
