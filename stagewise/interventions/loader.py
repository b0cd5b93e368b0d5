"""Data loader that draws by weights of groups, and which can be stopped and resumed anywhere."""

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

    **Resume.** ``state_dict`` counts the batches that have left the loader, and holds the weights of those that workers
    have prefetched beyond: after a resume they are drawn again, with the same weights, so that a resumed run equals one
    that never stopped, also in the middle of an epoch and of an open window, and with workers.

    **Lag.** With workers, batches are drawn ``prefetch_lag`` batches before they are used. Weights that are known
    beforehand (a fixed plan) hold at their batch exactly; a change made during training shows that many batches late.

    **DDP.** The loader shards itself: set ``use_distributed_sampler=False``, see :func:`check_shard`.
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
            dataset: map-style data set with a length. Where it has ``__getitems__``, that is asked for a whole batch.
            groups: name to bool ``[sample]``, which samples of the data set each group holds.
            batch_size: samples in a batch of one rank.
            seed: with the epoch, the seed of the order.
            weights_for: weights of the groups, by the number of the batch in the run; may be set later, before the
                first batch. None draws as ``ResumableLoader`` does.
            when_exhausted: ``refuse`` or ``repeat``, where no unused sample of a kind is left in an epoch.
            rank: of this process; None asks ``torch.distributed``.
            world_size: number of processes; given with ``rank`` or not at all.
            num_workers: as in ``DataLoader``.
            collate_fn: as in ``DataLoader``; by default what ``__getitems__`` returns is the batch.
            **kwargs: further arguments of ``DataLoader``.

        Raises:
            InputError: groups do not fit the data set, there is less than one global batch, or a rank is none.
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
        """Data and groups."""
        return self._batches.strata

    @property
    def batches(self) -> ReweightedBatches:
        """Sampler of the batches."""
        return self._batches

    @property
    def weights_for(self) -> WeightsFor | None:
        """Asked for the weights of each batch when it is drawn; None for weights of 1."""
        return self._batches.weights_for

    @weights_for.setter
    def weights_for(self, weights_for: WeightsFor | None) -> None:
        self._batches.weights_for = weights_for

    @property
    def prefetch_lag(self) -> int:
        """Batches by which a change made during training is late: how far workers draw ahead; 0 without workers."""
        return self.num_workers * (self.prefetch_factor or 0)

    @property
    def served(self) -> int:
        """Batches that have left the loader since the run began: the number of the next one."""
        return self._batches.before + self._consumed

    @property
    def history(self) -> list[tuple[int, dict[str, float]]]:
        """Every change of weights that was drawn with: number of the batch in the run, weights of all groups."""
        return list(self._batches.history)

    def weights_of(self, number: int) -> dict[str, float]:
        """Returns weights with which a batch of the run was drawn, by its number; the lag is in it."""
        return self._batches.weights_of(number)

    def budget(self) -> Budget:
        """Returns the change over the batches that have left the loader; steps are batches here."""
        return budget(self.strata, self._batches.history, end=self.served)

    def _begin_epoch(self) -> None:
        self._batches.begin_epoch(self.served)

    def state_dict(self) -> dict[str, Any]:
        """``epoch``, ``batches`` consumed in it, ``seed``, and the sampler's ``draws``; the same on all ranks."""
        return {**super().state_dict(), "draws": self._batches.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Goes on where :meth:`state_dict` was taken.

        Raises:
            InputError: it was taken with another seed, batch size, number of processes, or with other groups.
        """
        if "draws" not in state:
            raise InputError(
                "got a checkpoint of a loader without weights; expected one of a ReweightedLoader; start the run anew, "
                "without weights if they shall not act"
            )
        super().load_state_dict(state)
        self._batches.load_state_dict(state["draws"])


def check_shard(loader: ReweightedLoader, *, rank: int, world_size: int, use_distributed_sampler: bool) -> None:
    """Before training with several processes: refuse a loader that would not be sharded as it has to be.

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
