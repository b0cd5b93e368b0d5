"""Data loader whose order is a function of (seed, epoch) and which can be stopped and resumed anywhere."""

from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import torch
from torch.utils.data import DataLoader, Dataset

from stagewise.errors import InputError
from stagewise.loading.order import EpochBatches, SeededBatches

T = TypeVar("T")


def _as_it_is(rows: T) -> T:
    return rows


def check_size(size: int, batch_size: int) -> None:
    """Refuses a data set of less than one batch.

    Raises:
        InputError: fewer than ``batch_size`` samples, or a batch size below 1.
    """
    if batch_size < 1 or size < batch_size:
        raise InputError(
            f"got {size} samples for batches of {batch_size}; expected at least one full batch; "
            "give more data or a smaller batch_size"
        )


class EpochLoader(DataLoader):
    """``DataLoader`` over :class:`~stagewise.loading.order.EpochBatches` that tracks its place in the epoch.

    Lightning stores ``state_dict`` in its checkpoints, so that a run resumed in mid-epoch sees exactly the batches of
    an uninterrupted one. Batches count as consumed when they leave the loader, whatever workers have prefetched.
    """

    def __init__(
        self,
        dataset: Dataset,
        batches: EpochBatches,
        *,
        num_workers: int = 0,
        collate_fn: Callable[[Any], Any] | None = None,
        **kwargs: Any,
    ) -> None:
        """Sets data set and sampler.

        Args:
            dataset: map-style data set with a length. Its ``__getitems__``, if present, is called for a whole batch.
            batches: sampler of the batches.
            num_workers: as in ``DataLoader``.
            collate_fn: as in ``DataLoader``; by default the return value of ``__getitems__`` is the batch.
            **kwargs: further arguments of ``DataLoader``.
        """
        if collate_fn is None and hasattr(dataset, "__getitems__"):
            collate_fn = _as_it_is
        # Without its own generator, DataLoader would draw a base seed from the global random state.
        kwargs.setdefault("generator", torch.Generator().manual_seed(batches.seed))
        super().__init__(dataset, batch_sampler=batches, num_workers=num_workers, collate_fn=collate_fn, **kwargs)
        self._batches = batches
        self._epoch = -1
        self._consumed = 0
        self._resumed = False
        self._lead = 0

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]
        # A generator: no state changes before the first batch, since Lightning creates iterators that it never uses.
        epoch, unfinished = self._next_epoch()
        if not unfinished:
            self._begin_epoch()
            self._consumed = 0
        self._epoch = self._batches.epoch = epoch
        self._batches.skip = self._consumed
        for batch in super().__iter__():
            self._consumed += 1
            yield batch

    def _next_epoch(self) -> tuple[int, bool]:
        """Returns the next epoch, and True if it continues from a resumed state.

        Lightning's own count falls behind each time a run is resumed from the end of an epoch. The loader's does not;
        its lead is kept until the next resume.
        """
        told, self._batches.told = self._batches.told, None
        resumed, self._resumed = self._resumed, False
        begun = resumed and 0 < self._consumed < len(self)
        if told is None:
            return (self._epoch, True) if begun else (self._epoch + 1, False)
        if resumed:
            unfinished = begun and told <= self._epoch
            finished = self._consumed == len(self)
            epoch = self._epoch if unfinished else max(told, self._epoch + 1) if finished else told
            self._lead = epoch - told
            return epoch, unfinished
        if told + self._lead <= self._epoch:
            self._lead = 0  # another run
        return told + self._lead, False

    def _begin_epoch(self) -> None:
        """Hook before an epoch that starts at its first batch; the count is still that of the last epoch."""

    def state_dict(self) -> dict[str, Any]:
        """Returns ``epoch``, ``batches`` consumed in it, and ``seed``."""
        return {"epoch": self._epoch, "batches": self._consumed, "seed": self._batches.seed}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Resumes from the state saved by :meth:`state_dict`.

        Raises:
            InputError: the state has another seed, and thus another order.
        """
        if state["seed"] != self._batches.seed:
            raise InputError(
                f"got a checkpoint whose data order has seed {state['seed']}, and a loader with seed "
                f"{self._batches.seed}; expected the same; set the data's seed to {state['seed']} to resume"
            )
        self._epoch, self._consumed = state["epoch"], state["batches"]
        self._resumed = True


class ResumableLoader(EpochLoader):
    """``DataLoader`` with ``state_dict`` and ``load_state_dict``, shuffled by (seed, epoch).

    For a single process: under DDP shard the data yourself and set ``use_distributed_sampler=False``.
    """

    def __init__(
        self,
        dataset: Dataset,
        batch_size: int = 32,
        *,
        seed: int = 0,
        shuffle: bool = True,
        drop_last: bool = True,
        num_workers: int = 0,
        collate_fn: Callable[[Any], Any] | None = None,
        **kwargs: Any,
    ) -> None:
        """Sets data set and order.

        Args:
            dataset: map-style data set with a length. Its ``__getitems__``, if present, is called for a whole batch.
            batch_size: samples per batch.
            seed: with the epoch, the seed of the order.
            shuffle: False keeps the data set's own order in every epoch.
            drop_last: drop an incomplete last batch.
            num_workers: as in ``DataLoader``.
            collate_fn: as in ``DataLoader``; by default the return value of ``__getitems__`` is the batch.
            **kwargs: further arguments of ``DataLoader``.

        Raises:
            InputError: fewer samples than one batch, or a batch size below 1.
        """
        size = len(dataset)  # type: ignore[arg-type]
        check_size(size, batch_size if drop_last else min(batch_size, max(size, 1)))
        batches = SeededBatches(size, batch_size, seed, shuffle=shuffle, drop_last=drop_last)
        super().__init__(dataset, batches, num_workers=num_workers, collate_fn=collate_fn, **kwargs)
