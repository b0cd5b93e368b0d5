"""Checks of arguments and settings against their annotations: types, whole and finite numbers, ranges.

Python ignores annotations, and a wrong type fails late, with the message of another library: ``"4" < 1``,
``range(2.5)``, a NaN that passes every comparison. Limits beyond the type (positive, below 1) are part of the
annotation too, see :mod:`stagewise.checks.ranges`.
"""

import math
import os
import reprlib
import types
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import MISSING, fields
from enum import Enum
from functools import cache, wraps
from inspect import signature
from itertools import islice
from typing import Annotated, Any, Literal, ParamSpec, TypeVar, Union, get_args, get_origin, get_type_hints

import numpy as np
from numpy.typing import ArrayLike, NDArray

from stagewise.checks.ranges import Limit
from stagewise.errors import InputError, require

P = ParamSpec("P")
R = TypeVar("R")

_MAX_BITS = 63
"""Largest size of a whole number: larger ones fit no tensor index, step or seed."""

_MOST_ENTRIES = 10_000_000
"""Largest length of a list of settings: longer ones are mistakes, and may be endless."""


class _UnfitError(Exception):
    """Value of the wrong type or out of range; the message says what was expected.

    Attributes:
        broken: limit broken by a value of the right type, if any.
    """

    def __init__(self, expected: str, broken: Limit | None = None) -> None:
        super().__init__(expected)
        self.broken = broken


_INFINITE = "may be infinite"

MaybeInfinite = Annotated[float, _INFINITE]
"""Number that may be infinite, but not NaN."""


class _Words(reprlib.Repr):
    """Representation of values in an error message: short, and safe for any value."""

    def __init__(self) -> None:
        super().__init__()
        self.maxstring = self.maxother = 80

    def repr_int(self, x: int, level: int) -> str:
        return repr(x) if x.bit_length() < 256 else f"<a whole number of {x.bit_length()} bits>"


def shown(value: object) -> str:
    """Formats a value for an error message: on one line, truncated if long."""
    if isinstance(value, np.generic):
        value = value.item()
    return " ".join(_Words().repr(value).split())


def _whole(value: Any) -> int:
    if isinstance(value, (int, np.integer)) and not isinstance(value, (bool, np.bool_)):
        whole = int(value)
        if whole.bit_length() <= _MAX_BITS:
            return whole
        raise _UnfitError("a whole number of at most 64 bits")
    raise _UnfitError("a whole number")


def _number(value: Any) -> float:
    plain = isinstance(value, (int, float, np.integer, np.floating)) and not isinstance(value, (bool, np.bool_))
    if plain:
        number = value.item() if isinstance(value, np.generic) else value
        try:
            if math.isfinite(number):
                return number
        except OverflowError:
            pass
    raise _UnfitError("a finite number")


def _truth(value: Any) -> bool:
    if isinstance(value, (bool, np.bool_)):
        return bool(value)
    raise _UnfitError("true or false")


def _text(value: Any) -> str:
    found = os.fspath(value) if isinstance(value, os.PathLike) else value
    if isinstance(found, str) and "\0" not in found:
        # Not converted: a member of a StrEnum is text, and carries more than its value.
        return found
    raise _UnfitError("text")


def _member(value: Any, kind: type[Enum]) -> Enum:
    if isinstance(value, (str, int)) and not isinstance(value, bool):
        for member in kind:
            if member.value == value:
                return member
    raise _UnfitError(f"one of {[member.value for member in kind]}")


def _option(value: Any, options: tuple[Any, ...]) -> Any:
    for option in options:
        if type(value) is type(option) and value == option:
            return value
    raise _UnfitError(f"one of {list(options)}" if len(options) > 1 else repr(options[0]))


def _items(value: Any, element: Any, kind: str) -> list[Any]:
    listed = isinstance(value, Iterable) and not isinstance(value, (str, bytes, bytearray, Mapping))
    if not listed:
        raise _UnfitError(f"{kind} of {_expected(element)}")
    too_many = _UnfitError(f"{kind} of at most {_MOST_ENTRIES:,} entries")
    if _is_endless(value):
        raise too_many
    try:
        found = [_settled(entry, element) for entry in islice(value, _MOST_ENTRIES + 1)]
    except _UnfitError as unfit:
        raise _UnfitError(f"{kind}, each entry {unfit}", unfit.broken) from None
    if len(found) > _MOST_ENTRIES:
        raise too_many
    return found


def _is_endless(value: object) -> bool:
    return isinstance(value, range) and (value.stop - value.start) // value.step > _MOST_ENTRIES


