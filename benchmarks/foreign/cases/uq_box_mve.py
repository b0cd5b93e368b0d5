"""lightning-uq-box: regression with a variance of its own for each sample."""

from typing import Any

import lightning as L
import torch
from lightning_uq_box.uq_methods import MVERegression
from torch.utils.data import DataLoader

REQUIRES = ("lightning-uq-box==0.2.0", "torch==2.14.1", "torchvision==0.29.1")
TRAINED = "MVERegression (Gaussian likelihood, metrics in training_step), 64 samples"

inputs = torch.randn(64, 3, generator=torch.Generator().manual_seed(1))
rows: Any = [{"input": item, "target": item.sum(0, keepdim=True).sin()} for item in inputs]


# glue
def loss_fn(module, batch):
    mean, log_variance = module(batch["input"]).split(1, dim=1)
    return 0.5 * (log_variance + (batch["target"] - mean).square() / log_variance.exp())


# end of glue


ARGUMENTS = {"loss_fn": loss_fn}


def train(callbacks):
    model = torch.nn.Sequential(torch.nn.Linear(3, 16), torch.nn.Tanh(), torch.nn.Linear(16, 2))
    module = MVERegression(model, burnin_epochs=0)
    L.Trainer(max_steps=8, callbacks=callbacks, accelerator="cpu").fit(module, DataLoader(rows, batch_size=64))
