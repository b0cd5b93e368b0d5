"""Distribution of the chains of a probe over several processes that hold the same weights."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from stagewise.checks.bounds import settle_fields
from stagewise.checks.ranges import NonNegativeInt, PositiveInt
from stagewise.errors import require


def _alone(mine: Any) -> list[Any]:
    return [mine]


def _collect_alone(work: Callable[[], Any]) -> list[Any]:
    return [work()]


def _decide_alone(work: Callable[[], Any]) -> Any:
    return work()


@dataclass(frozen=True)
class ChainShare:
    """Chains that a process runs, and its communication with the other processes.

    Each chain has its own random streams, so that results do not depend on where it runs. All processes make the same
    calls in the same order.

    Attributes:
        rank: number of this process, from 0.
        world_size: number of processes.
        gather: takes a small object from this process and returns those of all, in the order of ranks.
        collect: does the work of this process; returns the results of all processes on the first, None on the others.
        decide: does work on the first process alone, and returns its result on all.
        may_idle: True if there may be fewer chains than processes, some of which then run none.
        together: True if all processes run every chain together, each with its part of the weights.

    Raises:
        InputError: a rank that is not below the world size.
    """

    rank: NonNegativeInt = 0
    world_size: PositiveInt = 1
    gather: Callable[[Any], list[Any]] = _alone
    collect: Callable[[Callable[[], Any]], list[Any] | None] = _collect_alone
    decide: Callable[[Callable[[], Any]], Any] = _decide_alone
    may_idle: bool = False
    together: bool = False

    def __post_init__(self) -> None:
        settle_fields(self)
        require(
            self.rank < self.world_size, "rank", self.rank, f"0 to {self.world_size - 1}", "number the processes from 0"
        )

    @property
    def is_first(self) -> bool:
        """True for the process that writes."""
        return self.rank == 0

    def numbers(self, num_chains: int) -> range:
        """Returns the chains that this process runs.

        Args:
            num_chains: of the sampler; at least one per process, unless processes may idle.

        Raises:
            InputError: fewer chains than processes, although none may idle.
        """
        if self.together:
            return range(num_chains)
        require(
            self.may_idle or num_chains >= self.world_size,
            "num_chains",
            num_chains,
            f"at least one for each of {self.world_size} processes",
            "start fewer processes, or run more chains",
        )
        return range(self.rank, num_chains, self.world_size)


ALONE = ChainShare()
"""Share of a single process, which runs all chains."""
