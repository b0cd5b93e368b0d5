"""Replacement of a module's parameters by other tensors while a function runs."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeVar

from torch import Tensor, nn
from torch.nn.utils import parametrize

from stagewise.errors import InputError
from stagewise.isolation.walk import Place, State, walk

T = TypeVar("T")


def with_weights(module: nn.Module, weights: Mapping[str, Tensor], body: Callable[[], T]) -> T:
    """Runs ``body`` while ``module`` holds other parameter tensors; never writes to the module's own.

    All methods of the module see ``weights``, however they access a parameter: through any module that registers it,
    under any name, or through attributes, lists, dictionaries and tuples that hold it. Shared tensors stay shared.
    Hooks, gradients and optimizer references of the real parameters are not affected. ``body`` may change the tensors
    in place. Afterwards, even after an exception, the identical objects are back in their places, in their order.

    Args:
        module: any module.
        weights: replacements by name, as in ``module.named_parameters()``; names of buffers are allowed too.
        body: function to run; its result is returned.

    Raises:
        InputError: an unknown name, or a weight of a scripted module.
    """
    with _swapped(module, weights), _parametrizations_uncached():
        return body()


@contextmanager
def _swapped(module: nn.Module, weights: Mapping[str, Tensor]) -> Iterator[None]:
    state = walk(module)
    replacements = _by_identity(module, weights, state)
    touched: dict[int, dict[Any, Any]] = {}
    try:
        for number, place in enumerate(state.places):
            for key, value in _items(place):
                other = _replaced(value, replacements)
                if other is not value and place.kind is not None:
                    touched.setdefault(number, {})[key] = value
                    _put(place, key, other)
        _add_ways(state, touched)
        yield
    finally:
        for number, own in touched.items():
            _put_back(state.places[number], own)


def _by_identity(module: nn.Module, weights: Mapping[str, Tensor], state: State) -> dict[int, Tensor]:
    known = dict(module.named_buffers(remove_duplicate=False)) | dict(module.named_parameters(remove_duplicate=False))
    found = {id(tensor.value) for tensor in state.tensors}
    replacements: dict[int, Tensor] = {}
    for name, weight in weights.items():
        if name not in known:
            raise InputError(
                f"got a weight {name!r}, which the module does not have; expected a name; see named_parameters()"
            )
        if id(known[name]) not in found:
            raise InputError(
                f"got a weight {name!r} of a scripted module, which cannot hold another tensor; expected a plain one; "
                "leave out torch.jit.script, or leave the weight at w* by SGLDConfig(parameters=[...])"
            )
        replacements[id(known[name])] = weight
    return replacements


def _items(place: Place) -> list[tuple[Any, Any]]:
    contents = place.contents
    return list(contents.items() if isinstance(contents, dict) else enumerate(contents))


def _replaced(value: Any, replacements: Mapping[int, Tensor]) -> Any:
    """Returns the value or its replacement; rebuilds tuples and frozen sets if an element is replaced."""
    if isinstance(value, Tensor):
        return replacements.get(id(value), value)
    if type(value) is frozenset or isinstance(value, tuple):
        parts = [_replaced(part, replacements) for part in value]
        if any(a is not b for a, b in zip(parts, value, strict=True)):
            return type(value)(*parts) if hasattr(value, "_fields") else type(value)(parts)
    return value


def _put(place: Place, key: Any, value: Any) -> None:
    assert place.kind is not None
    if place.kind.put is not None:
        place.kind.put(place.value, key, value)
        return
    assert isinstance(place.contents, list)
    now = place.kind.read(place.value)
    place.kind.write(place.value, [value if entry is place.contents[key] else entry for entry in now])


def _add_ways(state: State, touched: dict[int, dict[Any, Any]]) -> None:
    """Also records the holders of changed containers, since a module may replace a container by a new one."""
    for number in list(touched):
        place = state.places[number]
        while place.parent >= 0 and not isinstance(place.value, nn.Module):
            parent = state.places[place.parent]
            value = parent.contents[place.key]
            if parent.kind is not None and parent.kind.put is not None:
                touched.setdefault(place.parent, {}).setdefault(place.key, value)
            place = parent


def _put_back(place: Place, own: dict[Any, Any]) -> None:
    """Restores the original objects, and keeps any objects added by the body."""
    kind, contents = place.kind, place.contents
    assert kind is not None
    now = kind.read(place.value)
    if isinstance(contents, dict) and isinstance(now, dict):
        order = [*(key for key in contents if key in now or key in own), *(key for key in now if key not in contents)]
        kind.write(place.value, {key: own[key] if key in own else now[key] for key in order})
    elif kind.put is not None and len(now) == len(contents):
        for key, value in own.items():
            kind.put(place.value, key, value)
    else:
        kind.write(place.value, contents)


@contextmanager
def _parametrizations_uncached() -> Iterator[None]:
    """Context that disables ``parametrize.cached()``, whose values were computed from the module's own weights."""
    enabled, cache = parametrize._cache_enabled, parametrize._cache
    parametrize._cache_enabled, parametrize._cache = 0, {}
    try:
        yield
    finally:
        parametrize._cache_enabled, parametrize._cache = enabled, cache
