"""Local SGLD chains around a module's weights."""

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from stagewise.batches import Batch, chunks, has_columns, num_samples
from stagewise.checks.bounds import check_arguments, checked
from stagewise.errors import InputError, require
from stagewise.isolation import untouched, with_weights
from stagewise.losses.contract import Losses, LossFn, evaluate
from stagewise.sampling.config import Drift, EngineName, SGLDConfig
from stagewise.sampling.engines.batched import BatchedEngine, Program
from stagewise.sampling.engines.engine import Engine
from stagewise.sampling.engines.select import EngineChoice
from stagewise.sampling.engines.sequential import SequentialEngine
from stagewise.sampling.gradients import KEPT_BYTES, DriftGradient, anchor_gradients
from stagewise.sampling.preconditioners.diagonal import AdamMoments, Preconditioner
from stagewise.sampling.preconditioners.ekfac import EKFAC, ekfac_preconditioner
from stagewise.sampling.preconditioners.ekfac_checks import refuse_masks
from stagewise.sampling.selection import Masks, one_selection
from stagewise.sampling.sgld import OnDraw, Reduce, Walk, loss_free, needs_gradients, walk
from stagewise.sampling.streams import Streams, partition
from stagewise.sampling.trace import Trace
from stagewise.sampling.weights import FlatWeights

ForwardContext = Callable[[], AbstractContextManager]


class _Target(NamedTuple):
    """What a run of chains samples, and what becomes of its draws."""

    config: SGLDConfig
    reduce: Reduce | None
    on_draw: OnDraw | None


class _Drive(NamedTuple):
    """How the gradient of a probe is estimated; see :class:`~stagewise.sampling.gradients.DriftGradient`."""

    drift: Drift
    slope: Tensor | None = None
    kept: Tensor | None = None
    choices: Tensor | None = None


