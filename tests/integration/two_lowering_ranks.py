"""A run on one rank or two whose curvature grows, with ``lr: auto``, each rank writing its settings:
``python -m tests.integration.two_lowering_ranks FOLDER DEVICES``."""

import json
import sys
from dataclasses import replace
from pathlib import Path

import lightning.pytorch as pl
import torch

from stagewise import InfluenceCallback, ProbeConfig
from tests.callbacks.test_lowered_lr import EVERY_10, SHORT, Steepens, data

if __name__ == "__main__":
    torch.set_num_threads(1)
    folder, devices = Path(sys.argv[1]), int(sys.argv[2])
    (samples,) = data().dataset.tensors
    sgld = replace(SHORT, engine="sequential")
    callback = InfluenceCallback(EVERY_10, sgld, ProbeConfig(check_curvature=True), observed=(samples,))
    trainer = pl.Trainer(
        accelerator="cpu",
        devices=devices,
        strategy="ddp" if devices > 1 else "auto",
        max_steps=40,
        callbacks=[callback],
        default_root_dir=folder,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(Steepens(), data())
    facts = callback.state_dict()["watch"] | {"changes": callback.state_dict()["record"]["changes"]}
    (folder / f"rank{trainer.global_rank}.json").write_text(json.dumps(facts, default=str))
