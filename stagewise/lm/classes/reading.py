"""Conversion of user settings to named classes."""

from collections.abc import Mapping, Sequence
from typing import Any

from stagewise.checks.bounds import shown
from stagewise.checks.dotted_path import load_callable
from stagewise.checks.group_names import check_group_names
from stagewise.errors import InputError
from stagewise.lm.classes.defaults import DEFAULT_CLASSES
from stagewise.lm.classes.predicates import Predicate
from stagewise.lm.classes.spec import ClassSpec

ClassSpecs = Mapping[str, ClassSpec | str | Mapping[str, Any]] | Sequence[str]
"""Names of default classes, or a mapping of names to classes: a spec, an equivalent mapping, or a default's name."""


def complement_name(name: str) -> str:
    """Returns the name of the complement of a class, ``not_<name>``."""
    return f"not_{name}"


def load_predicate(path: str) -> Predicate:
    """Loads a predicate by its dotted path. This imports, and so runs, its module.

    Raises:
        InputError: no such function, the import fails, or the function takes other arguments.
    """
    return load_callable(path, kind="predicate", signature="(text) -> bool [sample, position - 1]", like=((None,), {}))


def _default(name: str) -> ClassSpec:
    if name not in DEFAULT_CLASSES:
        raise InputError(
            f"got class {name!r}; expected one of {', '.join(DEFAULT_CLASSES)}, or conditions of your own; write them "
            "as {pattern: '^ def'}"
        )
    return DEFAULT_CLASSES[name]


def _read(name: str, given: object) -> ClassSpec:
    if isinstance(given, ClassSpec):
        return given
    if isinstance(given, str):
        return _default(given)
    if not isinstance(given, Mapping):
        raise InputError(f"got class {name!r} as {type(given).__name__}; expected conditions or a default class's name")
    unknown = [key for key in given if key not in ClassSpec.__dataclass_fields__]
    if unknown:
        raise InputError(
            f"got {', '.join(map(shown, unknown))} in class {name!r}; expected only "
            f"{', '.join(ClassSpec.__dataclass_fields__)}"
        )
    return ClassSpec(**given)


def read_specs(specs: ClassSpecs, *, complements: bool = False) -> dict[str, ClassSpec]:
    """Reads named classes and checks them before any work: patterns compile, predicates exist, names do not clash.

    Args:
        specs: names of default classes, or a mapping of names to classes.
        complements: True if the names of complements are used too.

    Raises:
        InputError: no class, an unknown, duplicate or invalid name, the name of a default class for another class, or
            an invalid class.
    """
    if isinstance(specs, (str, bytes, range)) or not isinstance(specs, (Mapping, Sequence)) or not specs:
        raise InputError(
            f"got classes {shown(specs)}; expected a list of default classes, or a mapping of names to classes"
        )
    entries = list(specs.items()) if isinstance(specs, Mapping) else [(name, name) for name in specs]
    read: dict[str, ClassSpec] = {}
    check_group_names([name for name, _ in entries], kind="class")
    for name, value in entries:
        read[name] = _read(name, value)
        if name in DEFAULT_CLASSES and read[name] != DEFAULT_CLASSES[name]:
            raise InputError(
                f"got class {name!r} with conditions of its own; expected another name: this is a default class; "
                f"rename yours, or write {name}: {name}"
            )
        if read[name].predicate is not None:
            load_predicate(read[name].predicate or "")
    clashes = [name for name in read if complement_name(name) in read] if complements else []
    if clashes:
        raise InputError(
            f"got class {complement_name(clashes[0])!r}, which is also the complement of {clashes[0]!r}; expected "
            "another name; rename it, or ask for no complements"
        )
    return read
