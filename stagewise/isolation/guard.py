"""Evaluation that restores a module and the random states, even after an exception."""

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import nn

from stagewise.errors import InputError
from stagewise.isolation.shards import recover, reshard
from stagewise.isolation.snapshot import restored
from stagewise.isolation.tensors import is_lazy


@contextmanager
def global_random_restored() -> Iterator[None]:
    """Context that restores the global random states of torch (CPU and CUDA), numpy and ``random`` afterwards."""
    torch_state = torch.get_rng_state()
    cuda_states = torch.cuda.get_rng_state_all() if torch.cuda.is_available() and torch.cuda.is_initialized() else None
    # The legacy state, used by `np.random.*` functions and Lightning's seeding.
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
def untouched(module: nn.Module, *, checksums: bool = False) -> Iterator[None]:
    """Context in which ``module`` is in eval mode; restores it afterwards, bit for bit.

    Even after an exception it restores the training flag of each submodule (``module.train()`` would also change parts
    frozen in eval mode), everything seen by :class:`~stagewise.isolation.snapshot.Snapshot`, and the global random
    states of torch (CPU and CUDA), numpy and ``random``. Parameters are not copied: evaluate other weights through
    :func:`~stagewise.isolation.with_weights`. Inside the context, ``grad`` of all parameters is None, and embeddings
    give dense gradients.

    Args:
        module: any module.
        checksums: also detect writes to parameters that autograd does not count; reads all parameters twice.

    Raises:
        InputError: a parameter or buffer has no shape yet, or the body made a change that cannot be undone.
    """
    refuse_lazy(module)
    # The state between training steps: a pass may have left whole weights in place of shards.
    reshard(module)
    flags = [(child, child.training) for child in module.modules()]
    with global_random_restored(), restored(module, checksums=checksums):
        try:
            # Not `module.eval()`: an overridden `train()` may do more than set flags (LoRA merges its weights there).
            for parameter in module.parameters():
                # Restored with the rest; a loss that calls backward() would add to it.
                parameter.grad = None
            for child in module.modules():
                child.training = False
                if isinstance(child, nn.Embedding | nn.EmbeddingBag):
                    # Sparse gradients have no second derivative and no dot product; the numbers are the same.
                    child.sparse = False
            yield
        finally:
            recover(module)
            # The snapshot does not reach the flags of scripted modules.
            for child, training in flags:
                child.training = training


def refuse_lazy(module: nn.Module) -> None:
    """Refuses parameters and buffers whose shape is unknown before the first batch.

    Raises:
        InputError: such a parameter or buffer; the message names the first.
    """
    named = [*module.named_parameters(), *module.named_buffers()]
    lazy = [name for name, value in named if is_lazy(value)]
    if lazy:
        more = "" if len(lazy) == 1 else f" and {len(lazy) - 1} more"
        raise InputError(
            f"got {lazy[0]!r}{more} without a shape: a lazy module that has not seen a batch; expected shapes before "
            "training starts, or a probe would draw the initial weights; run one batch through the module before fit, "
            "e.g. self(self.example_input_array) at the end of __init__"
        )
