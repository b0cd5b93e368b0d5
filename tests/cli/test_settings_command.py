"""The flow that commands share: configuration, options, settings."""

from dataclasses import dataclass
from typing import Any

import pytest
from jsonargparse import ArgumentError

from stagewise.cli.settings_command import command_parser, parse, prepare, read_settings
from stagewise.errors import InputError


class Animal:
    def __init__(self, legs: int = 4) -> None:
        self.legs = legs


@dataclass(frozen=True)
class Zoo:
    """A zoo.

    Attributes:
        animal: described.
        size: of it.
        keepers: who they are.
    """

    animal: dict[str, Any] | None
    size: int = 3
    keepers: list[str] | None = None


def zoo_parser():
    parser = command_parser("zoo", "A zoo.", config_help="a YAML file")
    parser.add_subclass_arguments(Animal, "animal", required=False, instantiate=False)
    parser.add_class_arguments(Zoo, skip={"animal"})
    return parser


@pytest.fixture
def config(tmp_path):
    path = tmp_path / "zoo.yaml"
    path.write_text("size: 5\nkeepers: [ann]\n")
    return str(path)


def read(*arguments):
    return read_settings(Zoo, zoo_parser(), ["zoo", *arguments], described=["animal"])


def test_options_win_over_the_file_and_the_file_over_defaults(config):
    assert read("-c", config) == Zoo(None, 5, ["ann"])
    assert read("-c", config, "--size=7") == Zoo(None, 7, ["ann"])


def test_what_is_described_stays_a_description(config):
    path = f"{Animal.__module__}.Animal"
    found = read("-c", config, "--animal", path, "--animal.legs=2").animal
    assert found == {"class_path": path, "init_args": {"legs": 2}}


def test_a_configuration_is_needed_and_looked_at_first(tmp_path):
    with pytest.raises(InputError, match="got no configuration; expected stagewise zoo -c FILE"):
        read()
    with pytest.raises(InputError, match="is no file"):
        read("-c", str(tmp_path / "nowhere.yaml"))
    with pytest.raises(InputError, match="is no file"):
        parse(zoo_parser(), ["zoo", "-c", str(tmp_path / "nowhere.yaml")])
    prepare(["zoo", "--help"])


def test_an_abbreviated_option_is_no_setting(config):
    with pytest.raises(InputError, match=r"got keeper; expected a setting of stagewise zoo; did you mean keepers\?"):
        read("-c", config, "--keeper=[bob]")


def test_other_errors_of_the_parser_stay_as_they_are(config):
    with pytest.raises(ArgumentError, match="size"):
        read("-c", config, "--size=big")
