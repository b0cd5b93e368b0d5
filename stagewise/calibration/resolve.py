"""Resolves ``auto`` sampler settings to numbers at one checkpoint."""

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
"""Tolerated minibatch heat, in the directions of the gradients: half of what flags a probe."""

_PLACES = 4
"""Places around w* that the heat is measured at."""

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

    In this order, each only where it is ``auto``:

    1. ``localization``: 1.5 times nbeta |lam_min|, below which there is no local posterior, and half of nbeta lam_max,
       so that one step suits steep and flat directions.
    2. ``lr``: 2.5 over the steepest curvature nbeta lam_max + localization (.3 for the Euler step), as the second-order
       integrator is exact up to 4.
    3. ``drift``: plain minibatches where their heat, measured at places drawn from the localizing Gaussian in the
       directions of the gradients, is at most .1; control variates where they are cooler. Where both are hotter,
       ``lr`` (if it is ``auto``) is lowered in proportion, by ten times at most.
    4. ``num_burnin_steps``: until a displacement has shrunk to a tenth in the slowest direction, localization less
       nbeta |lam_min|.
    5. ``num_steps_bw_draws``: until the correlation of successive draws is at most .2 in a direction that localization
       alone holds.

    Tried on the language model of ``configs/induction.yaml``, step 540: Euler steps of .2 / localization from w*,
    without burn-in, made the influence of groups on themselves 4 to 8 times too large; a mean of the heat over all
    weights was a thousandth of that along the gradients.

    Args:
        config: the settings; numbers among them are kept.
        landscape: what to measure on.
        module: at the checkpoint; left as it was.
        growth: factor on the measured curvature, for later checkpoints, see
            :func:`~stagewise.calibration.rules.propose`.
        step: training step of the checkpoint.
        measured: curvature there, where it is known already.

    Returns:
        The settings, with numbers, and the curvature at the checkpoint.

    Raises:
        InputError, FloatingPointError, ArithmeticError: as
            :func:`~stagewise.calibration.curvature.measure_curvature` and
            :func:`~stagewise.calibration.rules.propose` do.
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
            # Only H is expected to grow, not the localization beside it.
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
    """``drift``, and a lower ``lr`` where no drift is cool enough and it is ``free``."""
    tried: list[Drift] = [Drift.plain, Drift.control_variate] if config.drift is Drift.auto else [config.drift]
    if config.nbeta == 0 or config.batch_size >= _population(landscape):
        return replace(config, drift=tried[0])  # no noise of minibatches
    if config.drift is not Drift.auto and not free:
        return config
    heats = measure_heat(config, landscape, module, tried)
    drift = min(heats, key=lambda choice: (max(heats[choice], HEAT_AIM), tried.index(choice)))
    lr = config.lr
    if free and heats[drift] > HEAT_AIM:
        lr = two_digits(lr * max(HEAT_AIM / heats[drift], 0.1), up=False)
    return replace(config, drift=drift, lr=lr)


def _population(landscape: Landscape) -> int:
    """Returns the number of samples that chains draw their minibatches from."""
    return landscape.population or num_samples(landscape.target.driving)


def measure_heat(
    config: ResolvedSGLD, landscape: Landscape, module: nn.Module, drifts: list[Drift]
) -> dict[Drift, float]:
    """Heat of minibatches around w*, see :func:`~stagewise.sampling.heat.minibatch_heat`.

    Args:
        config: the sampler, with numbers; its ``drift`` is not looked at.
        landscape: whose samples the minibatches are drawn from, half of these at once where they are no more than
            ``batch_size``. The heat is scaled to that of minibatches of ``batch_size`` from the whole sampling set: the
            variance of a mean of B of N samples, drawn without replacement, is in proportion to (1 - B / N) / B
            (Cochran, Sampling Techniques, 1977, theorem 2.2).
        module: at w*; left as it was.
        drifts: which gradients to look at; ``tilted`` has the heat of ``control_variate``.

    Returns:
        For each of them the mean over a few places drawn from N(w*, 1 / localization), a pure number; at w* itself
        where localization is 0.
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
    """Burn-in and spacing, from the step and the measured curvature."""
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
        # RMSprop has its own reason to wait; a direction that nothing holds back is told of as a finding.
        burnin = max(usual_burnin, min(relaxation_steps(slowest), 500)) if 0 < slowest < STABLE else usual_burnin
    if spacing == "auto":
        spacing = _spacing(usual) if config.integrator is Integrator.leimkuhler_matthews else 1
    return replace(config, num_burnin_steps=burnin, num_steps_bw_draws=spacing)


def _spacing(reach: float) -> int:
    """Fewest steps between draws that make them nearly independent, where lr times the curvature is ``reach``."""
    steps = range(1, _MOST_STEPS_BW_DRAWS + 1)
    if not 0 < reach < STABLE:
        return 1
    return next(
        (spacing for spacing in steps if abs(draw_correlation(reach, spacing)) <= CORRELATION_AIM), _MOST_STEPS_BW_DRAWS
    )
