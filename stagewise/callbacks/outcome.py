"""Outcome of a probe, as rank zero has it and as every other rank of the run gets it."""

from dataclasses import replace
from typing import NamedTuple

import numpy as np
import xarray as xr

from stagewise.callbacks.ranks import Ranks
from stagewise.probes.carried import Carried, News
from stagewise.reporting.scalars import probe_scalars
from stagewise.sampling.trace import Trace

_LARGE = ("draw", "sample_j", "token_j")
"""Axes of what stays on rank zero: draws, and matrices over samples and over tokens."""


class Outcome(NamedTuple):
    """Outcome of a probe.

    Attributes:
        result: its data set, None where all chains failed. On other ranks than zero without draws and without matrices
            over samples and tokens; everything else is the same.
        trace: of its chains; on other ranks than zero without draws.
        values: what is logged of it, by tag.
        lost: numbers of the samples that kept it from its chains.
    """

    result: xr.Dataset | None
    trace: Trace
    values: dict[str, float]
    lost: tuple[int, ...] = ()

    def without_draws(self) -> "Outcome":
        """The outcome as the other ranks get it."""
        trace, result = self.trace, self.result
        no_draws = np.empty((len(trace.chains), 0), dtype=np.float32)
        small = replace(trace, loss=no_draws, distance=no_draws, reduced=None)
        if result is not None:
            result = result.drop_dims([axis for axis in _LARGE if axis in result.dims])
        return self._replace(result=result, trace=small)


def outcome_of(
    found: tuple[xr.Dataset | None, Trace], lost: tuple[int, ...], carried: Carried, ranks: Ranks
) -> Outcome:
    """The outcome on every rank, all of which call this; the others' state is then that of rank zero.

    Args:
        found: what the prober found on this rank.
        lost: samples that kept it from its chains, as this rank sees it.
        carried: what later probes get; the probe has added to it on rank zero alone.
        ranks: of the run.
    """
    result, trace = found
    if ranks.alone:
        return Outcome(result, trace, {} if result is None else probe_scalars(result), lost)

    def tell() -> tuple[Outcome, News]:
        whole = Outcome(result, trace, {} if result is None else probe_scalars(result), lost)
        kept.append(whole)
        return whole.without_draws(), carried.news(trace.step)

    kept: list[Outcome] = []
    outcome, news = ranks.decide(tell)
    if kept:
        return kept[0]
    carried.follow(news)
    return outcome
