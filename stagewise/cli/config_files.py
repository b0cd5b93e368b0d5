"""Checks of configuration files before they are parsed: readable, small, a mapping."""

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import yaml

from stagewise.errors import InputError

_FLAGS = ("-c", "--config")
_REPLACED = {
    "configs/stdlib.yaml": "configs/code.yaml",
    "configs/intervention_stdlib.yaml": "configs/intervention_code.yaml",
}
"""Files of earlier versions, and their replacements."""

_MOST_BYTES = 2**20
_MOST_DEPTH = 50
_MOST_NODES = 50_000
"""Limit with aliases expanded: a few lines of aliases can expand to more than fits in memory."""


def check_config_files(arguments: Sequence[str]) -> None:
    """Refuses unusable configuration files by name and place; the parser would only print its usage.

    Args:
        arguments: of the command line.

    Raises:
        InputError: a file that is missing, a folder, larger than a megabyte, not UTF-8 or not YAML, without a mapping
            at the top, nested deeper than 50 levels, or with more than 50,000 values.
    """
    for flag, value in pairwise(arguments):
        if flag in _FLAGS:
            _check(value)
    for argument in arguments:
        if argument.startswith("--config="):
            _check(argument.removeprefix("--config="))


def _check(given: str) -> None:
    path = Path(given)
    try:
        if not path.is_file():
            new = next((new for old, new in _REPLACED.items() if path.as_posix().endswith(old)), None)
            if new is not None:
                raise InputError(
                    f"got -c {given}, which is no longer there; expected {new}, which took its place; name it"
                )
            raise InputError(f"got -c {given}, which is no file; expected a YAML file such as configs/induction.yaml")
        size = path.stat().st_size
        if size > _MOST_BYTES:
            raise _refusal(given, f"which has {size:,} bytes")
        text = path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise _refusal(given, f"which cannot be read ({error.strerror})") from error
    except UnicodeDecodeError as error:
        raise _refusal(given, f"which is not UTF-8 at byte {error.start}") from error
    fault = _fault(text)
    if fault is not None:
        raise _refusal(given, fault)


def _refusal(given: str, why: str) -> InputError:
    return InputError(f"got -c {given}, {why}; expected a YAML file such as configs/induction.yaml; correct it")


def _fault(text: str) -> str | None:
    """Returns the reason why a text is not a configuration; None if it is. Reads events only: nothing is built."""
    sizes: dict[str, int] = {}
    open_nodes: list[tuple[str | None, int]] = []
    top: str | None = None
    try:
        # Not the C loader, which accepts what the parser's own refuses ("a:\t").
        for event in yaml.parse(text, Loader=yaml.SafeLoader):
            if isinstance(event, (yaml.MappingStartEvent, yaml.SequenceStartEvent)):
                top = top or type(event).__name__.removesuffix("StartEvent").lower()
                open_nodes.append((event.anchor, 1))
                if len(open_nodes) > _MOST_DEPTH:
                    return f"which is nested deeper than {_MOST_DEPTH} at line {event.start_mark.line + 1}"
                continue
            if isinstance(event, yaml.AliasEvent):
                if event.anchor not in sizes:
                    return f"in which *{event.anchor} at line {event.start_mark.line + 1} is not known there"
                anchor, size = None, sizes[event.anchor]
            elif isinstance(event, yaml.ScalarEvent):
                top = top or "scalar"
                anchor, size = event.anchor, 1
            elif isinstance(event, (yaml.MappingEndEvent, yaml.SequenceEndEvent)):
                anchor, size = open_nodes.pop()
            else:
                continue
            if anchor is not None:
                sizes[anchor] = size
            if open_nodes:
                above, so_far = open_nodes.pop()
                open_nodes.append((above, so_far + size))
                if so_far + size > _MOST_NODES:
                    return f"which stands for more than {_MOST_NODES:,} values at line {event.start_mark.line + 1}"
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        place = "" if mark is None else f" (line {mark.line + 1}, column {mark.column + 1}: {error.problem})"
        return f"which is no YAML{place}"
    except (yaml.YAMLError, RecursionError) as error:
        return f"which is no YAML ({' '.join(str(error).split())})"
    if top is None:
        return "which is empty"
    return None if top == "mapping" else f"which holds a {'list' if top == 'sequence' else 'single value'} at its top"
