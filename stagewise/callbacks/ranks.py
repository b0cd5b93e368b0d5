"""Ranks of a run that share the chains of its probes: communication, and joint failure.

One rule keeps a rank from waiting for another that has left: between two exchanges each rank works inside
:meth:`Ranks.each`, which ends with an agreement. A rank that fails goes to the agreement at once. There all ranks learn
of the fault and leave the probe, without any further exchange in it.

Ranks communicate over gloo, in a group separate from the strategy's, for three reasons. Draws are on the CPU and need
no GPU memory. A rank with few chains may wait longer than NCCL's watchdog allows. If a process has gone, gloo raises.
"""

import io
import pickle
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from lightning.pytorch import Trainer
from torch import Tensor, nn

from stagewise.batches import to_device
from stagewise.callbacks.fault_log import OUT_OF_MEMORY, PROBE, OtherRankError, kind_of
from stagewise.errors import InputError
from stagewise.isolation.shards import is_sharded
from stagewise.isolation.tensors import checksum, has_storage, storage_key
from stagewise.probes.data_digest import batches_digest
from stagewise.sampling.data import ProbeData
from stagewise.sampling.share import ALONE, ChainShare

T = TypeVar("T")

ENDS = "ends"
"""Kind of a fault that ends the run."""

_CODES = (None, PROBE, OUT_OF_MEMORY, ENDS)
"""Faults from none to the worst."""

_PATIENCE = timedelta(days=1)
"""Time limit of an exchange: a rank waits for the slowest chains, or while rank zero measures the curvature."""

_PIECE = 2**28
"""Bytes sent at once."""


class AgreedFault(Exception):
    """Fault of a probe that all ranks know of.

    Attributes:
        worst: over the ranks: :data:`ENDS`, ``out_of_memory``, or ``probe`` for anything else.
        own: exception raised on this rank; None if another rank failed.
    """

    def __init__(self, worst: str, own: BaseException | None) -> None:
        """Stores both."""
        super().__init__(f"a probe failed ({worst}) on {'another rank' if own is None else 'this rank'}")
        self.worst, self.own = worst, own


class RankLeftError(RuntimeError):
    """Error: another rank ended while this one waited for it. Training could not continue either."""


