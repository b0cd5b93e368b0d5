"""Estimated cost of a sweep, shown before it starts."""

import math
from dataclasses import dataclass, fields

from torch import nn

from stagewise.batches import num_samples
from stagewise.losses.contract import resolve_loss
from stagewise.losses.language_models import causal_lm_name
from stagewise.probes.cost import evaluations, timed_step
from stagewise.probes.target import target_of
from stagewise.sampling.config import EngineName
from stagewise.sampling.data import ProbeData
from stagewise.sampling.memory import chain_memory, pass_bytes
from stagewise.sampling.target import Target
from stagewise.sweep.config import SweepConfig
from stagewise.sweep.measure import device_of, forward_context


@dataclass(frozen=True)
class Cost:
    """Cost of the chains of one cell, without diagnostics, the gradient dot product and loading.

    Attributes:
        parameters: of the model, including embeddings.
        gradients: of minibatches.
        gradient_tokens: tokens of each.
        records: evaluations of the observed set.
        record_tokens: tokens of each.
        flops: floating-point operations.
        seconds: on the device.
    """

    parameters: int
    gradients: int
    gradient_tokens: int
    records: int
    record_tokens: int
    flops: float
    seconds: float


def matrix_parameters(module: nn.Module) -> int:
    """Returns the number of weights that multiply each token: all except an input embedding not tied to the output."""
    model = module.get_submodule(causal_lm_name(module) or "")
    total = sum(parameter.numel() for parameter in model.parameters())
    given, taken = model.get_input_embeddings().weight, model.get_output_embeddings().weight  # type: ignore[operator]
    return total - (0 if given is taken else given.numel())


def _target(config: SweepConfig, data: ProbeData, module: nn.Module) -> Target:
    return target_of(module, resolve_loss(module), data, config.probe, forward_context=forward_context(config))


def estimate(config: SweepConfig, data: ProbeData, module: nn.Module) -> Cost:
    """Returns the cost of one cell, from one timed step.

    Args:
        config: of the sweep.
        data: of the sweep.
        module: a checkpoint, on its device.

    Source: 6 N operations for each token forward and backward, 2 N forward, N the weights that it is multiplied by
        (Kaplan et al. 2020, arXiv 2001.08361, section 2.1); attention scores come on top.
    """
    sgld = config.sgld
    needed = evaluations(sgld, config.probe, control=config.probe.control_every is not None)
    context = config.data.context
    gradient_tokens = min(sgld.batch_size, num_samples(data.sampling)) * context
    record_tokens = num_samples(data.observed) * context
    weights = matrix_parameters(module)
    gradient, record = timed_step(module, _target(config, data, module), sgld.batch_size)
    return Cost(
        parameters=sum(parameter.numel() for parameter in module.parameters()),
        gradients=needed.gradients,
        gradient_tokens=gradient_tokens,
        records=needed.records,
        record_tokens=record_tokens,
        flops=float(weights) * (6 * needed.gradients * gradient_tokens + 2 * needed.records * record_tokens),
        seconds=needed.gradients * gradient + needed.records * record,
    )


def describe_cost(cost: Cost, num_cells: int, config: SweepConfig, *, num_ranks: int = 1) -> str:
    """Returns the cost in words.

    Args:
        cost: of one cell.
        num_cells: to be computed.
        config: of the sweep.
        num_ranks: processes that share the chains of a cell.
    """
    sgld = config.sgld
    speed: float = min(config.num_workers, num_cells)
    shared = "" if speed == 1 else f", at best, shared by {speed} processes"
    if num_ranks > 1:
        speed = sgld.num_chains / math.ceil(sgld.num_chains / num_ranks)
        shared = f", at best, the chains of each shared by {num_ranks} processes"
    compiling = "compiling (once for each process and cell), " if sgld.engine is EngineName.compiled else ""
    cells = f"{num_cells} cell{'' if num_cells == 1 else 's'}"
    return (
        f"{cells} of {cost.parameters:,} parameters, each {sgld.num_chains} chains x {sgld.num_draws} draws: "
        f"{cost.gradients} gradients of {cost.gradient_tokens:,} tokens and {cost.records} evaluations of "
        f"{cost.record_tokens:,}; about {cost.flops:.1e} FLOPs a cell, {num_cells * cost.flops:.1e} in all. On "
        f"{device_of(config)} about {cost.seconds:.3g} s a cell by one timed step, "
        f"{num_cells * cost.seconds / speed / 3600:.2f} hours in all{shared}; "
        f"{compiling}diagnostics and downloads come on top"
    )


def describe_memory(config: SweepConfig, data: ProbeData, module: nn.Module) -> str:
    """Returns the peak memory of the chains of a cell that moves all weights, in words.

    Args:
        config: of the sweep.
        data: of the sweep.
        module: a checkpoint, on its device.
    """
    target = _target(config, data, module)
    weights = [parameter for parameter in module.parameters() if parameter.requires_grad]
    memory = chain_memory(
        config.sgld,
        num_weights=sum(parameter.numel() for parameter in weights),
        num_sampling=num_samples(target.driving),
        num_parameters=sum(parameter.numel() for parameter in module.parameters()),
        module_bytes=weights[0].element_size(),
        pass_bytes=pass_bytes(module, target, config.sgld.batch_size),
    )
    parts = ", ".join(f"{field.name} {getattr(memory, field.name):.3g}" for field in fields(memory))
    return f"The chains need {memory.total:.3g} GiB of {device_of(config)} at their peak, one after the other ({parts})"
