"""Command ``stagewise``; a user's mistake gives one line and exit status 2."""

import errno
import sys
from collections.abc import Sequence
from importlib import import_module

from stagewise.cli.commands import COMMANDS
from stagewise.errors import InputError

_OF_PATHS = (FileNotFoundError, IsADirectoryError, NotADirectoryError, PermissionError)
"""Mistakes of the user: paths that do not exist or are not accessible."""

_COMPLETION = "--print-completion"
_LONGEST_LINE = 2000


def _usage() -> str:
    lines = ["usage: stagewise COMMAND -c FILE [--SECTION.SETTING VALUE ...]", "", "example:"]
    lines += [f"  stagewise fit {COMMANDS['fit'].example}", "", "commands:"]
    lines += [f"  {name:<11}{command.summary}" for name, command in COMMANDS.items()]
    lines += ["", "`stagewise COMMAND --help` lists the settings; configs/ holds examples."]
    lines += ["`stagewise --print-completion bash` (or zsh) prints a script that completes them in a shell."]
    return "\n".join(lines)


def _mistake(error: BaseException) -> BaseException | None:
    """Returns the user's mistake behind an error; None for an error of another kind.

    jsonargparse wraps the errors of classes in its own.
    """
    link: BaseException | None = error
    while link is not None:
        if isinstance(link, InputError):
            return link
        link = link.__cause__ or link.__context__
    from jsonargparse import ArgumentError  # imported late: `stagewise --help` does not need it

    # Lightning's error for unusable Trainer settings, by name: importing Lightning takes seconds.
    foreign = isinstance(error, ArgumentError) or type(error).__name__ == "MisconfigurationException"
    return error if foreign or isinstance(error, _OF_PATHS) or _is_long_name(error) else None


def _is_long_name(error: BaseException) -> bool:
    return isinstance(error, OSError) and error.errno == errno.ENAMETOOLONG


def _interrupted(command: str) -> int:
    print(f"stagewise {command}: interrupted", file=sys.stderr)
    return 130


def _one_line(error: BaseException) -> str:
    """Returns an error as one line without control characters, no longer than a screen."""
    words = "".join(item if item.isprintable() or item.isspace() else ascii(item)[1:-1] for item in str(error))
    line = " ".join(words.split())
    return line if len(line) <= _LONGEST_LINE else f"{line[: _LONGEST_LINE - 300]} ... {line[-200:]}"


def _run(given: Sequence[str]) -> None:
    """Runs a known command. Imports are late: Lightning takes seconds, and a wrong command should not wait for it."""
    if given[0] == _COMPLETION:
        from stagewise.cli.completion import completion_script
        from stagewise.cli.parsers import all_parsers

        print(completion_script(" ".join(given[1:]) or "nothing", all_parsers()), end="")
        return
    from stagewise.cli.quiet import plain_words

    module, name = COMMANDS[given[0]].function.split(":")
    with plain_words():
        getattr(import_module(f"stagewise.cli.{module}"), name)(given)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command.

    Args:
        arguments: of the command line; those of the process if None.

    Returns:
        0; 2 for bad input, after one line on standard error; 130 when interrupted.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    if not given or given[0] in ("-h", "--help"):
        print(_usage())
        return 0 if given else 2
    if given[0] == "--version":
        from stagewise._version import __version__

        print(f"stagewise {__version__}")
        return 0
    if given[0] not in (*COMMANDS, _COMPLETION):
        print(f"stagewise: got command {given[0]!r}; expected one of {', '.join(COMMANDS)}", file=sys.stderr)
        return 2
    try:
        _run(given)
    except KeyboardInterrupt:
        return _interrupted(given[0])
    except SystemExit as leaving:
        # Lightning catches the interrupt, shuts down, and exits with status 1.
        if isinstance(leaving.__context__, KeyboardInterrupt):
            return _interrupted(given[0])
        raise
    except Exception as error:
        mistake = _mistake(error)
        if mistake is None:
            raise
        print(f"stagewise {given[0]}: {_one_line(mistake)}", file=sys.stderr)
        return 2
    return 0


def entry_point() -> None:
    """Entry point of the installed script."""
    sys.exit(main())
