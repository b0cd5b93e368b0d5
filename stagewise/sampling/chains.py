"""Local SGLD chains around a module's weights."""

import math
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from stagewise.batches import Batch, chunks, has_columns, num_samples
from stagewise.checks.bounds import check_arguments, checked
from stagewise.errors import InputError
from stagewise.isolation import untouched, with_weights
from stagewise.losses.contract import Losses, LossFn
from stagewise.sampling.config import Drift, EngineName, ResolvedSGLD, SGLDConfig
from stagewise.sampling.engines.batched import BatchedEngine, Program
from stagewise.sampling.engines.engine import Engine
from stagewise.sampling.engines.select import EngineChoice
from stagewise.sampling.engines.sequential import SequentialEngine
from stagewise.sampling.gradients import KEPT_BYTES, DriftGradient, anchor_gradients
from stagewise.sampling.preconditioners.diagonal import AdamMoments, Preconditioner
from stagewise.sampling.preconditioners.ekfac import EKFAC, ekfac_preconditioner
from stagewise.sampling.preconditioners.ekfac_checks import refuse_masks
from stagewise.sampling.selection import Masks
from stagewise.sampling.sgld import OnDraw, Recorder, Reduce, Walk, loss_free, needs_gradients, walk
from stagewise.sampling.streams import Streams, partition
from stagewise.sampling.target import ForwardContext, Target
from stagewise.sampling.trace import NOT_FINITE_HERE, Trace
from stagewise.sampling.weights import FlatWeights


class _Request(NamedTuple):
    """Target of a run of chains, and the use of its draws."""

    config: ResolvedSGLD
    reduce: Reduce | None
    on_draw: OnDraw | None


class _Drive(NamedTuple):
    """Estimator of a probe's gradient; see :class:`~stagewise.sampling.gradients.DriftGradient`."""

    drift: Drift
    slope: Tensor | None = None
    kept: Tensor | None = None
    choices: Tensor | None = None


