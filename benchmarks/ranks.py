"""Wall time of a probe on one process against several that share its chains.

    python benchmarks/ranks.py --json ranks.json
    python benchmarks/ranks.py --tiny 1 --rounds 2      (a small size: does it run?)

A run of the callback under DDP over gloo, one thread for each process, on chains that bound it: a two-layer GPT-NeoX,
four chains, sequential engine. Ranks train on the same batch, so that every run has the same weights. The time of a
probe is that of rank zero, from its start to the end of its writing, with its waits for the others: the median over
the probes of a run but the first. Each round makes a run on one process, then one on several; the ratio is the median
over rounds. ``difference``: largest difference between the influence of samples in both, which is to be 0.

Wall time needs as many idle cores as processes: the load of the machine (mean of the last minute over its cores) before
each round is in the note.
"""

import argparse
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import lightning.pytorch as pl
import numpy as np
import torch
from harness import Row, arguments, report, single_thread
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset
from transformers import GPTNeoXConfig, GPTNeoXForCausalLM

from stagewise import InfluenceCallback, ProbeConfig, ProbeSchedule, SGLDConfig, open_run


@dataclass(frozen=True)
class Size:
    """Of the model, the data and the chains."""

    name: str
    vocab_size: int
    hidden_size: int
    length: int
    observed: int
    num_chains: int
    num_draws: int
    num_probes: int


SIZES = (
    Size("2-layer GPT-NeoX d=64, batch 16 x 64, 64 observed, 4 chains x 15 draws", 512, 64, 64, 64, 4, 15, 4),
    Size("2-layer GPT-NeoX d=32, batch 4 x 16, 16 observed, 4 chains x 5 draws", 64, 32, 16, 16, 4, 5, 3),
)


class SameBatch(pl.LightningModule):
    """Trains on one batch, whatever the loader gives: the same weights on any number of ranks."""

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
        """Mean loss of the batch that is its own."""
        return self.model(self.ids.to(self.device), labels=self.ids.to(self.device)).loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """AdamW."""
        return torch.optim.AdamW(self.parameters(), lr=1e-3)


class Times(pl.Callback):
    """Seconds of each probe on this rank."""

    def __init__(self, influence: InfluenceCallback) -> None:
        self.influence, self.seconds = influence, []

    def on_train_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:
        """After the callback, which comes first."""
        self.seconds.append(self.influence.state_dict()["record"]["last_probe_seconds"])


def train(size: Size, folder: Path, ranks: int) -> None:
    """One run, in each of its processes; rank zero leaves the times in its folder."""
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
            engine="sequential",
            drift="plain",
        ),
        ProbeConfig(check_curvature=False, draw_matrices=False),
        observed=ids[: size.observed],
        sampling=ids,
        output_dir=str(folder),
    )
    times = Times(influence)
    trainer = pl.Trainer(
        accelerator="cpu",
        devices=ranks,
        strategy="ddp" if ranks > 1 else "auto",
        max_steps=size.num_probes,
        callbacks=[influence, times],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(SameBatch(size, ids[:batch_size]), DataLoader(TensorDataset(ids), 1))
    if trainer.is_global_zero:
        torch.save(times.seconds[1:], folder / "seconds.pt")


def timed(size: int, ranks: int, folder: Path) -> tuple[float, np.ndarray]:
    """Median seconds of a probe of one run in processes of its own, and its influence between groups."""
    command = [sys.executable, __file__, "--train", str(size), str(ranks), str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=1800)
    if done.returncode:
        raise SystemExit(f"a run on {ranks} processes failed:\n{done.stderr[-3000:]}")
    return median(torch.load(folder / "seconds.pt")), open_run(folder)["bif_within"].values


def measure(size: int, rounds: int, ranks: int) -> list[Row]:
    """Each round makes a run on one process, then one on several."""
    one: list[float] = []
    several: list[float] = []
    loads: list[float] = []
    differences: list[float] = []
    for _ in range(rounds):
        loads.append(os.getloadavg()[0] / (os.cpu_count() or 1))
        with tempfile.TemporaryDirectory() as folder:
            for name in ("one", "several"):
                (Path(folder) / name).mkdir()
            first, left = timed(size, 1, Path(folder) / "one")
            second, right = timed(size, ranks, Path(folder) / "several")
        one.append(first)
        several.append(second)
        differences.append(float(np.nanmax(np.abs(left - right))))
    note = f"load before each round {_list(loads)}"
    case, who = SIZES[size].name, f"stagewise, {ranks} processes"
    ratios = [alone / shared for alone, shared in zip(one, several, strict=True)]
    return [
        Row.of(case, "stagewise, 1 process", "probe", one),
        Row.of(case, who, "probe", several),
        Row(case, who, "speedup", median(ratios), rounds, low=min(ratios), high=max(ratios), note=note),
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
    options = arguments(__doc__, rounds=5, tiny=0, ranks=2)
    single_thread()
    report(measure(1 if options.tiny else 0, options.rounds, options.ranks), options.json)


if __name__ == "__main__":
    main()
