"""Data loader that draws by group weights and can be stopped and resumed anywhere."""

from collections.abc import Callable, Mapping
from typing import Any

from numpy.typing import ArrayLike
from torch.utils.data import Dataset

from stagewise.checks.bounds import check_arguments, shown
from stagewise.errors import InputError, require
from stagewise.interventions.budget import Budget, budget
from stagewise.interventions.sampler import ReweightedBatches, WeightsFor
from stagewise.interventions.strata import Strata
from stagewise.interventions.weighted_deal import Exhausted
from stagewise.loading.loader import EpochLoader


class ReweightedLoader(EpochLoader):
    """``DataLoader`` over :class:`~stagewise.interventions.sampler.ReweightedBatches`.

    **Resume.** ``state_dict`` counts the batches that have left the loader, and holds the weights of further batches
    that workers have prefetched. These are drawn again with the same weights, so that a resumed run equals an
    uninterrupted one, even within an epoch or an open window, and with workers.

    **Lag.** Workers draw batches up to ``prefetch_lag`` batches before use. Weights known in advance (a fixed plan)
    take effect at exactly their batch; a change made during training takes effect that many batches late.

    **DDP.** The loader shards its batches itself: set ``use_distributed_sampler=False``, see :func:`check_shard`.
    """

    _batches: ReweightedBatches

    def __init__(
        self,
        dataset: Dataset,
        groups: Mapping[str, ArrayLike],
        batch_size: int = 32,
        *,
        seed: int = 0,
        weights_for: WeightsFor | None = None,
        when_exhausted: Exhausted | str = Exhausted.refuse,
        rank: int | None = None,
        world_size: int | None = None,
        num_workers: int = 0,
        collate_fn: Callable[[Any], Any] | None = None,
        **kwargs: Any,
    ) -> None:
        """Sets data, groups and order.

        Args:
            dataset: map-style data set with a length. Its ``__getitems__``, if present, is called for a whole batch.
            groups: maps names to bool ``[sample]``, True for the samples of the group.
            batch_size: samples per batch of one rank.
            seed: with the epoch, the seed of the order.
            weights_for: returns the weights of the groups for the number of a batch in the run; may be set later,
                before the first batch. None draws as ``ResumableLoader`` does.
            when_exhausted: ``refuse``, ``repeat`` or ``others``, if an epoch has no unused samples of a stratum left,
                see :class:`~stagewise.interventions.weighted_deal.Exhausted`.
            rank: of this process; None asks ``torch.distributed``.
            world_size: number of processes; required with ``rank``, else None.
            num_workers: as in ``DataLoader``.
            collate_fn: as in ``DataLoader``; by default the return value of ``__getitems__`` is the batch.
            **kwargs: further arguments of ``DataLoader``.

        Raises:
            InputError: groups do not fit the data set, less than one global batch, or an invalid rank.
        """
        check_arguments("ReweightedLoader", ReweightedLoader.__init__, locals(), leave=("dataset", "kwargs"))
        sized = hasattr(dataset, "__len__") and hasattr(dataset, "__getitem__")
        require(sized, "dataset", shown(dataset), "a map-style data set, with a length and samples by index", "list it")
        require(0 <= num_workers <= 1024, "num_workers", num_workers, "0 to 1024", "0 loads in this process")
        strata = Strata(groups)
        size = len(dataset)  # type: ignore[arg-type]
        if len(strata.labels) != size:
            raise InputError(
                f"got groups over {len(strata.labels)} samples and a data set of {size}; expected one entry a sample"
            )
        batches = ReweightedBatches(
            strata,
            batch_size,
            seed,
            weights_for=weights_for,
            when_exhausted=when_exhausted,
            rank=rank,
            world_size=world_size,
        )
        super().__init__(dataset, batches, num_workers=num_workers, collate_fn=collate_fn, **kwargs)

    @property
    def strata(self) -> Strata:
        """Strata of the data by groups."""
        return self._batches.strata

    @property
    def batches(self) -> ReweightedBatches:
        """Sampler of the batches."""
        return self._batches

    @property
    def weights_for(self) -> WeightsFor | None:
        """Function called for the weights of each batch when it is drawn; None for weights of 1."""
        return self._batches.weights_for

    @weights_for.setter
    def weights_for(self, weights_for: WeightsFor | None) -> None:
        self._batches.weights_for = weights_for

    @property
    def prefetch_lag(self) -> int:
        """Number of batches that workers draw ahead, by which changes during training are late; 0 without workers."""
        return self.num_workers * (self.prefetch_factor or 0)

    @property
    def served(self) -> int:
        """Number of batches that have left the loader in this run, which is the number of the next batch."""
        return self._batches.before + self._consumed

    @property
    def history(self) -> list[tuple[int, dict[str, float]]]:
        """All changes of weights in drawn batches: number of the batch in the run, weights of all groups."""
        return list(self._batches.history)

    def weights_of(self, number: int) -> dict[str, float]:
        """Returns the weights with which a batch of the run was drawn, by its number; includes the lag."""
        return self._batches.weights_of(number)

    def budget(self) -> Budget:
        """Returns the budget of the batches that have left the loader, in units of batches."""
        return budget(self.strata, self._batches.history, end=self.served)

    def _begin_epoch(self) -> None:
        self._batches.begin_epoch(self.served)

    def state_dict(self) -> dict[str, Any]:
        """Returns ``epoch``, its consumed ``batches``, ``seed``, and the sampler's ``draws``; the same on all ranks."""
        return {**super().state_dict(), "draws": self._batches.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continues from the state saved by :meth:`state_dict`.

        Raises:
            InputError: the saved seed, batch size, number of processes or groups differ.
        """
        if "draws" not in state:
            raise InputError(
                "got a checkpoint of a loader without weights; expected one of a ReweightedLoader; start the run anew, "
                "without weights if they shall not act"
            )
        super().load_state_dict(state)
        self._batches.load_state_dict(state["draws"])


def check_shard(loader: ReweightedLoader, *, rank: int, world_size: int, use_distributed_sampler: bool) -> None:
    """Refuses, before training with several processes, a loader that would be sharded wrongly.

    Args:
        loader: of the training data.
        rank: of this process.
        world_size: number of processes.
        use_distributed_sampler: the Trainer's setting.

    Raises:
        InputError: the Trainer would shard the loader again, or the loader has another rank or number of processes.
    """
    if world_size > 1 and use_distributed_sampler:
        raise InputError(
            f"got use_distributed_sampler=True with {world_size} processes; expected False: a distributed sampler "
            "draws the whole epoch at its start and sees no change of weights; set it in the Trainer"
        )
    if loader.batches.shard != (rank, world_size):
        have = loader.batches.shard
        raise InputError(
            f"got a loader for rank {have[0]} of {have[1]} in process {rank} of {world_size}; expected the same; leave "
            "out rank and world_size, or pass those of the process"
        )
