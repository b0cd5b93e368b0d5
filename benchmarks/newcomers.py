"""Number of flagged probes in first runs, without any sampler setting.

    python benchmarks/newcomers.py --json benchmarks/results/newcomers.json

Three runs with only `InfluenceCallback(ProbeSchedule(...))`: a custom module (a small classifier of random data),
scikit-learn's digits, and a GPT-2 on the sources of the running Python's standard library, byte by byte. Prints for
each the resolved settings, the number of flagged probes and their flags, and the ranges of the underlying diagnostics.
"""

import argparse
import itertools
import json
import sysconfig
import tempfile
import time
from pathlib import Path
from typing import Any

import lightning as L
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, TensorDataset

from stagewise import InfluenceCallback, ProbeSchedule, open_run


class Classifier(L.LightningModule):
    """Example of the README."""

    def __init__(self, *widths: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for before, after in itertools.pairwise(widths):
            layers += [nn.Linear(before, after), nn.ReLU()]
        self.net = nn.Sequential(*layers[:-1])

    def per_sample_loss(self, batch: tuple[Tensor, Tensor]) -> Tensor:
        """Returns the cross entropy ``[sample]``, nats."""
        x, y = batch
        return F.cross_entropy(self.net(x), y, reduction="none")

    def training_step(self, batch: Any, _: int) -> Tensor:
        """Returns the mean loss."""
        return self.per_sample_loss(batch).mean()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Returns Adam."""
        return torch.optim.Adam(self.parameters(), lr=1e-3)


class GPT2(L.LightningModule):
    """Hugging Face model inside a module, which the callback finds automatically."""

    def __init__(self) -> None:
        super().__init__()
        from transformers import GPT2Config, GPT2LMHeadModel

        self.model = GPT2LMHeadModel(GPT2Config(vocab_size=128, n_positions=32, n_embd=64, n_layer=2, n_head=2))

    def training_step(self, batch: dict[str, Tensor], _: int) -> Tensor:
        """Returns the model's own loss."""
        return self.model(input_ids=batch["input_ids"], labels=batch["input_ids"]).loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Returns AdamW."""
        return torch.optim.AdamW(self.parameters(), lr=1e-3)


class Rows(Dataset):
    """Token ids in the form of a tokenizer's output."""

    def __init__(self, ids: Tensor) -> None:
        self.ids = ids

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        return {"input_ids": self.ids[index]}


def own_module() -> tuple[L.LightningModule, Dataset]:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2000, 20, generator=generator)
    noise = 0.5 * torch.randn(2000, generator=generator)
    y = (x[:, :3].sum(dim=1) + noise > 0).long() + (x[:, 4] > 1).long()
    return Classifier(20, 64, 64, 3), TensorDataset(x, y)


def digits() -> tuple[L.LightningModule, Dataset]:
    from sklearn.datasets import load_digits

    x, y = load_digits(return_X_y=True)
    return Classifier(64, 128, 10), TensorDataset(torch.tensor(x / 16).float(), torch.tensor(y))


def gpt2() -> tuple[L.LightningModule, Dataset]:
    files = sorted(Path(sysconfig.get_paths()["stdlib"]).glob("*.py"))[:60]
    text = "".join(path.read_text(errors="ignore") for path in files).encode("ascii", "ignore")
    return GPT2(), Rows(torch.tensor(list(text[: 32 * 8000])).view(-1, 32))


CASES = {"own module": own_module, "digits": digits, "GPT-2 on text": gpt2}


def run(name: str, steps: int, probes: int) -> dict[str, Any]:
    """Trains one case with the callback; returns its flags and diagnostics."""
    L.seed_everything(0, verbose=False)
    module, data = CASES[name]()
    callback = InfluenceCallback(ProbeSchedule(every_n_steps=steps // probes))
    with tempfile.TemporaryDirectory() as folder:
        trainer = L.Trainer(
            max_steps=steps,
            callbacks=[callback],
            logger=L.pytorch.loggers.CSVLogger(folder),
            accelerator="cpu",
            enable_progress_bar=False,
            enable_checkpointing=False,
            enable_model_summary=False,
        )
        start = time.process_time()
        trainer.fit(module, DataLoader(data, batch_size=32, shuffle=True))
        seconds = time.process_time() - start
        assert callback.folder is not None
        found = open_run(callback.folder).load()
        summary = json.loads((callback.folder / "summary.json").read_text())
    ranges = {
        name: [float(found[name].min()), float(found[name].max())]
        for name in ("rhat_groups", "ess_groups", "minibatch_noise", "loss_rise")
    }
    return {
        "case": name,
        "settled": callback.sgld.one_line(),
        "probes": summary["probes"],
        "flagged": int((found["flagged"] > 0).sum()),
        "equilibrated": int(found["equilibrated"].sum()),
        "flags": summary["flags"],
        **ranges,
        "verdict": summary["verdict"]["text"],
        "cpu_seconds": seconds,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--probes", type=int, default=12)
    parser.add_argument("--cases", nargs="+", choices=list(CASES), default=list(CASES))
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    rows = []
    for name in arguments.cases:
        rows.append(run(name, arguments.steps, arguments.probes))
        print(json.dumps(rows[-1], indent=2), flush=True)
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=2) + "\n")


if __name__ == "__main__":
    main()
