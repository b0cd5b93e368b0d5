"""Local SGLD chains around a module's weights; drops chains that diverge, with the reason."""

import math
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from stagewise.batches import Batch, chunks, num_samples
from stagewise.checks.bounds import check_arguments, checked
from stagewise.isolation import untouched
from stagewise.losses.contract import Losses, LossFn
from stagewise.sampling.chain_inputs import check_chains
from stagewise.sampling.config import Drift, EngineName, ResolvedSGLD, SGLDConfig
from stagewise.sampling.engines.batched import BatchedEngine, Program
from stagewise.sampling.engines.compiled import CompiledEngine, CompiledProgram
from stagewise.sampling.engines.engine import Engine
from stagewise.sampling.engines.select import EngineChoice
from stagewise.sampling.engines.sequential import SequentialEngine
from stagewise.sampling.engines.sharded import ShardedEngine
from stagewise.sampling.gradients import KEPT_BYTES, DriftGradient, anchor_gradients
from stagewise.sampling.preconditioners.diagonal import AdamMoments, Preconditioner
from stagewise.sampling.preconditioners.ekfac import EKFAC
from stagewise.sampling.preconditioners.ekfac_factors import ekfac_preconditioner
from stagewise.sampling.row_noise import RowStreams
from stagewise.sampling.selection import Masks
from stagewise.sampling.sgld import OnDraw, Recorder, Reduce, Walk, loss_free, needs_gradients, walk
from stagewise.sampling.sharded_weights import ShardedWeights, weights_of, while_moving
from stagewise.sampling.streams import Streams, partition
from stagewise.sampling.target import ForwardContext, Target
from stagewise.sampling.trace import NO_FACTORS, NOT_FINITE_HERE, Trace
from stagewise.sampling.weights import FlatWeights


class _Request(NamedTuple):
    """Settings of one run of chains, and consumers of its draws."""

    config: ResolvedSGLD
    reduce: Reduce | None
    on_draw: OnDraw | None


class _Drive(NamedTuple):
    """Gradient estimator of a probe, see :class:`~stagewise.sampling.gradients.DriftGradient`."""

    drift: Drift
    slope: Tensor | None = None
    kept: Tensor | None = None
    choices: Tensor | None = None


