"""The command ``stagewise``: one line for a user's mistake, exit status 2."""

import sys
from collections.abc import Sequence

from jsonargparse import ArgumentError

from stagewise.errors import InputError

_COMMANDS = {
    "fit": "train a model, with the influence callback attached",
    "validate": "run the validation loop of a model",
}


def _usage() -> str:
    lines = ["usage: stagewise COMMAND -c FILE [--section.setting VALUE ...]", "", "commands:"]
    lines += [f"  {name:<10}{what}" for name, what in _COMMANDS.items()]
    lines += ["", "`stagewise COMMAND --help` lists the settings; configs/ holds examples."]
    return "\n".join(lines)


def _one_line(error: BaseException) -> str:
    """The message of an error without line breaks and without jsonargparse's repetition of the whole configuration."""
    return " ".join(str(error).split())


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command.

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
    if given[0] not in _COMMANDS:
        print(f"stagewise: got command {given[0]!r}; expected one of {', '.join(_COMMANDS)}", file=sys.stderr)
        return 2
    try:
        # Imported late: Lightning takes seconds, and a wrong command should not wait for it.
        from stagewise.cli.training import run_trainer

        run_trainer(given)
    except (InputError, ArgumentError) as error:
        print(f"stagewise {given[0]}: {_one_line(error)}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"stagewise {given[0]}: interrupted", file=sys.stderr)
        return 130
    return 0


def entry_point() -> None:
    """What the installed script calls."""
    sys.exit(main())