def _mapping(value: Any, key: Any, element: Any) -> Mapping[Any, Any]:
    if not isinstance(value, Mapping):
        raise _UnfitError(f"a mapping to {_expected(element)}")
    try:
        names = [_settled(name, key) for name in value]
    except _UnfitError as unfit:
        raise _UnfitError(f"a mapping, each name {unfit}") from None
    try:
        found = dict(zip(names, (_settled(entry, element) for entry in value.values()), strict=True))
    except _UnfitError as unfit:
        raise _UnfitError(f"a mapping, each entry {unfit}", unfit.broken) from None
    # The original if nothing had to be changed: some mappings are more than a dict.
    return value if all(found.get(name) is entry for name, entry in value.items()) else found


def _expected(hint: Any) -> str:
    """Describes what is expected of a value of this type."""
    try:
        _settled(_NOTHING, hint)
    except _UnfitError as unfit:
        return str(unfit)
    return "anything"


class _Nothing:
    """Value that fits no type except those that accept anything."""


_NOTHING = _Nothing()

_SIMPLE: dict[Any, Callable[[Any], Any]] = {int: _whole, float: _number, bool: _truth, str: _text}
_LISTS = {list, Sequence, Iterable, Collection}
_ARRAY = set(get_args(ArrayLike))
_MAPPINGS = {dict, Mapping}


def _settled(value: Any, hint: Any) -> Any:
    """Returns the value, with numpy numbers converted to Python's and enumeration values to members.

    Raises:
        _UnfitError: the value is of another type, or out of range.
    """
    if hint is ArrayLike or hint is Any or isinstance(hint, TypeVar):
        return value
    if hint in _SIMPLE:
        return _SIMPLE[hint](value)
    if hint is None or hint is types.NoneType:
        if value is None:
            return None
        raise _UnfitError("null")
    origin, inner = get_origin(hint), get_args(hint)
    if origin is Annotated and _INFINITE in inner[1:]:
        return value if isinstance(value, float) and math.isinf(value) else _number(value)
    if origin is Annotated:
        return _limited(value, inner[0], [marker for marker in inner[1:] if isinstance(marker, Limit)])
    if origin in (Union, types.UnionType):
        if set(inner) >= _ARRAY:
            return value
        return _any_of(value, inner)
    if origin is Literal:
        return _option(value, inner)
    if origin in _LISTS or hint in _LISTS:
        return _items(value, inner[0] if inner else Any, "a list")
    if origin in _MAPPINGS or hint in _MAPPINGS:
        return _mapping(value, *(inner or (Any, Any)))
    if origin is tuple and inner:
        return _tuple(value, inner)
    return _instance(value, hint if origin is None else origin)


def _limited(value: Any, hint: Any, limits: Sequence[Limit]) -> Any:
    try:
        found = _settled(value, hint)
    except _UnfitError as unfit:
        raise _UnfitError(" ".join([str(unfit), *map(str, limits)])) from None
    for limit in limits:
        if not limit.holds(found):
            raise _UnfitError(" ".join([_expected(hint), *map(str, limits)]), limit)
    return found


def _any_of(value: Any, hints: tuple[Any, ...]) -> Any:
    expected, broken = [], None
    for hint in hints:
        try:
            return _settled(value, hint)
        except _UnfitError as unfit:
            expected.append(str(unfit))
            broken = broken or unfit.broken
    # None last, since it is rarely intended.
    raise _UnfitError(" or ".join(sorted(dict.fromkeys(expected), key=lambda words: words == "null")), broken)


def _tuple(value: Any, inner: tuple[Any, ...]) -> tuple[Any, ...]:
    if len(inner) == 2 and inner[1] is Ellipsis:
        return tuple(_items(value, inner[0], "a list"))
    listed = isinstance(value, Sequence) and not isinstance(value, (str, bytes))
    if not listed or len(value) != len(inner):
        raise _UnfitError(f"{len(inner)} entries")
    return tuple(_settled(entry, hint) for entry, hint in zip(value, inner, strict=True))


def _instance(value: Any, kind: Any) -> Any:
    if not isinstance(kind, type) or getattr(kind, "_is_protocol", False):
        if value is _NOTHING or (getattr(kind, "_is_protocol", False) and isinstance(value, (str, int, float, list))):
            raise _UnfitError(f"a {getattr(kind, '__name__', 'value')}")
        return value
    if issubclass(kind, Enum):
        return _member(value, kind)
    if kind is Callable or kind.__name__ == "Callable":
        if callable(value):
            return value
        raise _UnfitError("a function")
    if isinstance(value, kind):
        return value
    raise _UnfitError(f"{'an' if kind.__name__[0] in 'AEIOU' else 'a'} {kind.__name__}")