class ChainSampler:
    """Sampler of chains around a module's current weights; keeps traced programs and the engine between runs.

    The module is not changed: chains run on a copy of the trainable parameters, in eval mode, with their own random
    streams. Frozen parameters, and parameters outside the target's selection, stay at w*.

    Attributes:
        engine: of the chains; None until chosen.
    """

    def __init__(
        self,
        module: nn.Module,
        target: Target,
        config: SGLDConfig,
        *,
        reduce: Reduce | None = None,
        engine: EngineName | None = None,
    ) -> None:
        """Checks and stores the inputs; runs no chain yet.

        Args:
            module: its weights at the time of each run are the anchor w*.
            target: loss, observed and sampling set, and selection of weights, by default that of ``config.parameters``.
            config: the sampler.
            reduce: reduces the losses of each draw to features; token losses are then discarded.
            engine: earlier choice for ``auto``, which a resumed run keeps.

        Raises:
            InputError: as :func:`check_chains`, or ``lr`` or ``localization`` is still ``auto``.
        """
        check_arguments("ChainSampler", ChainSampler.__init__, locals())
        self._target = check_chains(module, target, config, engine)
        self._module = module
        self._config = config.require_resolved()
        self._chunks = self._target.observed_chunks()
        self._reduce = reduce
        with target.forward_context():
            half = torch.is_autocast_enabled(next(module.parameters()).device.type)
        half |= any(value.dtype in (torch.float16, torch.bfloat16) for value in module.parameters())
        functions = target.loss_fn, self._target.selection, target.forward_context
        self._choice = EngineChoice(
            (config.engine if engine is None else engine) if target.sharding is None else EngineName.sequential,
            partial(Program, *functions),
            partial(CompiledProgram, *functions),
            batch_size=config.batch_size if config.batch_size < num_samples(target.driving) else None,
            half_precision=half,
        )

    @property
    def engine(self) -> EngineName | None:
        """Engine of the chains; None until chosen."""
        return self._choice.name

    def rechunk(self, chunk_size: int) -> None:
        """Sets the number of samples per forward pass over the observed set; draws agree up to rounding."""
        self._chunks = chunks(self._target.observed, chunk_size)

    def settle_engine(self, name: EngineName | None) -> None:
        """Adopts the engine chosen by another process; None leaves the choice open."""
        if name is not None:
            self._choice.name = name

    def choose_engine(self, num_chains: int) -> EngineName | None:
        """Chooses the engine at the current weights, without running a chain.

        Args:
            num_chains: number of chains that this process runs.

        Returns:
            Name of the engine; None if the loss is not finite, which prevents a choice.

        Raises:
            InputError: the requested engine cannot run this module.
        """
        weights = weights_of(self._module, self._target)

        def choose() -> None:
            sequential = self._sequential(weights)
            anchor = sequential.anchor_losses()
            if torch.isfinite(anchor.values).all():
                self._engine(weights, sequential, anchor, num_chains)

        with untouched(self._module), torch.enable_grad():
            while_moving(self._module, weights, choose)
        return self.engine

    def _sequential(self, weights: FlatWeights) -> SequentialEngine:
        """Returns the engine for one chain at a time, run by this process or by all processes that hold shards."""
        data = self._target.driving, self._chunks
        if isinstance(weights, ShardedWeights) and self._target.sharding is not None:
            return ShardedEngine(weights, self._evaluate, *data, self._target.sharding)
        return SequentialEngine(weights, self._evaluate, *data)

    def _streams(
        self, config: ResolvedSGLD, chains: Sequence[int], step: int, weights: FlatWeights, choices: Tensor | None
    ) -> Streams:
        size = num_samples(self._target.driving)
        if isinstance(weights, ShardedWeights):
            return RowStreams(config, chains, step, weights.anchor, size, choices, layout=weights.layout)
        return Streams(config, chains, step, weights.anchor, size, choices)

    def _engine(
        self, weights: FlatWeights, sequential: SequentialEngine, anchor: Losses, num_chains: int
    ) -> SequentialEngine | BatchedEngine:
        data = self._target.driving, self._chunks

        def batched(program: Program) -> BatchedEngine:
            return BatchedEngine(program, self._module, weights, num_chains, *data, anchor.mask)

        def compiled(program: CompiledProgram) -> CompiledEngine:
            return CompiledEngine(program, self._module, weights, self._evaluate, *data)

        return self._choice.engine(sequential, batched, compiled, anchor)

    def _evaluate(self, batch: Batch) -> Losses:
        return self._target.evaluate(self._module, batch)

    def run(
        self,
        step: int = 0,
        second_moments: Mapping[str, Tensor] | None = None,
        *,
        on_draw: OnDraw | None = None,
        numbers: Sequence[int] | None = None,
        control: bool = False,
        reduce: Reduce | None = None,
    ) -> Trace:
        """Samples around the module's current weights and records the losses of the observed set.

        Args:
            step: training step, kept in the trace and, without common noise, part of the seed.
            second_moments: of Adam, by parameter name, for ``AdamMoments``.
            on_draw: called with the number of the chain and the losses ``[sample(, token)]`` at each draw, e.g.
                :class:`~stagewise.influence.token_bif_sums.TokenSums`.
            numbers: of the chains to run, increasing; all ``config.num_chains`` if None; may be empty. Draws of a chain
                do not depend on the others.
            control: run without the loss, with the same noise, see :func:`~stagewise.sampling.sgld.loss_free`.
            reduce: replaces the sampler's ``reduce`` in this run.

        Raises:
            InputError: the requested engine cannot run this module.
            LossContractError: the loss has the wrong shape.
        """
        config = loss_free(self._config) if control else self._config
        request = _Request(config, self._reduce if reduce is None else reduce, on_draw)
        chains = range(config.num_chains) if numbers is None else numbers
        weights = weights_of(self._module, self._target)
        fixed: Preconditioner | None = None
        failure: str | None = None
        try:
            fixed = self._fixed_preconditioner(config, weights, second_moments or {}) if chains else None
        except torch.linalg.LinAlgError as error:  # a probe must not end training
            failure = f"{NO_FACTORS} ({error})"
        with untouched(self._module), torch.enable_grad():
            return while_moving(
                self._module, weights, lambda: self._sample(weights, fixed, step, failure, request, chains)
            )

    def _sample(
        self,
        weights: FlatWeights,
        fixed: Preconditioner | None,
        step: int,
        failure: str | None,
        request: _Request,
        chains: Sequence[int],
    ) -> Trace:
        config = request.config
        sequential = self._sequential(weights)
        anchor = sequential.anchor_losses()
        if not torch.isfinite(anchor.values).all():
            failure = NOT_FINITE_HERE
        if failure is not None or not chains:
            return self._trace([], dict.fromkeys(chains, failure or ""), anchor, step, request)
        chosen = self._engine(weights, sequential, anchor, len(chains))
        drive = self._drive(config, weights, sequential, chosen)

        def run(engine: Engine, numbers: Sequence[int], *, measure_noise: bool) -> Walk:
            estimate = DriftGradient(
                drive.drift, engine, weight_decay=config.weight_decay, slope=drive.slope, kept=drive.kept
            )
            streams = self._streams(config, numbers, step, weights, drive.choices)
            recorder = Recorder(numbers, config.num_draws, anchor, request.reduce, request.on_draw)
            return walk(
                engine,
                estimate,
                streams,
                config,
                recorder,
                fixed=fixed,
                measure_noise=measure_noise,
                sharding=self._target.sharding,
            )

        if isinstance(chosen, BatchedEngine):
            walks = [(list(chains), run(chosen, chains, measure_noise=True))]
        else:
            # The heat is measured on the first kept chain alone, as it costs extra gradients.
            walks, measured = [], False
            for chain in chains:
                done = run(chosen, [chain], measure_noise=not measured)
                measured = measured or not done.failed
                walks.append(([chain], done))
        dropped = {numbers[row]: why for numbers, done in walks for row, why in done.failed.items()}
        return self._trace(walks, dropped, anchor, step, request)

    def _drive(
        self, config: ResolvedSGLD, weights: FlatWeights, sequential: SequentialEngine, engine: Engine
    ) -> "_Drive":
        """Evaluates the gradients at w* that all estimates of a probe share."""
        size = num_samples(self._target.driving)
        drift = Drift.control_variate if config.drift is Drift.auto else config.drift
        if drift is Drift.plain or not needs_gradients(config):
            return _Drive(Drift.plain)
        if config.batch_size >= size:
            return _Drive(drift, slope=sequential.slope(config.batch_size) if drift is Drift.tilted else None)
        choices = partition(config, size)
        # All processes that run a chain together must decide alike.
        numel = weights.most if isinstance(weights, ShardedWeights) else engine.anchor.numel()
        fits = len(choices) * numel * engine.anchor.element_size() <= KEPT_BYTES
        # Control variates need a pass over the whole set anyway. Steps are counted over all chains of the probe:
        # minibatches must not depend on how many chains this process runs.
        pays = drift is Drift.control_variate or len(choices) <= config.num_chains * config.num_steps
        if fits and pays:
            kept = anchor_gradients(engine, choices)
            return _Drive(drift, slope=kept.mean(dim=0), kept=kept, choices=choices)
        return _Drive(drift, slope=sequential.slope(config.batch_size) if drift is Drift.control_variate else None)

    def _fixed_preconditioner(
        self, config: ResolvedSGLD, weights: FlatWeights, second_moments: Mapping[str, Tensor]
    ) -> Preconditioner | None:
        settings = config.preconditioner
        if isinstance(settings, AdamMoments):
            moments = weights.gather(second_moments)
            total = None if self._target.sharding is None else self._target.sharding.total
            return settings.build(weights.gather(weights.leaves), moments, weights.anchor, total=total)
        if isinstance(settings, EKFAC):
            # The whole set at once.
            target = replace(self._target, chunk_size=None)
            return ekfac_preconditioner(settings, self._module, target=target, posterior=config.posterior)
        return None

    def _trace(
        self,
        walks: Sequence[tuple[list[int], Walk]],
        dropped: dict[int, str],
        anchor: Losses,
        step: int,
        request: _Request,
    ) -> Trace:
        config = request.config
        kept = [(done, row, number) for numbers, done in walks for row, number in enumerate(numbers)]
        kept = [(done, row, number) for done, row, number in kept if number not in dropped]
        shape = anchor.values.shape if request.reduce is None else anchor.values.shape[:1]
        none = np.empty((0, config.num_draws), dtype=np.float32)
        reduced = [done.reduced[row] for done, row, _ in kept if done.reduced is not None]
        return Trace(
            loss=(
                np.stack([done.loss[row] for done, row, _ in kept])
                if kept
                else np.empty((0, config.num_draws, *shape), dtype=np.float32)
            ),
            anchor_loss=anchor.values.detach().float().cpu().numpy(),
            mask=anchor.mask.cpu().numpy(),
            distance=np.stack([done.distance[row] for done, row, _ in kept]) if kept else none,
            chains=tuple(number for *_, number in kept),
            dropped=dict(sorted(dropped.items())),
            step=step,
            gradient_rms=np.array([done.gradient_rms[row] for done, row, _ in kept]),
            minibatch_noise=_mean([done.minibatch_noise[row] for done, row, _ in kept]),
            reduced=np.stack(reduced) if reduced else None,
            engine=self._choice.name,
        )


