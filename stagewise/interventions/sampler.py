"""Reweighted batches of indices, for one process or several ranks."""

from bisect import bisect_right
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch.distributed

from stagewise.errors import InputError, require
from stagewise.interventions.check_weights import GroupWeights, complete_weights
from stagewise.interventions.strata import Strata
from stagewise.interventions.weighted_deal import Deck, Exhausted
from stagewise.loading.loader import check_size
from stagewise.loading.order import EpochBatches

WeightsFor = Callable[[int], GroupWeights]
"""Maps the number of a batch in the run (0, 1, ... over all epochs) to the weights of the groups in it."""


class ReweightedBatches(EpochBatches):
    """Batches drawn by group weights that may change from batch to batch.

    An epoch is drawn by :class:`~stagewise.interventions.weighted_deal.Deck`: no sample occurs twice (unless allowed),
    and with weights of 1 it equals the epoch of ``ResumableLoader`` with the same seed, bit for bit. An epoch has only
    full batches; an incomplete last batch is dropped.

    Every rank draws the same *global* batches of ``batch_size * world_size`` samples and takes every ``world_size``-th
    sample, starting at its rank, so that shards are disjoint. ``weights_for`` must therefore agree on all ranks.

    Weights are requested once, when a batch is drawn, and then recorded: a batch redrawn after a resume has its
    original weights.

    Attributes:
        strata: the data and its groups.
        batch_size: samples per batch of one rank.
        weights_for: returns the weights of each new batch; None for weights of 1.
        when_exhausted: handling of exhausted strata.
        live: True if weights are decided during training. ``refuse`` then acts as ``others``, since an exhausted
            stratum must not end a run.
        replaced: number of samples replaced by those of any stratum, with ``others``, in all epochs drawn here.
        before: number of batches of the run before this epoch.
        drawn: number of the next batch of the run whose weights have not been requested.
        history: all changes of weights, as number of the batch in the run and weights of all groups.
    """

    def __init__(
        self,
        strata: Strata,
        batch_size: int,
        seed: int = 0,
        *,
        weights_for: WeightsFor | None = None,
        when_exhausted: Exhausted | str = Exhausted.refuse,
        rank: int | None = None,
        world_size: int | None = None,
    ) -> None:
        """Sets data, groups and order.

        Args:
            strata: the data and its groups.
            batch_size: samples per batch of one rank.
            seed: of the orders, 0 or more.
            weights_for: see the class.
            when_exhausted: see :class:`~stagewise.interventions.weighted_deal.Exhausted`.
            rank: of this process; None asks ``torch.distributed`` whenever the shard is needed.
            world_size: number of processes; required with ``rank``, else None.

        Raises:
            InputError: fewer samples than one global batch, an invalid rank, or an unknown ``when_exhausted``.
        """
        require(seed >= 0, "seed", seed, "an integer of 0 or more", "change it")
        super().__init__(int(seed))
        if (rank is None) != (world_size is None) or (
            rank is not None and world_size is not None and not 0 <= rank < world_size
        ):
            raise InputError(
                f"got rank={rank} and world_size={world_size}; expected 0 <= rank < world_size, or neither; leave both "
                "out to ask torch.distributed"
            )
        self.strata, self.batch_size, self.weights_for = strata, batch_size, weights_for
        try:
            self.when_exhausted = Exhausted(when_exhausted)
        except ValueError:
            choices = ", ".join(Exhausted)
            raise InputError(f"got when_exhausted={when_exhausted!r}; expected one of {choices}") from None
        self._shard = None if rank is None or world_size is None else (rank, world_size)
        check_size(len(strata.labels), self.batch_size * self.shard[1])
        self.live, self.replaced = False, 0
        self.before, self.drawn = 0, 0
        self.history: list[tuple[int, dict[str, float]]] = []

    @property
    def shard(self) -> tuple[int, int]:
        """Rank and number of processes."""
        if self._shard is not None:
            return self._shard
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            return torch.distributed.get_rank(), torch.distributed.get_world_size()
        return 0, 1

    def __len__(self) -> int:
        return len(self.strata.labels) // (self.batch_size * self.shard[1])

    def begin_epoch(self, before: int) -> None:
        """Starts an epoch, and forgets batches of the last one that were drawn but not used.

        Args:
            before: number of batches of the run so far.
        """
        self.before = self.drawn = before
        self.history = [entry for entry in self.history if entry[0] < before]

    def weights_of(self, number: int) -> dict[str, float]:
        """Returns the weights with which a batch of the run was drawn, by its number."""
        place = bisect_right(self.history, number, key=lambda entry: entry[0])
        return dict(self.history[place - 1][1]) if place else dict.fromkeys(self.strata.names, 1.0)

    def _ask(self, number: int) -> dict[str, float]:
        current = self.weights_of(number)
        if number < self.drawn:
            return current
        given = {} if self.weights_for is None else self.weights_for(number)
        weights = complete_weights(given, self.strata.names)
        if weights != current:
            self.history.append((number, weights))
        self.drawn = number + 1
        return weights

    def __iter__(self) -> Iterator[list[int]]:
        rank, world_size = self.shard
        size = self.batch_size * world_size
        check_size(len(self.strata.labels), size)
        first, self.skip = self.skip, 0
        others = self.live and self.when_exhausted is Exhausted.refuse
        deck = Deck(self.strata, self.seed, self.epoch, exhausted=Exhausted.others if others else self.when_exhausted)
        counted = 0
        last: dict[str, float] | None = None
        for batch in range(len(self)):
            weights = self._ask(self.before + batch)
            if weights != last:
                rho, last = self.strata.rho(weights), weights
            # Skipped batches are dealt too, since the remaining samples depend on them.
            samples = deck.deal(batch, size, rho)
            total = int(deck.replaced.sum())
            self.replaced, counted = self.replaced + total - counted, total
            if batch >= first:
                yield samples[rank::world_size]

    def state_dict(self) -> dict[str, Any]:
        """Returns weights of drawn batches and the settings of the order, plain Python, the same on all ranks."""
        return {
            "before": self.before,
            "drawn": self.drawn,
            "history": [[number, dict(weights)] for number, weights in self.history],
            "order": self._facts(),
        }

    def _facts(self) -> dict[str, Any]:
        return {
            "seed": self.seed,
            "batch_size": self.batch_size,
            "world_size": self.shard[1],
            "when_exhausted": str(self.when_exhausted),
            "groups": list(self.strata.names),
            "counts": self.strata.counts.tolist(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restores the state saved by :meth:`state_dict`.

        Raises:
            InputError: the order differs now: another seed, batch size, number of processes, or other groups.
        """
        for name, value in self._facts().items():
            if state["order"][name] != value:
                raise InputError(
                    f"got a checkpoint whose data order has {name} {state['order'][name]}, and a loader with {value}; "
                    "expected the same; change it back to resume"
                )
        self.before, self.drawn = state["before"], state["drawn"]
        self.history = [(int(number), dict(weights)) for number, weights in state["history"]]
