"""SGLD: the step of a chain, the walk of several chains, and the loss-free control."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import chain as following

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from stagewise.errors import require
from stagewise.losses.contract import Losses
from stagewise.sampling.config import Integrator, ResolvedSGLD, SGLDConfig, Start
from stagewise.sampling.engines.engine import Engine
from stagewise.sampling.gradients import DriftGradient
from stagewise.sampling.heat import NUM_GRADIENTS, minibatch_heat
from stagewise.sampling.posterior import LocalPosterior
from stagewise.sampling.preconditioners.diagonal import Preconditioner, RMSprop, RunningRMSprop
from stagewise.sampling.preconditioners.ekfac import EKFAC
from stagewise.sampling.sharding import Sharding
from stagewise.sampling.streams import Streams


def loss_free(config: ResolvedSGLD) -> ResolvedSGLD:
    """Returns the same sampler with nbeta 0: its target is N(w*, 1 / localization) alone.

    With the same seed and numbers of steps its chains get identical noise and starts. EK-FAC becomes 1 / localization
    in the same eigenbasis, so that noise acts in the same directions.

    Args:
        config: the settings.

    Raises:
        InputError: ``localization`` is 0: the chains would diffuse.
    """
    good = config.localization > 0
    require(good, "localization", config.localization, "localization > 0 for a control without the loss", "set it")
    return replace(
        config, nbeta=0.0, num_burnin_steps=config.burnin_steps, num_steps_bw_draws=config.steps_bw_draws
    )  # fmt: skip


def needs_gradients(config: SGLDConfig) -> bool:
    """Returns True if the draws depend on gradients of the loss: at nbeta 0, only if a preconditioner adapts."""
    return config.nbeta > 0 or isinstance(config.preconditioner, RMSprop)


def sgld_step_(
    weights: Tensor,
    anchor: Tensor,
    gradient: Tensor,
    noises: Sequence[Tensor],
    *,
    lr: float,
    posterior: LocalPosterior,
    preconditioner: Preconditioner | None = None,
) -> None:
    """Moves ``weights`` by one step, in place; may overwrite ``gradient``.

    w <- w - (lr / 2) P (nbeta * gradient + localization (w - w*)) + sqrt(lr P) R

    With one noise R this is the Euler step: for a quadratic target of curvature lam the stationary variance is
    (1 / lam) / (1 - lr lam / 4), and the lag-k correlation a^k, a = 1 - lr lam / 2. With two noises, R is their mean,
    and the second is the first of the next step. This is the step of Leimkuhler and Matthews: its variance is 1 / lam
    at every stable step (lr lam < 4), its lag-k correlation a^(k - 1) (1 + a) / 2. Minibatch noise is not averaged; in
    either case it adds lr nbeta^2 Var / 4 / (1 - lr lam / 4) to the variance.

    Args:
        weights: ``[weight]`` or ``[chain, weight]``, the state w.
        anchor: ``[weight]``, the training weights w*.
        gradient: shape of ``weights``, of the minibatch mean loss, nats per weight.
        noises: one or two, shape of ``weights``, standard normal.
        lr: step size epsilon.
        posterior: nbeta and localization. Weight decay is part of ``gradient``.
        preconditioner: P; None is P = 1.

    Source: Welling and Teh 2011; localized form in Hitchcock and Hoogland, arXiv 2507.21449; averaged noise in
    Leimkuhler and Matthews 2013, arXiv 1203.5428; P as in Li et al. 2016, frozen.
    """
    nbeta, localization = posterior.nbeta, posterior.localization
    scale = math.sqrt(lr) / len(noises)
    if preconditioner is None:
        # The pull towards w* as an interpolation saves passes over the weights.
        weights.lerp_(anchor.expand_as(weights), lr * localization / 2)
        weights.add_(gradient, alpha=-lr * nbeta / 2)
        for part in noises:
            weights.add_(part, alpha=scale)
        return
    force = gradient.mul_(nbeta).add_(weights, alpha=localization).sub_(anchor, alpha=localization)
    weights.add_(preconditioner.times(force), alpha=-lr / 2)
    weights.add_(preconditioner.root_times(noises[0] if len(noises) == 1 else noises[0] + noises[1]), alpha=scale)


Reduce = Callable[[Tensor], Tensor]
"""Maps the losses ``[sample, token]`` of one draw to features ``[feature]``."""

OnDraw = Callable[[int, Tensor], None]
"""Called with the number of a chain and the losses ``[sample(, token)]`` of each of its draws, in order.

