"""All cells of a sweep: checked beforehand, computed in one or several processes, stored, never computed twice."""

from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from stagewise.errors import InputError, require
from stagewise.jobs.settings import SETTINGS_NAME, check_same_settings, plain_settings
from stagewise.jobs.sharing import Backend, Progress, Report, check_output, register, shared
from stagewise.runs.probe_files import STORE_NAME
from stagewise.sampling.data import ProbeData
from stagewise.sampling.share import ALONE, ChainShare
from stagewise.sweep.cell import has_cells, is_finished
from stagewise.sweep.checkpoint_names import MOST_SHOWN, shown
from stagewise.sweep.choosing import choose
from stagewise.sweep.circuits import Key, circuits_key, read_circuits
from stagewise.sweep.components import expand, needs_model
from stagewise.sweep.config import SweepConfig
from stagewise.sweep.data import check_context, data_hash, decoded, first_token, load_tokenizer, sweep_data
from stagewise.sweep.estimate import describe_cost, describe_memory, estimate
from stagewise.sweep.find_checkpoints import check_axis, check_limits, find_checkpoints
from stagewise.sweep.identities import check_same_checkpoints, note_checkpoints
from stagewise.sweep.left_out import notes_on
from stagewise.sweep.measure import Task, compute, device_of, make_prober, measure_cells
from stagewise.sweep.ranks import agreed
from stagewise.sweep.sources import Checkpoints

_FREE = (
    *("steps", "output", "components", "circuits", "query", "num_workers", "backend", "cache_dir"),
    *("step_pattern", "branch", "name_steps", "name_tokens", "tokens_per_step", "axis"),
)
"""Settings that select cells and where they run, without effect on the result of a cell."""

_FREE_PROBE = ("centering", "min_prominence", "memory_limit_gib", "sample_matrices")
"""Settings used only by the assembly, or only by a check."""


@dataclass(frozen=True)
class Sweep:
    """Sweep whose settings and data have been checked.

    Attributes:
        config: its settings.
        source: of its checkpoints.
        steps: training steps, increasing.
        components: components of the chains, each by its own name.
        data: observed and sampling sequences, with groups.
        bos_token_id: token that the tokenizer puts before a text; None if it puts none.
        texts: the tokens of each of ``probe.token_samples`` as text.
        missing: listed steps without a checkpoint.
        notes: lines on the checkpoints, reported before the work.
    """

    config: SweepConfig
    source: Checkpoints
    steps: tuple[int, ...]
    components: tuple[str, ...]
    data: ProbeData
    bos_token_id: int | None
    texts: tuple[tuple[str, ...], ...]
    missing: tuple[int, ...] = ()
    notes: tuple[str, ...] = ()

    def circuits_key(self, step: int) -> Key:
        """Returns the settings on which the scores of heads at a step depend."""
        identity = self.source.identity(step)
        return circuits_key(self.config.circuits, bos_token_id=self.bos_token_id, checkpoint=identity)


def cell_settings(config: SweepConfig, data: ProbeData) -> dict[str, Any]:
    """Returns everything on which a cell's result depends, as plain data."""
    content = {name: value for name, value in plain_settings(config).items() if name not in _FREE}
    content["probe"] = {name: value for name, value in content["probe"].items() if name not in _FREE_PROBE}
    # Noise is drawn on the device: another kind of it gives other draws.
    return {**content, "device": device_of(config).type, "data_sha256": data_hash(data)}


def prepare_sweep(config: SweepConfig, share: ChainShare = ALONE) -> Sweep:
    """Checks everything that can be checked beforehand, and makes the data; writes nothing.

    Weights are loaded only where components are requested: the first checkpoint shows which ones exist.

    Args:
        config: of the sweep.
        share: of this process, if torchrun started several.

    Raises:
        InputError: unusable checkpoints, tokenizer, corpus or settings, or other content in ``output``.
    """
    share.numbers(config.sgld.num_chains)
    every = config.probe.control_every
    require(
        every in (None, 1),
        "probe.control_every",
        every,
        "1 or null in a sweep, where no cell knows of the others",
        "1 runs a control at each checkpoint",
    )
    one = config.num_workers == 1 and config.backend is Backend.loky
    require(
        one or share.world_size == 1,
        "num_workers, backend",
        (config.num_workers, str(config.backend)),
        "1 and loky under torchrun, whose processes share the chains of each checkpoint",
        "leave both out, or start the sweep without torchrun to share the checkpoints",
    )
    output = Path(config.output)
    check_output(output)
    if (output / STORE_NAME).exists() and not (output / SETTINGS_NAME).exists():
        raise InputError(
            f"got output {output}, which holds the probes of another run; expected a folder of its own; choose another "
            "--output"
        )
    register(config.backend)
    device_of(config)
    with torch.random.fork_rng():
        source = find_checkpoints(config)
        chosen = choose(source.steps(), config.steps)
        steps = list(chosen.steps)
        check_axis(source, steps, config)
        limits = check_limits(source, steps)
        tokenizer = load_tokenizer(config, source)
        check_context(config, limits)
        data = sweep_data(config, tokenizer, limits)
        names = tuple(config.components)
        if needs_model(names):
            names = expand(names, source.load(steps[0]))
    if has_cells(output):
        check_same_settings(output, cell_settings(config, data))
    texts = decoded(data.observed["input_ids"], tokenizer, config.probe.token_samples or ())
    notes = (*notes_on(source, config), *([chosen.words] if chosen.words else []))
    return Sweep(config, source, chosen.steps, names, data, first_token(tokenizer), texts, chosen.missing, notes)


