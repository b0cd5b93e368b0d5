"""Check that a plan has enough samples, by drawing the whole run without loading data."""

import numpy as np
from numpy.typing import NDArray

from stagewise.errors import InputError
from stagewise.interventions.sampler import WeightsFor
from stagewise.interventions.strata import Strata
from stagewise.interventions.weighted_deal import Deck, Exhausted


def check_supply(
    strata: Strata,
    weights_for: WeightsFor,
    *,
    batch_size: int,
    seed: int,
    num_batches: int,
    batches_per_epoch: int | None = None,
) -> None:
    """Refuses, before training with known weights, a run that would exhaust a stratum.

    The numbers are exact, since this draws the same samples as the run. Batches before the first window of an epoch
    cost next to nothing, others some 20 to 200 microseconds.

    Args:
        strata: the data and its groups.
        weights_for: returns the weights for the number of any batch in the run.
        batch_size: samples per global batch, over all ranks.
        seed: of the orders.
        num_batches: of the run.
        batches_per_epoch: batches per epoch, if limited (``limit_train_batches``); None for all full batches.

    Raises:
        InputError: a stratum would be exhausted; the message states its number of samples and the number needed.
    """
    full = len(strata.labels) // batch_size
    length = full if batches_per_epoch is None else min(batches_per_epoch, full)
    if length < 1:
        raise InputError(f"got {len(strata.labels)} samples for batches of {batch_size}; expected at least one batch")
    missing = np.zeros(len(strata), dtype=np.int64)
    for epoch, first in enumerate(range(0, num_batches, length)):
        numbers = range(first, min(first + length, num_batches))
        missing = np.maximum(missing, _missing(strata, weights_for, batch_size, seed, epoch, numbers))
    if missing.any():
        short = "; ".join(
            f"{strata.counts[row]} samples {strata.words(row)}, of which an epoch needs "
            f"{strata.counts[row] + missing[row]}"
            for row in np.flatnonzero(missing).tolist()
        )
        raise InputError(
            f"got {short}; expected a fresh one for every draw; give more data, make windows shorter or weights "
            "smaller, train fewer batches an epoch, or set when_exhausted=repeat"
        )


def _missing(
    strata: Strata,
    weights_for: WeightsFor,
    batch_size: int,
    seed: int,
    epoch: int,
    numbers: range,
) -> NDArray[np.int64]:
    """Returns the number of samples ``[stratum]`` missing in one epoch with these batches of the run."""
    deck, last, rho = None, None, np.ones(len(strata))
    for batch, number in enumerate(numbers):
        weights = weights_for(number)
        if weights != last:
            rho, last = strata.rho(weights), weights
        if deck is None:
            if (rho == 1.0).all():
                continue
            deck = Deck(strata, seed, epoch, exhausted=Exhausted.repeat)
            deck.skip(batch * batch_size)
        deck.deal(batch, batch_size, rho)
    return np.zeros(len(strata), dtype=np.int64) if deck is None else deck.repeats