def _mean(values: Sequence[float]) -> float | None:
    """Returns the mean of the measured values; None if there are none."""
    measured = [value for value in values if not math.isnan(value)]
    return float(np.mean(measured)) if measured else None


@checked
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
    second_moments: Mapping[str, Tensor] | None = None,
    reduce: Reduce | None = None,
    on_draw: OnDraw | None = None,
    masks: Masks | None = None,
) -> Trace:
    """Runs chains once, see :class:`ChainSampler`.

    Args:
        module: its weights are the anchor w*; not changed.
        loss_fn: per-sample loss, see :mod:`stagewise.losses.contract`.
        observed: batch whose losses are recorded at each draw, on the module's device.
        sampling: batch for the stochastic gradients, on the module's device.
        config: the sampler.
        step: training step, see :meth:`ChainSampler.run`.
        chunk_size: samples of the observed set per forward pass; all at once if None.
        forward_context: entered around each forward pass (autocast).
        second_moments: of Adam, by parameter name, for ``AdamMoments``.
        reduce: reduces the losses of each draw to features; token losses are then discarded.
        on_draw: called with the losses of each draw, see :meth:`ChainSampler.run`.
        masks: maps parameter names to bool masks of their shape: chains move only entries that are True; all others
            stay at w* bit for bit. Replaces ``config.parameters``; None moves all. See :mod:`stagewise.lm.components`
            for the masks of a head.

    Raises:
        InputError: ``lr`` or ``localization`` is still ``auto``; no trainable parameter, a pattern that matches none,
            masks that do not fit, parameters on several devices, or an engine that cannot run this module.
        LossContractError: the loss has the wrong shape.
    """
    target = Target(loss_fn, observed, sampling, masks, chunk_size, forward_context)
    return ChainSampler(module, target, config, reduce=reduce).run(step, second_moments, on_draw=on_draw)
