"""Nested structure of a batch: its containers, its leaves, and copies with other leaves."""

import copy
import datetime
import numbers
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import fields, is_dataclass
from enum import Enum
from pathlib import PurePath
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence

from stagewise.errors import InputError

Path = tuple[str, ...]
"""Place of an entry in a batch, e.g. ``("['image']", "[0]")``."""

_ATOMS = (
    *(type(None), str, bytes, numbers.Number, np.generic, Enum, PurePath, datetime.date, datetime.time),
    *(datetime.timedelta, torch.device, torch.dtype, type),
)

INDICES = (
    "observe indices instead, and let the loss collate them: InfluenceCallback(observed=torch.arange(64), "
    "sampling=torch.arange(1024), loss_fn=stagewise.CollatedLoss(dataset, loss_fn, collate_fn))"
)
"""Advice for error messages that works for every batch."""


def where(path: Path) -> str:
    """Formats a path as a Python expression, ``batch['image'][0]``."""
    return "batch" + "".join(path)


def named(value: object) -> str:
    """Returns the qualified name of a value's class."""
    kind = type(value)
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"


def is_column(value: object) -> bool:
    """Returns True if a value is a list or tuple of one entry per sample: strings, numbers, or objects without data.

    Zero-dimensional tensors and arrays count as numbers. A list or tuple that holds a tensor with axes, an array with
    axes, or a container is structure. So are named tuples, and lists and tuples of nothing but None.
    """
    if isinstance(value, range):
        return True
    if not isinstance(value, (list, tuple)) or hasattr(value, "_fields") or not value:
        return False
    return all(_is_entry(entry) for entry in value) and any(entry is not None for entry in value)


def _is_entry(value: object) -> bool:
    if isinstance(value, (Tensor, np.ndarray)):
        return value.ndim == 0
    return not (is_container(value) or holds_data(value))


def is_container(value: object) -> bool:
    """Returns True if a value is a mapping, list, tuple, named tuple or dataclass, columns included."""
    if isinstance(value, (Mapping, list, tuple, range)):
        return not isinstance(value, PackedSequence)
    return is_dataclass(value) and not isinstance(value, type)


def holds_data(value: object, depth: int = 4) -> bool:
    """Returns True if an object may hold per-sample data: it has a length, or tensors or arrays within."""
    if isinstance(value, _ATOMS) or (callable(value) and not hasattr(value, "__len__")):
        return False
    if isinstance(value, (Tensor, np.ndarray)):
        return True
    if any(kind.__name__ == "Index" and kind.__module__.split(".")[0] == "pandas" for kind in type(value).__mro__):
        return False  # column names
    if isinstance(value, (Mapping, list, tuple)) and not isinstance(value, PackedSequence):
        inside: Any = value.values() if isinstance(value, Mapping) else value
        return depth > 0 and any(holds_data(inner, depth - 1) for inner in inside)
    if hasattr(type(value), "__len__"):
        return True
    return depth > 0 and any(holds_data(inner, depth - 1) for inner in _attributes(value).values())


def _attributes(value: object) -> dict[str, Any]:
    """Returns the attributes of an instance, both from its dictionary and from its slots."""
    found = dict(getattr(value, "__dict__", {}))
    for kind in type(value).__mro__:
        slots = kind.__dict__.get("__slots__", ())
        for name in (slots,) if isinstance(slots, str) else slots:
            if name not in ("__dict__", "__weakref__") and hasattr(value, name):
                found.setdefault(name, getattr(value, name))
    return found


def _children(value: Any) -> dict[Any, Any]:
    """Returns the contents of a container by key, position or attribute."""
    if isinstance(value, Mapping):
        return dict(value.items())
    if isinstance(value, (list, tuple)):
        return dict(enumerate(value))
    # Not only the fields: attributes that `__post_init__` derives from them belong to the same samples.
    found = _attributes(value)
    return {field.name: found.pop(field.name) for field in fields(value) if field.name in found} | found


def _step(value: Any, key: Any) -> str:
    return f"[{key!r}]" if isinstance(value, (Mapping, list, tuple)) else f".{key}"


def leaves(value: Any, path: Path = ()) -> Iterator[tuple[Path, Any]]:
    """Yields all leaves of a batch with their places, in order; a column is one leaf."""
    if not is_container(value) or is_column(value):
        yield path, value
        return
    for key, child in _children(value).items():
        yield from leaves(child, (*path, _step(value, key)))


def mapped(value: Any, function: Callable[[Any], Any]) -> Any:
    """Returns the same structure with ``function(leaf)`` in place of each leaf; a column is one leaf.

    Containers are copied and their contents replaced: no constructor and no dataclass validation runs.

    Raises:
        InputError: a container that cannot be rebuilt.
    """
    if not is_container(value) or is_column(value):
        return function(value)
    return _rebuilt(value, {key: mapped(child, function) for key, child in _children(value).items()})


def _rebuilt(value: Any, held: dict[Any, Any]) -> Any:
    if isinstance(value, tuple):
        return tuple.__new__(type(value), held.values())
    try:
        result = copy.copy(value)
        if isinstance(value, list):
            result[:] = held.values()
        elif isinstance(value, Mapping):
            # A Hugging Face encoding also keeps the fast tokenizer's data of all samples.
            if getattr(result, "_encodings", None) is not None:
                result._encodings = None
            for key, child in held.items():
                result[key] = child
        else:
            for name, child in held.items():
                if name in getattr(result, "__dict__", {}):
                    result.__dict__[name] = child
                else:
                    object.__setattr__(result, name, child)
    except Exception as error:
        raise InputError(
            f"got a {named(value)} in a batch, which cannot be cut into samples ({type(error).__name__}: {error}); "
            f"expected tensors in lists, tuples, dictionaries or dataclasses; {INDICES}"
        ) from error
    return result


def each_tensor(value: Any, function: Callable[[Tensor], Any]) -> Any:
    """Returns the same structure with ``function(tensor)`` in place of each tensor, including those in columns."""

    def of_leaf(leaf: Any) -> Any:
        if isinstance(leaf, Tensor):
            return function(leaf)
        if is_column(leaf) and any(isinstance(entry, Tensor) for entry in leaf):
            return type(leaf)(function(entry) if isinstance(entry, Tensor) else entry for entry in leaf)
        return leaf

    return mapped(value, of_leaf)


def tensors(value: Any) -> list[Tensor]:
    """Returns all tensors of a batch in order, including those in columns."""
    found: list[Tensor] = []
    for _, leaf in leaves(value):
        if isinstance(leaf, Tensor):
            found.append(leaf)
        elif is_column(leaf) and not isinstance(leaf, range):
            found += [entry for entry in leaf if isinstance(entry, Tensor)]
    return found


def chosen(column: Sequence[Any], index: Tensor | slice) -> Sequence[Any]:
    """Returns entries of a column: a tuple from a tuple, a list from a list or range."""
    picked = list(column[index]) if isinstance(index, slice) else [column[i] for i in index.reshape(-1).tolist()]
    return tuple(picked) if isinstance(column, tuple) else picked
