"""Loading of a user's function by its dotted path, as given in configuration files."""

import importlib
import inspect
from collections.abc import Callable
from typing import Any

from stagewise.checks.bounds import shown
from stagewise.errors import InputError

Call = tuple[tuple[Any, ...], dict[str, Any]]
"""Positional and keyword arguments."""


def load_callable(path: str, *, kind: str, signature: str, like: Call | None = None) -> Callable[..., Any]:
    """Loads the callable at a dotted path.

    This imports, **and so runs**, any module named there: a configuration file with a path is as powerful as a program.
    Read other people's configuration files before you use them.

    Args:
        path: ``package.module.name`` of a function or callable object.
        kind: purpose of the callable, such as ``policy``; for messages.
        signature: expected signature, such as ``(names, *, step) -> weights``; for messages.
        like: example of a call; only the number and names of arguments count.

    Raises:
        InputError: no such module or name, the import fails, or the object is a class, cannot be called, or takes other
            arguments.
    """
    if not isinstance(path, str):
        raise InputError(f"got {kind} {shown(path)}; expected package.module.function, as text")
    module, _, name = path.rpartition(".")
    try:
        if path.startswith("."):
            raise ImportError("relative paths have no root here")
        found = getattr(importlib.import_module(module), name)
    except (Exception, SystemExit) as error:
        # A user's module may raise anything on import.
        why = str(error) if isinstance(error, ImportError) else f"{type(error).__name__}: {error}"
        raise InputError(
            f"got {kind} {path!r}, which cannot be imported ({' '.join(why.split())}); expected "
            "package.module.function; see that `python -c 'import package.module'` works"
        ) from error
    if not callable(found) or isinstance(found, type):
        raise InputError(f"got {kind} {path!r}, which is a {type(found).__name__}; expected a function {signature}")
    if like is not None:
        check_arguments_of(found, words=f"{kind} {path!r}", signature=signature, like=like)
    return found


def check_arguments_of(function: object, *, words: str, signature: str, like: Call) -> None:
    """Refuses a function that cannot be called with such arguments, without calling it.

    Args:
        function: of the user; passes if its signature is not available.
        words: description of the function, for messages.
        signature: as in :func:`load_callable`.
        like: as in :func:`load_callable`.

    Raises:
        InputError: the function takes other arguments.
    """
    try:
        known = inspect.signature(function)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return
    by_place, by_name = like
    try:
        known.bind(*by_place, **by_name)
    except TypeError as error:
        raise InputError(f"got {words} with arguments {known} ({error}); expected a function {signature}") from None
