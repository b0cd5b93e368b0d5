"""Resolution of ``auto`` sampler settings to numbers at one checkpoint."""

from dataclasses import replace

import torch
from torch import Tensor, nn

from stagewise.batches import num_samples, take
from stagewise.calibration.landscape import Landscape, Measurement
from stagewise.calibration.rules import propose, two_digits
from stagewise.isolation import untouched, with_weights
from stagewise.sampling.config import Drift, Integrator, ResolvedSGLD, SGLDConfig
from stagewise.sampling.heat import NUM_GRADIENTS, minibatch_heat
from stagewise.sampling.preconditioners.diagonal import Preconditioner
from stagewise.sampling.preconditioners.ekfac import EKFAC
from stagewise.sampling.relaxation import CORRELATION_AIM, STABLE, draw_correlation, relaxation_steps
from stagewise.sampling.weights import FlatWeights

HEAT_AIM = 0.1
"""Tolerated minibatch heat in the directions of the gradients: half of the heat that flags a probe."""

_PLACES = 4
"""Number of places around w* at which the heat is measured."""

_MOST_STEPS_BW_DRAWS = 8


def resolve(
    config: SGLDConfig,
    landscape: Landscape,
    module: nn.Module,
    *,
    growth: float = 1.0,
    step: int = 0,
    measured: Measurement | None = None,
) -> tuple[ResolvedSGLD, Measurement]:
    """Resolves ``auto`` to numbers for the module's current weights.

    The following settings are resolved in this order, each only if it is ``auto``:

    1. ``localization``: the larger of 1.5 times nbeta |lam_min|, since below nbeta |lam_min| there is no local
       posterior, and half of nbeta lam_max, so that one step suits steep and flat directions.
    2. ``lr``: 2.5 over the steepest curvature nbeta lam_max + localization (.3 for the Euler step); the second-order
       integrator is exact up to 4.
    3. ``drift``: plain minibatches if their heat is at most .1, else control variates if these are cooler. The heat is
       measured along the gradients, at places drawn from the localizing Gaussian. If both are hotter, ``lr`` (if
       ``auto``) is lowered in proportion, by at most a factor of ten.
    4. ``num_burnin_steps``: until a displacement has shrunk to a tenth in the slowest direction, whose curvature is
       localization less nbeta |lam_min|.
    5. ``num_steps_bw_draws``: until the correlation of successive draws is at most .2 in a direction held by
       localization alone.

    Evidence from the language model of ``configs/induction.yaml``, step 540: with Euler steps of .2 / localization from
    w*, without burn-in, the influence of groups on themselves was 4 to 8 times too large; the mean heat over all
    weights was a thousandth of the heat along the gradients.

    Args:
        config: the settings; numbers are kept.
        landscape: measures the curvature.
        module: at the checkpoint; left unchanged.
        growth: factor on the measured curvature, for later checkpoints, see
            :func:`~stagewise.calibration.rules.propose`.
        step: training step of the checkpoint.
        measured: curvature at the checkpoint, if already known.

    Returns:
        The settings, with numbers, and the curvature at the checkpoint.

    Raises:
        InputError, FloatingPointError, ArithmeticError: as
            :func:`~stagewise.calibration.curvature.measure_curvature` and
            :func:`~stagewise.calibration.rules.propose`.
    """
    if measured is None:
        measured = landscape.measure(module, config, step)
    if config.localization == "auto":
        proposal = propose(replace(config, lr="auto"), [measured.plain], growth=growth, keep=True)
        config = replace(config, localization=proposal.localization)
        if config.preconditioner is not None:
            measured = landscape.measure(module, config, step, plain=measured.plain)
    free = config.lr == "auto"
    if free:
        steepest = []
        if measured.preconditioned is not None:
            # Only H is expected to grow, not localization.
            grown = measured
            if growth != 1:
                steeper = replace(config, nbeta=growth * config.nbeta)
                grown = landscape.measure(module, steeper, step, plain=measured.plain)
            assert grown.preconditioned is not None
            steepest = [grown.preconditioned.lam_max]
        config = replace(config, lr=propose(config, [measured.plain], growth=growth, steepest=steepest, keep=True).lr)
    resolved = _resolve_drift(config.require_resolved(), landscape, module, free=free)
    return _resolve_steps(resolved, measured, growth), measured


def _resolve_drift(config: ResolvedSGLD, landscape: Landscape, module: nn.Module, *, free: bool) -> ResolvedSGLD:
    """Resolves ``drift``; lowers ``lr`` if it is ``free`` and no drift is cool enough."""
    tried: list[Drift] = [Drift.plain, Drift.control_variate] if config.drift is Drift.auto else [config.drift]
    if config.nbeta == 0 or config.batch_size >= _population(landscape):
        return replace(config, drift=tried[0])  # no minibatch noise
    if config.drift is not Drift.auto and not free:
        return config
    heats = measure_heat(config, landscape, module, tried)
    drift = min(heats, key=lambda choice: (max(heats[choice], HEAT_AIM), tried.index(choice)))
    lr = config.lr
    if free and heats[drift] > HEAT_AIM:
        lr = two_digits(lr * max(HEAT_AIM / heats[drift], 0.1), up=False)
    return replace(config, drift=drift, lr=lr)


