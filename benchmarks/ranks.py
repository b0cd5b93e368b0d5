"""Wall time of a probe on one process compared with several that share its chains.

    python benchmarks/ranks.py --json ranks.json        (four rounds: three to four minutes on two idle cores)
    python benchmarks/ranks.py --tiny --rounds 2        (a small size, to check that it runs)

The callback runs under DDP over gloo, with one thread per process, on chains that dominate its time: a two-layer
GPT-NeoX, four chains, sequential engine. Ranks train on the same batch, so that every run has the same weights. The
time of a probe is from its start to the end of its writing, including the waits of ranks for each other: the median of
all probes except the first. Each round makes a run on one process, two independent such runs at once, and a run on two
ranks, in alternating order; ratios are within a round. A row has their median and range, and in the note their mean
with its 95 % interval:

* *speedup, wall*: time alone over time on two ranks. It needs as many idle cores as ranks: the note gives the load of
  the machine in each round, the mean of the last minute over its cores.
* *bound, wall*: 2 x time alone over time of the two runs at once, the gain of two processes without any exchange.
* *speedup, process time*: CPU seconds alone over those of the slowest rank, without waits.
* *difference*: largest difference between the influence of samples in both, which must be 0.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import torch
from harness import Row, arguments, mean_interval, report, single_thread
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset
from transformers import GPTNeoXConfig, GPTNeoXForCausalLM

from stagewise import InfluenceCallback, ProbeConfig, ProbeSchedule, SGLDConfig, open_run
from stagewise.sampling.config import Drift, EngineName


@dataclass(frozen=True)
class Size:
    """Sizes of the model, the data and the chains."""

    name: str
    vocab_size: int
    hidden_size: int
    length: int
    observed: int
    num_chains: int
    num_draws: int
    num_probes: int


SIZES = (
    Size("2-layer GPT-NeoX d=64, batch 16 x 64, 64 observed, 4 chains x 25 draws", 512, 64, 64, 64, 4, 25, 3),
    Size("2-layer GPT-NeoX d=32, batch 4 x 16, 16 observed, 4 chains x 5 draws", 64, 32, 16, 16, 4, 5, 3),
)


class SameBatch(pl.LightningModule):
    """Module that trains on one fixed batch, so that weights are the same on any number of ranks."""

    def __init__(self, size: Size, ids: Tensor) -> None:
        super().__init__()
        config = GPTNeoXConfig(
            vocab_size=size.vocab_size,
            hidden_size=size.hidden_size,
            num_hidden_layers=2,
            num_attention_heads=4,
            intermediate_size=4 * size.hidden_size,
            max_position_embeddings=size.length,
            use_cache=False,
        )
        self.model, self.ids = GPTNeoXForCausalLM(config), ids

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        """Returns the mean loss of the fixed batch."""
        return self.model(self.ids.to(self.device), labels=self.ids.to(self.device)).loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Returns AdamW."""
        return torch.optim.AdamW(self.parameters(), lr=1e-3)


class Clock(pl.Callback):
    """Callback that reads the clocks before or after another callback."""

    def __init__(self) -> None:
        self.looks: list[tuple[float, float]] = []

    def on_train_batch_end(self, *_: Any) -> None:
        """Records wall and process time."""
        self.looks.append((time.perf_counter(), time.process_time()))


