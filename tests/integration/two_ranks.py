"""A run on two ranks, each writing what it was trained on: ``python -m tests.integration.two_ranks FOLDER FLAG``."""

import json
import sys
from pathlib import Path

import lightning.pytorch as pl
import torch

from tests.callbacks.interventions import Weighing, intervention, loader


class Shards(pl.Callback):
    def __init__(self, folder):
        self.folder, self.batches = folder, []

    def on_train_batch_start(self, trainer, module, batch, batch_idx):
        self.batches.append((trainer.global_step, batch[2].tolist()))

    def on_train_end(self, trainer, module):
        (self.folder / f"rank{trainer.global_rank}.json").write_text(json.dumps(self.batches))


if __name__ == "__main__":
    torch.set_num_threads(1)
    trainer = pl.Trainer(
        accelerator="cpu",
        devices=2,
        strategy="ddp",
        use_distributed_sampler=sys.argv[2] == "True",
        max_steps=14,
        callbacks=[intervention(), Shards(Path(sys.argv[1]))],
        default_root_dir=sys.argv[1],
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(Weighing(), loader(4))
