"""Snapshot of a module that can be restored later: everything reachable from its attributes."""

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
from torch import nn

import stagewise.isolation.containers as containers
from stagewise.errors import InputError
from stagewise.isolation.tensors import Memory, TensorRecord, checksum, has_storage, storage_key
from stagewise.isolation.walk import Found, walk


class Lost(NamedTuple):
    """Change that cannot be undone.

    Attributes:
        name: path of the changed object from the module.
        change: description of the change.
        advice: advice on how to avoid it.
    """

    name: str
    change: str
    advice: str


_COMPUTE = "compute with a copy of it"


class Snapshot:
    """Parts of a module and their values; :meth:`restore` brings back the identical objects with the same bits.

    It covers the attributes of the module and all its submodules, the contents of lists, dictionaries, tuples, sets,
    dataclasses and other objects among them, closures of hooks, tensors, arrays and random generators, and attributes
    of the module's own classes. It does not cover global variables, nor the state of trainers, loggers, optimizers and
    loaders.

    Parameters are not copied, so that it is cheap for large models: their identity, place, shape, memory and number of
    writes are compared. Everything else is copied.
    """

    def __init__(self, root: object, *, checksums: bool = False, data: bool = False) -> None:
        """Records the current state of ``root``.

        Args:
            root: a module or a data set.
            checksums: also read all parameters, to detect writes that autograd does not count (by ``.data``).
            data: True if ``root`` is a data set: tensors, arrays and long containers in it are ignored.
        """
        self._state = state = walk(root, data=data)
        self._memory = Memory()
        self._tensors = [(found, TensorRecord(found.value)) for found in state.tensors]
        plain = [found for found in state.tensors if has_storage(found.value)]
        # Embeddings with max_norm write to their own weight in each forward pass.
        renormed = {
            id(place.value.weight)
            for place in state.places
            if isinstance(place.value, nn.Embedding | nn.EmbeddingBag) and place.value.max_norm is not None
        }
        # Parameters not registered in a module (e.g. a moving average kept in a list) are copied.
        registered = root.parameters() if isinstance(root, nn.Module) else ()
        self._weights = {id(weight) for weight in registered} - renormed
        uncopied = {storage_key(found.value) for found in plain if id(found.value) in self._weights}
        for found in plain:
            if storage_key(found.value) not in uncopied:
                self._memory.keep(found.value)
        self._checksums = {
            id(found.value): checksum(found.value) for found in plain if checksums and id(found.value) in self._weights
        }
        self._random = [(found, _random_state(found.value)) for found in state.random]
        self._arrays = [(found, found.value.copy()) for found in state.arrays]
        self._iterators = [(found, _position(found.value)) for found in state.iterators]

    def restore(self) -> list[Lost]:
        """Restores everything.

        Returns:
            Changes that could not be undone.
        """
        lost = []
        for place in self._state.places:
            if place.kind is not None and not containers.same(place.kind.read(place.value), place.contents):
                place.kind.write(place.value, place.contents)
        self._memory.restore()
        for found, record in self._tensors:
            lost += self._restore_tensor(found, record)
        for found, state in self._random:
            _set_random_state(found.value, state)
        for found, copy in self._arrays:
            lost += self._restore_array(found, copy)
        for found, position in self._iterators:
            if _position(found.value) != position:
                lost.append(Lost(self._state.name(found), "was advanced", "keep a number in its place and add to that"))
        return lost

    def changed(self) -> list[str]:
        """Lists attributes and entries of containers that have been replaced, by their path from the module."""
        names = []
        for number, place in enumerate(self._state.places):
            if place.kind is None:
                continue
            now = place.kind.read(place.value)
            if not containers.same(now, place.contents):
                names += [self._state.name(Found(None, number, key)) for key in _differing(place.contents, now)]
        return names

    def _restore_tensor(self, found: Found, record: TensorRecord) -> list[Lost]:
        is_weight = id(found.value) in self._weights
        name = self._state.name(found)
        written = is_weight and record.was_written
        failure = record.restore()
        if failure is not None:
            return [Lost(name, failure, "detach what is kept between calls")]
        kept = self._checksums.get(id(found.value))
        if written if kept is None else checksum(found.value) != kept:
            return [Lost(name, "was written to, a parameter", _COMPUTE)]
        if record.gradient_was_written:
            return [Lost(f"{name}.grad", "was added to", "take gradients by torch.autograd.grad, not by backward()")]
        return []

    def _restore_array(self, found: Found, copy: "np.ndarray[Any, Any]") -> list[Lost]:
        array = found.value
        if array.shape == copy.shape and array.dtype == copy.dtype and _same_array(array, copy):
            return []
        try:
            if array.shape != copy.shape:
                array.resize(copy.shape, refcheck=False)
            np.copyto(array, copy)
        except (ValueError, TypeError):
            return [Lost(self._state.name(found), "was changed in place, an array that cannot be set", _COMPUTE)]
        return []


