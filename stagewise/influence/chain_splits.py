"""Splits over subsets of the chains, for the jackknife: what each chain adds is computed once."""

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from stagewise.influence.split import PARTS, Centering, Moment, Split, split
from stagewise.influence.uncertainty import jackknife_error

Array = NDArray[np.float64]


class ChainSplits:
    """The split of two probes as a function of the chains used, equal to :func:`~stagewise.influence.split.split`.

    A subset needs no pass over its draws: what fluctuates is the mean of the chains' own moments (with step centring,
    less the moment of the subset's own step means), and what else there is depends on centring means alone.
    """

    def __init__(self, current: Array, reference: Array | None, *, centering: Centering, moment: Moment) -> None:
        """Take the moment of each chain.

        Args:
            current: ``[chain, draw, feature]``.
            reference: the same chains at the reference probe, or None.
            centering: as in the split.
            moment: as in the split.
        """
        self._phases = [current] if reference is None else [reference, current]
        self._centering = centering
        self._moment = moment
        axis = 0 if centering is Centering.step else 1
        self._centres = [phase.mean(axis=axis, keepdims=True) for phase in self._phases]
        self._moments = [
            np.stack([moment(chain) for chain in phase - centres])
            for phase, centres in zip(self._phases, self._centres, strict=True)
        ]

    def __call__(self, chains: Sequence[int]) -> Split:
        """The split over some chains, given by their positions."""
        rows = list(chains)
        moments = [moments[rows].mean(axis=0) for moments in self._moments]
        if self._centering is Centering.step:
            centres = [phase[rows].mean(axis=0, keepdims=True) for phase in self._phases]
            for row, (own, common) in enumerate(zip(centres, self._centres, strict=True)):
                moments[row] = moments[row] - self._moment(own - common)
        else:
            centres = [means[rows] for means in self._centres]
        fluctuation = sum(moments, np.zeros(())) / len(moments)
        reference = None if len(centres) == 1 else centres[0]
        rest = split(centres[-1], reference, centering=self._centering, moment=self._moment)
        return Split(rest.within + fluctuation, rest.drift, rest.between, rest.total + fluctuation)


def signed(parts: Split) -> Array:
    """``[part, ...]``, with the sign of influence."""
    named = parts.parts()
    return np.stack([-named[name] for name in PARTS])


def error_over_chains(
    estimate: Callable[[list[int]], Array], value: Array, num_chains: int, centering: Centering
) -> Array:
    """Jackknife error of ``value``, an estimate from all chains; NaN with too few of them.

    Args:
        estimate: the estimate from a list of chain positions.
        value: tells the shape.
        num_chains: how many chains there are.
        centering: centring over chains needs two of them left in every jackknife sample.
    """
    enough = num_chains >= (3 if centering is Centering.step else 2)
    error = jackknife_error(estimate, num_chains) if enough else None
    return np.full_like(value, np.nan) if error is None else error
