"""Outcome of a probe, as rank zero has it and as every other rank of the run gets it."""

from dataclasses import replace
from typing import NamedTuple

import numpy as np
import xarray as xr

from stagewise.callbacks.ranks import Ranks
from stagewise.probes.carried import Carried
from stagewise.reporting.scalars import probe_scalars
from stagewise.sampling.trace import NOT_FINITE_HERE, Trace

_LARGE = ("draw", "sample_j", "token_j")
"""Axes of what stays on rank zero: draws, and matrices over samples and over tokens."""


class Outcome(NamedTuple):
    """Outcome of a probe.

    Attributes:
        result: its data set, None where all chains failed. On other ranks than zero without draws and without matrices
            over samples and tokens; everything else is the same.
        trace: of its chains; on other ranks than zero without draws.
        lost: numbers of the samples that kept it from its chains.
        values: what is logged of it, by tag, where the data set alone does not tell.
    """

    result: xr.Dataset | None
    trace: Trace
    lost: tuple[int, ...] = ()
    values: dict[str, float] | None = None

    @property
    def finite(self) -> bool:
        """False where losses are not finite at the training weights, which no chain leaves."""
        return not self.lost and NOT_FINITE_HERE not in self.trace.dropped.values()

    @property
    def in_doubt(self) -> bool:
        """True if chains diverged, or were out of equilibrium."""
        return bool(self.trace.dropped) or (self.result is not None and not bool(self.result["equilibrated"]))

    def logged(self) -> dict[str, float]:
        """Values by tag."""
        if self.values is not None:
            return dict(self.values)
        return {} if self.result is None else probe_scalars(self.result)

    def without_draws(self) -> "Outcome":
        """The outcome as the other ranks get it."""
        trace, result = self.trace, self.result
        no_draws = np.empty((len(trace.chains), 0), dtype=np.float32)
        small = replace(trace, loss=no_draws, distance=no_draws, reduced=None)
        if result is not None:
            result = result.drop_dims([axis for axis in _LARGE if axis in result.dims])
        return Outcome(result, small, self.lost, self.logged())


def told_to_all(outcome: Outcome, carried: Carried, ranks: Ranks) -> Outcome:
    """The outcome of rank zero on every rank, all of which call this; what they carry on is that of rank zero, too.

    Args:
        outcome: as this rank sees it.
        carried: what later probes get; the probe has added to it on rank zero alone.
        ranks: of the run.
    """
    step = outcome.trace.step
    small, news = ranks.decide(lambda: (outcome.without_draws(), carried.news(step)))
    if ranks.share.is_first:
        return outcome
    carried.follow(news)
    return small
