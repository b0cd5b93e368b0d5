"""A user's function by its dotted path, as configuration files name it."""

import importlib
from collections.abc import Callable
from typing import Any

from stagewise.errors import InputError


def load_callable(path: str, *, kind: str, signature: str) -> Callable[..., Any]:
    """What a dotted path leads to.

    Args:
        path: ``package.module.name`` of a function, or of a callable object.
        kind: what it is for, such as ``policy``; for messages.
        signature: how it is called, such as ``(names, *, step) -> weights``; for messages.

    Raises:
        InputError: there is no such module or name, or it is a class or cannot be called.
    """
    module, _, name = path.rpartition(".")
    try:
        if path.startswith("."):
            raise ImportError("relative paths have no root here")
        found = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise InputError(
            f"got {kind} {path!r}, which cannot be imported ({error}); expected package.module.function"
        ) from error
    if not callable(found) or isinstance(found, type):
        raise InputError(f"got {kind} {path!r}, which is a {type(found).__name__}; expected a function {signature}")
    return found
