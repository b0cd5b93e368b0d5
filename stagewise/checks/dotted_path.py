"""A user's function by its dotted path, as configuration files name it."""

import importlib
import inspect
from collections.abc import Callable
from typing import Any

from stagewise.checks.bounds import shown
from stagewise.errors import InputError

Call = tuple[tuple[Any, ...], dict[str, Any]]
"""Arguments by place, and by name."""


def load_callable(path: str, *, kind: str, signature: str, like: Call | None = None) -> Callable[..., Any]:
    """Returns the callable at a dotted path.

    The module is imported, **which runs it**, whatever module it is: a configuration file that names a path is as good
    as a program. Read those of others before you use them.

    Args:
        path: ``package.module.name`` of a function, or of a callable object.
        kind: what it is for, such as ``policy``; for messages.
        signature: how it is called, such as ``(names, *, step) -> weights``; for messages.
        like: arguments as it will be called with; only their number and names count.

    Raises:
        InputError: there is no such module or name, the module fails as it is imported, or what it has is a class,
            cannot be called, or takes other arguments.
    """
    if not isinstance(path, str):
        raise InputError(f"got {kind} {shown(path)}; expected package.module.function, as text")
    module, _, name = path.rpartition(".")
    try:
        if path.startswith("."):
            raise ImportError("relative paths have no root here")
        found = getattr(importlib.import_module(module), name)
    except (Exception, SystemExit) as error:
        # Whatever a module of the user's raises: it is imported to be read, and cannot be.
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
    """Refuse a function that cannot be called with such arguments, without calling it.

    Args:
        function: of the user; one that does not tell its arguments passes.
        words: what it is, for messages.
        signature: as in :func:`load_callable`.
        like: as in :func:`load_callable`.

    Raises:
        InputError: it takes other arguments.
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
