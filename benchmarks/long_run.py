"""(k) Time and memory of probes over a long run, and its size on disk.

A tiny network is trained with a probe at every step. Then as many probes of the demo's sizes (128 samples of 31 losses,
6 groups, 8 chains x 10 draws) are written to a store, with every number perturbed, and the run is opened and judged.

Times are CPU seconds of the process; resident memory is read after each probe.
"""

import io
import logging
import resource
import tempfile
import time
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import torch
import xarray as xr
from harness import Row, arguments, report, single_thread
from lightning.pytorch.loggers import TensorBoardLogger
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from stagewise import InfluenceCallback, ProbeConfig, ProbeSchedule, SGLDConfig, open_run
from stagewise.influence.stored_matrices import to_store
from stagewise.probes.flags import Thresholds
from stagewise.probes.prober import Prober
from stagewise.runs.probe_files import STORE_NAME
from stagewise.runs.store import ProbeStore
from stagewise.runs.verdict import VARIABLES, judge
from stagewise.sampling.config import Drift, EngineName
from stagewise.sampling.data import ProbeData

MB = 1e6
SMALL = SGLDConfig(
    lr=1e-3,
    localization=100.0,
    nbeta=10.0,
    num_chains=2,
    num_draws=4,
    num_burnin_steps=0,
    num_steps_bw_draws=1,
    batch_size=8,
    drift=Drift.plain,
    engine=EngineName.sequential,
)


class Tiny(pl.LightningModule):
    """Network of 4-8-1 units."""

    def __init__(self) -> None:
        """Draws the weights from a fixed seed."""
        super().__init__()
        torch.manual_seed(0)
        self.net = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 1))

    def per_sample_loss(self, batch: list[Tensor]) -> Tensor:
        """Returns the squared errors."""
        inputs, targets = batch
        return (self.net(inputs) - targets).square().squeeze(-1)

    def training_step(self, batch: list[Tensor]) -> Tensor:
        """Returns the mean loss."""
        return self.per_sample_loss(batch).mean()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Returns Adam."""
        return torch.optim.Adam(self.parameters(), 1e-3)


def resident() -> float:
    """Returns the current memory of the process, MB."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / MB


class Watched(InfluenceCallback):
    """Callback that records the cost of each of its probes."""

    def __init__(self, *given: Any, **settings: Any) -> None:
        """Takes the arguments of the callback."""
        super().__init__(*given, **settings)
        self.seconds: list[float] = []
        self.memory: list[float] = []
        self.checkpoint: list[float] = []
        self.end = 0.0

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Measures the probe of this step: there is one at each."""
        start = time.process_time()
        super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)
        self.seconds.append(time.process_time() - start)
        self.memory.append(resident())
        saved = io.BytesIO()
        torch.save(self.state_dict(), saved)
        self.checkpoint.append(len(saved.getvalue()))

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Times the end of the run."""
        start = time.process_time()
        super().on_train_end(trainer, pl_module)
        self.end = time.process_time() - start