class Ranks:
    """Ranks of a run, one per process; a single one shares nothing.

    Attributes:
        share: chains that this rank runs.
    """

    def __init__(
        self,
        group: dist.ProcessGroup | None = None,
        *,
        rank: int = 0,
        world_size: int = 1,
        ends: Callable[[Exception], bool] = lambda error: True,
    ) -> None:
        """Stores the group; sends nothing yet.

        Args:
            group: of all ranks, for tensors on the CPU; None for one rank alone.
            rank: of this process.
            world_size: number of ranks.
            ends: returns True if an error on this rank must end the run, then on all ranks.
        """
        self._group, self._ends = group, ends
        self._fault: AgreedFault | None = None
        # True while this rank works on its own and can still join the others at the agreement.
        self._working = False
        self._left = False
        self.share = ALONE
        if world_size > 1:
            self.share = ChainShare(rank, world_size, self.gather, self._collect, self.decide, may_idle=True)

    @classmethod
    def of(cls, trainer: Trainer, ends: Callable[[Exception], bool]) -> "Ranks":
        """Returns the ranks of a trainer at the start of training. Collective.

        Raises:
            InputError: several processes without torch.distributed.
        """
        if trainer.world_size == 1:
            return cls(ends=ends)
        if not (dist.is_available() and dist.is_initialized() and dist.is_gloo_available()):
            raise InputError(
                f"got {type(trainer.strategy).__name__} with {trainer.world_size} processes that are not joined by "
                "torch.distributed with gloo; expected DDP; set InfluenceCallback(enabled=False) to train without "
                "probes"
            )
        return cls(_gloo_group(), rank=dist.get_rank(), world_size=dist.get_world_size(), ends=ends)

    @property
    def alone(self) -> bool:
        """True for one rank."""
        return self.share.world_size == 1

    @property
    def together(self) -> AbstractContextManager[None]:
        """Context entered by all ranks: an error in its body on one rank ends the run on all.

        Raises:
            OtherRankError: another rank failed.
            BaseException: the body raised on this rank.
        """
        return nullcontext() if self.alone else self._together()

    @contextmanager
    def _together(self) -> Iterator[None]:
        self.begin()
        try:
            with self._returning(), self._agreeing():
                yield
        except AgreedFault as fault:
            raise fault.own or OtherRankError("another rank failed, which ends the run; see its output") from fault.own

    def begin(self) -> None:
        """Forgets the fault of an earlier probe, which all ranks have left."""
        self._fault, self._working = None, False

    def each(self, work: Callable[[], T]) -> T:
        """Does the work of this rank, and returns its result if no rank has failed. Collective.

        Raises:
            AgreedFault: with several ranks, on all of them: some rank failed.
            RankLeftError: another rank has ended.
            BaseException: with one rank, whatever ``work`` raises. With several, only what is no ``Exception``
                (Ctrl-C), once the others know that this rank leaves.
        """
        if self.alone:
            return work()
        with self._returning():
            return self._each(work)

    def _each(self, work: Callable[[], T]) -> T:
        with self._agreeing():
            return work()

    @contextmanager
    def _agreeing(self) -> Iterator[None]:
        self._working = True
        try:
            yield
        except (AgreedFault, RankLeftError):
            raise
        except Exception as error:
            self._working = False
            self._agree(error)
            raise  # not reached: the agreement raises
        except BaseException as error:
            # During an exchange the others await no agreement: they learn of the error when this process ends.
            working, self._working = self._working, False
            if working and self._fault is None:
                with suppress(AgreedFault, RankLeftError):
                    self._agree(error)
            raise
        self._working = False
        self._agree(None)

    @contextmanager
    def _returning(self) -> Iterator[None]:
        """Returns to the enclosing work of this rank after an exchange without errors."""
        before, self._working = self._working, False
        yield
        self._working = before

    def decide(self, work: Callable[[], T]) -> T:
        """Does some work on rank zero, and returns its result on all ranks. Collective.

        Rank zero gets the object itself, the others a copy.

        Raises:
            AgreedFault, RankLeftError, BaseException: as :meth:`each`.
        """
        if self.alone:
            return work()

        def first() -> tuple[Any, Tensor | None]:
            if not self.share.is_first:
                return None, None
            found = work()
            return found, _packed(found)

        with self._returning():
            found, packed = self._each(first)
            size = self._numbers(0 if packed is None else len(packed))[0]
            buffer = self._each(lambda: torch.empty(size, dtype=torch.uint8) if packed is None else packed)
            with self._exchange():
                for piece in buffer.split(_PIECE):
                    dist.broadcast(piece, src=0, group=self._group)
        return found if packed is not None else _unpacked(buffer)

    def gather(self, mine: Any) -> list[Any]:
        """Returns a small object of each rank, in order. Collective."""
        if self.alone:
            return [mine]
        found: list[Any] = [None] * self.share.world_size
        with self._returning(), self._exchange():
            dist.all_gather_object(found, mine, group=self._group)
        return found

    def _collect(self, work: Callable[[], T]) -> list[T] | None:
        """Does the work of this rank; returns the results of all ranks on rank zero, None on the others."""

        def packed() -> tuple[T, Tensor | None]:
            found = work()
            return found, None if self.share.is_first else _packed(found)

        with self._returning():
            mine, own = self._each(packed)
            sizes = self._numbers(0 if own is None else len(own))
            # Large enough for each result: they arrive one after the other.
            buffer = self._each(lambda: torch.empty(max(sizes), dtype=torch.uint8) if own is None else own)
            if own is None:
                return self._received(mine, sizes, buffer)
            with self._exchange():
                for piece in own.split(_PIECE):
                    dist.send(piece, dst=0, group=self._group)
            return None

    def _received(self, mine: T, sizes: list[int], buffer: Tensor) -> list[T]:
        """Receives the results of the other ranks, on rank zero."""
        found, fault = [mine], None
        for rank, size in enumerate(sizes[1:], start=1):
            with self._exchange():
                for piece in buffer[:size].split(_PIECE):
                    dist.recv(piece, src=rank, group=self._group)
            try:
                found.append(_unpacked(buffer[:size]))
            except Exception as error:  # raised once the others have sent theirs
                fault = error
        if fault is not None:
            raise fault
        return found

    def meet(self) -> None:
        """Waits for all ranks during joint work, such as a pass of a sharded module.

        Raises:
            AgreedFault: some rank has failed.
            RankLeftError: another rank has ended.
        """
        if not self.alone:
            with self._returning():
                self._agree(None)

    def exchange(self, mine: Tensor) -> list[Tensor]:
        """Returns the CPU tensors of all ranks, equal in shape, after all ranks have met."""
        if self.alone:
            return [mine]
        mine = mine.contiguous()
        found = [torch.empty_like(mine) for _ in range(self.share.world_size)]
        with self._returning(), self._exchange():
            dist.all_gather(found, mine, group=self._group)
        return found

    @contextmanager
    def as_rank_zero(self, module: nn.Module) -> Iterator[None]:
        """Uses the weights and buffers of rank zero inside the body, where they differ. Collective.

        Under DDP only buffers differ, such as running statistics. Afterwards this rank has its own tensors back, not
        copies. Sharded weights differ on purpose and are left out.

        Args:
            module: module to probe.
        """
        named = [*module.parameters(), *module.buffers()]
        named = [value for value in named if not is_sharded(value)]
        held = {storage_key(value): value for value in named if has_storage(value)}
        sums = self.gather(self.each(lambda: [checksum(value) for value in held.values()]))
        differ = {key for number, key in enumerate(held) if len({them[number] for them in sums}) > 1}
        other = [value for value in named if has_storage(value) and storage_key(value) in differ]
        theirs = self.decide(lambda: [value.detach().cpu() for value in other]) if other else []
        pairs = [(value, value.data, data) for value, data in zip(other, theirs, strict=True)]
        try:
            for value, _, data in () if self.share.is_first else pairs:
                value.data = data.to(value.device)
            yield
        finally:
            for value, own, _ in pairs:
                value.data = own

    def _agree(self, error: BaseException | None) -> None:
        if self._fault is not None:  # known already: something was raised on the way out
            raise self._fault
        if self._left:
            raise RankLeftError("left in the midst of an exchange")
        worst = _CODES[self._worst(0 if error is None else self._code(error))]
        if worst is not None:
            self._fault = AgreedFault(worst, error)
            raise self._fault

    def _code(self, error: BaseException) -> int:
        if not isinstance(error, Exception) or self._ends(error):
            return _CODES.index(ENDS)
        return _CODES.index(OUT_OF_MEMORY if kind_of(error, PROBE) == OUT_OF_MEMORY else PROBE)

    def _worst(self, code: int) -> int:
        return max(self._numbers(code))

    def _numbers(self, mine: int) -> list[int]:
        """Returns a number of each rank."""
        found = [torch.zeros(1, dtype=torch.int64) for _ in range(self.share.world_size)]
        with self._exchange():
            dist.all_gather(found, torch.tensor([mine]), group=self._group)
        return [int(number) for number in found]

    @contextmanager
    def _exchange(self) -> Iterator[None]:
        """Turns an error of an exchange into :class:`RankLeftError`; no further exchange is possible."""
        try:
            yield
        except BaseException as error:
            self._left = True
            if not isinstance(error, Exception):
                raise
            reason = str(error).partition("\n")[0]
            raise RankLeftError(
                f"got no answer from another rank of the run ({reason}); expected all of them; see its last output"
            ) from error


