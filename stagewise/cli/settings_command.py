"""Settings of a command from YAML and by name: the flow that the commands share."""

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
    """Flag of a command that is no setting: no file may set it, and it is read from the arguments themselves."""

    def __init__(self, option_strings: Sequence[str], help: str, **_: object) -> None:
        """Takes no value and leaves nothing behind."""
        super().__init__(option_strings, dest=SUPPRESS, default=SUPPRESS, nargs=0, help=help)

    def __call__(self, *_: object) -> None:
        """Changes nothing."""


def prepare(arguments: Sequence[str]) -> None:
    """Refuse what can be refused before parsing, and show what stagewise says while it works.

    Raises:
        InputError: no configuration, or one that is no file.
    """
    check_config_files(arguments)
    configured = any(argument.startswith(("-c", "--config")) for argument in arguments)
    if not configured and "--print_config" not in arguments and not asks_for_help(arguments):
        raise InputError(f"got no configuration; expected stagewise {arguments[0]} -c FILE; see configs/")
    logging.getLogger("lightning.pytorch").setLevel(logging.INFO)


def command_parser(name: str, description: str | None, *, config_help: str) -> ArgumentParser:
    """A parser with ``-c FILE`` that takes no abbreviated names, as a YAML file takes none.

    Args:
        name: of the command.
        description: of the command.
        config_help: what the file holds.
    """
    parser = ArgumentParser(prog=f"stagewise {name}", exit_on_error=False, allow_abbrev=False, description=description)
    parser.add_argument("-c", "--config", action="config", help=config_help)
    return parser


def parse(parser: ArgumentParser, arguments: Sequence[str]) -> Namespace:
    """Parse the options of a command.

    Args:
        parser: of the command.
        arguments: the command and its options.

    Raises:
        InputError: a configuration file that cannot be one, or a setting that there is not; the nearest is named.
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
    """Read the settings of a command.

    Args:
        kind: dataclass of the settings.
        parser: of the command, with an argument for each field.
        arguments: the command and its options.
        described: fields that stay as they are described, ``class_path`` and ``init_args``, since the command builds
            them itself; None where they are not given.

    Raises:
        InputError: no configuration, or a setting that is unusable or that there is not.
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
