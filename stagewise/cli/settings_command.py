"""Settings of a command from YAML and by name: steps that all commands share."""

import logging
from argparse import SUPPRESS, Action
from collections.abc import Iterable, Sequence
from typing import TypeVar

from jsonargparse import ArgumentError, ArgumentParser, Namespace

from stagewise.cli.config_files import check_config_files
from stagewise.cli.help import asks_for_help, show_help
from stagewise.cli.suggestions import unknown_setting
from stagewise.errors import InputError

T = TypeVar("T")


class OfTheCommand(Action):
    """Flag of a command that is not a setting: no file may set it, and it is read from the arguments themselves."""

    def __init__(self, option_strings: Sequence[str], help: str, **_: object) -> None:
        """Creates a flag without value and destination."""
        super().__init__(option_strings, dest=SUPPRESS, default=SUPPRESS, nargs=0, help=help)

    def __call__(self, *_: object) -> None:
        """Does nothing."""


def prepare(arguments: Sequence[str]) -> None:
    """Refuses what can be refused before parsing, and enables the log messages of stagewise.

    Raises:
        InputError: no configuration, or an unusable configuration file.
    """
    check_config_files(arguments)
    configured = any(argument.startswith(("-c", "--config")) for argument in arguments)
    if not configured and "--print_config" not in arguments and not asks_for_help(arguments):
        raise InputError(f"got no configuration; expected stagewise {arguments[0]} -c FILE; see configs/")
    logging.getLogger("lightning.pytorch").setLevel(logging.INFO)


def command_parser(name: str, description: str | None, *, config_help: str) -> ArgumentParser:
    """Returns a parser with ``-c FILE`` that accepts no abbreviated names, like YAML files.

    Args:
        name: of the command.
        description: of the command.
        config_help: description of the file.
    """
    parser = ArgumentParser(prog=f"stagewise {name}", exit_on_error=False, allow_abbrev=False, description=description)
    parser.add_argument("-c", "--config", action="config", help=config_help)
    return parser


def parse(parser: ArgumentParser, arguments: Sequence[str]) -> Namespace:
    """Parses the options of a command.

    Args:
        parser: of the command.
        arguments: the command and its options.

    Raises:
        InputError: an unusable configuration file, or an unknown setting; the message suggests the nearest.
        SystemExit: with status 0, after help.
        jsonargparse.ArgumentError: the options could not be parsed.
    """
    show_help(parser, arguments)
    check_config_files(arguments)
    try:
        return parser.parse_args(list(arguments[1:]))
    except ArgumentError as error:
        unknown = unknown_setting(error, parser, arguments[0])
        if unknown is None:
            raise
        raise unknown from error


def read_settings(
    kind: type[T], parser: ArgumentParser, arguments: Sequence[str], *, described: Iterable[str] = ()
) -> T:
    """Reads the settings of a command.

    Args:
        kind: dataclass of the settings.
        parser: of the command, with an argument for each field.
        arguments: the command and its options.
        described: fields that remain descriptions, ``class_path`` and ``init_args``, since the command builds them
            itself; None if not given.

    Raises:
        InputError: no configuration, or an unusable or unknown setting.
        jsonargparse.ArgumentError: the configuration could not be parsed.
    """
    prepare(arguments)
    parsed = parse(parser, arguments)
    values = parser.instantiate_classes(parsed).as_dict()
    values.pop("config")
    for name in described:
        given = parsed.get(name)
        values[name] = None if given is None else given.as_dict()
    return kind(**values)