def _same_array(left: "np.ndarray[Any, Any]", right: "np.ndarray[Any, Any]") -> bool:
    if left.dtype.hasobject:
        return all(a is b for a, b in zip(left.flat, right.flat, strict=True))
    return left.tobytes() == right.tobytes()


def _differing(before: containers.Contents, now: containers.Contents) -> list[Any]:
    """Returns the keys or positions at which two copies of a container hold different objects."""
    left, right = (held if isinstance(held, dict) else dict(enumerate(held)) for held in (before, now))
    return [key for key in {**left, **right} if key not in left or key not in right or left[key] is not right[key]]


def _random_state(generator: Any) -> Any:
    if isinstance(generator, random.Random):
        # SystemRandom has no state.
        return None if isinstance(generator, random.SystemRandom) else generator.getstate()
    if isinstance(generator, np.random.Generator):
        return generator.bit_generator.state
    if isinstance(generator, np.random.BitGenerator):
        return generator.state
    return generator.get_state()


def _set_random_state(generator: Any, state: Any) -> None:
    if isinstance(generator, random.Random):
        if state is not None:
            generator.setstate(state)
    elif isinstance(generator, np.random.Generator):
        generator.bit_generator.state = state
    elif isinstance(generator, np.random.BitGenerator):
        generator.state = state
    else:
        generator.set_state(state)


def _position(iterator: Any) -> object:
    """Returns the position of an iterator, as text, numbers or None."""
    frame = getattr(iterator, "gi_frame", None)
    if hasattr(iterator, "gi_frame"):
        return None if frame is None else (frame.f_lasti, repr(sorted(map(str, frame.f_locals.items()))))
    if type(iterator).__module__ == "itertools" and type(iterator).__name__ in ("count", "repeat"):
        return repr(iterator)
    hint = getattr(iterator, "__length_hint__", None)
    return hint() if hint is not None else None


@contextmanager
def restored(module: nn.Module, *, checksums: bool = False) -> Iterator[None]:
    """Context in which anything in ``module`` may change; restores it afterwards, even after an exception.

    Args:
        module: any module.
        checksums: see :class:`Snapshot`.

    Raises:
        InputError: a change cannot be undone; the message names the attribute.
    """
    snapshot = Snapshot(module, checksums=checksums)
    try:
        yield
    except BaseException:
        _whole(snapshot.restore)
        raise
    _refuse(_whole(snapshot.restore))


def _whole(restore: Callable[[], list[Lost]]) -> list[Lost]:
    try:
        return restore()
    except KeyboardInterrupt:
        # Never leave a half-restored module: restore again from the start.
        restore()
        raise


def _refuse(lost: list[Lost]) -> None:
    if lost:
        name, change, advice = lost[0]
        more = (
            "" if len(lost) == 1 else f" (and {len(lost) - 1} more: {', '.join(change.name for change in lost[1:4])})"
        )
        raise InputError(
            f"got a loss or forward pass in which {name!r}{more} {change}, which cannot be undone, so that a probe "
            f"changes training; expected one that leaves the module as it is, or changes what can be put back; "
            f"{advice} where self.training is False"
        )