def _population(landscape: Landscape) -> int:
    """Returns the number of samples from which chains draw minibatches."""
    return landscape.population or num_samples(landscape.target.driving)


def measure_heat(
    config: ResolvedSGLD, landscape: Landscape, module: nn.Module, drifts: list[Drift]
) -> dict[Drift, float]:
    """Measures the heat of minibatches around w*, see :func:`~stagewise.sampling.heat.minibatch_heat`.

    Args:
        config: the sampler, with numbers; its ``drift`` is ignored.
        landscape: gives the samples from which minibatches are drawn, half of them at once if there are no more than
            ``batch_size``. The heat is scaled to that of minibatches of ``batch_size`` from the whole sampling set: the
            variance of a mean of B of N samples, drawn without replacement, is proportional to (1 - B / N) / B
            (Cochran, Sampling Techniques, 1977, theorem 2.2).
        module: at w*; left unchanged.
        drifts: gradient estimators to measure; ``tilted`` has the heat of ``control_variate``.

    Returns:
        Heat of each drift, a pure number: mean over a few places drawn from N(w*, 1 / localization), or at w* itself if
        localization is 0.
    """
    lr, localization = config.lr, config.localization
    weights = FlatWeights(module, landscape.selection(config))
    size, population = num_samples(landscape.target.driving), _population(landscape)
    drawn = config.batch_size if config.batch_size < size else max(1, size // 2)
    scale = max(0.0, 1 / config.batch_size - 1 / population) / (1 / drawn - 1 / size) if size > 1 else 0.0
    batches = torch.Generator().manual_seed(landscape.seed)
    noise = torch.Generator(device=weights.state.device).manual_seed(landscape.seed)
    preconditioner: Preconditioner | None = landscape.preconditioner(module, config)

    def gradient(rows: Tensor) -> Tensor:
        return weights.gradient(landscape.target.evaluate(module, take(landscape.target.driving, rows)).mean())

    def body() -> dict[Drift, list[float]]:
        found: dict[Drift, list[float]] = {drift: [] for drift in drifts}
        for _ in range(_PLACES):
            order = torch.randperm(size, generator=batches)
            rows = [torch.randperm(size, generator=batches)[:drawn] for _ in range(NUM_GRADIENTS)]
            weights.reset()
            at_anchor = torch.stack([gradient(index) for index in rows])
            displaced = torch.empty_like(weights.state).normal_(generator=noise)
            if isinstance(config.preconditioner, EKFAC) and preconditioner is not None:
                weights.state.add_(preconditioner.root_times(displaced))
            elif localization > 0:
                weights.state.add_(displaced, alpha=localization**-0.5)
            weights.publish()
            here = torch.stack([gradient(index) for index in rows])
            parts = order.split(config.batch_size)
            direction = torch.stack([gradient(index) * (len(index) / size) for index in parts]).sum(dim=0)
            for drift in drifts:
                estimates = here if drift is Drift.plain else here - at_anchor
                heat = minibatch_heat(
                    list(estimates), direction, lr=lr, nbeta=config.nbeta, preconditioner=preconditioner
                )
                found[drift].append(scale * float(heat))
        return found

    with untouched(module), torch.enable_grad():
        found = with_weights(module, weights.leaves, body)
    return {drift: sum(values) / len(values) for drift, values in found.items()}


def _resolve_steps(config: ResolvedSGLD, measured: Measurement, growth: float) -> ResolvedSGLD:
    """Resolves burn-in and spacing from the step size and the measured curvature."""
    lr, localization = config.lr, config.localization
    if config.preconditioner is None:
        pull = growth * config.nbeta * max(0.0, -measured.plain.lam_min)
        slowest, usual = lr * (localization - pull), lr * localization
    elif measured.preconditioned is not None:
        slowest = usual = lr * measured.preconditioned.lam_min
    else:
        return replace(config, num_burnin_steps=config.burnin_steps, num_steps_bw_draws=config.steps_bw_draws)
    burnin, spacing = config.num_burnin_steps, config.num_steps_bw_draws
    if burnin == "auto":
        usual_burnin = config.burnin_steps
        # RMSprop needs its own burn-in; a direction without restoring force is reported as a finding.
        burnin = max(usual_burnin, min(relaxation_steps(slowest), 500)) if 0 < slowest < STABLE else usual_burnin
    if spacing == "auto":
        spacing = _spacing(usual) if config.integrator is Integrator.leimkuhler_matthews else 1
    return replace(config, num_burnin_steps=burnin, num_steps_bw_draws=spacing)


def _spacing(reach: float) -> int:
    """Returns the fewest steps between nearly independent draws, for lr times curvature ``reach``."""
    steps = range(1, _MOST_STEPS_BW_DRAWS + 1)
    if not 0 < reach < STABLE:
        return 1
    return next(
        (spacing for spacing in steps if abs(draw_correlation(reach, spacing)) <= CORRELATION_AIM), _MOST_STEPS_BW_DRAWS
    )