def _plan(sweep: Sweep) -> list[Task]:
    """Lists missing cells and scores; refuses checkpoints that have changed since their cells."""
    config, output = sweep.config, Path(sweep.config.output)
    check_same_checkpoints(output, sweep.source, sweep.steps)
    tasks: list[Task] = []
    for step in sweep.steps:
        missing = tuple(name for name in sweep.components if not is_finished(output, step, name))
        key = sweep.circuits_key(step) if config.circuits.enabled else None
        if key is not None and read_circuits(output, step, key) is not None:
            key = None
        if missing or key is not None:
            tasks.append(Task(step, missing, key))
    return tasks


def _note_settings(sweep: Sweep) -> None:
    """Writes the settings of the cells, before the first one."""
    config, output = sweep.config, Path(sweep.config.output)
    note_checkpoints(output, sweep.source, sweep.steps)
    if not has_cells(output):
        (output / SETTINGS_NAME).unlink(missing_ok=True)
    check_same_settings(output, cell_settings(config, sweep.data))


def run_cells(sweep: Sweep, progress: Progress = print, share: ChainShare = ALONE) -> None:
    """Computes every missing cell; each is written as it finishes, so that a killed sweep can be resumed.

    Args:
        sweep: from :func:`prepare_sweep`.
        progress: called with the cost, and one line for each finished cell; only in the first process.
        share: chains of each cell in this process; the first process decides what is missing, and writes.

    Raises:
        InputError: a checkpoint that cannot be loaded or measured, or whose files have changed since its cells.
    """
    config = sweep.config
    if not share.is_first:
        progress = _silent
    for note in sweep.notes:
        progress(note)
    wanted = len(sweep.steps) * len(sweep.components)
    tasks: list[Task] = share.gather(agreed(share, lambda: _plan(sweep) if share.is_first else []))[0]
    left = sum(len(task.components) for task in tasks)
    if left < wanted:
        progress(f"{wanted - left} of {wanted} cells are there already")
    if not tasks:
        return
    threads = torch.get_num_threads()
    try:
        with torch.random.fork_rng():
            # Popped where it is used, so that no frame holds a checkpoint that is done with.
            loaded = agreed(share, lambda: [sweep.source.load(tasks[0].step).to(device_of(config))])
            # Refuses what the chains cannot be run with, before anything is written.
            prober = agreed(share, lambda: make_prober(config, sweep.data, loaded[0], sweep.components[0], share))
            if left and share.is_first:
                cost = estimate(config, sweep.data, loaded[0])
                words = describe_cost(cost, left, config, num_ranks=share.world_size)
                progress(f"{words}; draws and products need {prober.memory_gib:.2g} GiB beside the chains")
            agreed(share, lambda: _note_settings(sweep) if share.is_first else None)
            report = Report(progress, wanted, wanted - left)
            for words in _computed(sweep, tasks, loaded, share):
                report(words)
    finally:
        torch.set_num_threads(threads)


def dry_run(sweep: Sweep) -> str:
    """Returns checkpoints, cost and memory of the cells in words; the first is loaded, and nothing is written.

    Args:
        sweep: from :func:`prepare_sweep`.

    Raises:
        InputError: a checkpoint that cannot be loaded or measured.
    """
    config = sweep.config
    with torch.random.fork_rng():
        module = sweep.source.load(sweep.steps[0]).to(device_of(config))
        prober = make_prober(config, sweep.data, module, sweep.components[0])
        cost = estimate(config, sweep.data, module)
        words = describe_cost(cost, len(sweep.steps) * len(sweep.components), config)
        memory = describe_memory(config, sweep.data, module)
    memory += f"; draws and products need {prober.memory_gib:.2g} GiB of the machine's own"
    return "\n".join([*sweep.notes, _checkpoints_in_words(sweep), words, memory])


def _checkpoints_in_words(sweep: Sweep) -> str:
    names = [sweep.source.name_of(step) for step in sweep.steps]
    listed = []
    for step, name in zip(sweep.steps, names, strict=True):
        tokens = "" if name.tokens is None else f", {name.tokens:,} tokens"
        listed.append(f"{name.name} (step {step:,}{tokens})")
    return f"Checkpoints: {shown(listed)}" + (
        f" {listed[-1]}; {len(listed)} in all" if len(listed) > MOST_SHOWN else ""
    )


def _silent(_: str) -> None:
    pass


def _computed(sweep: Sweep, tasks: Sequence[Task], loaded: list[nn.Module], share: ChainShare) -> Iterator[str]:
    """Yields a line for each cell as it finishes; ``loaded`` holds the first checkpoint."""
    config, bos = sweep.config, sweep.bos_token_id
    if config.num_workers == 1 and config.backend is Backend.loky:
        for task, module in _ahead(sweep.source, tasks, loaded):
            yield from measure_cells(config, sweep.data, module, task, bos_token_id=bos, share=share)
        return
    loaded.clear()
    threads = max(1, torch.get_num_threads() // config.num_workers)
    work = [(config, sweep.source, sweep.data, task, bos, threads) for task in tasks]
    num_gpus = int(device_of(config).type == "cuda")
    for done in shared(compute, work, num_workers=config.num_workers, backend=config.backend, num_gpus=num_gpus):
        yield from done


def _ahead(source: Checkpoints, tasks: Sequence[Task], loaded: list[nn.Module]) -> Iterator[tuple[Task, nn.Module]]:
    """Yields each task with its checkpoint; meanwhile a thread fetches the next one, so that two are in memory."""
    pool = ThreadPoolExecutor(max_workers=1)
    try:
        module = loaded.pop()
        for place, task in enumerate(tasks):
            coming: Future[nn.Module] | None = None
            if place + 1 < len(tasks):
                coming = pool.submit(source.load, tasks[place + 1].step)
            yield task, module
            if coming is not None:
                module = coming.result()
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