def train(size: Size, folder: Path, ranks: int) -> None:
    """Makes one run, in each of its processes; each rank writes its times to the folder."""
    torch.set_num_threads(1)
    pl.seed_everything(0, verbose=False)
    ids = torch.randint(size.vocab_size, (256, size.length))
    batch_size = 16 if size.length > 16 else 4
    influence = InfluenceCallback(
        ProbeSchedule(every_n_steps=1),
        SGLDConfig(
            lr=1e-5,
            nbeta=30,
            localization=300,
            num_chains=size.num_chains,
            num_draws=size.num_draws,
            num_burnin_steps=0,
            num_steps_bw_draws=1,
            batch_size=batch_size,
            engine=EngineName.sequential,
            drift=Drift.plain,
        ),
        ProbeConfig(check_curvature=False, draw_matrices=False),
        observed=ids[: size.observed],
        sampling=ids,
        output_dir=str(folder),
    )
    before, after = Clock(), Clock()
    trainer = pl.Trainer(
        accelerator="cpu",
        devices=ranks,
        strategy="ddp" if ranks > 1 else "auto",
        max_steps=size.num_probes,
        callbacks=[before, influence, after],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(SameBatch(size, ids[:batch_size]), DataLoader(TensorDataset(ids), 1))
    times = np.subtract(after.looks, before.looks)[1:]
    np.save(folder / f"seconds{trainer.global_rank}.npy", np.median(times, axis=0))


def timed(size: int, ranks: int, folders: Sequence[Path]) -> np.ndarray:
    """Makes runs at once; returns seconds of a probe, wall and process time, ``[run, rank, 2]``."""
    for folder in folders:
        folder.mkdir()
    runs = [
        subprocess.Popen(
            [sys.executable, __file__, "--train", str(size), str(ranks), str(folder)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        for folder in folders
    ]
    for run in runs:
        _, stderr = run.communicate(timeout=1800)
        if run.returncode:
            raise SystemExit(f"a run on {ranks} processes failed:\n{stderr[-3000:]}")
    return np.array([[np.load(folder / f"seconds{rank}.npy") for rank in range(ranks)] for folder in folders])


def measure(size: int, rounds: int, ranks: int) -> list[Row]:
    """Makes, in each round, a run on one process, several such runs at once, and a run on several ranks."""
    alone, apart, shared = [], [], []
    loads, differences = [], []
    begun = time.perf_counter()
    for number in range(rounds):
        loads.append(os.getloadavg()[0] / (os.cpu_count() or 1))
        with tempfile.TemporaryDirectory() as name:
            base = Path(name)
            plan = {"alone": (1, ["alone"]), "apart": (1, [f"apart{run}" for run in range(ranks)])}
            plan["shared"] = (ranks, ["shared"])
            found = {}
            for what in list(plan)[:: 1 if number % 2 == 0 else -1]:
                processes, names = plan[what]
                found[what] = timed(size, processes, [base / one for one in names])
            left, right = (open_run(base / run)["bif_within"].values for run in ("alone", "shared"))
        alone.append(found["alone"][0, 0])
        apart.append(found["apart"][:, 0].mean(axis=0))
        shared.append(np.array([found["shared"][0, 0, 0], found["shared"][0, :, 1].max()]))
        differences.append(float(np.nanmax(np.abs(left - right))))
        ratio = alone[-1][0] / shared[-1][0]
        print(f"{time.perf_counter() - begun:6.1f} s  round {number + 1}: speedup {ratio:.2f} by the clock", flush=True)
    one, several, both = np.array(alone), np.array(shared), np.array(apart)
    case, who = SIZES[size].name, f"stagewise, {ranks} ranks"

    def row(implementation: str, name: str, ratios: np.ndarray, note: str = "") -> Row:
        low, high = float(ratios.min()), float(ratios.max())
        words = "; ".join(part for part in (mean_interval(ratios.tolist()), note) if part)
        return Row(case, implementation, name, float(np.median(ratios)), rounds, low=low, high=high, note=words)

    return [
        Row.of(case, "stagewise, 1 process", "probe, wall", one[:, 0].tolist()),
        Row.of(case, who, "probe, wall", several[:, 0].tolist()),
        row(who, "speedup, wall", one[:, 0] / several[:, 0], f"load before each round {_list(loads)}"),
        row(f"{ranks} runs at once", "bound, wall", ranks * one[:, 0] / both[:, 0]),
        row(who, "speedup, process time", one[:, 1] / several[:, 1]),
        Row(case, who, "difference", None, rounds, max(differences), "nats^2"),
    ]


def _list(values: Sequence[float]) -> str:
    return ", ".join(f"{value:.2g}" for value in values)


def main() -> None:
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--train", nargs=3)
    run = parser.parse_known_args()[0].train
    if run is not None:
        train(SIZES[int(run[0])], Path(run[2]), int(run[1]))
        return
    options = arguments(__doc__, rounds=4, tiny=False, ranks=2)
    single_thread()
    report(measure(1 if options.tiny else 0, options.rounds, options.ranks), options.json)


if __name__ == "__main__":
    main()