class ChainSampler:
    """Chains around whatever weights a module has, probe after probe; keeps what is worth keeping in between.

    The module is left bit for bit as it was: chains run on a copy of the trainable parameters, in eval mode, with
    random numbers of their own. Frozen parameters, and what ``config.parameters`` or ``masks`` leave out, stay at w*.

    Attributes:
        engine: which engine runs the chains; None until it has been chosen.
    """

    def __init__(
        self,
        module: nn.Module,
        loss_fn: LossFn,
        *,
        observed: Batch,
        sampling: Batch,
        config: SGLDConfig,
        chunk_size: int | None = None,
        forward_context: ForwardContext = nullcontext,
        reduce: Reduce | None = None,
        engine: EngineName | None = None,
        masks: Masks | None = None,
    ) -> None:
        """Nothing is run yet.

        Args:
            module: its weights at the time of each run are the anchor w*.
            loss_fn: per-sample loss, see :mod:`stagewise.losses.contract`.
            observed: batch that is recorded at each draw, on the module's device.
            sampling: batch whose minibatches drive the gradient, on the module's device.
            config: the sampler.
            chunk_size: samples of the observed set for each forward pass; all at once if None.
            forward_context: entered around each forward pass (autocast). It is left in between, because autocast
                caches casts of weights, and the weights move.
            reduce: makes features of each draw's losses as they come; token losses are then not kept.
            engine: the engine that ``auto`` once chose, so that a resumed run goes on with it.
            masks: parameter name to bool mask of its shape: the chains move the entries where it is True, and all else
                stays at w* bit for bit. Every figure that is taken over weights is then taken over those alone. In
                place of ``config.parameters``; None moves all. See :mod:`stagewise.lm.components` for those of a head.

        Raises:
            InputError: no trainable parameter, a pattern that matches none, masks that do not fit or stand beside
                ``config.parameters`` or EK-FAC, or parameters on several devices.
        """
        check_arguments("ChainSampler", ChainSampler.__init__, locals(), leave=["forward_context"])
        good = chunk_size is None or chunk_size >= 1
        require(good, "chunk_size", chunk_size, "an integer >= 1, or None for all at once", "8 is usual")
        self._selection = one_selection(config.parameters, masks)
        weights = FlatWeights(module, self._selection)  # refuses what cannot be sampled, before any run
        if isinstance(config.preconditioner, EKFAC):
            refuse_masks(weights.entries)
        if EngineName.batched in (config.engine, engine) and any(map(has_columns, (observed, sampling))):
            # Before any run: after the first step a refusal would only cost the probes.
            raise InputError(
                "got engine='batched' and a batch with lists or arrays beside its tensors; expected tensors alone, "
                "which is all that a graph takes; set engine to sequential"
            )
        self._module = module
        self._loss_fn = loss_fn
        self._observed = observed
        self._chunks = chunks(observed, chunk_size)
        self._sampling = sampling
        self._config = config
        self._forward_context = forward_context
        self._reduce = reduce
        with forward_context():
            half = torch.is_autocast_enabled(next(module.parameters()).device.type)
        half |= any(value.dtype in (torch.float16, torch.bfloat16) for value in module.parameters())
        self._choice = EngineChoice(
            config.engine if engine is None else engine,
            lambda **how: Program(loss_fn, self._selection, forward_context, **how),
            batch_size=config.batch_size if config.batch_size < num_samples(sampling) else None,
            half_precision=half,
        )

    @property
    def engine(self) -> EngineName | None:
        """See the class."""
        return self._choice.name

    def settle(self, config: SGLDConfig) -> None:
        """Take settings that differ from those given only in what was ``auto``."""
        self._config = config

    def rechunk(self, chunk_size: int) -> None:
        """Pass the observed set in chunks of so many samples from now on; draws agree up to rounding."""
        self._chunks = chunks(self._observed, chunk_size)

    def _evaluate(self, batch: Batch) -> Losses:
        with self._forward_context():
            return evaluate(self._loss_fn, self._module, batch)

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
            numbers: which of the ``config.num_chains`` chains are run, increasing; all if None. What a chain draws does
                not depend on which others run beside it.
            control: run without the loss, from the same noise, see :func:`~stagewise.sampling.sgld.loss_free`.
            reduce: in place of that of the sampler, for this run.

        Raises:
            InputError: ``lr`` or ``localization`` is still ``auto``, or an engine was asked for that cannot run this
                module.
            LossContractError: the loss is not of the contract's shape.
        """
        self._config.numbers()
        config = loss_free(self._config) if control else self._config
        target = _Target(config, self._reduce if reduce is None else reduce, on_draw)
        chains = range(config.num_chains) if numbers is None else numbers
        weights = FlatWeights(self._module, self._selection)
        fixed: Preconditioner | None = None
        failure: str | None = None
        try:
            fixed = self._fixed_preconditioner(config, weights, second_moments or {})
        except torch.linalg.LinAlgError as error:  # a bad moment of training, which must not end it
            failure = f"the preconditioner's factors have no eigenvectors ({error})"
        with untouched(self._module), torch.enable_grad():
            return with_weights(
                self._module, weights.leaves, lambda: self._sample(weights, fixed, step, failure, target, chains)
            )

    def _sample(
        self,
        weights: FlatWeights,
        fixed: Preconditioner | None,
        step: int,
        failure: str | None,
        target: _Target,
        chains: Sequence[int],
    ) -> Trace:
        config = target.config
        sequential = SequentialEngine(weights, self._evaluate, self._sampling, self._chunks)
        anchor = sequential.anchor_losses()
        if not torch.isfinite(anchor.values).all():
            failure = "the loss at the training weights is not finite"
        if failure is not None:
            return self._trace([], dict.fromkeys(chains, failure), anchor, step, target)

        def batched(program: Program) -> BatchedEngine:
            return BatchedEngine(program, self._module, weights, len(chains), self._sampling, self._chunks, anchor.mask)

        together = self._choice.engine(sequential, batched, anchor)
        drive = self._drive(config, sequential, sequential if together is None else together, len(chains))

        def run(engine: Engine, numbers: Sequence[int], *, measure_noise: bool) -> Walk:
            estimate = DriftGradient(
                drive.drift, engine, weight_decay=config.weight_decay, slope=drive.slope, kept=drive.kept
            )
            size = num_samples(self._sampling)
            return walk(
                engine,
                estimate,
                Streams(config, numbers, step, weights.anchor, size, drive.choices),
                config,
                anchor=anchor,
                fixed=fixed,
                reduce=target.reduce,
                on_draw=target.on_draw,
                numbers=numbers,
                measure_noise=measure_noise,
            )

        if together is not None:
            walks = [(list(chains), run(together, chains, measure_noise=True))]
        else:
            # The first chain tells the noise: each would cost a gradient of its own.
            walks = [([chain], run(sequential, [chain], measure_noise=chain == 0)) for chain in chains]
        dropped = {numbers[row]: why for numbers, done in walks for row, why in done.failed.items()}
        return self._trace(walks, dropped, anchor, step, target)

    def _drive(self, config: SGLDConfig, sequential: SequentialEngine, engine: Engine, num_chains: int) -> "_Drive":
        """What the gradient estimates of a probe have in common, evaluated at w*."""
        size = num_samples(self._sampling)
        drift = Drift.control_variate if config.drift is Drift.auto else config.drift
        if drift is Drift.plain or not needs_gradients(config):
            return _Drive(Drift.plain)
        if config.batch_size >= size:
            return _Drive(drift, slope=sequential.slope(config.batch_size) if drift is Drift.tilted else None)
        choices = partition(config, size)
        fits = len(choices) * engine.anchor.numel() * engine.anchor.element_size() <= KEPT_BYTES
        # Control variates need a pass over the whole set in any case.
        pays = drift is Drift.control_variate or len(choices) <= num_chains * config.num_steps
        if fits and pays:
            kept = anchor_gradients(engine, choices)
            return _Drive(drift, slope=kept.mean(dim=0), kept=kept, choices=choices)
        return _Drive(drift, slope=sequential.slope(config.batch_size) if drift is Drift.control_variate else None)

    def _fixed_preconditioner(
        self, config: SGLDConfig, weights: FlatWeights, second_moments: Mapping[str, Tensor]
    ) -> Preconditioner | None:
        settings = config.preconditioner
        if isinstance(settings, AdamMoments):
            moments = weights.gather(second_moments)
            return settings.build(weights.gather(weights.leaves), moments, weights.anchor)
        if isinstance(settings, EKFAC):
            _, localization = config.numbers()
            return ekfac_preconditioner(
                settings,
                self._module,
                self._loss_fn,
                self._sampling,
                nbeta=config.nbeta,
                localization=localization + config.nbeta * config.weight_decay,
                parameters=self._selection,
            )
        return None

    def _trace(
        self,
        walks: Sequence[tuple[list[int], Walk]],
        dropped: dict[int, str],
        anchor: Losses,
        step: int,
        target: _Target,
    ) -> Trace:
        config = target.config
        kept = [(done, row, number) for numbers, done in walks for row, number in enumerate(numbers)]
        kept = [(done, row, number) for done, row, number in kept if number not in dropped]
        shape = anchor.values.shape if target.reduce is None else anchor.values.shape[:1]
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
    """One run of a :class:`ChainSampler`, for a single look; arguments are explained there.

    Raises:
        InputError: ``lr`` or ``localization`` is still ``auto``; no trainable parameter, a pattern that matches none,
            masks that do not fit, parameters on several devices, or an engine that cannot run this module.
        LossContractError: the loss is not of the contract's shape.
    """
    sampler = ChainSampler(
        module,
        loss_fn,
        observed=observed,
        sampling=sampling,
        config=config,
        chunk_size=chunk_size,
        forward_context=forward_context,
        reduce=reduce,
        masks=masks,
    )
    return sampler.run(step, second_moments, on_draw=on_draw)
