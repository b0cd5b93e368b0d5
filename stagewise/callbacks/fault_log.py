"""Errors of the observing code: reported once per kind, counted, and never fatal to training.

Errors of a probe as a whole are caught in :func:`stagewise.callbacks.probe_attempt.attempt`, on all ranks together;
all others (files, loggers, listeners) in :meth:`Faults.contained`.
"""

import gc
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

import torch
from lightning.pytorch.utilities import rank_zero_warn

from stagewise.errors import InputError, first_line
from stagewise.probes.history import Record

OnError = Literal["warn", "raise"]
"""``warn``: report an error inside a probe, count it and continue training. ``raise``: raise it."""

OUT_OF_MEMORY, DISK, LOGGER, LISTENER, PROBE, OTHER_RANK = (
    "out_of_memory", "disk", "logger", "listener", "probe", "other_rank",
)  # fmt: skip
"""Kinds of faults, as ``summary.json`` counts them."""

_ADVICE = {
    OUT_OF_MEMORY: "lower probe.chunk_size, sgld.batch_size or sgld.num_chains, or set sgld.engine: sequential",
    DISK: "free disk space, or make the folder writable; the next probe will be written",
    LOGGER: "check the logger: influence.zarr has the values",
    LISTENER: "fix the probe listener that raised",
    PROBE: "fix the cause named above; set on_error: raise for the full traceback",
    OTHER_RANK: "read the output of the other ranks",
}

_NO_MEMORY = ("out of memory", "can't allocate memory")


def kind_of(error: BaseException, where: str) -> str:
    """Returns the kind of an error.

    Args:
        error: raised exception.
        where: kind of an error that concerns neither memory nor disk.
    """
    message = str(error).lower()
    if isinstance(error, MemoryError | torch.OutOfMemoryError) or (
        isinstance(error, RuntimeError) and any(words in message for words in _NO_MEMORY)
    ):
        return OUT_OF_MEMORY
    return DISK if isinstance(error, OSError) else where


class Faults:
    """Catches and counts errors of the observing code.

    Errors in settings (:class:`~stagewise.errors.InputError`) are raised while :attr:`starting`, before the first step
    of a session. So are all errors with ``on_error="raise"``, and anything that is not an ``Exception``, such as Ctrl-C
    and SIGTERM.
    """

    def __init__(self, on_error: OnError) -> None:
        """Starts with no errors.

        Args:
            on_error: reaction to an error.

        Raises:
            InputError: ``on_error`` has another value.
        """
        if on_error not in ("warn", "raise"):
            raise InputError(f"got on_error={on_error!r}; expected 'warn' or 'raise'; 'warn' is the default")
        self.on_error: OnError = on_error
        self.starting = False
        self.record = Record()
        """Counts the errors; may be replaced by that of a run."""

    def is_fatal(self, error: Exception) -> bool:
        """Returns True if an error is to be raised."""
        return self.on_error == "raise" or (self.starting and isinstance(error, InputError))

    @contextmanager
    def contained(self, where: str, step: int) -> Iterator[None]:
        """Catches errors in the context.

        Args:
            where: kind of an error that concerns neither memory nor disk.
            step: training step.
        """
        try:
            yield
        except Exception as error:
            if self.is_fatal(error):
                raise
            self.take(error, where, step)

    def take(self, error: Exception, where: str, step: int) -> None:
        """Counts an error; the first of its kind is reported, with its origin and a remedy."""
        kind = kind_of(error, where)
        if self.record.add_fault(kind, step) > 1:
            return
        frames = traceback.extract_tb(error.__traceback__)
        place = f" ({frames[-1].filename}:{frames[-1].lineno})" if frames else ""
        rank_zero_warn(
            f"stagewise: {_WHAT.get(kind, 'a fault')} at step {step}: {first_line(error, typed=True)}{place}; "
            f"training continues unaffected; {_ADVICE[kind]}; further errors of this kind are only counted "
            "(probes_failed in summary.json)"
        )


_WHAT = {
    OUT_OF_MEMORY: "a probe ran out of memory",
    DISK: "results could not be written",
    LOGGER: "a logger failed",
    LISTENER: "a probe listener failed",
    PROBE: "a probe failed",
    OTHER_RANK: "a probe failed on another rank",
}


def free_memory() -> None:
    """Frees the caches left by a failed probe."""
    gc.collect()
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        torch.cuda.empty_cache()


class OtherRankError(RuntimeError):
    """Error on another rank."""