def train(folder: Path, probes: int) -> list[Row]:
    """Trains the tiny network; returns rows for successive parts of the run."""
    inputs = torch.randn(64, 4, generator=torch.Generator().manual_seed(1))
    observed = (inputs[:8], inputs[:8, :1])
    callback = Watched(ProbeSchedule(every_n_steps=1), SMALL, ProbeConfig(), observed=observed, sampling=observed)
    trainer = pl.Trainer(
        accelerator="cpu",
        max_steps=probes,
        logger=TensorBoardLogger(folder),
        callbacks=[callback],
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(Tiny(), DataLoader(TensorDataset(inputs, inputs[:, :1]), 8))
    rows = []
    for part in np.array_split(np.arange(probes), max(1, min(probes // 10, 15))):
        case = f"tiny network, probes {part[0] + 1} to {part[-1] + 1}"
        for measure, unit, values in (
            ("a probe, mean", "CPU s", callback.seconds),
            ("resident memory, highest", "MB", callback.memory),
            ("checkpoint of the callback, last", "kB", [size / 1e3 for size in callback.checkpoint]),
        ):
            found = np.array(values)[part]
            value = found.mean() if measure.endswith("mean") else found.max() if unit == "MB" else found[-1]
            rows.append(Row(case, "stagewise", measure, None, len(part), float(value), unit))
    case = f"tiny network, {probes} probes"
    assert callback.folder is not None
    events = sum(path.stat().st_size for path in callback.folder.glob("events*")) / MB
    rows.append(Row(case, "stagewise", "end of the run: windows, verdict, summary", None, 1, callback.end, "CPU s"))
    rows.append(Row(case, "stagewise", "TensorBoard's file", None, 1, events, "MB"))
    return rows + stored(case, callback.folder / STORE_NAME)


def stored(case: str, store: Path) -> list[Row]:
    """Returns rows with the size of a store on disk."""
    files = [path for path in store.rglob("*") if path.is_file()]
    size = sum(path.stat().st_size for path in files) / MB
    return [
        Row(case, "stagewise", "store, size", None, 1, size, "MB"),
        Row(case, "stagewise", "store, files", None, 1, len(files), "files"),
    ]


def demo_probe(config: ProbeConfig) -> xr.Dataset:
    """Returns a probe of the demo's sizes, with a reference."""
    torch.manual_seed(0)
    module = nn.Linear(8, 31)

    def losses(module: nn.Module, batch: Any) -> Tensor:
        return nn.functional.softplus(module(batch[0]))

    groups = {f"group {number}": torch.arange(128) % 6 == number for number in range(6)}
    data = ProbeData((torch.randn(128, 8),), groups=groups)
    prober = Prober(module, losses, data, sgld=replace(SMALL, num_chains=8, num_draws=10), config=config)
    prober.probe(module, 10)
    with torch.no_grad():
        module.weight += 0.1 * torch.randn_like(module.weight)
    probe, _ = prober.probe(module, 20)
    assert probe is not None
    return probe


def perturbed(probe: xr.Dataset, step: int, rng: np.random.Generator) -> xr.Dataset:
    """Returns the probe with perturbed numbers, so that it is not more compressible than a real one."""
    other = probe.copy()
    for name, variable in probe.data_vars.items():
        if variable.dtype.kind == "f":
            noise = 1 + 0.1 * rng.standard_normal(variable.shape)
            other[name] = variable.copy(data=(variable.values * noise).astype(variable.dtype))
    return other.assign_attrs(step=step, reference_step=step - 1)


def write_demo(folder: Path, probes: int) -> list[Row]:
    """Writes a store of the demo's sizes, opens it and judges it."""
    config, store, rng = ProbeConfig(), ProbeStore(folder / STORE_NAME), np.random.default_rng(0)
    probe, seconds = demo_probe(config), []
    for step in range(1, probes + 1):
        result = perturbed(probe, step, rng)
        start = time.process_time()
        store.write(to_store(result, config.sample_matrices))
        seconds.append(time.process_time() - start)
    case = f"demo's sizes, {probes} probes"
    rows = stored(case, store.path)
    rows.append(Row(case, "stagewise", "writing a probe", None, probes, float(np.mean(seconds)), "CPU s"))
    start = time.process_time()
    judge(open_run(folder, variables=VARIABLES), windows=0, thresholds=Thresholds(), flags={})
    rows.append(Row(case, "stagewise", "verdict of the run", None, 1, time.process_time() - start, "CPU s"))
    start = time.process_time()
    run = open_run(folder)
    rows.append(Row(case, "stagewise", "open_run", None, 1, time.process_time() - start, "CPU s"))
    rows.append(Row(case, "stagewise", "open_run, size of the data set", None, 1, run.nbytes / MB, "MB"))
    rows.append(Row(case, "stagewise", "highest memory, all in all", None, 1, peak(), "MB"))
    return rows


def peak() -> float:
    """Returns the highest memory of the process so far, MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / MB


def main() -> None:
    """Runs both parts and reports the rows."""
    options = arguments(__doc__, rounds=1, probes=1500)
    single_thread()
    warnings.simplefilter("ignore")
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    with tempfile.TemporaryDirectory() as folder:
        rows = train(Path(folder) / "tiny", options.probes) + write_demo(Path(folder) / "demo", options.probes)
    report(rows, options.json)


if __name__ == "__main__":
    main()
