"""Completion of commands, settings and their choices in a shell: a script made once, which does not call Python."""

import shlex
from enum import Enum
from typing import Any, Literal, get_args, get_origin

from jsonargparse import ArgumentParser

from stagewise.cli.help import FLAGS, section_names
from stagewise.errors import InputError

_ZSH = "autoload -Uz compinit bashcompinit\ncompinit\nbashcompinit\n"

# bash treats `=` as a word: in `--name=value` the option is two words before the value.
_SCRIPT = """_stagewise() {{
    local word=${{COMP_WORDS[COMP_CWORD]}} before=${{COMP_WORDS[COMP_CWORD-1]}} words=
    if [[ $word == "=" ]]; then
        word=
    elif [[ $before == "=" ]]; then
        before=${{COMP_WORDS[COMP_CWORD-2]}}
    fi
    COMPREPLY=()
    if (( COMP_CWORD == 1 )); then
        words={commands}
    else
        case "${{COMP_WORDS[1]}} $before" in
{choices}
            *)
                if [[ $word == -* ]]; then
                    case ${{COMP_WORDS[1]}} in
{options}
                    esac
                fi ;;
        esac
    fi
    COMPREPLY=($(compgen -W "$words" -- "$word"))
}}
complete -o default -F _stagewise stagewise
"""


def completion_script(shell: str, parsers: dict[str, ArgumentParser]) -> str:
    """Returns a script that completes ``stagewise`` once sourced by a shell; with file names if nothing else fits.

    Args:
        shell: ``bash`` or ``zsh``.
        parsers: by command.

    Raises:
        InputError: another shell.
    """
    if shell not in ("bash", "zsh"):
        raise InputError(f"got --print-completion {shell}; expected bash or zsh; choose one")
    choices, options = [], []
    for command, parser in parsers.items():
        flags = [flag for action in parser._actions for flag in action.option_strings if not flag.endswith("+")]
        options.append(f"{' ' * 24}{command}) words={shlex.quote(' '.join(flags))} ;;")
        sections = " ".join(section_names(parser))
        if sections:
            choices += [_case(command, flag, sections) for flag in FLAGS]
        for action in parser._actions:
            found = list(dict.fromkeys(_choices(getattr(action, "_typehint", None))))
            flags = [flag for flag in action.option_strings if not flag.endswith(("+", ".help"))]
            choices += [_case(command, flag, " ".join(found)) for flag in flags if found]
    commands = shlex.quote(" ".join([*parsers, "--help", "--version", "--print-completion"]))
    script = _SCRIPT.format(commands=commands, choices="\n".join(choices), options="\n".join(options))
    return _ZSH + script if shell == "zsh" else script


def _case(command: str, flag: str, words: str) -> str:
    return f"{' ' * 12}{shlex.quote(f'{command} {flag}')}) words={shlex.quote(words)} ;;"


def _choices(hint: Any) -> list[str]:
    """Returns the values of a type: of enumerations, literals and bool, also inside unions."""
    if hint is bool:
        return ["true", "false"]
    if isinstance(hint, type) and issubclass(hint, Enum):
        return [member.name for member in hint]
    if get_origin(hint) is Literal:
        return [str(value) for value in get_args(hint)]
    inner = [choice for part in get_args(hint) if part is not type(None) for choice in _choices(part)]
    return inner if get_origin(hint) not in (list, dict, tuple, set) else []
