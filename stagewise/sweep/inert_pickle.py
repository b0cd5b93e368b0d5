"""Reader of tensors in a pickle that has other objects, too, without running any of their code."""

import pickle
from collections import OrderedDict
from pathlib import Path
from typing import Any

import torch

_REBUILT = {"_rebuild_tensor_v2", "_rebuild_parameter", "_rebuild_tensor"}


class Inert:
    """Placeholder for an object of a class that is not loaded: accepts every operation of a pickle and ignores it."""

    def __new__(cls, *_: Any, **__: Any) -> "Inert":  # noqa: D102
        return object.__new__(cls)

    def __init__(self, *_: Any, **__: Any) -> None:
        pass

    def __call__(self, *_: Any, **__: Any) -> "Inert":  # noqa: D102
        return self

    def __setstate__(self, _: Any) -> None:
        pass

    def __setitem__(self, _: Any, __: Any) -> None:
        pass

    def append(self, _: Any) -> None:
        """Ignores an entry, in place of a list."""

    def extend(self, _: Any) -> None:
        """Ignores entries, in place of a list."""

    def add(self, _: Any) -> None:
        """Ignores an entry, in place of a set."""


class Unpickler(pickle.Unpickler):
    """Unpickler of tensors, their storages and ordered dictionaries; everything else is :class:`Inert`."""

    def find_class(self, module: str, name: str) -> Any:
        """See :class:`pickle.Unpickler`."""
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        if module == "torch._utils" and name in _REBUILT:
            return getattr(torch._utils, name)
        if module in ("torch", "torch.storage"):
            value = getattr(torch if module == "torch" else torch.storage, name, None)
            storage = isinstance(value, type) and name.endswith("Storage")
            if storage or name == "Size" or isinstance(value, torch.dtype):
                return value
        return Inert


Pickler = pickle.Pickler
HIGHEST_PROTOCOL = pickle.HIGHEST_PROTOCOL


def load(file: Any, **settings: Any) -> Any:
    """Loads like :func:`pickle.load`, with :class:`Unpickler`."""
    return Unpickler(file, **settings).load()


def read_tensors(path: Path) -> Any:
    """Reads a file written by ``torch.save``, with :class:`Inert` in place of objects that are not plain data.

    No code named in the file is run: classes and functions are looked up in a short list only.

    Args:
        path: of the file.
    """
    import sys

    return torch.load(path, map_location="cpu", pickle_module=sys.modules[__name__], weights_only=False)
