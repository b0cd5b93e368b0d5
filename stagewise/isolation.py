"""Look at a module without leaving a trace: flags, buffers and random states as they were, also after an exception."""

import random
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call

T = TypeVar("T")


@contextmanager
def _global_rng_restored() -> Iterator[None]:
    torch_state = torch.get_rng_state()
    cuda_states = torch.cuda.get_rng_state_all() if torch.cuda.is_available() and torch.cuda.is_initialized() else None
    # The legacy state is what `np.random.*` functions and Lightning's own seeding share.
    numpy_state = np.random.get_state()  # noqa: NPY002
    python_state = random.getstate()
    try:
        yield
    finally:
        torch.set_rng_state(torch_state)
        if cuda_states is not None:
            torch.cuda.set_rng_state_all(cuda_states)
        np.random.set_state(numpy_state)  # noqa: NPY002
        random.setstate(python_state)


@contextmanager
def untouched(module: nn.Module) -> Iterator[None]:
    """Put ``module`` in eval mode for a look, then leave it bit for bit as it was.

    Restored on every way out: train and eval flags of each submodule (``module.train()`` would wake parts that were
    frozen in eval mode), buffers (the body works on clones), and the global random states of torch (CPU and CUDA),
    numpy and ``random``. Parameters are not copied: evaluate other weights through :func:`with_weights`.

    Args:
        module: any module.
    """
    flags = [(child, child.training) for child in module.modules()]
    buffers = [(child, name, buffer) for child in module.modules() for name, buffer in child._buffers.items()]
    clones: dict[int, Tensor] = {}
    with _global_rng_restored():
        try:
            for child, name, buffer in buffers:
                if buffer is not None:
                    # One clone for each buffer, so that shared buffers stay shared.
                    child._buffers[name] = clones.setdefault(id(buffer), buffer.clone())
            # Not `module.eval()`: an overridden `train()` may do more than set flags (LoRA merges its weights there).
            for child in module.modules():
                child.training = False
            yield
        finally:
            for child, name, buffer in buffers:
                child._buffers[name] = buffer
            for child, training in flags:
                child.training = training


class _Scope(nn.Module):
    """Gives ``functional_call`` something whose forward is any function of the module."""

    def __init__(self, module: nn.Module, body: Callable[[], Any]) -> None:
        super().__init__()
        self.module = module
        self.body = body

    def forward(self) -> Any:
        return self.body()


def with_weights(module: nn.Module, weights: Mapping[str, Tensor], body: Callable[[], T]) -> T:
    """Run ``body`` while ``module`` holds other parameter tensors; the module's own are never written to.

    Any method of the module sees ``weights``; hooks, gradients and optimizer references of the real parameters are
    out of reach. Tied parameters stay tied. The tensors may be changed in place inside ``body``.

    Args:
        module: any module.
        weights: replacements by parameter name, as in ``module.named_parameters()``.
        body: what to run; its result is returned.
    """
    return functional_call(_Scope(module, body), {f"module.{name}": weight for name, weight in weights.items()}, ())
