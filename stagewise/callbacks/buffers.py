"""Buffers under DDP: each rank has its own, such as the running statistics of a norm; probes look at one."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from lightning.pytorch import LightningModule, Trainer

from stagewise.isolation import untouched


@contextmanager
def rank_zero_buffers(trainer: Trainer, module: LightningModule) -> Iterator[None]:
    """Give every rank the buffers of rank zero inside the body, so that all ranks find the same; all must enter it.

    Args:
        trainer: of the run.
        module: gets its own buffers back, bit for bit, on every way out.
    """
    if trainer.world_size == 1:
        yield
        return
    own = [buffer.detach().cpu() for buffer in module.buffers()]
    theirs = trainer.strategy.broadcast(own)
    with untouched(module):
        with torch.no_grad():
            for buffer, value in zip(module.buffers(), theirs, strict=True):
                buffer.copy_(value)
        yield
