"""Computes cells: the chains of each component at one checkpoint."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from stagewise.errors import InputError
from stagewise.experiments.sweep.cell import Cell, write_cell
from stagewise.experiments.sweep.circuits import are_measured, measure_circuits, write_circuits
from stagewise.experiments.sweep.components import ALL, masks_of
from stagewise.experiments.sweep.config import Precision, SweepConfig
from stagewise.experiments.sweep.ranks import local_rank
from stagewise.losses import resolve_loss
from stagewise.probes.prober import Prober
from stagewise.sampling.data import ProbeData
from stagewise.sampling.share import ALONE, ChainShare


def device_of(config: SweepConfig) -> torch.device:
    """Where the chains run; under torchrun, each process of a machine has a GPU of its own.

    Raises:
        InputError: torch does not know the device, or it is not there.
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
            f"got device={config.device} ({str(error).splitlines()[0]}); expected auto, cpu or a GPU that is there"
        ) from error
    return device


def forward_context(config: SweepConfig) -> Callable[[], AbstractContextManager]:
    """Autocast, where it was asked for."""
    if config.precision is Precision.full:
        return nullcontext
    return partial(torch.autocast, device_of(config).type, dtype=torch.bfloat16)


def make_prober(
    config: SweepConfig, data: ProbeData, module: nn.Module, component: str, share: ChainShare = ALONE
) -> Prober:
    """A prober for a checkpoint; refuses what cannot be measured.

    Args:
        config: of the sweep.
        data: of the sweep.
        module: the checkpoint, on its device.
        component: whose chains.
        share: which of them this process runs.

    Raises:
        InputError: as :class:`~stagewise.probes.prober.Prober` does.
    """
    return Prober(
        module,
        resolve_loss(module),
        data,
        sgld=config.sgld,
        config=config.probe,
        device=device_of(config),
        forward_context=forward_context(config),
        masks=masks_of(component, module),
        share=share,
    )


def measure_cells(
    config: SweepConfig,
    data: ProbeData,
    module: nn.Module,
    step: int,
    components: Sequence[str],
    *,
    bos_token_id: int | None = None,
    share: ChainShare = ALONE,
) -> Iterator[str]:
    """Compute and keep the scores of heads and the cells of a checkpoint; each cell is told in words as it ends.

    Where processes share the chains, all of them call this, and the first one keeps and tells.

    Args:
        config: of the sweep.
        data: of the sweep.
        module: the checkpoint, on any device.
        step: training step.
        components: whose cells are missing.
        bos_token_id: what the tokenizer puts before a text.
        share: which of the chains this process runs.

    Raises:
        InputError: the loss of the checkpoint cannot be used.
    """
    module.to(device_of(config))
    output = Path(config.output)
    if share.is_first and config.circuits.enabled and not are_measured(output, step):
        write_circuits(output, step, measure_circuits(module, config.circuits, bos_token_id=bos_token_id))
    for component in components:
        began = time.monotonic()
        try:
            measured, trace = make_prober(config, data, module, component, share).measure(module, step)
        except InputError as error:
            raise InputError(f"at step {step}: {error}") from error
        if not share.is_first:
            continue
        seconds = time.monotonic() - began
        cell = Cell(step, component, measured, dict(trace.dropped), seconds)
        write_cell(output, cell)
        yield describe(cell)


def compute(
    config: SweepConfig,
    source: Any,
    data: ProbeData,
    step: int,
    components: Sequence[str],
    bos_token_id: int | None,
    threads: int,
) -> list[str]:
    """Load a checkpoint in a process of its own and compute its cells; returns them in words."""
    torch.set_num_threads(threads)
    return list(measure_cells(config, data, source.load(step), step, components, bos_token_id=bos_token_id))


def describe(cell: Cell) -> str:
    """One line: the loss at the checkpoint, and what its chains are flagged for."""
    name = f"step {cell.step}" + ("" if cell.component == ALL else f" {cell.component}")
    if cell.measured is None:
        reason = next(iter(cell.dropped.values()), "no chain")
        return f"{name}: lost all its chains ({reason})"
    own = cell.measured.own
    loss = float(own["anchor_loss"].sum()) / int(own["mask"].sum())
    flags = str(own["flag_names"].item()) or "none"
    return f"{name}: loss {loss:.3f} nats a token, flagged for: {flags}"
