"""Whether the chains of a probe can be believed."""

from dataclasses import dataclass

import numpy as np
from arviz_stats.base import array_stats
from numpy.typing import NDArray

from stagewise.sampling.trace import Trace

_MIN_DRAWS = 4
"""Below this many draws R-hat and the effective sample size of split chains are undefined."""


@dataclass(frozen=True)
class Diagnostics:
    """Diagnostics over the per-sample losses of one probe.

    Attributes:
        rhat_max: largest rank-normalised split R-hat over samples (1 = chains agree); None below 4 draws.
        ess_min: smallest bulk effective sample size over samples, in draws, all chains together; None below 4 draws.
        drift: share of the mean loss's variance within chains that lies between their first and second halves, 0 to 1;
            large when the chains are still on their way.
        loss_rise: mean loss over the second halves minus mean loss at the training weights, nats (per token for token
            losses). Positive where the chain explores a basin, negative where it goes on training.
    """

    rhat_max: float | None
    ess_min: float | None
    drift: float
    loss_rise: float


def _halves_share(curve: NDArray[np.float64]) -> float:
    """Share of the variance of ``[chain, draw]`` within chains that lies between the two halves of each chain."""
    half = curve.shape[1] // 2
    even = curve[:, : 2 * half]
    centred = even - even.mean(axis=1, keepdims=True)
    between = np.mean(centred[:, :half].mean(axis=1) ** 2)
    total = np.mean(centred**2)
    return float(between / total) if total > 0 else 0.0


def diagnose(trace: Trace) -> Diagnostics:
    """Diagnose the chains that a trace kept.

    Source: Vehtari et al. 2021 for R-hat and bulk ESS, as implemented by arviz-stats.
    """
    losses = trace.sample_losses()
    # A loss that never moves (a masked or saturated sample) has no R-hat; it cannot be unconverged either.
    moving = losses[:, :, losses.std(axis=(0, 1)) > 0]
    rhat = ess = None
    if losses.shape[1] >= _MIN_DRAWS and moving.shape[2]:
        # Chains that stand still in different places have an infinite R-hat.
        with np.errstate(divide="ignore", invalid="ignore"):
            rhat = float(np.max(array_stats.rhat(moving, chain_axis=0, draw_axis=1)))
        ess = float(np.min(array_stats.ess(moving, chain_axis=0, draw_axis=1)))
    curve = trace.mean_loss()
    settled = curve[:, curve.shape[1] // 2 :]
    return Diagnostics(
        rhat_max=rhat,
        ess_min=ess,
        drift=_halves_share(curve),
        loss_rise=float(settled.mean() - trace.mean_anchor_loss()),
    )
