"""Order of an epoch as batches of indices, drawn from (seed, epoch); seeded generators."""

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.utils.data import Sampler

from stagewise.errors import InputError


def seeded(seed: int, stream: int = 0) -> torch.Generator:
    """Returns a new CPU generator for one stream of a seed; draws do not affect the global random state.

    Args:
        seed: the user's seed, 0 or more.
        stream: number of one of the independent streams of that seed (training, validation, observed set, ...).

    Raises:
        InputError: ``seed`` is negative.
    """
    if seed < 0:
        raise InputError(f"got seed {seed}; expected an integer of 0 or more")
    # Neighbouring seeds of the Mersenne Twister are independent after its own scrambling; the odd factors keep
    # (seed, stream) pairs distinct.
    return torch.Generator().manual_seed((seed * 1_000_003 + stream * 7_919 + 17) % 2**63)


_ORDER = 1_000  # streams of a seed from here on are orders of epochs


def epoch_order(size: int, seed: int, epoch: int) -> Tensor:
    """Returns the permutation ``[size]`` of the samples in one epoch, int64."""
    return torch.randperm(size, generator=seeded(seed, _ORDER + epoch))


class EpochBatches(Sampler[list[int]]):
    """Base class of samplers for :class:`~stagewise.loading.loader.EpochLoader`: batches of indices, epoch by epoch.

    Attributes:
        seed: of the orders.
        epoch: next epoch.
        skip: number of batches to skip at its start, once.
        told: epoch set by Lightning; None if not set.
    """

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.epoch, self.skip = 0, 0
        self.told: int | None = None

    @property
    def sampler(self) -> "EpochBatches":
        """This object: Lightning looks here for ``set_epoch``."""
        return self

    def set_epoch(self, epoch: int) -> None:
        """Stores the epoch set by Lightning before each epoch; without Lightning, the loader counts epochs itself."""
        self.told = epoch

    def __len__(self) -> int:
        raise NotImplementedError


class SeededBatches(EpochBatches):
    """Batches of indices in the order of a permutation drawn from (seed, epoch)."""

    def __init__(self, size: int, batch_size: int, seed: int, *, shuffle: bool = True, drop_last: bool = True) -> None:
        super().__init__(seed)
        self.size, self.batch_size = size, batch_size
        self.shuffle, self.drop_last = shuffle, drop_last

    def __len__(self) -> int:
        return self.size // self.batch_size if self.drop_last else -(-self.size // self.batch_size)

    def __iter__(self) -> Iterator[list[int]]:
        order = epoch_order(self.size, self.seed, self.epoch) if self.shuffle else torch.arange(self.size)
        first, self.skip = self.skip, 0
        for batch in range(first, len(self)):
            yield order[batch * self.batch_size : (batch + 1) * self.batch_size].tolist()
