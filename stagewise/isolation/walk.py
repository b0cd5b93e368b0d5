"""Walk over all state reachable from an object: attributes, containers, closures of hooks, tensors, generators.

The walk does not enter objects that are not part of a module: trainers, loggers, optimizers, loaders, data sets, files,
threads.
"""

import functools
import random
import sys
import types
import weakref
from collections import deque
from enum import Enum
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

import stagewise.isolation.containers as containers
from stagewise.isolation.containers import Contents, Kind

DEEPEST = 4
"""Depth up to which objects of unknown classes are entered."""

_LEAVES = (
    types.NoneType, bool, int, float, complex, str, bytes, type, range, slice, torch.dtype, torch.device, torch.Size,
    torch.layout, torch.memory_format, types.ModuleType, types.BuiltinFunctionType, types.EllipsisType,
    types.CodeType, property,
)  # fmt: skip
LEAVES = frozenset(_LEAVES)
"""Exact types whose values are immutable."""

_STANDARD = sys.stdlib_module_names - {"__main__"}
_OPEN_ROOTS = frozenset(
    {"builtins", "abc", "typing", "typing_extensions", "collections", "types", "functools", "argparse"}
)
_CLOSED_ROOTS = frozenset(
    {
        "lightning",
        "pytorch_lightning",
        "lightning_fabric",
        "lightning_utilities",
        "tensorboard",
        "wandb",
        "mlflow",
        "numpy",
    }
)
_OPEN_IN_TORCH = ("torch.nn.", "torch.distributions.")
_OPEN_IN_TORCH_DATA = ("torch.utils.data.dataset", "torch.utils.data.sampler")

_RANDOM = (torch.Generator, random.Random, np.random.Generator, np.random.RandomState, np.random.BitGenerator)

_SHARED = (Tensor, list, dict, set, deque, tuple, np.ndarray, *_RANDOM)
"""Types of class attributes whose contents are recorded; replaced attributes of any type are noticed."""


@functools.lru_cache(maxsize=4096)
def _is_open(cls: type, data: bool) -> bool:
    """Returns True if the walk enters the attributes of objects of this class."""
    if issubclass(cls, Enum | BaseException):
        return False
    for base in cls.__mro__:
        name = base.__module__
        root = name.partition(".")[0]
        if root == "torch":
            if not (name.startswith(_OPEN_IN_TORCH) or (data and name.startswith(_OPEN_IN_TORCH_DATA))):
                return False
        elif root in _CLOSED_ROOTS or (root in _STANDARD and root not in _OPEN_ROOTS):
            return False
    return True


@functools.lru_cache(maxsize=4096)
def _is_iterator(cls: type) -> bool:
    return hasattr(cls, "__next__") and cls.__module__ in ("builtins", "itertools")


@functools.lru_cache(maxsize=4096)
def _own_classes(cls: type) -> tuple[type, ...]:
    """Returns the base classes of a module outside of libraries, whose attributes are shared state."""
    libraries = {"torch", "lightning", "pytorch_lightning", "torchmetrics", "transformers"} | _STANDARD
    return tuple(base for base in cls.__mro__ if base.__module__.partition(".")[0] not in libraries)


class Found:
    """Object found by the walk, with its place.

    Attributes:
        value: the object.
        parent: number of the place that holds it, -1 for the root.
        key: key of the object in that place.
    """

    __slots__ = ("key", "parent", "value")

    def __init__(self, value: Any, parent: int, key: Any) -> None:
        self.value, self.parent, self.key = value, parent, key


class Place(Found):
    """Container found by the walk, with its contents at that time.

    Attributes:
        kind: functions to read and write it; None for immutable containers.
        contents: shallow copy of the contents.
    """

    __slots__ = ("contents", "kind")

    def __init__(self, value: Any, parent: int, key: Any, kind: Kind | None, contents: Contents) -> None:
        super().__init__(value, parent, key)
        self.kind, self.contents = kind, contents


class State:
    """All state reachable from a module or a data set, each object once.

    Attributes:
        places: containers, each before its contents.
        tensors: all tensors.
        random: random number generators.
        arrays: numpy arrays.
        iterators: iterators.
    """

    def __init__(self) -> None:
        self.places: list[Place] = []
        self.tensors: list[Found] = []
        self.random: list[Found] = []
        self.arrays: list[Found] = []
        self.iterators: list[Found] = []

    def name(self, found: Found) -> str:
        """Returns the path of an object from the root in Python notation: ``encoder.cache[0]``."""
        steps: list[str] = []
        while found.parent >= 0:
            place = self.places[found.parent]
            kind = place.kind
            if kind is None:
                steps.append(f"[{found.key}]" if isinstance(place.value, tuple) else "{...}")
            elif kind is containers.DICT and place.key in ("_modules", "_parameters", "_buffers"):
                # As in named_parameters(), without the names of a module's internal dictionaries.
                steps.append(f".{found.key}")
                place = self.places[place.parent]
            else:
                steps.append(kind.step(found.key))
            found = place
        return "".join(reversed(steps)).lstrip(".")


def walk(root: object, *, data: bool = False) -> State:
    """Finds all state reachable from ``root``.

    Args:
        root: a module or a data set.
        data: True if ``root`` is a data set: the walk then enters data sets and samplers inside it, and ignores long
            containers, tensors and arrays, which are data.
    """
    return _Walk(data).run(root)


