"""Processes started by torchrun, which share the chains of each cell; the first one writes."""

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
"""Time limit of an exchange: a process waits for the slowest chains; torchrun ends it if another process fails."""


def local_rank() -> int | None:
    """Returns the number of this process on its machine if torchrun started it; else None."""
    return int(os.environ["LOCAL_RANK"]) if dist.is_torchelastic_launched() else None


@contextmanager
def joined_ranks() -> Iterator[ChainShare]:
    """Yields this process's share of the chains: all of them, unless torchrun started several processes.

    Draws are exchanged over gloo on the CPU, which costs little compared with their computation.
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
    """Replaces gloo's error for a process that has gone, which is long and names no reason."""
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
    """Collects the results one after the other, so that only one is in transit."""
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
    """Does some work in all processes, and continues only if none of them refuses it.

    Also a barrier: no process continues before all have finished.

    Args:
        share: of this process.
        work: the work; returns the result of this process.

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
