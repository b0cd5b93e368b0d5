"""Numerical verdict on the loss traces of a few chains."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import median_filter

from stagewise.errors import InputError
from stagewise.sampling.trace import Trace

REACHED = 0.8
"""Fraction of its level that a trace must reach within its first third."""

LEVEL = 0.2
"""Tolerated movement over the last two quarters, and tolerated spread of the chains' levels, both over the level."""

_SPIKE_WIDTHS = 10
_FEWEST_DRAWS = 8


@dataclass(frozen=True)
class TraceVerdict:
    """Verdict on the loss traces of one checkpoint. Losses are relative to the loss at w*, in nats.

    A good trace rises above the loss at w*, levels off within its first third and has no spikes; all chains level off
    at the same value.

    Attributes:
        step: training step.
        level: mean over chains and the second half of the draws.
        level_se: its standard error over chains; NaN for one chain.
        reached_at: first draw at which the mean over chains reaches 80 % of the level; None if the level is not above
            zero.
        movement: mean over the last quarter of the draws minus mean over the third.
        spread: standard deviation over chains of their levels; NaN for one chain.
        spikes: number of draws far from their neighbours.
        num_draws: draws per chain.
        faults: descriptions of the faults; empty for a good trace.
    """

    step: int
    level: float
    level_se: float
    reached_at: int | None
    movement: float
    spread: float
    spikes: int
    num_draws: int
    faults: tuple[str, ...]

    def explain(self) -> str:
        """Describes the verdict in one sentence."""
        if self.faults:
            return f"step {self.step}: " + "; ".join(self.faults)
        return (
            f"step {self.step}: good: rises by {self.level:.3g} nats, reaches {REACHED:.0%} of it at draw "
            f"{self.reached_at} of {self.num_draws}, chains differ by {self.spread:.2g}, no spikes"
        )


def _count_spikes(curve: NDArray[np.float64], level: float) -> int:
    """Counts draws of ``[chain, draw]`` far from the median of their neighbours, relative to spread and level."""
    away = np.abs(curve - median_filter(curve, size=(1, 5), mode="nearest"))
    usual = 1.4826 * np.median(away[away > 0]) if np.any(away > 0) else 0.0
    return int(np.sum((away > _SPIKE_WIDTHS * usual) & (away > 0.5 * abs(level))))


def judge(trace: Trace) -> TraceVerdict:
    """Judges the mean losses of a trace.

    Raises:
        InputError: no chain was kept, or chains have fewer than 8 draws.
    """
    if not trace.chains or trace.loss.shape[1] < _FEWEST_DRAWS:
        raise InputError(
            f"got {len(trace.chains)} chains of {trace.loss.shape[1]} draws; expected at least 1 of {_FEWEST_DRAWS}"
        )
    curve = trace.mean_loss() - trace.mean_anchor_loss()
    num_chains, num_draws = curve.shape
    levels = curve[:, num_draws // 2 :].mean(axis=1)
    level = float(levels.mean())
    spread = float(levels.std(ddof=1)) if num_chains > 1 else math.nan
    quarter = num_draws // 4
    moved = curve[:, -quarter:].mean(axis=1) - curve[:, -2 * quarter : -quarter].mean(axis=1)
    movement = float(moved.mean())
    noise = 2 * float(moved.std(ddof=1)) / math.sqrt(num_chains) if num_chains > 1 else 0.0
    over = np.flatnonzero(curve.mean(axis=0) >= REACHED * level)
    reached_at = int(over[0]) if level > 0 else None
    spikes = _count_spikes(curve, level)

    faults = []
    if level <= 0:
        faults.append(f"does not rise above the loss at w* ({level:+.3g} nats): the chain goes on training")
    if reached_at is not None and reached_at >= num_draws // 3:
        faults.append(f"rises slowly: {REACHED:.0%} of {level:.3g} nats only at draw {reached_at} of {num_draws}")
    if abs(movement) > max(LEVEL * abs(level), noise):
        faults.append(f"has not levelled off: {movement:+.3g} nats over the second half, at {level:.3g}")
    if spikes:
        faults.append(f"{spikes} spikes: lr is at the edge of stability, or a minibatch is odd")
    if spread > LEVEL * abs(level):
        faults.append(f"chains level off {spread:.2g} nats apart (standard deviation), at {level:.3g}")
    if trace.dropped:
        faults.append(f"{len(trace.dropped)} of {num_chains + len(trace.dropped)} chains diverged")
    return TraceVerdict(
        step=trace.step,
        level=level,
        level_se=spread / math.sqrt(num_chains),
        reached_at=reached_at,
        movement=movement,
        spread=spread,
        spikes=spikes,
        num_draws=num_draws,
        faults=tuple(faults),
    )