_LONGEST_IN_DATA = 1000


class _Walk:
    def __init__(self, data: bool) -> None:
        self._data = data
        self._deepest = 2 * DEEPEST if data else DEEPEST  # subsets of subsets, with transforms of transforms
        self._state = State()
        self._seen: dict[Any, Any] = {}  # keeps visited objects alive, so that no id is reused
        self._pending: deque[tuple[Any, int, Any, int]] = deque()

    def run(self, root: object) -> State:
        self._pending.append((root, -1, "", 0))
        while self._pending:
            self._visit(*self._pending.popleft())
        return self._state

    def _place(self, value: Any, parent: int, key: Any, kind: Kind | None, depth: int, contents: Contents) -> None:
        number = len(self._state.places)
        if self._data and len(contents) > _LONGEST_IN_DATA:
            return
        self._state.places.append(Place(value, parent, key, kind, contents))
        items = contents.items() if isinstance(contents, dict) else enumerate(contents)
        pending, seen = self._pending, self._seen
        for name, held in items:
            if type(held) not in LEAVES and id(held) not in seen:
                pending.append((held, number, name, depth))

    def _visit(self, value: Any, parent: int, key: Any, depth: int) -> None:
        if id(value) in self._seen:
            return
        state = self._state
        if isinstance(value, Tensor):
            self._seen[id(value)] = value
            if self._data:
                return
            state.tensors.append(Found(value, parent, key))
        elif isinstance(value, nn.Module):
            self._seen[id(value)] = value
            if not isinstance(value, torch.jit.ScriptModule):
                self._place(value, parent, key, containers.ATTRIBUTES, depth, dict(value.__dict__))
                self._classes(type(value), parent, key, depth)
        else:
            self._other(value, parent, key, depth)

    def _classes(self, cls: type, parent: int, key: Any, depth: int) -> None:
        for base in _own_classes(cls):
            if id(base) not in self._seen:
                self._seen[id(base)] = base
                contents = containers.CLASS.read(base)
                assert isinstance(contents, dict)
                number = len(self._state.places)
                self._state.places.append(Place(base, parent, key, containers.CLASS, contents))
                for name, held in contents.items():
                    # Methods and descriptors have no relevant state.
                    if isinstance(held, _SHARED):
                        self._pending.append((held, number, name, depth))

    def _other(self, value: Any, parent: int, key: Any, depth: int) -> None:
        cls: Any = type(value)
        state, seen = self._state, self._seen
        kind = _kind(value)
        if kind is not None:
            seen[id(value)] = value
            self._place(value, parent, key, kind, depth, kind.read(value))
            if hasattr(value, "__dict__") and value.__dict__:
                self._place(value, parent, key, containers.ATTRIBUTES, depth, dict(value.__dict__))
        elif isinstance(value, tuple | frozenset):
            seen[id(value)] = value
            self._place(value, parent, key, None, depth, list(value))
        elif isinstance(value, _RANDOM):
            seen[id(value)] = value
            state.random.append(Found(value, parent, key))
        elif isinstance(value, np.ndarray):
            seen[id(value)] = value
            # A memory-mapped file is data, and may be as large as the disk.
            if not (self._data or isinstance(value, np.memmap)):
                state.arrays.append(Found(value, parent, key))
        elif _is_iterator(cls):
            seen[id(value)] = value
            state.iterators.append(Found(value, parent, key))
        elif depth < self._deepest and not isinstance(value, type | weakref.ref):
            self._object(value, parent, key, depth + 1)

    def _object(self, value: Any, parent: int, key: Any, depth: int) -> None:
        cls: Any = type(value)
        if cls is types.FunctionType:
            self._seen[id(value)] = value
            if value.__closure__:
                self._place(value, parent, key, containers.CELLS, depth, containers.CELLS.read(value))
            if value.__dict__:
                self._place(value, parent, key, containers.ATTRIBUTES, depth, dict(value.__dict__))
            defaults = (*(value.__defaults__ or ()), *(value.__kwdefaults__ or {}).values())
            if any(type(value) not in LEAVES for value in defaults):
                self._place(defaults, parent, key, None, depth, list(defaults))
        elif cls is types.MethodType:
            self._seen[id(value)] = value
            self._pending.append((value.__self__, parent, key, depth))
            self._pending.append((value.__func__, parent, key, depth))
        elif isinstance(value, functools.partial):
            self._seen[id(value)] = value
            self._place(value, parent, key, None, depth, [value.func, *value.args, *value.keywords.values()])
        elif _is_open(cls, self._data) and (self._data or not isinstance(value, Dataset)):
            self._seen[id(value)] = value
            if hasattr(value, "__dict__"):
                self._place(value, parent, key, containers.ATTRIBUTES, depth, dict(value.__dict__))
            slots = containers.SLOTS.read(value)
            if slots:
                self._place(value, parent, key, containers.SLOTS, depth, slots)


def _kind(value: Any) -> Kind | None:
    if isinstance(value, dict):
        return containers.DICT
    if isinstance(value, list):
        return containers.LIST
    if isinstance(value, set):
        return containers.SET
    return containers.DEQUE if isinstance(value, deque) else None