def _advice(value: Any, owner: str) -> str:
    if isinstance(value, (bool, np.bool_)):
        return "write a number where one is counted, true or false where something is switched"
    if isinstance(value, str):
        try:
            float(value)
        except ValueError:
            return f"see the documentation of {owner}"
        return "leave the quotes out; YAML takes 1.0e-4 for a number, 1e-4 for a word"
    if isinstance(value, (float, np.floating)) and math.isfinite(value):
        return f"write {round(float(value))}" if abs(value) < 2**_MAX_BITS else "write a smaller one"
    return f"see the documentation of {owner}"


def _usual(default: Any, owner: str) -> str:
    if default is None:
        return "leave it out for what is usual"
    plain = isinstance(default, (int, float, str))
    return f"{default} is the default" if plain else f"see the documentation of {owner}"


def check_value(name: str, value: Any, hint: Any, *, advice: str | None = None) -> Any:
    """Checks one value against a type.

    Args:
        name: of the value, for messages.
        value: value to check.
        hint: expected type, as an annotation.
        advice: advice for the message; derived from the value if None.

    Returns:
        The value, converted as by :func:`settle_fields`.

    Raises:
        InputError: the value is of another type, or out of range.
    """
    return _settle(name, value, hint, "stagewise", advice)


def _settle(name: str, value: Any, hint: Any, owner: str, advice: str | None = None, *, default: Any = MISSING) -> Any:
    try:
        return _settled(value, hint)
    except _UnfitError as unfit:
        if unfit.broken is None:
            remedy = advice or _advice(value, owner)
        else:
            remedy = advice or unfit.broken.advice or _usual(default, owner)
        raise InputError(f"got {name}={shown(value)}; expected {unfit}; {remedy}") from None


@cache
def _hints(owner: Any) -> dict[str, Any]:
    return get_type_hints(owner, include_extras=True)


def settle_fields(settings: Any, *, prefix: str = "", leave: Iterable[str] = ()) -> None:
    """Checks every field of a dataclass against its annotation; to be called first in its ``__post_init__``.

    Numpy integers become Python's, so that settings can be written as JSON; enumeration values become members, and
    lists are copied. Whole numbers are accepted as floats; booleans and numbers that are not finite are not. Paths are
    accepted as text.

    Args:
        settings: the dataclass; may be frozen.
        prefix: prefix of field names in errors, e.g. ``llc.``.
        leave: fields that are checked elsewhere.

    Raises:
        InputError: a field of another type or out of range; the message names the first.
    """
    kind: Any = type(settings)
    hints, left = _hints(kind), set(leave)
    for field in fields(settings):
        if field.name not in left:
            value = getattr(settings, field.name)
            settled = _settle(f"{prefix}{field.name}", value, hints[field.name], kind.__name__, default=field.default)
            if settled is not value:
                object.__setattr__(settings, field.name, settled)


def check_arguments(
    owner: str, function: Callable[..., Any], values: Mapping[str, Any], *, leave: Iterable[str] = ()
) -> None:
    """Checks the arguments of a constructor against its annotations; to be called first, with ``locals()``.

    Args:
        owner: name of the class, for messages.
        function: its ``__init__``.
        values: maps names to values; names without an annotation are ignored.
        leave: arguments that are checked elsewhere.

    Raises:
        InputError: an argument of another type or out of range; the message names the first.
    """
    left, known = {"return", *leave}, signature(function).parameters
    for name, hint in _hints(function).items():
        if name in values and name not in left:
            _settle(name, values[name], hint, owner, default=known[name].default)


def checked(function: Callable[P, R]) -> Callable[P, R]:
    """Decorates a function to check its arguments against their annotations at each call, see :func:`settle_fields`."""
    known = signature(function)

    @wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        bound = known.bind(*args, **kwargs)
        hints = _hints(function)
        for name, value in bound.arguments.items():
            if name in hints:
                bound.arguments[name] = _settle(
                    name, value, hints[name], function.__name__, default=known.parameters[name].default
                )
        return function(*bound.args, **bound.kwargs)

    return call


def float_array(name: str, value: ArrayLike) -> NDArray[np.float64]:
    """Converts numbers of any shape to float64; NaN is allowed.

    Args:
        name: of the argument, for messages.
        value: numbers, nested lists of numbers, an array, or a tensor in CPU memory.

    Raises:
        InputError: anything else: text, booleans, complex numbers, None, rows of different lengths.
    """
    require(not _is_endless(value), name, shown(value), f"at most {_MOST_ENTRIES:,} numbers", "see its shape")
    try:
        found = np.asarray(value)
    except (TypeError, ValueError, RuntimeError, OverflowError) as error:
        why = " ".join(str(error).split())
        raise InputError(f"got {name}={shown(value)} ({why}); expected an array of numbers; see its shape") from error
    if found.dtype.kind not in "iuf" and found.size:
        raise InputError(f"got {name}={shown(value)}; expected an array of numbers; leave out text, None and the like")
    return found.astype(np.float64)
