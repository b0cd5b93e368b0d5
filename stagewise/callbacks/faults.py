"""Faults while observing: reported once, counted, and never the end of the run that is observed."""

import gc
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

import torch
from lightning.pytorch.utilities import rank_zero_warn

from stagewise.errors import InputError
from stagewise.probes.history import Record

OnError = Literal["warn", "raise"]
"""``warn``: tell of a fault inside a probe, count it and train on. ``raise``: end the run with it."""

OUT_OF_MEMORY, DISK, LOGGER, LISTENER, PROBE, OTHER_RANK = (
    "out_of_memory", "disk", "logger", "listener", "probe", "other_rank",
)  # fmt: skip
"""Kinds of faults, as ``summary.json`` counts them."""

_ADVICE = {
    OUT_OF_MEMORY: "lower probe.chunk_size, sgld.batch_size or sgld.num_chains, or set sgld.engine: sequential",
    DISK: "make room, or make the folder writable: the next probe is written again",
    LOGGER: "look at the logger: influence.zarr has the values all the same",
    LISTENER: "fix the probe listener that raised",
    PROBE: "fix the cause named above; set on_error: raise for the full traceback",
    OTHER_RANK: "read the output of the other ranks",
}

_NO_MEMORY = ("out of memory", "can't allocate memory")


def kind_of(error: BaseException, where: str) -> str:
    """Kind of a fault.

    Args:
        error: what was raised.
        where: kind of what is neither memory nor disk.
    """
    told = str(error).lower()
    if isinstance(error, MemoryError | torch.OutOfMemoryError) or (
        isinstance(error, RuntimeError) and any(words in told for words in _NO_MEMORY)
    ):
        return OUT_OF_MEMORY
    return DISK if isinstance(error, OSError) else where


class Faults:
    """Catches what is raised while observing.

    Errors in settings (:class:`~stagewise.errors.InputError`) still go on while :attr:`starting`: before the first step
    of a session nothing is lost by them. So do all errors with ``on_error="raise"``, and always what is no
    ``Exception``: Ctrl-C, SIGTERM.
    """

    def __init__(self, on_error: OnError) -> None:
        """Nothing has gone wrong.

        Args:
            on_error: what to do about a fault.

        Raises:
            InputError: ``on_error`` is neither of the two words.
        """
        if on_error not in ("warn", "raise"):
            raise InputError(f"got on_error={on_error!r}; expected 'warn' or 'raise'; 'warn' is the default")
        self.on_error: OnError = on_error
        self.starting = False
        self.record = Record()
        """Counts the faults; a run's own may be put in its place."""

    def goes_on(self, error: Exception) -> bool:
        """True if an error is to be raised again."""
        return self.on_error == "raise" or (self.starting and isinstance(error, InputError))

    @contextmanager
    def contained(self, where: str, step: int) -> Iterator[None]:
        """Take in what the body raises.

        Args:
            where: kind of a fault that is neither of memory nor of the disk.
            step: training step.
        """
        try:
            yield
        except Exception as error:
            if self.goes_on(error):
                raise
            self.take(error, where, step)

    def take(self, error: Exception, where: str, step: int) -> None:
        """Count a fault; the first of its kind is told, with the place it came from and what to do."""
        kind = kind_of(error, where)
        if self.record.add_fault(kind, step) > 1:
            return
        frames = traceback.extract_tb(error.__traceback__)
        place = f" ({frames[-1].filename}:{frames[-1].lineno})" if frames else ""
        told = str(error).strip().splitlines() or [""]
        rank_zero_warn(
            f"stagewise: {_WHAT.get(kind, 'a fault')} at step {step}: {type(error).__name__}: {told[0]}{place}; "
            f"training continues unaffected; {_ADVICE[kind]}; later faults of this kind are only counted "
            "(probes_failed in summary.json)"
        )


_WHAT = {
    OUT_OF_MEMORY: "a probe ran out of memory",
    DISK: "results could not be written",
    LOGGER: "a logger failed",
    LISTENER: "what listens to the probes failed",
    PROBE: "a probe failed",
    OTHER_RANK: "a probe failed on another rank",
}


def free_memory() -> None:
    """Give back what a failed probe has left in caches."""
    gc.collect()
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        torch.cuda.empty_cache()


class OtherRankError(RuntimeError):
    """Stands for what went wrong on another rank."""
