"""Record of a tensor: bytes, shape and state in autograd."""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.grad_mode import _unsafe_preserve_version_counter

from stagewise.isolation.shards import local

_CHUNK = 2**20


def _bytes_of(tensor: Tensor) -> Tensor:
    """Returns all bytes of a tensor's storage, ``[byte]``, as a tensor over the same memory."""
    storage = tensor.untyped_storage()
    return torch.empty(0, dtype=torch.uint8, device=tensor.device).set_(storage, 0, (storage.nbytes(),), (1,))


def has_storage(tensor: Tensor) -> bool:
    """Returns True if the tensor is plain memory that can be copied and written."""
    plain = type(tensor) in (Tensor, torch.nn.Parameter, torch.nn.Buffer) or isinstance(tensor, torch.nn.Parameter)
    return plain and tensor.layout is torch.strided and tensor.device.type != "meta" and not is_lazy(tensor)


def is_lazy(value: Any) -> bool:
    """Returns True if a parameter or buffer has no shape yet."""
    return torch.nn.parameter.is_lazy(value)


def version_of(tensor: Tensor) -> int:
    """Returns the number of writes to the tensor counted by autograd; 0 for inference tensors."""
    return 0 if tensor.is_inference() else tensor._version


def checksum(tensor: Tensor) -> int:
    """Returns a number that depends on the bytes of a tensor (or of its local shard) and on their order."""
    tensor = local(tensor.detach())
    words = _bytes_of(tensor.contiguous().clone() if not tensor.is_contiguous() else tensor)
    total = torch.zeros((), dtype=torch.int64, device=tensor.device)
    whole = len(words) // 4 * 4
    numbers = words[:whole].view(torch.int32)
    factors = torch.arange(1, min(len(numbers), _CHUNK) + 1, device=tensor.device) * 2654435761
    for number, part in enumerate(numbers.split(_CHUNK)):
        total += (part * factors[: len(part)]).sum() * (2 * number + 1)
    return int(total) + int(words[whole:].sum())


class Memory:
    """Copies of the memory of tensors, each storage once, so that views and shared tensors are restored together."""

    def __init__(self) -> None:
        """Starts empty."""
        self._kept: dict[tuple[str, int], tuple[Tensor, Tensor]] = {}

    def keep(self, tensor: Tensor) -> None:
        """Copies the storage of a tensor, unless already copied."""
        key = storage_key(tensor)
        if key not in self._kept:
            memory = _bytes_of(tensor)
            self._kept[key] = memory, memory.clone()

    def restore(self) -> None:
        """Writes changed memory back; autograd does not count these writes."""
        with torch.no_grad():
            for memory, copy in self._kept.values():
                storage = memory.untyped_storage()
                if storage.nbytes() != len(copy):
                    storage.resize_(len(copy))
                    memory.set_(storage, 0, (len(copy),), (1,))
                if not torch.equal(memory, copy):
                    memory.copy_(copy)


def storage_key(tensor: Tensor) -> tuple[str, int]:
    """Returns a key that is equal for tensors over the same memory."""
    return str(tensor.device), local(tensor).untyped_storage().data_ptr()


class TensorRecord:
    """State of a tensor object, except its bytes."""

    __slots__ = (
        "_alias",
        "_copy",
        "_graph",
        "_leaf",
        "_requires_grad",
        "_slope",
        "_slope_version",
        "_version",
        "tensor",
    )

    def __init__(self, tensor: Tensor) -> None:
        """Records the state of a tensor.

        Args:
            tensor: kept alive by this record.
        """
        self.tensor = tensor
        self._alias = tensor.detach() if has_storage(tensor) else None
        self._copy = None
        if self._alias is None and tensor.device.type != "meta" and not is_lazy(tensor):
            self._copy = tensor.detach().clone()
        self._version = _unsafe_preserve_version_counter(() if tensor.is_inference() else (tensor,))
        self._leaf, self._requires_grad, self._graph = tensor.is_leaf, tensor.requires_grad, tensor.grad_fn
        self._slope = tensor.grad if tensor.is_leaf else None
        self._slope_version = None if self._slope is None else version_of(self._slope)

    @property
    def was_written(self) -> bool:
        """True if autograd has counted a write to the tensor since."""
        return bool(self._version.prev_versions) and self.tensor._version != self._version.prev_versions[0]

    @property
    def gradient_was_written(self) -> bool:
        """True if its gradient has been added to since."""
        return self._slope is not None and version_of(self._slope) != self._slope_version

    def restore(self) -> str | None:
        """Restores the object; returns a description of a change that cannot be undone, or None.

        :class:`Memory` must have restored the bytes before.
        """
        tensor, alias = self.tensor, self._alias
        if tensor.grad_fn is not self._graph:
            if not self._leaf or tensor._is_view():
                return "was changed in place as part of a graph"
            tensor.detach_()
        if alias is not None and not _same_memory(tensor, alias):
            tensor.data = alias
        if self._copy is not None and self.was_written:
            try:
                with torch.no_grad():
                    tensor.copy_(self._copy)
            except (RuntimeError, NotImplementedError):
                return f"was changed in place, a {type(tensor).__name__} of layout {tensor.layout}"
        if self._leaf and tensor.requires_grad != self._requires_grad:
            tensor.requires_grad_(self._requires_grad)
        if self._leaf and tensor.grad is not self._slope:
            tensor.grad = self._slope
        self._version.__exit__()
        return None


def _same_memory(left: Tensor, right: Tensor) -> bool:
    return (
        left.dtype == right.dtype
        and left.shape == right.shape
        and left.stride() == right.stride()
        and left.storage_offset() == right.storage_offset()
        and storage_key(left) == storage_key(right)
    )