For observers that keep running sums. The order of chains depends on the engine. Failed chains are included until all
have failed. The callee must not change the losses.
"""


@dataclass
class Walk:
    """Recorded quantities of some chains.

    Attributes:
        loss: ``[chain, draw, sample(, token)]``, nats; summed over tokens if the losses were reduced.
        reduced: ``[chain, draw, feature]``, or None.
        distance: ``[chain, draw]``, |w - w*|.
        gradient_rms: ``[chain]``, root mean square of the gradient estimates over steps and weights, nats per weight;
            NaN if the draws do not depend on gradients (nbeta 0), which were then not evaluated.
        minibatch_noise: ``[chain]``, see :func:`~stagewise.sampling.heat.minibatch_heat`; NaN if not measured.
        failed: position of each chain that failed, with the reason.
    """

    loss: NDArray[np.float32]
    reduced: NDArray[np.float64] | None
    distance: NDArray[np.float32]
    gradient_rms: NDArray[np.float64]
    minibatch_noise: NDArray[np.float64]
    failed: dict[int, str]


_DRAWS_ON_DEVICE = 16
"""Draws whose records stay on a GPU until they are copied at once: each copy waits for the device."""


class Recorder:
    """Recorder of the losses and distances of each draw."""

    def __init__(
        self, numbers: Sequence[int], num_draws: int, anchor: Losses, reduce: Reduce | None, on_draw: OnDraw | None
    ) -> None:
        """Starts without draws.

        Args:
            numbers: of the chains, for ``on_draw``.
            num_draws: draws of each.
            anchor: losses at w*.
            reduce: reduces the losses of each draw to features; token losses are then discarded.
            on_draw: called with the losses of each draw.
        """
        num_chains = len(numbers)
        self._numbers = numbers
        self._on_draw = on_draw
        values = anchor.values
        shape = values.shape if reduce is None else values.shape[:1]
        self._reduce = reduce
        self._block = num_draws_on(values.device)
        self.distance = torch.empty((num_chains, num_draws), dtype=torch.float32)
        self.loss = torch.empty((num_chains, num_draws, *shape), dtype=torch.float32)
        self.reduced: Tensor | None = None
        self._kept = [self.distance, self.loss]
        if reduce is not None:
            self.reduced = torch.empty((num_chains, num_draws, *reduce(values).shape), dtype=torch.float64)
            self._kept.append(self.reduced)
        # On the device: a block of each record, and sums that show how far the losses rose.
        self._waiting = [
            torch.empty((num_chains, self._block, *record.shape[2:]), dtype=record.dtype, device=values.device)
            for record in self._kept
        ]
        self._sums = torch.empty((num_chains, self._block), dtype=torch.float64, device=values.device)
        self._draws: list[int] = []
        self._num_losses = float(anchor.mask.sum())
        self._anchor_loss = float(anchor.mean())

    @property
    def num_waiting(self) -> int:
        """Number of draws added and not yet taken."""
        return len(self._draws)

    @property
    def is_full(self) -> bool:
        """True if the waiting draws must be taken before the next is added."""
        return self.num_waiting == self._block

    def add(self, draw: int, values: Tensor, distance: Tensor) -> None:
        """Records losses ``[chain, sample(, token)]`` and distances ``[chain]`` from w*, without device sync."""
        if self._on_draw is not None:
            for number, chain in zip(self._numbers, values, strict=True):
                self._on_draw(number, chain)
        place = len(self._draws)
        self._draws.append(draw)
        distances, losses, *reduced = (waiting[:, place] for waiting in self._waiting)
        distances.copy_(distance)
        if self._reduce is not None:
            for row, chain in zip(reduced[0], values, strict=True):
                row.copy_(self._reduce(chain))
            values = values if values.dim() == 2 else values.sum(dim=2)
        losses.copy_(values)
        self._sums[:, place] = losses.flatten(1).sum(dim=1, dtype=torch.float64)

    def take(self) -> list[tuple[int, list[float]]]:
        """Copies the draws since the last call from the device, all at once.

        Returns:
            Number of each draw, and the rise ``[chain]`` of its mean loss over that at w*, nats; the rise is not finite
            if a loss is not.
        """
        draws, count = self._draws, len(self._draws)
        self._draws = []
        if not draws:
            return []
        for record, waiting in zip(self._kept, self._waiting, strict=True):
            record[:, draws[0] : draws[0] + count] = waiting[:, :count]
        sums = self._sums[:, :count].T.tolist()
        return [
            (draw, [total / self._num_losses - self._anchor_loss for total in chains])
            for draw, chains in zip(draws, sums, strict=True)
        ]


def num_draws_on(device: torch.device) -> int:
    """Returns the number of draws recorded before they are checked: one on a CPU, where nothing waits."""
    return 1 if device.type == "cpu" else _DRAWS_ON_DEVICE


def walk(
    engine: Engine,
    estimate: DriftGradient,
    streams: Streams,
    config: ResolvedSGLD,
    recorder: Recorder,
    *,
    fixed: Preconditioner | None = None,
    measure_noise: bool = True,
    sharding: Sharding | None = None,
) -> Walk:
    """Runs the chains of an engine in lockstep.

    With nbeta 0, gradients are evaluated only for a preconditioner that adapts to them: the draws equal those with
    gradients times zero bit for bit, and cost only noise and recorded losses.

    Args:
        engine: evaluates the chains; its state is updated.
        estimate: of the gradient.
        streams: noise and minibatches of the same chains.
        config: the sampler.
        recorder: of the losses of their draws.
        fixed: constant preconditioner; RMSprop is built by this function.
        measure_noise: measure the heat of the minibatches with some additional gradients; NaN if False.
        sharding: of the processes that run the chain together; None for one.
    """
    num_chains, num_weights = engine.state.shape
    norm = _norms if sharding is None else sharding.norms
    if sharding is not None:
        num_weights = int(sharding.total(torch.tensor(num_weights)))
    burnin, spacing = config.burnin_steps, config.steps_bw_draws
    posterior = config.posterior
    averaged = config.integrator is Integrator.leimkuhler_matthews
    _start_(engine, streams, config, fixed)
    norms = engine.state.new_zeros(config.num_steps, num_chains)
    rms_settings = config.preconditioner if isinstance(config.preconditioner, RMSprop) else None
    adapting = None if rms_settings is None else RunningRMSprop(rms_settings, engine.state)
    preconditioner = fixed
    evaluates = needs_gradients(config)
    nothing = engine.state.new_zeros(() if evaluates else engine.state.shape)
    excess = engine.state.new_full((num_chains,), math.nan if evaluates else 0.0)
    failed: dict[int, str] = {}
    checked = 0
    for index in range(config.num_steps):
        # Gradients without effect on the draws are not evaluated, and cannot fail.
        gradient = estimate(streams.minibatches()) if evaluates else nothing.zero_()
        norms[index] = norm(gradient)
        burning_in = index < burnin
        if adapting is not None and rms_settings is not None and (burning_in or not rms_settings.frozen):
            adapting.update(gradient)
            preconditioner = adapting.preconditioner()
        if measure_noise and evaluates and index == config.num_steps - 1:
            total = None if sharding is None else sharding.total
            excess = _minibatch_noise(engine, estimate, streams, gradient, preconditioner, config, total)
        noises = streams.two_noises() if averaged else (streams.noise(),)
        sgld_step_(
            engine.state,
            engine.anchor,
            gradient,
            noises,
            lr=config.lr,
            posterior=posterior,
            preconditioner=preconditioner,
        )
        engine.moved()
        del gradient  # room for the next
        draw, between = divmod(index - burnin, spacing)
        records = not burning_in and between == spacing - 1
        if not (records or index == burnin - 1):
            continue
        if recorder.num_waiting == 0:
            _note_failed_gradients(norms, checked, index + 1, config.num_steps, failed)
            checked = index + 1
            if len(failed) == num_chains:
                break
        if records:
            recorder.add(draw, engine.losses(), norm(engine.state - engine.anchor))
        if not (recorder.is_full or index == config.num_steps - 1):
            continue
        host = norms if checked == index + 1 else norms.cpu()
        for taken, rise in recorder.take():
            # Up to this draw, so that the first failure of a chain is the one reported.
            end = burnin + (taken + 1) * spacing
            _note_failed_gradients(host, checked, end, config.num_steps, failed)
            checked = max(checked, end)
            for chain, nats in enumerate(rise):
                if not -math.inf < nats <= config.max_loss_rise:
                    why = f"mean loss rose by {nats:.3g} nats (limit {config.max_loss_rise:g})"
                    failed.setdefault(chain, f"{why} at draw {taken} of {config.num_draws}")
        if len(failed) == num_chains:
            break
    rms = norms.double().square().mean(dim=0).div(num_weights).sqrt()
    return Walk(
        loss=recorder.loss.numpy(),
        reduced=None if recorder.reduced is None else recorder.reduced.numpy(),
        distance=recorder.distance.numpy(),
        gradient_rms=rms.cpu().numpy() if evaluates else np.full(num_chains, math.nan),
        minibatch_noise=excess.double().cpu().numpy(),
        failed=failed,
    )


def _norms(vectors: Tensor) -> Tensor:
    return torch.linalg.vector_norm(vectors, dim=1)


def _start_(engine: Engine, streams: Streams, config: ResolvedSGLD, fixed: Preconditioner | None) -> None:
    """Moves the chains to their starting points.

    In the second-order chain a weight is correlated with the noise of the next step: their covariance is half the root
    of lr P. The start has this correlation too, so that a Gaussian target is in equilibrium from the first draw on.
    """
    engine.state.copy_(engine.anchor.expand_as(engine.state))
    if config.start is Start.gaussian:
        lr, localization = config.lr, config.localization
        whitened = isinstance(config.preconditioner, EKFAC) and fixed is not None
        share = lr / 4 * (1.0 if whitened else localization)
        start = streams.noise()
        averaged = config.integrator is Integrator.leimkuhler_matthews
        if averaged and share < 1 and (whitened or config.preconditioner is None):
            # A copy first: the upcoming noise may overwrite the start.
            start = start * math.sqrt(1 - share)
            start += streams.upcoming() * math.sqrt(share)
        if whitened and fixed is not None:
            engine.state.add_(fixed.root_times(start))
        else:
            engine.state.add_(start, alpha=1 / math.sqrt(localization))
    engine.moved()


def _note_failed_gradients(norms: Tensor, start: int, end: int, num_steps: int, failed: dict[int, str]) -> None:
    """Notes chains whose gradients were not finite since the last check: on a GPU each check waits for the device."""
    if start >= end or math.isfinite(float(norms[start:end].sum())):
        return
    bad = ~torch.isfinite(norms[start:end])
    for chain in bad.any(dim=0).nonzero().flatten().tolist():
        first = start + int(bad[:, chain].nonzero()[0])
        failed.setdefault(chain, f"the gradient was not finite at step {first} of {num_steps}")


def _minibatch_noise(
    engine: Engine,
    estimate: DriftGradient,
    streams: Streams,
    gradient: Tensor,
    preconditioner: Preconditioner | None,
    config: ResolvedSGLD,
    total: Callable[[Tensor], Tensor] | None,
) -> Tensor:
    """Estimates the heat ``[chain]`` at the chains' current weights; ``gradient`` is one of the estimates."""
    minibatches = [streams.minibatches() for _ in range(NUM_GRADIENTS - 1)]
    if minibatches[0].rows is None:
        return gradient.new_zeros(len(gradient))
    direction = engine.observed_gradient()
    # One at a time: eight copies of the weights would dominate the memory of a probe.
    gradients = following([gradient], (estimate(rows) for rows in minibatches))
    return minibatch_heat(
        gradients, direction, lr=config.lr, nbeta=config.nbeta, preconditioner=preconditioner, total=total
    )
