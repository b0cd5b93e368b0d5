"""Identity of a run's loss, as text: a resumed run with another one is refused."""

import ast
import functools
import hashlib
import inspect
import textwrap
from typing import Any

_OWN = ("stagewise.", "transformers.", "torch.")


def loss_identity(loss_fn: Any) -> str:
    """Name of a loss function and a digest of its source, which comments and layout have no part in.

    Functions of libraries are known by name, so that another version of theirs is let pass. So are those whose source
    cannot be read. What a function calls, closes over or reads from its object is not looked at.

    Args:
        loss_fn: function, method, partial or object that can be called.
    """
    while isinstance(loss_fn, functools.partial):
        loss_fn = loss_fn.func
    known = loss_fn if hasattr(loss_fn, "__qualname__") else type(loss_fn)
    module = getattr(known, "__module__", None) or ""
    name = f"{module}.{known.__qualname__}"
    if name.startswith(_OWN):
        return name
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(known)))
    except (OSError, TypeError, SyntaxError):
        return name
    return f"{name} {hashlib.sha256(ast.dump(tree).encode()).hexdigest()[:12]}"
