"""Computation of cells: the chains of each component at one checkpoint."""

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from stagewise.errors import InputError, first_line
from stagewise.losses.contract import resolve_loss
from stagewise.probes.lost_samples import listed
from stagewise.probes.prober import Prober
from stagewise.sampling.data import ProbeData
from stagewise.sampling.share import ALONE, ChainShare
from stagewise.sweep.cell import Cell, write_cell
from stagewise.sweep.circuits import Key, measure_circuits, write_circuits
from stagewise.sweep.components import ALL, masks_of
from stagewise.sweep.config import Precision, SweepConfig
from stagewise.sweep.ranks import agreed, local_rank


@dataclass(frozen=True)
class Task:
    """Computations for a checkpoint.

    Attributes:
        step: training step.
        components: with missing cells.
        circuits: key of the scores of heads, if requested and missing; else None.
    """

    step: int
    components: tuple[str, ...]
    circuits: Key | None = None


def device_of(config: SweepConfig) -> torch.device:
    """Returns the device of the chains; under torchrun, each process of a machine has a GPU of its own.

    Raises:
        InputError: unknown or unavailable device.
    """
    name, local = config.device, local_rank()
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda" and local is not None:
        name = f"cuda:{local}"
    try:
        device = torch.device(name)
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise InputError(
            f"got device={config.device} ({first_line(error)}); expected auto, cpu or a GPU that is there"
        ) from error
    return device


def forward_context(config: SweepConfig) -> Callable[[], AbstractContextManager]:
    """Returns the autocast context, if requested."""
    if config.precision is Precision.full:
        return nullcontext
    return partial(torch.autocast, device_of(config).type, dtype=torch.bfloat16)


def make_prober(
    config: SweepConfig, data: ProbeData, module: nn.Module, component: str, share: ChainShare = ALONE
) -> Prober:
    """Returns a prober for a checkpoint; refuses one that cannot be measured.

    Args:
        config: of the sweep.
        data: of the sweep.
        module: the checkpoint, on its device.
        component: component of the chains.
        share: chains of this process.

    Raises:
        InputError: see :class:`~stagewise.probes.prober.Prober`; or losses that are not finite.
    """
    prober = Prober(
        module,
        resolve_loss(module),
        data,
        sgld=config.sgld,
        config=config.probe,
        forward_context=forward_context(config),
        masks=masks_of(component, module),
        share=share,
        warn=lambda words: None,
    )
    if prober.lost:
        # Checkpoints are compared sample by sample.
        raise InputError(
            f"got losses that are not finite in samples {listed(prober.lost)} of the observed set; expected finite "
            "ones at every checkpoint; leave these samples out, or look at the checkpoint"
        )
    return prober


def measure_cells(
    config: SweepConfig,
    data: ProbeData,
    module: nn.Module,
    task: Task,
    *,
    bos_token_id: int | None = None,
    share: ChainShare = ALONE,
) -> Iterator[str]:
    """Computes and stores the cells of a checkpoint, then scores of heads; yields a line for each finished cell.

    Processes that share the chains must all call this; the first one stores and reports.

    Args:
        config: of the sweep.
        data: of the sweep.
        module: the checkpoint, on any device.
        task: missing cells and scores.
        bos_token_id: token that the tokenizer puts before a text.
        share: chains of this process.

    Raises:
        InputError: unusable loss of the checkpoint.
    """
    module.to(device_of(config))
    output, step = Path(config.output), task.step
    for component in task.components:
        began = time.monotonic()
        try:
            prober = agreed(share, partial(make_prober, config, data, module, component, share))
            measured, trace = prober.measure(module, step)
        except InputError as error:
            raise InputError(f"at step {step}: {error}") from error
        if not share.is_first:
            continue
        seconds = time.monotonic() - began
        cell = Cell(step, component, measured, dict(trace.dropped), seconds)
        write_cell(output, cell)
        yield describe(cell)
    # Last: of weights whose loss can be used.
    if share.is_first and task.circuits is not None:
        circuits = measure_circuits(module, config.circuits, bos_token_id=bos_token_id)
        write_circuits(output, step, task.circuits, circuits)


def compute(
    config: SweepConfig,
    source: Any,
    data: ProbeData,
    task: Task,
    bos_token_id: int | None,
    threads: int,
) -> list[str]:
    """Loads a checkpoint in a separate process and computes its cells; returns a line for each."""
    torch.set_num_threads(threads)
    return list(measure_cells(config, data, source.load(task.step), task, bos_token_id=bos_token_id))


def describe(cell: Cell) -> str:
    """Describes a cell in one line: the loss at the checkpoint, and the flags of its chains."""
    name = f"step {cell.step}" + ("" if cell.component == ALL else f" {cell.component}")
    if cell.measured is None:
        reason = next(iter(cell.dropped.values()), "no chain")
        return f"{name}: lost all its chains ({reason})"
    own = cell.measured.own
    loss = float(own["anchor_loss"].sum()) / int(own["mask"].sum())
    flags = str(own["flag_names"].item()) or "none"
    return f"{name}: loss {loss:.3f} nats a token, flagged for: {flags}"
