"""Samples of one epoch, dealt by weights without repetition."""

from collections.abc import Iterator
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from stagewise.errors import InputError
from stagewise.interventions.strata import Array, Strata
from stagewise.loading.order import epoch_order

_SLOTS, _AGAIN = 0, 1


class Exhausted(StrEnum):
    """Ways to handle a stratum that has no unused samples left in the epoch.

    Members are named as the YAML writes them:
        refuse: raises an ``InputError``. The default, since duplicated sequences damage induction heads.
        repeat: deals the samples of the stratum again, in a new permutation, and counts them.
        others: deals unused samples of any stratum instead, and counts them: no sample occurs twice, and weights take
            effect as far as samples last. Live windows do so with ``refuse`` too, since their weights cannot be checked
            before training.
    """

    refuse = "refuse"
    repeat = "repeat"
    others = "others"


def _numbers(*key: int) -> np.random.Generator:
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence(key)))


class Deck:
    """One epoch in ordinary shuffled order, in which weights replace some samples by others.

    The *base order* is the permutation of (seed, epoch), the same as in ``ResumableLoader``. With equal weights it is
    dealt unchanged: a run without weights, a placebo, and a reweighted run before its window see the same batches, bit
    for bit. Otherwise each slot of the base order, with a sample of stratum s, is

    * kept with probability min(1, rho_s),
    * else reassigned to stratum t with probability proportional to share_t (rho_t - 1), over all t with rho_t > 1.

    A slot then holds stratum s with probability share_s rho_s, as the weights require, and no other rule replaces fewer
    slots (it is the maximal coupling of both laws). The choice of slots depends on (seed, epoch, batch) alone. Counts
    in a batch vary slightly less than binomial ones, as in any order without replacement.

    A reassigned slot takes an unused sample of its new stratum from the end of the base order, so that kept slots
    retain their own samples. If the sample of a kept slot has been used in this way, the slot takes another of its
    stratum from the end. Within a stratum all samples are equally likely.

    Attributes:
        repeats: ``[stratum]``, number of samples dealt again, with ``Exhausted.repeat``.
        replaced: ``[stratum]``, number of samples replaced by those of any stratum, with ``Exhausted.others``.
    """

    def __init__(self, strata: Strata, seed: int, epoch: int, *, exhausted: Exhausted = Exhausted.refuse) -> None:
        """Shuffles the epoch.

        Args:
            strata: of the data.
            seed: of all orders.
            epoch: number of the epoch.
            exhausted: handling of exhausted strata.
        """
        self._strata, self._seed, self._epoch, self._exhausted = strata, seed, epoch, exhausted
        self._order: NDArray[np.int64] = epoch_order(len(strata.labels), seed, epoch).numpy()
        self._labels = strata.labels[self._order]
        by_stratum = np.argsort(self._labels, kind="stable")
        self._places = np.split(by_stratum, np.cumsum(strata.counts)[:-1])
        self._used = np.zeros(len(self._order), dtype=bool)
        self._left = strata.counts.tolist()
        self._again: dict[int, Iterator[int]] = {}
        self.repeats: NDArray[np.int64] = np.zeros(len(strata), dtype=np.int64)
        self.replaced: NDArray[np.int64] = np.zeros(len(strata), dtype=np.int64)
        self._last_unused = len(self._order) - 1

    def skip(self, num: int) -> None:
        """Deals the first ``num`` slots unchanged; must be called before any other slot is dealt."""
        self._used[:num] = True

    def deal(self, batch: int, size: int, rho: Array) -> list[int]:
        """Returns the samples of one batch; batches are dealt in order.

        Args:
            batch: number of the batch in the epoch.
            size: samples in each batch of the epoch.
            rho: ``[stratum]``, weights with mean 1.

        Raises:
            InputError: a stratum is exhausted, with ``Exhausted.refuse``.
        """
        slots = np.arange(batch * size, (batch + 1) * size)
        wanted = self._labels[slots]
        kept = ~self._used[slots]
        if (rho != 1.0).any():
            chance, choice = _numbers(_SLOTS, self._seed, self._epoch, batch).random((2, size))
            given_away = chance >= rho[wanted]
            kept &= ~given_away
            excess = np.cumsum(self._strata.shares * np.maximum(rho - 1.0, 0.0))
            taker = np.searchsorted(excess, choice * excess[-1], side="right")
            # Rounding may place a choice just beyond the last stratum that gains slots.
            last = int(np.flatnonzero(rho > 1.0)[-1])
            wanted = np.where(given_away, np.minimum(taker, last), wanted)
        self._used[slots[kept]] = True
        samples = self._order[slots]
        for place in np.flatnonzero(~kept).tolist():
            samples[place] = self._from_the_end(int(wanted[place]), batch)
        return list(samples.tolist())

    def _from_the_end(self, stratum: int, batch: int) -> int:
        """Returns the last unused sample of a stratum, or a substitute if it is exhausted."""
        places = self._places[stratum]
        while self._left[stratum]:
            self._left[stratum] -= 1
            slot = places[self._left[stratum]]
            if not self._used[slot]:
                self._used[slot] = True
                return int(self._order[slot])
        if self._exhausted is Exhausted.refuse:
            raise InputError(
                f"got {len(places)} samples {self._strata.words(stratum)}, all of them used in batch {batch} of epoch "
                f"{self._epoch}; expected fresh ones to the end of the epoch; give more data, make windows shorter or "
                "weights smaller, train fewer batches an epoch, or set when_exhausted=repeat"
            )
        if self._exhausted is Exhausted.others:
            self.replaced[stratum] += 1
            return self._any_from_the_end()
        self.repeats[stratum] += 1
        return next(self._again.setdefault(stratum, self._rounds(stratum)))

    def _any_from_the_end(self) -> int:
        """Returns the last unused sample of any stratum; every slot of the epoch has one."""
        while self._used[self._last_unused]:
            self._last_unused -= 1
        self._used[self._last_unused] = True
        return int(self._order[self._last_unused])

    def _rounds(self, stratum: int) -> Iterator[int]:
        """Yields the samples of a stratum repeatedly, each round in a new permutation."""
        samples = np.flatnonzero(self._strata.labels == stratum)
        turn = 0
        while True:
            yield from _numbers(_AGAIN, self._seed, self._epoch, stratum, turn).permutation(samples).tolist()
            turn += 1
