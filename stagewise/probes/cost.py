"""Cost of the chains of a probe: number of evaluations, and the seconds of one of each kind."""

import math
import time
from dataclasses import dataclass

import torch
from torch import nn

from stagewise.batches import take
from stagewise.checks.counted import counted
from stagewise.isolation import untouched
from stagewise.isolation.weight_swap import with_weights
from stagewise.probes.config import ProbeConfig
from stagewise.sampling.config import Drift, SGLDConfig
from stagewise.sampling.gradients import KEPT_BYTES
from stagewise.sampling.target import Target

_WARM = 5.0
"""Seconds. A shorter step is timed twice, since the first includes the one-time setup of the device."""

_BYTES = 4
"""Size of a weight in a chain."""


@dataclass(frozen=True)
class Evaluations:
    """Evaluations of the loss by the chains of one probe.

    Attributes:
        gradients: of minibatches; none without the loss.
        records: of the observed set, including those of a control.
    """

    gradients: int
    records: int


def evaluations(
    sgld: SGLDConfig, config: ProbeConfig, *, control: bool, weights: int | None = None, samples: int | None = None
) -> Evaluations:
    """Counts the evaluations of a probe.

    Args:
        sgld: the sampler of influence.
        config: of the measurement; separate chains of the learning coefficient count too.
        control: True for a probe with the loss-free control.
        weights: number of weights that the chains move; None if unknown.
        samples: size of the sampling set; None if unknown. If both are known, gradients at w* that are kept over the
            chains count once; otherwise the result is an upper bound.
    """
    own = config.llc.own_sgld(sgld)
    samplers = [sgld] if own is None else [sgld, own]
    gradients = sum(_gradients(sampler, weights, samples) for sampler in samplers)
    records = sum(sampler.num_chains * sampler.num_draws for sampler in samplers)
    return Evaluations(gradients, records + (sgld.num_chains * sgld.num_draws if control else 0))


def _gradients(sgld: SGLDConfig, weights: int | None, samples: int | None) -> int:
    steps = sgld.num_chains * sgld.num_steps
    if sgld.drift is Drift.plain:
        return steps
    if weights is None or samples is None:
        return 2 * steps
    num_batches = math.ceil(samples / sgld.batch_size)
    kept = num_batches == 1 or num_batches * weights * _BYTES <= KEPT_BYTES
    return steps + num_batches if kept else 2 * steps


def timed_step(module: nn.Module, target: Target, batch_size: int) -> tuple[float, float]:
    """Returns the seconds of one gradient of a minibatch and of one evaluation of the observed set, at these weights.

    Args:
        module: on its device; restored.
        target: of the chains.
        batch_size: samples of a minibatch.
    """
    gradient, record = _timed(module, target, batch_size)
    return _timed(module, target, batch_size) if gradient + record < _WARM else (gradient, record)


def _timed(module: nn.Module, target: Target, batch_size: int) -> tuple[float, float]:
    # Copies: a forward pass may write to its weights.
    leaves = {
        name: parameter.detach().clone().requires_grad_(parameter.requires_grad)
        for name, parameter in module.named_parameters()
    }
    moved = [leaf for leaf in leaves.values() if leaf.requires_grad]
    device = moved[0].device
    minibatch = take(target.driving, slice(0, batch_size))

    def now() -> float:
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return time.perf_counter()

    def step() -> tuple[float, float]:
        start = now()
        with torch.enable_grad():
            loss = target.evaluate(module, minibatch).mean()
        torch.autograd.grad(loss, moved, allow_unused=True)
        middle = now()
        with torch.no_grad():
            for chunk in target.observed_chunks():
                target.evaluate(module, chunk)
        return middle - start, now() - middle

    with untouched(module):
        return with_weights(module, leaves, step)


def cost_words(needed: Evaluations, seconds: float, num_probes: int | None) -> str:
    """Describes the cost of the probes of a run before the first.

    Args:
        needed: evaluations of one probe.
        seconds: of the chains of one probe, by a timed step.
        num_probes: of the run; None if its end is unknown.
    """
    one = (
        f"the chains of a probe take about {_duration(seconds)} by one timed step ({needed.gradients:,} gradients, "
        f"{needed.records:,} evaluations of the observed set)"
    )
    if num_probes is None:
        return one
    return f"{one}, those of {counted(num_probes, 'probe')} {_duration(num_probes * seconds)}"


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.2g} s" if seconds < 10 else f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
