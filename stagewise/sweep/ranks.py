"""Processes that torchrun started: they share the chains of each cell, and the first of them writes."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import Any, TypeVar

import torch.distributed as dist

from stagewise.errors import InputError
from stagewise.sampling.share import ALONE, ChainShare

T = TypeVar("T")

_PATIENCE = timedelta(days=1)
"""A process waits for the slowest chains of a cell; torchrun ends it where another one fails."""


def local_rank() -> int | None:
    """Returns the number of this process on its machine, where torchrun started it; else None."""
    return int(os.environ["LOCAL_RANK"]) if dist.is_torchelastic_launched() else None


@contextmanager
def joined_ranks() -> Iterator[ChainShare]:
    """This process's share of the chains: all of them, unless torchrun started it beside others.

    Draws travel over gloo, by way of the CPU: they are few beside what is computed for them.
    """
    if not dist.is_torchelastic_launched():
        yield ALONE
        return
    dist.init_process_group("gloo", timeout=_PATIENCE)
    try:
        yield ChainShare(dist.get_rank(), dist.get_world_size(), _gathered, _collected, _decided)
    finally:
        dist.destroy_process_group()


@contextmanager
def _others_alive() -> Iterator[None]:
    """Gloo's word for a process that has gone is long, and says nothing of why."""
    try:
        yield
    except RuntimeError as error:
        raise SystemExit("stagewise: another process of this sweep has ended; see what it said") from error


def _gathered(mine: Any) -> list[Any]:
    found: list[Any] = [None] * dist.get_world_size()
    with _others_alive():
        dist.all_gather_object(found, mine)
    return found


def _collected(work: Callable[[], Any]) -> list[Any] | None:
    """One after the other, so that what is on its way is that of one process."""
    mine = work()
    with _others_alive():
        if dist.get_rank() != 0:
            dist.send_object_list([mine], dst=0)
            return None
        found = [mine]
        for rank in range(1, dist.get_world_size()):
            box = [None]
            dist.recv_object_list(box, src=rank)
            found.append(box[0])
        return found


def _decided(work: Callable[[], Any]) -> Any:
    found = [work() if dist.get_rank() == 0 else None]
    with _others_alive():
        dist.broadcast_object_list(found, src=0)
    return found[0]


def agreed(share: ChainShare, work: Callable[[], T]) -> T:
    """Does something that may be refused in all processes, and goes on only where it was refused in none.

    Also a barrier: none goes on before all have ended it.

    Args:
        share: of this process.
        work: what to do; returns what this process finds.

    Raises:
        InputError: in the first process: the first refusal.
        SystemExit: in the others, with status 2: one line is enough.
    """
    found, refusal = None, None
    try:
        found = work()
    except InputError as error:
        if share.world_size == 1:
            raise
        refusal = str(error)
    refusals = [error for error in share.gather(refusal) if error is not None]
    if refusals and share.is_first:
        raise InputError(refusals[0])
    if refusals:
        with suppress(SystemExit):
            share.gather(None)  # until the first has said it: torchrun ends it when another one ends
        raise SystemExit(2)
    return found  # type: ignore[return-value]
