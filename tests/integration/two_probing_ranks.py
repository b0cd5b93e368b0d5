"""A run on two ranks, with or without probes, each writing its weights: ``python -m tests.integration.two_probing_ranks
FOLDER FLAG``."""

import sys
from pathlib import Path

import lightning.pytorch as pl
import torch

from stagewise import InfluenceCallback
from tests.callbacks.runs import EVERY_2, SGLD, Regression, fit, regression_data


class Weights(pl.Callback):
    """Weights before the run and after each of its steps."""

    def __init__(self, folder):
        self.folder, self.states = folder, []

    def on_train_start(self, trainer, module):
        self._keep(module)

    def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
        self._keep(module)

    def _keep(self, module):
        self.states.append({name: value.clone() for name, value in module.state_dict().items()})

    def on_train_end(self, trainer, module):
        torch.save(self.states, self.folder / f"rank{trainer.global_rank}.pt")


if __name__ == "__main__":
    torch.set_num_threads(1)
    pl.seed_everything(1, verbose=False)
    folder = Path(sys.argv[1])
    influence = InfluenceCallback(EVERY_2, SGLD, enabled=sys.argv[2] == "True")
    fit(folder, Regression(), regression_data(), influence, callbacks=[Weights(folder)], devices=2, strategy="ddp")
