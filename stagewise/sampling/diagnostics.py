"""Convergence diagnostics of the chains of a probe."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import fdtri, ndtri, stdtr
from scipy.stats import rankdata

from stagewise.sampling.relaxation import CORRELATION_AIM
from stagewise.sampling.trace import Trace

Array = NDArray[np.float64]

_MIN_DRAWS = 4
"""Below this many draws R-hat and the effective sample size of split chains are undefined."""


@dataclass(frozen=True)
class Diagnostics:
    """Diagnostics over the recorded losses of one probe; None where undefined (everything, if not ``finite``).

    Attributes:
        finite: True if every recorded loss and distance is finite.
        rhat_max: largest rank-normalised split R-hat over samples (1 = chains agree); None below 4 draws.
        ess_min: smallest bulk effective sample size over samples, in draws, all chains together; None below 4 draws.
        rhat_groups: largest R-hat over the mean losses of groups, which is what a run reports first.
        rhat_max_chance: limit that ``rhat_max`` exceeds in one of a hundred probes if the chains are in equilibrium,
            see :func:`rhat_by_chance`; None below 4 draws.
        rhat_groups_chance: the same for ``rhat_groups``.
        ess_groups: smallest bulk effective sample size over the mean losses of groups, in draws.
        mcse_mean: Monte-Carlo standard error of the mean of the mean loss, over the posterior standard deviation of the
            mean loss; a pure number, 1 / sqrt(effective draws).
        mcse_max: the same for the worst sample.
        drift: share of the mean loss's variance within chains that lies between their first and second halves, 0 to 1;
            large while the chains still move towards equilibrium: .75 for a straight slide.
        slide_chance: chance that some group's mean loss changes this much from the first to the second half of the
            draws without a slide, see :func:`slide_chance`; None with one chain.
        loss_rise: mean loss over the second halves minus mean loss at the training weights, nats (per token for token
            losses). Positive where the chain explores a basin, negative where it continues training.
        chain_share: share of the pooled variance of the losses, summed over samples, explained by *which chain* a draw
            comes from, 0 to 1, less what as many independent draws would show. Large for chains that have not mixed;
            None with one chain.
        draw_share: the same for the *draw index*: large for a slide common to the chains. None with one chain; noisy
            with few, slow chains.
        distance: |w - w*| at the last draw, mean over chains, weight units.
        gradient_over_eps: rms of the gradient over the eps of RMSprop. Far below 1 the preconditioner is the constant
            1 / eps, and RMSprop has no effect. None with another preconditioner, or if not recorded.
        minibatch_noise: variance that minibatch noise adds to a step over that of the injected noise: the relative
            excess heat of the chain. None if not recorded.
    """

    finite: bool
    rhat_max: float | None = None
    ess_min: float | None = None
    rhat_groups: float | None = None
    rhat_max_chance: float | None = None
    rhat_groups_chance: float | None = None
    ess_groups: float | None = None
    mcse_mean: float | None = None
    mcse_max: float | None = None
    drift: float | None = None
    slide_chance: float | None = None
    loss_rise: float | None = None
    chain_share: float | None = None
    draw_share: float | None = None
    distance: float | None = None
    gradient_over_eps: float | None = None
    minibatch_noise: float | None = None


def rhat_by_chance(num_chains: int, num_draws: int, num_curves: int, *, correlation: float = CORRELATION_AIM) -> float:
    """Returns the limit that the largest R-hat of chains in equilibrium exceeds in about one of a hundred cases.

    A fixed limit would flag short chains that agree perfectly. Split R-hat squared is (n - 1 + F) / n, F the ratio of
    the mean squares between and within the 2 C half chains of n draws; for independent draws it follows Fisher's F.
    Correlated draws have a larger F even in equilibrium: by t (n - 1) / (n - t), with t = 1 + 2 sum (1 - k / n) rho^k.
    Rank-normalised R-hat is the larger of two such values, for location and for spread.

    Args:
        num_chains: C.
        num_draws: of each chain; 4 or more.
        num_curves: number of curves over which the largest R-hat is taken.
        correlation: rho of successive draws in equilibrium; by default the largest that
            :func:`~stagewise.calibration.resolve.resolve` tolerates.

    Source: Gelman and Rubin 1992, analysis of variance; Bonferroni over curves.
    """
    halves, length = 2 * num_chains, num_draws // 2
    level = 0.01 / (2 * num_curves)
    lags = np.arange(1, length)
    longer = 1 + 2 * float(((1 - lags / length) * correlation**lags).sum())
    ratio = float(fdtri(halves - 1, halves * (length - 1), 1 - level)) * longer * (length - 1) / (length - longer)
    return math.sqrt((length - 1 + ratio) / length)


def _halves_share(curve: Array) -> float:
    """Returns the share of the within-chain variance of ``[chain, draw]`` that lies between the halves of a chain."""
    half = curve.shape[1] // 2
    even = curve[:, : 2 * half]
    centred = even - even.mean(axis=1, keepdims=True)
    between = np.mean(centred[:, :half].mean(axis=1) ** 2)
    total = np.mean(centred**2)
    return float(between / total) if total > 0 else 0.0


def slide_chance(curves: Array) -> float | None:
    """Estimates the chance that losses change this much between the halves of the draws if the chains do not slide.

    For each curve and chain, the mean over the first half is subtracted from that over the second. The mean of these
    differences over chains, divided by its standard error over chains, follows Student's t with one degree of freedom
    less than chains, however few or correlated the draws of a chain are. The result is the smallest two-sided chance
    over curves, times their number (Bonferroni): chains in equilibrium fall below .01 in at most one of a hundred
    probes. With common noise over probes, such an accident recurs at neighbouring probes.

    Args:
        curves: ``[chain, draw, curve]``, nats.

    Returns:
        0 to 1; None with one chain or one draw. Constant curves are skipped.

    Source: Student 1908; first against last part of a chain, Geweke 1992.
    """
    num_chains, num_draws, _ = curves.shape
    half = num_draws // 2
    if num_chains < 2 or half < 1:
        return None
    moved = curves[:, num_draws - half :].mean(axis=1) - curves[:, :half].mean(axis=1)
    moved = moved[:, curves.std(axis=(0, 1)) > 0]
    if not moved.shape[1]:
        return 1.0
    error = moved.std(axis=0, ddof=1) / np.sqrt(num_chains)
    mean = np.abs(moved.mean(axis=0))
    # Chains that move identically to the last bit certainly slide.
    score = np.divide(mean, error, out=np.where(mean > 0, np.inf, 0.0), where=error > 0)
    return min(1.0, float((2 * stdtr(num_chains - 1, -score)).min()) * moved.shape[1])


def label_shares(losses: Array) -> tuple[float, float] | None:
    """Estimates the shares of the pooled variance explained by the chain and by the draw index.

    Each is the between-label part of the law of total covariance (trace over samples), as in
    :mod:`stagewise.influence.split`, with chains or draw indices as labels, less the part that independent draws would
    show: two-way analysis of variance, one draw per cell, solved for its components.

    Args:
        losses: ``[chain, draw, sample]``, nats.

    Returns:
        Chain share and draw-index share, each 0 to 1; None with one chain, where noise cannot be separated from either.

    Source: Searle, Casella and McCulloch 1992, Variance Components, chapter 4 (method of moments, balanced data).
    """
    num_chains, num_draws, _ = losses.shape
    if num_chains < 2 or num_draws < 2:
        return None
    centred = losses - losses.mean(axis=(0, 1))
    total = float((centred**2).mean(axis=(0, 1)).sum())
    if total <= 0:
        return 0.0, 0.0
    of_chain = float((centred.mean(axis=1) ** 2).mean(axis=0).sum())
    of_draw = float((centred.mean(axis=0) ** 2).mean(axis=0).sum())
    rest = total - of_chain - of_draw
    return (
        max(0.0, of_chain - rest / (num_draws - 1)) / total,
        max(0.0, of_draw - rest / (num_chains - 1)) / total,
    )


def _worst(statistic: Callable[..., Array], pick: Callable[[Array], float], curves: Array) -> float | None:
    """Returns the worst value over curves of a statistic of ``[chain, draw, curve]``.

    A loss that never moves (a masked or saturated sample) is skipped: it has no such statistic.
    """
    moving = curves[:, :, curves.std(axis=(0, 1)) > 0]
    if curves.shape[1] < _MIN_DRAWS or not moving.shape[2]:
        return None
    # Chains that stand still in different places have an infinite R-hat.
    with np.errstate(divide="ignore", invalid="ignore"):
        return float(pick(statistic(moving, chain_axis=0, draw_axis=1)))


def _rank_normalised(curves: Array) -> Array:
    """Returns normal scores of the ranks of each of ``[chain, draw, curve]`` among its draws, all chains together.

    Ranks all curves at once: arviz-stats ranks one curve after the other, which takes most of the time of its R-hat.
    Like arviz-stats, uses Blom's offsets.
    """
    drawn = curves.reshape(-1, curves.shape[2])
    ranks = rankdata(drawn, axis=0)
    return ndtri((ranks - 3 / 8) / (len(drawn) + 1 / 4)).reshape(curves.shape)


def _even(curves: Array) -> Array:
    """Drops the middle one of an odd number of draws from ``[chain, draw, curve]``, as split chains do.

    Ranks of split chains then equal ranks of whole chains.
    """
    half = curves.shape[1] // 2
    return np.concatenate((curves[:, :half], curves[:, -half:]), axis=1)


def _rhat(curves: Array, *, chain_axis: int, draw_axis: int) -> Array:
    """Returns the rank-normalised split R-hat of each curve: the larger of those for location and for spread.

    NaN with one chain, as in arviz-stats.
    """
    if len(curves) < 2:
        return np.full(curves.shape[2], np.nan)
    even = _even(curves)
    folded = np.abs(even - np.median(even, axis=(chain_axis, draw_axis)))
    return np.maximum(*(_split_rhat(_rank_normalised(of)) for of in (even, folded)))


def _split_rhat(curves: Array) -> Array:
    """Returns the R-hat of the half chains of each curve in ``[chain, draw, curve]``; the number of draws is even.

    Takes all curves at once: the same bits as arviz-stats, which takes one after the other, in a tenth of the time.
    """
    first, second = np.split(np.moveaxis(curves, 2, 0), 2, axis=2)
    halves = np.concatenate((first, second), axis=1)
    length = halves.shape[2]
    between = length * halves.mean(axis=2).var(axis=1, ddof=1)
    within = halves.var(axis=2, ddof=1).mean(axis=1)
    return np.sqrt((between / within + length - 1) / length)


def _bulk_ess(curves: Array, *, chain_axis: int, draw_axis: int) -> Array:
    """Returns the bulk effective sample size of each curve, all chains together."""
    from arviz_stats.base import array_stats

    ranks = _rank_normalised(_even(curves))
    return array_stats.ess(ranks, chain_axis=chain_axis, draw_axis=draw_axis, method="mean")


def _relative_error(curves: Array, *, chain_axis: int, draw_axis: int) -> Array:
    """Returns the Monte-Carlo standard error of the mean of each curve, over its standard deviation."""
    # Imported late: arviz-stats is slow to import, and reports need only the limits of this file.
    from arviz_stats.base import array_stats

    error = array_stats.mcse(curves, chain_axis=chain_axis, draw_axis=draw_axis)
    return error / curves.std(axis=(chain_axis, draw_axis), ddof=1)


def diagnose(trace: Trace, *, group_losses: Array | None = None, rmsprop_eps: float | None = None) -> Diagnostics:
    """Computes the diagnostics of the chains that a trace kept.

    Args:
        trace: of one probe, with at least one chain.
        group_losses: ``[chain, draw, group]``, mean loss of each group, nats; the mean loss of all if not given.
        rmsprop_eps: eps of the RMSprop preconditioner, nats per weight; None with another one.

    Source: Vehtari et al. 2021 for R-hat, bulk ESS and MCSE, as implemented by arviz-stats.
    """
    if not (np.isfinite(trace.loss).all() and np.isfinite(trace.distance).all()):
        return Diagnostics(finite=False)

    losses = trace.sample_losses()
    curve = trace.mean_loss()
    mean = curve[:, :, None]
    groups = mean if group_losses is None else group_losses
    chain_share, draw_share = label_shares(losses) or (None, None)
    num_chains, num_draws, num_samples = losses.shape
    enough = num_draws >= _MIN_DRAWS
    gradient_over_eps = None
    if trace.gradient_rms is not None and rmsprop_eps is not None:
        gradient_over_eps = float(np.sqrt(np.mean(trace.gradient_rms**2))) / rmsprop_eps
    return Diagnostics(
        finite=True,
        rhat_max=_worst(_rhat, np.max, losses),
        ess_min=_worst(_bulk_ess, np.min, losses),
        rhat_groups=_worst(_rhat, np.max, groups),
        rhat_max_chance=rhat_by_chance(num_chains, num_draws, num_samples) if enough else None,
        rhat_groups_chance=rhat_by_chance(num_chains, num_draws, groups.shape[2]) if enough else None,
        ess_groups=_worst(_bulk_ess, np.min, groups),
        mcse_mean=_worst(_relative_error, np.max, mean),
        mcse_max=_worst(_relative_error, np.max, losses),
        drift=_halves_share(curve),
        slide_chance=slide_chance(groups),
        loss_rise=float(curve[:, curve.shape[1] // 2 :].mean() - trace.mean_anchor_loss()),
        chain_share=chain_share,
        draw_share=draw_share,
        distance=float(trace.distance[:, -1].mean()),
        gradient_over_eps=gradient_over_eps,
        minibatch_noise=trace.minibatch_noise,
    )
