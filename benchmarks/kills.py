"""(l) Test of a run killed at random moments: nothing must be lost or damaged, and the result must not change.

    python benchmarks/kills.py [--kills 200] [--seed 0] [--json FILE]

A small network is trained with probes every second step and a checkpoint every third, in a process that is killed
(SIGKILL) after a random time and restarted: from its newest checkpoint, or from the beginning in the same folder if it
has none. This is repeated until the run has ended, and with new runs until the number of kills is reached. After each
kill the results are opened with ``damaged="raise"``. At the end, probes and weights are compared with those of an
uninterrupted run, bit for bit.
"""

import argparse
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
import warnings
from pathlib import Path

import lightning.pytorch as pl
import numpy as np
import torch
import torch.nn.functional as F
import xarray as xr
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import nn
from torch.utils.data import TensorDataset

from stagewise import InfluenceCallback, InputError, ProbeConfig, ProbeSchedule, SGLDConfig, open_run
from stagewise.loading.loader import ResumableLoader
from stagewise.runs.probe_files import STORE_NAME
from stagewise.runs.store import ProbeStore
from stagewise.sampling.config import Drift, EngineName

STEPS, EVERY, SAVED_EVERY = 40, 2, 3
SGLD = SGLDConfig(
    lr=1e-3, nbeta=10, localization=20, num_chains=2, num_draws=4, num_burnin_steps=2, num_steps_bw_draws=1,
    batch_size=8, drift=Drift.plain, engine=EngineName.sequential,
)  # fmt: skip
LONGEST = 1.5
"""Longest time in seconds before a process is killed."""


class _Net(pl.LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 1))

    def per_sample_loss(self, batch):
        return F.mse_loss(self.body(batch[0]), batch[1], reduction="none").mean(dim=1)

    def training_step(self, batch, batch_idx):
        return self.per_sample_loss(batch).mean()

    def configure_optimizers(self):
        return torch.optim.AdamW(self.parameters(), lr=1e-2)


def train(folder: Path) -> None:
    """Trains to the end, from the newest checkpoint if there is one; then writes the final weights."""
    pl.seed_everything(1, verbose=False)
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(96, 4, generator=generator)
    loader = ResumableLoader(TensorDataset(x, x.sum(dim=1, keepdim=True)), batch_size=8, seed=3)
    saved = sorted((folder / "checkpoints").glob("*.ckpt"), key=lambda item: int(item.stem))
    influence = InfluenceCallback(
        ProbeSchedule(every_n_steps=EVERY), SGLD, ProbeConfig(check_curvature=False), output_dir=str(folder / "run")
    )
    saver = ModelCheckpoint(
        folder / "checkpoints",
        every_n_train_steps=SAVED_EVERY,
        save_top_k=-1,
        filename="{step}",
        auto_insert_metric_name=False,
    )
    trainer = pl.Trainer(
        accelerator="cpu", max_steps=STEPS, max_epochs=-1, logger=False, enable_progress_bar=False,
        enable_model_summary=False, callbacks=[influence, saver], default_root_dir=folder,
    )  # fmt: skip
    module = _Net()
    trainer.fit(module, loader, ckpt_path=newest_whole(saved), weights_only=True)
    torch.save(module.state_dict(), folder / "weights.unfinished")
    os.replace(folder / "weights.unfinished", folder / "weights.pt")


def newest_whole(saved: list[Path]) -> Path | None:
    """Returns the newest readable checkpoint: a kill may truncate Lightning's files."""
    for path in reversed(saved):
        try:
            torch.load(path, weights_only=True)
        except Exception:
            continue
        return path
    return None


def started(folder: Path) -> int:
    """Starts a training process with all imports done, so that kills hit training and not imports; returns its id."""
    child = os.fork()
    if child == 0:
        quiet = os.open(os.devnull, os.O_WRONLY)
        os.dup2(quiet, 1)
        log = os.open(folder / "stderr.log", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(log, 2)
        status = 1
        try:
            train(folder)
            status = 0
        finally:
            sys.stderr.flush()
            os._exit(status)
    return child


def ended_within(child: int, seconds: float, log: Path) -> bool:
    """Waits for a process, and kills it after some seconds; returns True if it ended by then."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            if status:
                raise SystemExit(f"a process failed by itself, status {status}:\n{log.read_text()[-3000:]}")
            return True
        time.sleep(0.002)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return False


def probes_in(folder: Path) -> list[int]:
    """Returns the steps of the readable probes; raises an error if one is damaged."""
    if not ProbeStore(folder / "run" / STORE_NAME).steps():
        return []
    return list(map(int, open_run(folder / "run", damaged="raise")["step"].values))


def same(one: xr.DataArray, other: xr.DataArray) -> bool:
    return np.array_equal(one, other, equal_nan=True)


def difference(run: xr.Dataset, expected: xr.Dataset, name: str) -> str:
    """Describes the steps at which a variable differs, and the largest difference."""
    if run[name].shape != expected[name].shape:
        return f" of shape {run[name].shape} for {expected[name].shape}"
    steps = [
        int(step) for step in run["step"].values if not same(run[name].sel(step=step), expected[name].sel(step=step))
    ]
    return f" at steps {steps}, by up to {float(abs(run[name] - expected[name]).max()):.2g}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    moments = random.Random(options.seed)
    with tempfile.TemporaryDirectory() as scratch:
        whole = Path(scratch) / "whole"
        whole.mkdir()
        if not ended_within(started(whole), 600, whole / "stderr.log"):
            raise SystemExit("the run that nobody kills did not end")
        expected = open_run(whole / "run", damaged="raise")
        weights = torch.load(whole / "weights.pt", weights_only=True)
        kills = runs = half = lost = different = 0
        while kills < options.kills:
            folder = Path(scratch) / f"run{runs}"
            folder.mkdir()
            before: list[int] = []
            ended = False
            while not ended:
                # After enough kills, let the run end.
                limit = moments.uniform(0, LONGEST) if kills < options.kills else 600.0
                ended = ended_within(started(folder), limit, folder / "stderr.log")
                kills += not ended
                try:
                    now = probes_in(folder)
                except InputError as error:
                    half += 1
                    print(f"half: {error}")
                    now = []
                # After a resume from an older checkpoint, later probes are set aside until replaced.
                aside = [int(item.stem[4:]) for item in ProbeStore(folder / "run" / STORE_NAME).aside.glob("step*.zip")]
                gone = set(before) - set(now) - set(aside)
                lost += len(gone)
                if gone:
                    print(f"lost: {sorted(gone)}")
                before = sorted({*now, *aside})
            run = open_run(folder / "run", damaged="raise")
            found = torch.load(folder / "weights.pt", weights_only=True)
            others = [name for name in ("step", "group_bif", "tracin") if not same(run[name], expected[name])]
            others += [name for name, value in weights.items() if not torch.equal(value, found[name])]
            different += bool(others)
            for name in others:
                print(
                    f"other than in the whole run: {name}{'' if name in weights else difference(run, expected, name)}"
                )
            runs += 1
            shutil.rmtree(folder)
            print(
                f"{kills} kills, {runs} runs ended: {lost} probes lost, {half} half, {different} runs ended otherwise"
            )
    row = {
        "kills": kills,
        "runs": runs,
        "probes_lost": lost,
        "half": half,
        "different": different,
        "seed": options.seed,
    }
    print(json.dumps(row, indent=2))
    if options.json is not None:
        options.json.write_text(json.dumps(row, indent=2) + "\n")


if __name__ == "__main__":
    main()
