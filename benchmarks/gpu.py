"""Checks, timings and memory on a GPU, in five minutes on any available card.

    python benchmarks/gpu.py --json gpu.json
    python benchmarks/gpu.py --tiny              # on the CPU, at tiny sizes: a rehearsal

Checks: training with the callback equals training without it, bit for bit, in each precision; the engines draw the
same; a cell of a sweep equals that of the CPU. As noise is drawn on the device, the last check compares the losses at
the weights, and the mean loss of the draws relative to its error. The exit status is 1 if a check fails.

Timings: seconds of a further draw over the plain floor (forward and backward of the minibatch, forward of the observed
set, ordinary logits), of the compiled engine over the sequential one, of compiling, and of whole probes over their
draws; peak memory of the card. Times are wall-clock time of the device; rows that name the CPU are process time on one
thread. A row without a figure says why it was not run.
"""

import logging
import os
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from statistics import median
from typing import Literal, get_args

import lightning.pytorch as pl
import torch
from compiling import compiled_rows, empty_cache
from engines import language_model, plain_losses
from harness import Row, arguments, device_clock, report, single_thread
from torch import Tensor, nn

from stagewise import InfluenceCallback, ProbeConfig, ProbeSchedule, SGLDConfig
from stagewise.lm.data import SyntheticData
from stagewise.lm.module import CausalLM
from stagewise.losses.causal_lm import causal_lm_loss
from stagewise.probes.prober import Prober
from stagewise.sampling.chains import ChainSampler
from stagewise.sampling.config import Drift, EngineName
from stagewise.sampling.data import ProbeData
from stagewise.sampling.engines import compiled
from stagewise.sampling.target import Target
from stagewise.sweep.cell import Cell, read_cell
from stagewise.sweep.components import ALL
from stagewise.sweep.config import SweepConfig
from stagewise.sweep.measure import Task, measure_cells

Precision = Literal["32-true", "bf16-mixed", "16-mixed"]
GIB = 2**30
PRECISIONS: tuple[Precision, ...] = get_args(Precision)
CHECK = "check"
"""Unit of check rows, whose value is 1 or 0."""
SGLD = SGLDConfig(
    lr=1e-5,
    nbeta=30.0,
    localization=300.0,
    num_chains=1,
    num_draws=4,
    num_burnin_steps=0,
    num_steps_bw_draws=1,
    drift=Drift.plain,
    engine=EngineName.sequential,
)


@dataclass(frozen=True)
class Shape:
    """Shape of a language model and its data, rows of ``length`` tokens.

    Attributes:
        vocab: tokens of the vocabulary.
        width: of the residual stream.
        layers: number of layers.
        heads: heads per layer.
        batch: rows per minibatch.
        observed: rows whose losses are recorded.
        length: tokens per row.
        chunk: rows per forward pass over the observed set.
    """

    vocab: int
    width: int
    layers: int
    heads: int
    batch: int
    observed: int
    length: int
    chunk: int | None = None

    def model(self, device: torch.device) -> nn.Module:
        """Returns a random model of this shape."""
        torch.manual_seed(0)
        model = language_model(self.vocab, self.width, self.layers, self.heads, max(128, self.length))
        return model.to(device)

    def rows(self, number: int, device: torch.device) -> Tensor:
        """Returns token ids, the same on each device."""
        generator = torch.Generator().manual_seed(1)
        return torch.randint(self.vocab, (number, self.length), generator=generator).to(device)


PYTHIA_160M = Shape(50304, 768, 12, 12, batch=16, observed=64, length=512, chunk=8)
PYTHIA_14M = Shape(50304, 128, 6, 4, batch=4, observed=8, length=64)
DEMO = Shape(512, 64, 2, 4, batch=16, observed=64, length=32)
CELL = Shape(4096, 128, 4, 4, batch=16, observed=64, length=256, chunk=8)
TINY = Shape(96, 16, 1, 2, batch=4, observed=6, length=12, chunk=3)


def clock_of(device: torch.device) -> Callable[[], float]:
    """Returns the clock of a device: wall clock for a card, process time for the CPU."""
    return device_clock if device.type == "cuda" else time.process_time


def autocast(device: torch.device) -> Callable[[], torch.autocast]:
    """Returns the context of forward passes in bfloat16."""
    return partial(torch.autocast, device.type, dtype=torch.bfloat16)


def checked(case: str, measure: str, good: bool, note: str = "") -> Row:
    """Returns the row of a check, with value 1 if it holds."""
    return Row(case, "stagewise", measure, None, 1, float(good), CHECK, note=note or ("holds" if good else "FAILS"))


