"""Outcome of a probe, on rank zero and as sent to the other ranks."""

from dataclasses import replace
from typing import NamedTuple

import numpy as np
import xarray as xr

from stagewise.callbacks.ranks import Ranks
from stagewise.probes.carried import Carried
from stagewise.reporting.scalars import probe_scalars
from stagewise.sampling.trace import NOT_FINITE_HERE, Trace

_LARGE = ("draw", "sample_j", "token_j")
"""Axes of the arrays that stay on rank zero: draws, and matrices over samples and over tokens."""


class Outcome(NamedTuple):
    """Outcome of a probe.

    Attributes:
        result: its data set; None if all chains failed. Ranks other than zero lack draws and matrices over samples and
            tokens; everything else is the same.
        trace: of its chains; without draws on ranks other than zero.
        lost: numbers of the samples whose losses are not finite, so that no chain was run.
        values: logged values by tag, where the data set alone does not determine them.
    """

    result: xr.Dataset | None
    trace: Trace
    lost: tuple[int, ...] = ()
    values: dict[str, float] | None = None

    @property
    def finite(self) -> bool:
        """False if losses are not finite at the training weights, so that no chain was run."""
        return not self.lost and NOT_FINITE_HERE not in self.trace.dropped.values()

    @property
    def in_doubt(self) -> bool:
        """True if chains diverged or were out of equilibrium."""
        return bool(self.trace.dropped) or (self.result is not None and not bool(self.result["equilibrated"]))

    def logged(self) -> dict[str, float]:
        """Returns the logged values by tag."""
        if self.values is not None:
            return dict(self.values)
        return {} if self.result is None else probe_scalars(self.result)

    def without_draws(self) -> "Outcome":
        """Returns the outcome as sent to the other ranks."""
        trace, result = self.trace, self.result
        no_draws = np.empty((len(trace.chains), 0), dtype=np.float32)
        small = replace(trace, loss=no_draws, distance=no_draws, reduced=None)
        if result is not None:
            result = result.drop_dims([axis for axis in _LARGE if axis in result.dims])
        return Outcome(result, small, self.lost, self.logged())


def told_to_all(outcome: Outcome, carried: Carried, ranks: Ranks) -> Outcome:
    """Returns the outcome of rank zero on every rank, and updates their carried state likewise. Collective.

    Args:
        outcome: of this rank.
        carried: state for later probes, so far updated on rank zero only.
        ranks: of the run.
    """
    step = outcome.trace.step
    small, news = ranks.decide(lambda: (outcome.without_draws(), carried.news(step)))
    if ranks.share.is_first:
        return outcome
    carried.follow(news)
    return small
