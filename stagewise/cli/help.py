"""Help of a command: an example, its settings by section, and a section in full on request."""

import argparse
import textwrap
from collections.abc import Sequence
from copy import copy
from difflib import get_close_matches

from jsonargparse import ArgumentParser

from stagewise.cli.commands import COMMANDS
from stagewise.errors import InputError

FLAGS = ("-h", "--help")
"""Flags that request help; a section may follow."""

_WIDTH = 110
_MOST_LINES = 100
"""Maximal length of a page with all settings in full."""


def asks_for_help(arguments: Sequence[str]) -> bool:
    """Returns True if help is requested, by ``--help``, or by ``--SECTION.help`` of a section or a class."""
    return any(argument in FLAGS or argument.startswith("--help=") or _dotted(argument) for argument in arguments[1:])


def show_help(parser: ArgumentParser, arguments: Sequence[str]) -> None:
    """Prints help and exits, if requested; help of classes is left to the parser.

    Args:
        parser: of the command.
        arguments: the command and its options.

    Raises:
        SystemExit: with status 0, after help.
        InputError: unknown section; the message suggests the nearest.
    """
    section = _asked(parser, arguments)
    if section is not None:
        print(command_help(parser, arguments[0]) if not section else section_help(parser, arguments[0], section))
        raise SystemExit(0)


def command_help(parser: ArgumentParser, command: str) -> str:
    """Returns the help of a command: all settings in full if the page is short, else their names by section.

    Args:
        parser: of the command.
        command: its name.
    """
    known = COMMANDS[command]
    head = [
        f"usage: stagewise {command} {known.usage}",
        "",
        f"{known.summary[0].upper()}{known.summary[1:]}.",
        "",
        "example:",
        f"  stagewise {command} {known.example}",
        "",
    ]
    full = _in_full(parser, _settings(parser))
    if len(full.splitlines()) <= _MOST_LINES:
        return "\n".join([*head, full, *_foot(command, sections=False)])
    return "\n".join([*head, *_by_section(parser), *_foot(command, sections=True)])


def section_help(parser: ArgumentParser, command: str, section: str) -> str:
    """Returns the help of a section or a single setting, with types, defaults and descriptions.

    Args:
        parser: of the command.
        command: its name.
        section: such as ``influence.sgld``, or ``influence.sgld.lr``.

    Raises:
        InputError: unknown section or setting.
    """
    found = [
        setting for setting in _settings(parser) if setting.dest == section or setting.dest.startswith(f"{section}.")
    ]
    if not found:
        known = section_names(parser)
        near = get_close_matches(section, [*known, *(setting.dest for setting in _settings(parser))], n=1)
        advice = f"did you mean {near[0]}?" if near else "choose one"
        expected = f"a section of stagewise {command}: {', '.join(known) or 'it has none'}"
        raise InputError(f"got --help {section}; expected {expected}; {advice}")
    return _in_full(parser, found)


def section_names(parser: ArgumentParser) -> list[str]:
    """Returns the sections of a command's settings, such as ``influence.sgld``, in the order of its help."""
    return [name for name in _sections(parser) if name]


def _dotted(argument: str) -> bool:
    return argument.startswith("--") and argument.endswith(".help")


def _asked(parser: ArgumentParser, arguments: Sequence[str]) -> str | None:
    """Returns the section whose help is requested, empty for all; None without a request, or if the parser answers."""
    given = list(arguments[1:])
    for place, argument in enumerate(given):
        if argument in FLAGS:
            follows = given[place + 1 : place + 2]
            return follows[0].strip(".") if follows and not follows[0].startswith("-") else ""
        if argument.startswith("--help="):
            return argument.removeprefix("--help=").strip(".")
        # `--model.help CLASS` is jsonargparse's own.
        if _dotted(argument) and argument not in parser._option_string_actions:
            return argument.removeprefix("--").removesuffix(".help")
    return None


def _settings(parser: ArgumentParser) -> list[argparse.Action]:
    """Returns the settings of a parser: positional arguments and options, without flags for help and whole sections."""
    return [
        action for action in parser._actions if not action.dest.endswith("help") and action.help != argparse.SUPPRESS
    ]


def _sections(parser: ArgumentParser) -> dict[str, list[str]]:
    """Returns the names of settings by their section; the empty section has those in none."""
    names = [setting.dest for setting in _settings(parser) if setting.dest not in ("config", "print_config")]
    found: dict[str, list[str]] = {}
    for name in names:
        section, _, last = name.rpartition(".")
        if not any(other.startswith(f"{name}.") for other in names):
            found.setdefault(section, []).append(last)
    return found


def _by_section(parser: ArgumentParser) -> list[str]:
    lines = []
    for section, names in _sections(parser).items():
        title = _title(parser, section)
        lines.append(f"--{section}.*{title and f'   {title}'}" if section else "settings:")
        lines += textwrap.wrap(" ".join(names), _WIDTH - 4, initial_indent="    ", subsequent_indent="    ")
        lines.append("")
    return lines


def _title(parser: ArgumentParser, section: str) -> str:
    """Returns the first words of the title of a section; empty if only a class describes it."""
    for group in parser._action_groups:
        title = " ".join((group.title or "").split())
        members = [group_action.dest for group_action in group._group_actions]
        if any(name.rpartition(".")[0] == section for name in members) and not title.startswith("<"):
            return textwrap.shorten(title.partition(": ")[0].partition(". ")[0], 80, placeholder=" ...")
    return ""


def _foot(command: str, *, sections: bool) -> list[str]:
    rows = {"-c FILE [-c FILE ...]": "YAML; later files over earlier ones, and settings over all"}
    rows |= {"-c FILE --print_config": "all settings as they would be used, as YAML"}
    if sections:
        rows = {
            "--help SECTION": "settings of a section in full, or a single one; --SECTION.help is the same",
            "--SECTION.SETTING.help CLASS": "arguments of a class that a setting takes, such as --model.help CLASS",
        } | rows
    return ["details:", *(f"  stagewise {command} {flags:<28} {words}" for flags, words in rows.items())]


def _in_full(parser: ArgumentParser, settings: Sequence[argparse.Action]) -> str:
    """Returns the parser's own help for some of its settings."""
    page = copy(parser)
    page.usage, page.description = argparse.SUPPRESS, None
    page._action_groups = []
    for group in parser._action_groups:
        part = copy(group)
        part._group_actions = [group_action for group_action in group._group_actions if group_action in settings]
        page._action_groups.append(part)
    return page.format_help()