def not_run(case: str, why: str) -> Row:
    """Returns the row of a case that this machine cannot run."""
    return Row(case, "stagewise", "not run", None, 0, note=f"not run: {why}")


def trained(folder: Path, device: torch.device, precision: Precision, callbacks: list[pl.Callback]) -> list[Tensor]:
    """Trains a small language model for a few steps; returns weights and optimizer state."""
    pl.seed_everything(3, verbose=False)
    data = SyntheticData(vocab_size=32, context=24, batch_size=4, num_sequences=64, num_observed=5, num_sampling=16)
    size = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
    module = CausalLM("gpt_neox", config={"vocab_size": 32, "max_position_embeddings": 24, **size})
    trainer = pl.Trainer(
        accelerator="gpu" if device.type == "cuda" else "cpu",
        devices=1,
        precision=precision,
        max_steps=6,
        callbacks=callbacks,
        default_root_dir=folder,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(module, data)
    state = trainer.optimizers[0].state_dict()["state"]
    return [value.cpu() for value in module.state_dict().values()] + [
        value.cpu() for entry in state.values() for value in entry.values() if isinstance(value, Tensor)
    ]


def untouched_training(folder: Path, device: torch.device) -> Iterator[Row]:
    """Checks that training with the callback equals training without it."""
    settings = replace(SGLD, num_chains=2, num_draws=3, batch_size=4, localization=2000.0)
    for precision in PRECISIONS:
        case = f"training in {precision}"
        if precision == "16-mixed" and device.type != "cuda":
            yield not_run(case, "float16 needs a card")
            continue
        config = ProbeConfig(draw_matrices=False, check_curvature=False)
        callback = InfluenceCallback(ProbeSchedule(at_steps=[2, 4, 6]), settings, config)
        plain = trained(folder / "plain", device, precision, [])
        probed = trained(folder / "probed", device, precision, [callback])
        same = len(plain) == len(probed) and all(map(torch.equal, plain, probed))
        yield checked(case, "bits with the callback as without it", same)


def engines_agree(shape: Shape, device: torch.device) -> Row:
    """Checks that both engines draw the same from the same seed."""
    model, rows = shape.model(device), shape.rows(4 * shape.batch, device)
    target = Target(causal_lm_loss, rows[: shape.observed], rows)
    config = replace(SGLD, num_chains=3, num_draws=6, batch_size=shape.batch)
    losses = [
        torch.from_numpy(ChainSampler(model, target, replace(config, engine=engine)).run().loss)
        for engine in (EngineName.sequential, EngineName.batched)
    ]
    difference = float((losses[0] - losses[1]).abs().max())
    spread = float(losses[0].std(dim=1).mean())
    return checked(
        "engines, float32", "same draws", difference < 0.02 * spread, f"differ by {difference:.1e}, spread {spread:.1e}"
    )


def sweep_cell(
    folder: Path, shape: Shape, device: torch.device, *, num_draws: int, num_groups: int, chains: int
) -> tuple[Cell, float]:
    """Measures a cell of a random checkpoint; returns it with its seconds, including diagnostics and disk."""
    model = shape.model(device)
    observed, sampling = shape.rows(shape.observed, device).cpu(), shape.rows(4 * shape.batch, device).cpu()
    generator = torch.Generator().manual_seed(2)
    classes = {
        f"class {number}": torch.rand(shape.observed, shape.length - 1, generator=generator) < 0.2
        for number in range(num_groups)
    }
    config = SweepConfig(
        checkpoints="random",
        corpus="random",
        output=str(folder),
        sgld=replace(SGLD, num_chains=chains, num_draws=num_draws, batch_size=shape.batch),
        probe=ProbeConfig(chunk_size=shape.chunk),
        device=str(device),
    )
    start = time.perf_counter()
    data = ProbeData({"input_ids": observed}, {"input_ids": sampling}, classes)
    list(measure_cells(config, data, model, Task(1, (ALL,))))
    seconds = time.perf_counter() - start
    return read_cell(folder, 1, ALL), seconds


def cell_as_on_the_cpu(folder: Path, shape: Shape, device: torch.device) -> Row:
    """Compares a cell on the device with one on the CPU; on the CPU, measures the same cell twice."""
    cells = [
        sweep_cell(folder / name, shape, where, num_draws=12, num_groups=3, chains=4)[0]
        for name, where in (("first", torch.device("cpu")), ("second", device))
    ]
    one, other = (cell.measured for cell in cells)
    if one is None or other is None:
        return checked("sweep cell", "as on the CPU", False, "lost its chains")
    anchor = float(abs(one.own["anchor_loss"] - other.own["anchor_loss"]).max())
    means = [torch.from_numpy(measured.features.samples).double().mean(dim=(1, 2)) for measured in (one, other)]
    error = float(sum(mean.var() / len(mean) for mean in means)) ** 0.5
    z = float(means[0].mean() - means[1].mean()) / max(error, 1e-12)
    good = anchor < 1e-3 and abs(z) < 5
    if device.type == "cpu":
        good = anchor == 0 and bool((one.features.samples == other.features.samples).all())
    return checked("sweep cell", "as on the CPU", good, f"losses at w* differ by {anchor:.1e}, draws by {z:.1f} errors")


def floor(shape: Shape, model: nn.Module, rows: Tensor, context: Callable[[], object] = nullcontext) -> None:
    """Runs the floor: forward and backward of the minibatch, forward of the observed set."""
    with context():  # type: ignore[attr-defined]
        loss = plain_losses(model, rows[: shape.batch]).mean()
    torch.autograd.grad(loss, list(model.parameters()))
    for ids in rows[: shape.observed].split(shape.chunk or shape.observed):
        with torch.no_grad(), context():  # type: ignore[attr-defined]
            plain_losses(model, ids)


def draw_rows(case: str, shape: Shape, device: torch.device, rounds: int, *, half: bool, more: int) -> Iterator[Row]:
    """Yields rows with the seconds of a further draw over the floor, and the peak memory of both."""
    context = autocast(device) if half else nullcontext
    model, rows = shape.model(device), shape.rows(max(4 * shape.batch, shape.observed), device)
    target = Target(causal_lm_loss, rows[: shape.observed], rows, chunk_size=shape.chunk, forward_context=context)
    clock = clock_of(device)

    def ours(num_draws: int) -> None:
        ChainSampler(model, target, replace(SGLD, num_draws=num_draws, batch_size=shape.batch)).run()

    runs = {
        "floor": partial(floor, shape, model, rows, context),
        "few": partial(ours, 2),
        "more": partial(ours, 2 + more),
    }
    times: dict[str, list[float]] = {name: [] for name in runs}
    peaks = {}
    for name, run in runs.items():
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
        run()
        peaks[name] = torch.cuda.max_memory_allocated(device) / GIB if device.type == "cuda" else None
    for _ in range(rounds):
        for name, run in runs.items():
            start = clock()
            run()
            times[name].append(clock() - start)
    draws = [(long - short) / more for long, short in zip(times["more"], times["few"], strict=True)]
    yield Row.of(case, "stagewise sequential", "further draw / floor", draws, floor=times["floor"])
    yield Row.of(case, "plain torch", "floor", times["floor"])
    for name, who in (("more", "stagewise sequential"), ("floor", "plain torch")):
        if peaks[name] is not None:
            yield Row(case, who, "peak memory", None, 1, peaks[name], "GiB")
    if more and device.type == "cuda" and half:
        yield probe_row(f"{case}: whole probe", shape, device, median(draws), num_draws=100, context=context)


def of_compiled(case: str, shape: Shape, device: torch.device, rounds: int, *, half: bool, more: int) -> Iterator[Row]:
    """Compares the compiled engine with the sequential one; draws only in float32."""
    model, rows = shape.model(device), shape.rows(max(4 * shape.batch, shape.observed), device)
    context = autocast(device) if half else nullcontext
    target = Target(causal_lm_loss, rows[: shape.observed], rows, chunk_size=shape.chunk, forward_context=context)
    config = replace(SGLD, batch_size=shape.batch)
    clock = clock_of(device)
    yield from compiled_rows(case, model, target, config, more=more, rounds=rounds, clock=clock, checks=not half)


def probe_row(
    case: str,
    shape: Shape,
    device: torch.device,
    draw_seconds: float | None,
    *,
    num_draws: int,
    context: Callable[[], object] = nullcontext,
    engine: EngineName = EngineName.sequential,
) -> Row:
    """Times a whole probe of 4 chains, from the creation of the prober to its result, over its draws alone."""
    model, rows = shape.model(device), shape.rows(4 * max(shape.batch, shape.observed), device)
    groups = {"first half": torch.arange(shape.observed) < shape.observed // 2}
    data = ProbeData(rows[: shape.observed], rows, groups)
    settings = replace(SGLD, num_chains=4, num_draws=num_draws, batch_size=shape.batch, engine=engine)
    clock = time.perf_counter if device.type == "cpu" else device_clock
    start = clock()
    config = ProbeConfig(chunk_size=shape.chunk)
    prober = Prober(model, causal_lm_loss, data, sgld=settings, config=config, forward_context=context)  # type: ignore[arg-type]
    prober.probe(model, 1)
    seconds = clock() - start
    if draw_seconds is None:
        return Row(case, f"stagewise {engine}", f"4 x {num_draws} draws", None, 1, seconds, "s")
    ratio = seconds / (4 * num_draws * draw_seconds)
    return Row(case, f"stagewise {engine}", f"4 x {num_draws} draws / those draws", ratio, 1, seconds, "s")


def timings(folder: Path, device: torch.device, rounds: int, *, tiny: bool) -> Iterator[Row]:
    """Yields the rows of seconds and memory."""
    cpu = torch.device("cpu")
    if tiny or device.type == "cuda":
        shape, name = (TINY, "tiny shape") if tiny else (PYTHIA_160M, "Pythia-160m shape")
        case = f"{name}, bf16, batch {shape.batch} x {shape.length}, {shape.observed} observed"
        yield from draw_rows(case, shape, device, rounds, half=True, more=30 if tiny else 6)
    else:
        yield not_run("Pythia-160m shape, bf16, batch 16 x 512, 64 observed", "it needs a card")
    if tiny or device.type == "cuda":
        empty_cache(folder / "code")
        if tiny:
            compiled.BACKEND = "aot_eager"  # a rehearsal: the real one takes half a minute of the CPU
        named = ("tiny shape", TINY) if tiny else ("demo-size model", DEMO)
        yield from of_compiled(f"{named[0]}, float32, compiled", named[1], device, rounds, half=False, more=6)
        if not tiny:
            yield from of_compiled(f"{name}, bf16, compiled", PYTHIA_160M, device, rounds, half=True, more=6)
    else:
        yield not_run("compiled engine", "minutes without a card; engines.py --compiled measures it there")
    shape, draws = (TINY, 4) if tiny else (DEMO, 20)
    probe_row("", shape, device, None, num_draws=2, engine=EngineName.auto)  # warms up
    yield probe_row("demo-size model, whole probe", shape, device, None, num_draws=draws, engine=EngineName.auto)
    shape, draws = (TINY, 4) if tiny else (CELL, 40)
    weights = sum(value.numel() for value in shape.model(cpu).parameters())
    case = f"sweep cell, {weights / 1e6:.2g} M weights, {shape.observed} x {shape.length}, 11 classes"
    if tiny or device.type == "cuda":
        seconds = sweep_cell(folder / "timed", shape, device, num_draws=draws, num_groups=11, chains=4)[1]
        yield Row(case, "stagewise sequential", f"4 x {draws} draws, all included", None, 1, seconds, "s")
    else:
        yield not_run(case, "minutes without a card")
    for batch, observed in ((4, 8), (32, 64)):
        shape = replace(TINY if tiny else PYTHIA_14M, batch=batch, observed=observed, chunk=None)
        case = f"CPU, {'tiny' if tiny else 'Pythia-14m'} shape, batch {batch} x {shape.length}, {observed} observed"
        if batch == 4 or tiny or device.type == "cpu":
            yield from draw_rows(case, shape, cpu, rounds, half=False, more=30 if tiny else 2)
        else:
            yield not_run(case, "a minute of the CPU; start with --device cpu")


def all_rows(device: torch.device, rounds: int, *, tiny: bool) -> Iterator[Row]:
    """Yields the rows of the machine, the checks and the timings."""
    card = torch.cuda.get_device_name(device) if device.type == "cuda" else "no card, CPU"
    words = f"torch {torch.__version__}, Python {sys.version.split()[0]}"
    yield Row("machine", card, "software", None, 1, note=words)
    shape = TINY if tiny or device.type == "cpu" else DEMO
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        yield from untouched_training(folder, device)
        yield engines_agree(shape, device)
        yield cell_as_on_the_cpu(folder, shape, device)
        yield from timings(folder, device, rounds, tiny=tiny)


def quiet() -> None:
    """Silences Lightning, and warnings about chains of few draws."""
    warnings.simplefilter("ignore")
    for name in ("lightning.pytorch", "lightning.fabric", "stagewise"):
        logging.getLogger(name).setLevel(logging.ERROR)
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")


def main() -> int:
    """Prints the rows as they are measured, then the table."""
    options = arguments(__doc__, rounds=3, tiny=False, device="auto")
    single_thread()
    quiet()
    name = options.device if options.device != "auto" else "cuda" if torch.cuda.is_available() else "cpu"
    device = torch.device("cpu" if options.tiny and options.device == "auto" else name)
    rows = []
    began = time.perf_counter()
    for row in all_rows(device, 1 if options.tiny else options.rounds, tiny=options.tiny):
        print(f"{time.perf_counter() - began:6.1f} s  {row.case}: {row.measure} {row.note}", flush=True)
        rows.append(row)
    report(rows, options.json)
    return int(any(row.unit == CHECK and not row.value for row in rows))


if __name__ == "__main__":
    sys.exit(main())
