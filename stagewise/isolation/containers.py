"""Reading and restoring the contents of mutable objects that hold references."""

from collections import OrderedDict, deque
from collections.abc import Callable, Iterable
from types import FunctionType
from typing import Any, NamedTuple

Contents = dict[Any, Any] | list[Any]
"""Shallow copy of contents: by key, in order, or as a sequence."""


class Kind(NamedTuple):
    """Functions that read and write one kind of container.

    Attributes:
        read: returns a shallow copy of the contents.
        write: replaces the contents by such a copy, in its order.
        put: sets one value under one key; None for kinds without keys.
        step: formats a key as a suffix to the container's name.
    """

    read: Callable[[Any], Contents]
    write: Callable[[Any, Any], None]
    put: Callable[[Any, Any, Any], None] | None
    step: Callable[[Any], str]


def same(left: Contents, right: Contents) -> bool:
    """Returns True if two copies hold the identical objects, in the same order."""
    if len(left) != len(right):
        return False
    if isinstance(left, dict) and isinstance(right, dict):
        return same_keys(left, right) and _all_are(left.values(), right.values())
    return _all_are(left, right)


def same_keys(left: dict[Any, Any], right: dict[Any, Any]) -> bool:
    """Returns True if two dictionaries have the same keys in the same order."""
    return len(left) == len(right) and all(a is b or a == b for a, b in zip(left, right, strict=True))


def _all_are(left: Iterable[Any], right: Iterable[Any]) -> bool:
    return all(a is b for a, b in zip(left, right, strict=True))


def _read_dict(owner: Any) -> Contents:
    # The base class's methods: those of a subclass may do more.
    return dict(OrderedDict.items(owner) if isinstance(owner, OrderedDict) else dict.items(owner))


def _write_dict(owner: Any, contents: dict[Any, Any]) -> None:
    plain: Any = OrderedDict if isinstance(owner, OrderedDict) else dict
    now = _read_dict(owner)
    assert isinstance(now, dict)
    if same_keys(now, contents):
        for key, value in contents.items():
            if now[key] is not value:
                plain.__setitem__(owner, key, value)
    else:
        plain.clear(owner)
        for key, value in contents.items():
            plain.__setitem__(owner, key, value)


def _put_in_dict(owner: Any, key: Any, value: Any) -> None:
    (OrderedDict if isinstance(owner, OrderedDict) else dict).__setitem__(owner, key, value)


def _write_list(owner: Any, contents: list[Any]) -> None:
    list.__setitem__(owner, slice(None), contents)


def _write_set(owner: Any, contents: list[Any]) -> None:
    set.clear(owner)
    set.update(owner, contents)


def _write_deque(owner: Any, contents: list[Any]) -> None:
    owner.clear()
    owner.extend(contents)


def _slot_names(owner: Any) -> list[str]:
    names: list[str] = []
    for cls in type(owner).__mro__:
        slots = vars(cls).get("__slots__", ())
        slots = (slots,) if isinstance(slots, str) else tuple(slots)
        private = (
            f"_{cls.__name__.lstrip('_')}{slot}" if slot.startswith("__") and slot[-2:] != "__" else slot
            for slot in slots
        )
        names += [name for name in private if name not in ("__dict__", "__weakref__")]
    return names


def _read_slots(owner: Any) -> Contents:
    found = {}
    for name in _slot_names(owner):
        try:
            found[name] = object.__getattribute__(owner, name)
        except AttributeError:
            continue
    return found


def _write_slots(owner: Any, contents: dict[str, Any]) -> None:
    for name in _slot_names(owner):
        if name in contents:
            object.__setattr__(owner, name, contents[name])
        elif hasattr(owner, name):
            object.__delattr__(owner, name)


def _read_cells(owner: FunctionType) -> Contents:
    found = {}
    for name, cell in zip(owner.__code__.co_freevars, owner.__closure__ or (), strict=True):
        try:
            found[name] = cell.cell_contents
        except ValueError:  # not filled yet
            continue
    return found


def _put_in_cell(owner: FunctionType, name: str, value: Any) -> None:
    (owner.__closure__ or ())[owner.__code__.co_freevars.index(name)].cell_contents = value


def _write_cells(owner: FunctionType, contents: dict[str, Any]) -> None:
    for name, value in contents.items():
        _put_in_cell(owner, name, value)


def _read_class(owner: type) -> Contents:
    return dict(vars(owner))


def _write_class(owner: type, contents: dict[str, Any]) -> None:
    now = dict(vars(owner))
    for name, value in contents.items():
        if now.get(name, now) is not value:
            type.__setattr__(owner, name, value)
    for name in now:
        if name not in contents:
            type.__delattr__(owner, name)


def _dotted(key: Any) -> str:
    return f".{key}"


def _indexed(key: Any) -> str:
    return f"[{key!r}]" if isinstance(key, str | int | bool | float | tuple) else f"[{type(key).__name__}]"


def _anonymous(key: Any) -> str:
    return "{...}"


def _of_attributes(owner: Any) -> dict[str, Any]:
    return owner.__dict__


ATTRIBUTES = Kind(
    read=lambda owner: dict(_of_attributes(owner)),
    write=lambda owner, contents: _write_dict(_of_attributes(owner), contents),
    put=lambda owner, key, value: _put_in_dict(_of_attributes(owner), key, value),
    step=_dotted,
)
"""Attributes of an object, as returned by ``vars``."""

DICT = Kind(read=_read_dict, write=_write_dict, put=_put_in_dict, step=_indexed)
LIST = Kind(read=lambda owner: list(list.__iter__(owner)), write=_write_list, put=list.__setitem__, step=_indexed)
SET = Kind(read=lambda owner: list(set.__iter__(owner)), write=_write_set, put=None, step=_anonymous)
DEQUE = Kind(read=lambda owner: list(deque.__iter__(owner)), write=_write_deque, put=deque.__setitem__, step=_indexed)
SLOTS = Kind(read=_read_slots, write=_write_slots, put=object.__setattr__, step=_dotted)
CELLS = Kind(read=_read_cells, write=_write_cells, put=_put_in_cell, step=lambda key: f".<{key}>")
"""Closure of a function."""

CLASS = Kind(read=_read_class, write=_write_class, put=type.__setattr__, step=_dotted)
"""Attributes of a class, shared by its instances."""