def data_of_rank_zero(data: ProbeData, ranks: Ranks) -> ProbeData:
    """Returns the data of rank zero on every rank: with separate streams or samplers, ranks may differ. Collective.

    Args:
        data: as this rank found them.
        ranks: of the run.
    """
    if ranks.alone:
        return data
    batches = [data.observed, {} if data.sampling is None else data.sampling, dict(data.groups)]
    digests = ranks.gather(ranks.each(lambda: batches_digest(batches, *data.groups)))
    if len(set(digests)) == 1:
        return data
    observed, sampling = ranks.decide(lambda: to_device((data.observed, data.sampling), torch.device("cpu")))
    groups = ranks.decide(lambda: {name: mask.cpu() for name, mask in data.groups.items()})
    return ProbeData(observed, sampling, groups)


def _packed(value: Any) -> Tensor:
    """Returns an object as bytes."""
    file = io.BytesIO()
    pickle.dump(value, file, protocol=5)
    return torch.frombuffer(file.getbuffer(), dtype=torch.uint8)


def _unpacked(data: Tensor) -> Any:
    return pickle.loads(data.numpy().data)


_made: list[tuple[Any, dist.ProcessGroup]] = []
"""Gloo group of this process, after the strategy's group that it belongs to; one for all fits."""


def _gloo_group() -> dist.ProcessGroup:
    world = dist.group.WORLD
    if not _made or _made[0][0] is not world:
        _made[:] = [(world, dist.new_group(backend="gloo", timeout=_PATIENCE))]
    return _made[0][1]