class ChainSampler:
    """Chains around whatever weights a module has, probe after probe; keeps what is worth keeping in between.

    The module is left bit for bit as it was: chains run on a copy of the trainable parameters, in eval mode, with
    random numbers of their own. Frozen parameters, and what the target leaves out, stay at w*.

    Attributes:
        engine: which engine runs the chains; None until it has been chosen.
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
        """Nothing is run yet.

        Args:
            module: its weights at the time of each run are the anchor w*.
            target: loss, observed and sampling set, and what moves; if it does not say what, ``config.parameters`` do.
            config: the sampler.
            reduce: makes features of each draw's losses as they come; token losses are then not kept.
            engine: the engine that ``auto`` once chose, so that a resumed run goes on with it.

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
        self._choice = EngineChoice(
            config.engine if engine is None else engine,
            lambda **how: Program(target.loss_fn, self._target.selection, target.forward_context, **how),
            batch_size=config.batch_size if config.batch_size < num_samples(target.driving) else None,
            half_precision=half,
        )

    @property
    def engine(self) -> EngineName | None:
        """See the class."""
        return self._choice.name

    def rechunk(self, chunk_size: int) -> None:
        """Pass the observed set in chunks of so many samples from now on; draws agree up to rounding."""
        self._chunks = chunks(self._target.observed, chunk_size)

    def settle_engine(self, name: EngineName | None) -> None:
        """Go on with the engine that another process chose; None leaves the choice open."""
        if name is not None:
            self._choice.name = name

    def choose_engine(self, num_chains: int) -> EngineName | None:
        """Choose the engine at the weights that the module has now, and run no chain.

        Args:
            num_chains: that will run in this process.

        Returns:
            Its name; None where the loss is not finite, so that nothing can be chosen.

        Raises:
            InputError: an engine was asked for that cannot run this module.
        """
        weights = FlatWeights(self._module, self._target.selection)

        def choose() -> None:
            sequential = SequentialEngine(weights, self._evaluate, self._target.driving, self._chunks)
            anchor = sequential.anchor_losses()
            if torch.isfinite(anchor.values).all():
                self._engine(weights, sequential, anchor, num_chains)

        with untouched(self._module), torch.enable_grad():
            with_weights(self._module, weights.leaves, choose)
        return self.engine

    def _engine(
        self, weights: FlatWeights, sequential: SequentialEngine, anchor: Losses, num_chains: int
    ) -> BatchedEngine | None:
        """The engine for all chains at once, None for one after the other."""

        def batched(program: Program) -> BatchedEngine:
            data = self._target.driving, self._chunks
            return BatchedEngine(program, self._module, weights, num_chains, *data, anchor.mask)

        return self._choice.engine(sequential, batched, anchor)

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
        """Sample around the weights that the module has now, and record the losses of the observed set.

        Args:
            step: training step, kept in the trace and, without common noise, part of the seed.
            second_moments: Adam's, by parameter name, for the preconditioner that uses them.
            on_draw: is given the number of each chain and the losses ``[sample(, token)]`` of each of its draws as they
                come, beside what is recorded; e.g. :class:`~stagewise.influence.token_sums.TokenSums`.
            numbers: which of the ``config.num_chains`` chains are run, increasing; all if None, and there may be none.
                What a chain draws does not depend on which others run beside it.
            control: run without the loss, from the same noise, see :func:`~stagewise.sampling.sgld.loss_free`.
            reduce: in place of that of the sampler, for this run.

        Raises:
            InputError: an engine was asked for that cannot run this module.
            LossContractError: the loss is not of the contract's shape.
        """
        config = loss_free(self._config) if control else self._config
        request = _Request(config, self._reduce if reduce is None else reduce, on_draw)
        chains = range(config.num_chains) if numbers is None else numbers
        weights = FlatWeights(self._module, self._target.selection)
        fixed: Preconditioner | None = None
        failure: str | None = None
        try:
            fixed = self._fixed_preconditioner(config, weights, second_moments or {})
        except torch.linalg.LinAlgError as error:  # a bad moment of training, which must not end it
            failure = f"the preconditioner's factors have no eigenvectors ({error})"
        with untouched(self._module), torch.enable_grad():
            return with_weights(
                self._module, weights.leaves, lambda: self._sample(weights, fixed, step, failure, request, chains)
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
        sequential = SequentialEngine(weights, self._evaluate, self._target.driving, self._chunks)
        anchor = sequential.anchor_losses()
        if not torch.isfinite(anchor.values).all():
            failure = NOT_FINITE_HERE
        if failure is not None or not chains:
            return self._trace([], dict.fromkeys(chains, failure or ""), anchor, step, request)
        together = self._engine(weights, sequential, anchor, len(chains))
        drive = self._drive(config, sequential, sequential if together is None else together)

        def run(engine: Engine, numbers: Sequence[int], *, measure_noise: bool) -> Walk:
            estimate = DriftGradient(
                drive.drift, engine, weight_decay=config.weight_decay, slope=drive.slope, kept=drive.kept
            )
            size = num_samples(self._target.driving)
            streams = Streams(config, numbers, step, weights.anchor, size, drive.choices)
            recorder = Recorder(numbers, config.num_draws, anchor, request.reduce, request.on_draw)
            return walk(engine, estimate, streams, config, recorder, fixed=fixed, measure_noise=measure_noise)

        if together is not None:
            walks = [(list(chains), run(together, chains, measure_noise=True))]
        else:
            # The first chain tells the noise: each would cost a gradient of its own.
            walks = [([chain], run(sequential, [chain], measure_noise=chain == 0)) for chain in chains]
        dropped = {numbers[row]: why for numbers, done in walks for row, why in done.failed.items()}
        return self._trace(walks, dropped, anchor, step, request)

    def _drive(self, config: ResolvedSGLD, sequential: SequentialEngine, engine: Engine) -> "_Drive":
        """Evaluates at w* what the gradient estimates of a probe have in common."""
        size = num_samples(self._target.driving)
        drift = Drift.control_variate if config.drift is Drift.auto else config.drift
        if drift is Drift.plain or not needs_gradients(config):
            return _Drive(Drift.plain)
        if config.batch_size >= size:
            return _Drive(drift, slope=sequential.slope(config.batch_size) if drift is Drift.tilted else None)
        choices = partition(config, size)
        fits = len(choices) * engine.anchor.numel() * engine.anchor.element_size() <= KEPT_BYTES
        # Control variates need a pass over the whole set in any case.
        # By all chains of the probe: minibatches must not depend on how many of them run here.
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
            return settings.build(weights.gather(weights.leaves), moments, weights.anchor)
        if isinstance(settings, EKFAC):
            return ekfac_preconditioner(
                settings,
                self._module,
                self._target.loss_fn,
                self._target.driving,
                nbeta=config.nbeta,
                localization=config.localization + config.nbeta * config.weight_decay,
                parameters=self._target.selection,
            )
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


def check_chains(module: nn.Module, target: Target, config: SGLDConfig, engine: EngineName | None = None) -> Target:
    """Refuse what cannot be sampled, before any run: after the first training step that would only cost the probes.

    Args:
        module: that chains start from.
        target: loss, data, and what moves.
        config: the sampler; it may have settings that are ``auto`` still.
        engine: in place of that of the settings.

    Returns:
        The target, with what moves, see :meth:`~stagewise.sampling.target.Target.moved_by`.

    Raises:
        InputError: no trainable parameter, a pattern that matches none, masks that do not fit or stand beside
            ``config.parameters`` or EK-FAC, parameters on several devices, or batches that the engine cannot take.
    """
    target = target.moved_by(config)
    weights = FlatWeights(module, target.selection)
    if isinstance(config.preconditioner, EKFAC):
        refuse_masks(weights.entries)
    if EngineName.batched in (config.engine, engine) and any(map(has_columns, (target.observed, target.driving))):
        raise InputError(
            "got engine='batched' and a batch with lists or arrays beside its tensors; expected tensors alone, "
            "which is all that a graph takes; set engine to sequential"
        )
    return target


def _mean(values: Sequence[float]) -> float | None:
    """Mean of what was measured; None if nothing was."""
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
    """One run of a :class:`ChainSampler`, for a single look.

    Args:
        module: its weights are the anchor w*; left bit for bit as it was.
        loss_fn: per-sample loss, see :mod:`stagewise.losses.contract`.
        observed: batch that is recorded at each draw, on the module's device.
        sampling: batch whose minibatches drive the gradient, on the module's device.
        config: the sampler.
        step: training step, see :meth:`ChainSampler.run`.
        chunk_size: samples of the observed set for each forward pass; all at once if None.
        forward_context: entered around each forward pass (autocast).
        second_moments: Adam's, by parameter name, for the preconditioner that uses them.
        reduce: makes features of each draw's losses as they come; token losses are then not kept.
        on_draw: is given each draw's losses as they come, see :meth:`ChainSampler.run`.
        masks: parameter name to bool mask of its shape: the chains move the entries where it is True, and all else
            stays at w* bit for bit. In place of ``config.parameters``; None moves all. See
            :mod:`stagewise.lm.components` for those of a head.

    Raises:
        InputError: ``lr`` or ``localization`` is still ``auto``; no trainable parameter, a pattern that matches none,
            masks that do not fit, parameters on several devices, or an engine that cannot run this module.
        LossContractError: the loss is not of the contract's shape.
    """
    target = Target(loss_fn, observed, sampling, masks, chunk_size, forward_context)
    return ChainSampler(module, target, config, reduce=reduce).run(step, second_moments, on_draw=on_draw)
