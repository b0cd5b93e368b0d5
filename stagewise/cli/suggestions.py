"""Suggestions for misspelt keys and options."""

import re
from collections.abc import Iterable
from difflib import get_close_matches
from pydoc import locate

from jsonargparse import ArgumentParser

from stagewise.errors import InputError

_OPTION = re.compile(r"^unrecognized arguments: (?:.* )?--([^\s=]+)", re.IGNORECASE)
_KEY = (
    r"(?:(?:Group|Subcommand) '(?P<group>[^']+)' does not accept (?:option|nested key) '(?P<nested>[^']+)'"
    r"|(?:Option|Key) '(?P<key>[^']+)' is not (?:accepted|expected))"
)
"""Messages of jsonargparse for an unknown key, of version 4.39 and of current ones."""

_TOP = re.compile(rf"^{_KEY}")
_IN_CLASS = re.compile(rf"Problem with given class_path '(?P<path>[^']+)':\s+{_KEY}")
_WHERE = re.compile(r"Parser key \"([^\"]+)\"")
_MOST_NAMED = 12


def unknown_setting(error: Exception, parser: ArgumentParser, command: str) -> InputError | None:
    """Returns the error to raise for a key or an option that a parser does not know; None for other errors.

    Args:
        error: of jsonargparse.
        parser: parser that raised it.
        command: command of the settings.
    """
    words = str(error)
    inside = _IN_CLASS.search(words)
    if inside is not None:
        return _of_class(inside, words)
    found = _OPTION.search(words)
    if found is not None:
        return _refusal(found.group(1), _keys(parser), f"a setting of stagewise {command}")
    found = _TOP.search(words)
    if found is None:
        return None
    key = _key_of(found)
    if found.group("group") == command:
        key = key.removeprefix(f"{command}.")
    return _refusal(key, _keys(parser), f"a setting of stagewise {command}")


def _of_class(inside: "re.Match[str]", words: str) -> InputError:
    where = ".init_args.".join(_WHERE.findall(words[: inside.start()]))
    # All members of a union were tried, and an argument of any of them may be meant.
    paths = [found.group("path") for found in _IN_CLASS.finditer(words)]
    known = [key for path in dict.fromkeys(paths) for key in _class_keys(path)]
    return _refusal(_key_of(inside), known, f"an argument of {paths[0]}", prefix=f"{where}.init_args." if where else "")


def _key_of(found: "re.Match[str]") -> str:
    group, nested = found.group("group"), found.group("nested")
    return found.group("key") or f"{group}.{nested}"


def _keys(parser: ArgumentParser) -> list[str]:
    return [action.dest for action in parser._actions if action.dest not in ("help", "print_shtab")]


def _class_keys(path: str) -> list[str]:
    kind = locate(path)
    if not isinstance(kind, type):
        return []
    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(kind, fail_untyped=False)
    return _keys(parser)


def _refusal(key: str, known: Iterable[str], expected: str, *, prefix: str = "") -> InputError:
    """Returns the error for the first unknown part of a key, with the nearest of its siblings."""
    known = list(dict.fromkeys(known))
    parts = key.split(".")
    depth, siblings = 0, _children(known, "")
    while depth < len(parts) - 1 and parts[depth] in siblings:
        depth += 1
        siblings = _children(known, ".".join(parts[:depth]) + ".")
    level = ".".join(parts[:depth])
    near = get_close_matches(parts[depth], siblings, n=1)
    # The right name at the wrong place.
    near = near or [name for name in known if name.endswith(f".{key}")][:1]
    if depth:
        expected = f"a setting of {prefix}{level}"
    if near:
        advice = f"did you mean {near[0]}?"
    elif 0 < len(siblings) <= _MOST_NAMED:
        expected, advice = f"{expected}: {', '.join(siblings)}", "correct it"
    else:
        advice = "see its documentation, or --help"
    return InputError(f"got {prefix}{key}; expected {expected}; {advice}")


def _children(known: Iterable[str], level: str) -> list[str]:
    """Returns the names directly below a level, each once."""
    below = (name.removeprefix(level) for name in known if name.startswith(level))
    return list(dict.fromkeys(name.partition(".")[0] for name in below if name))
