"""Local SGLD chains around a module's weights, one after the other, in one flat weight buffer."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from stagewise.batches import Batch, num_samples, take
from stagewise.isolation import untouched, with_weights
from stagewise.losses import Losses, LossFn, evaluate
from stagewise.sampling.config import SGLDConfig
from stagewise.sampling.gradients import DriftGradient
from stagewise.sampling.kernel import MeanSquare, sgld_step_
from stagewise.sampling.streams import chain_streams
from stagewise.sampling.trace import Trace
from stagewise.sampling.weights import FlatWeights

ForwardContext = Callable[[], AbstractContextManager]


class _Recorder:
    """Evaluates the observed set, in chunks, at whatever weights the module holds."""

    def __init__(self, evaluate_batch: Callable[[Batch], Losses], observed: Batch, chunk_size: int | None) -> None:
        size = num_samples(observed)
        chunk = min(chunk_size or size, size)
        self._evaluate = evaluate_batch
        self._chunks = [take(observed, slice(start, start + chunk)) for start in range(0, size, chunk)]

    @torch.no_grad()
    def losses(self) -> Losses:
        parts = [self._evaluate(chunk) for chunk in self._chunks]
        return Losses(torch.cat([part.values for part in parts]), torch.cat([part.mask for part in parts]))


def _run_chain(
    weights: FlatWeights,
    estimate: DriftGradient,
    recorder: _Recorder,
    anchor_loss: float,
    sampling: Batch,
    config: SGLDConfig,
    streams: tuple[torch.Generator, torch.Generator],
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """One chain: losses ``[draw, sample(, token)]`` and distances ``[draw]``.

    Raises:
        FloatingPointError: the recorded loss rose beyond the limit or is not finite; the chain has diverged.
    """
    noise_stream, batch_stream = streams
    lr, localization = config.numbers()
    size = num_samples(sampling)
    noise = torch.empty_like(weights.state)
    adapting = None if config.preconditioner is None else MeanSquare(config.preconditioner, weights.state)
    frozen: Tensor | None = None
    draws: list[NDArray[np.float32]] = []
    distances: list[float] = []
    weights.reset()
    for index in range(config.num_steps):
        batch = take(sampling, torch.randperm(size, generator=batch_stream)[: config.batch_size])
        gradient = estimate(batch)
        if not torch.isfinite(gradient.sum()):
            raise FloatingPointError(f"the gradient was not finite at step {index} of {config.num_steps}")
        burning_in = index < config.num_burnin_steps
        if adapting is not None and burning_in:
            adapting.update(gradient)
            frozen = adapting.preconditioner()
        sgld_step_(
            weights.state,
            weights.anchor,
            gradient,
            noise.normal_(generator=noise_stream),
            lr=lr,
            nbeta=config.nbeta,
            localization=localization,
            preconditioner=frozen,
        )
        weights.publish()
        if not burning_in and (index - config.num_burnin_steps + 1) % config.num_steps_bw_draws == 0:
            recorded = recorder.losses()
            rise = float(recorded.mean()) - anchor_loss
            if not (rise <= config.max_loss_rise and torch.isfinite(recorded.values).all()):
                raise FloatingPointError(
                    f"mean loss rose by {rise:.3g} nats (limit {config.max_loss_rise:g}) at draw {len(draws)} of "
                    f"{config.num_draws}"
                )
            draws.append(recorded.values.float().cpu().numpy())
            distances.append(float(torch.linalg.vector_norm(weights.state - weights.anchor)))
    return np.stack(draws), np.asarray(distances, dtype=np.float32)


def run_chains(
    module: nn.Module,
    loss_fn: LossFn,
    *,
    observed: Batch,
    sampling: Batch,
    config: SGLDConfig,
    step: int = 0,
    chunk_size: int | None = None,
    forward_context: ForwardContext = nullcontext,
) -> Trace:
    """Sample around the weights of ``module`` and record the losses of the observed set.

    The module is left bit for bit as it was: chains run on a copy of the trainable parameters, in eval mode, with
    random numbers of their own. Frozen parameters, and those that ``config.parameters`` leaves out, stay at w*.

    Args:
        module: its current weights are the anchor w*.
        loss_fn: per-sample loss, see :mod:`stagewise.losses`.
        observed: batch that is recorded at each draw, on the module's device.
        sampling: batch whose minibatches drive the gradient, on the module's device.
        config: the sampler.
        step: training step, kept in the trace and, without common noise, part of the seed.
        chunk_size: samples of the observed set for each forward pass; all at once if None.
        forward_context: entered around each forward pass (autocast). It is left in between, because autocast caches
            casts of weights, and the weights move.

    Raises:
        InputError: ``lr`` or ``localization`` is still ``auto``; no trainable parameter, a pattern that matches none,
            or parameters on several devices.
        LossContractError: the loss is not of the contract's shape.
    """
    config.numbers()
    weights = FlatWeights(module, config.parameters)

    def evaluate_batch(batch: Batch) -> Losses:
        with forward_context():
            return evaluate(loss_fn, module, batch)

    recorder = _Recorder(evaluate_batch, observed, chunk_size)

    def sample() -> tuple[Losses, dict[int, tuple[NDArray[np.float32], NDArray[np.float32]]], dict[int, str]]:
        anchor = recorder.losses()
        anchor_loss = float(anchor.mean())
        if not torch.isfinite(anchor.values).all():
            reason = "the loss at the training weights is not finite"
            return anchor, {}, dict.fromkeys(range(config.num_chains), reason)
        estimate = DriftGradient(
            config.drift, weights, lambda batch: evaluate_batch(batch).mean(), sampling, config.batch_size
        )
        kept, dropped = {}, {}
        for chain in range(config.num_chains):
            streams = chain_streams(config, chain, step, weights.state.device)
            try:
                kept[chain] = _run_chain(weights, estimate, recorder, anchor_loss, sampling, config, streams)
            except FloatingPointError as failure:
                dropped[chain] = str(failure)
        return anchor, kept, dropped

    with untouched(module), torch.enable_grad():
        anchor, kept, dropped = with_weights(module, weights.leaves, sample)
    shape = (0, config.num_draws, *anchor.values.shape)
    return Trace(
        loss=np.stack([loss for loss, _ in kept.values()]) if kept else np.empty(shape, dtype=np.float32),
        anchor_loss=anchor.values.float().cpu().numpy(),
        mask=anchor.mask.cpu().numpy(),
        distance=np.stack([far for _, far in kept.values()]) if kept else np.empty(shape[:2], dtype=np.float32),
        chains=tuple(kept),
        dropped=dropped,
        step=step,
    )
