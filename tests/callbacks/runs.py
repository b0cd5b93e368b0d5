"""Shared parts of the tests of the callback: small modules, data and a run of a few steps."""

from dataclasses import replace

import lightning.pytorch as pl
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from stagewise import ProbeSchedule
from tests.quiet_trainer import quiet_trainer
from tests.short_chains import SHORT

SGLD = replace(SHORT, localization=20, num_draws=5, batch_size=8)
EVERY_2 = ProbeSchedule(every_n_steps=2)


class Regression(pl.LightningModule):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(3, 1)

    def per_sample_loss(self, batch):
        return F.mse_loss(self.layer(batch[0]), batch[1], reduction="none").mean(dim=1)

    def training_step(self, batch, batch_idx):
        return self.per_sample_loss(batch).mean()

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.05)


class Classifier(pl.LightningModule):
    """Module without a per-sample loss; the callback gets one."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(3, 2)

    def training_step(self, batch, batch_idx):
        return F.cross_entropy(self.layer(batch["x"]), batch["label"])

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters())


def focal_loss(module, batch):
    losses = F.cross_entropy(module.layer(batch["x"]), batch["label"], reduction="none")
    return (1 - torch.exp(-losses)) ** 2 * losses


class PartlyFrozen(Regression):
    def __init__(self):
        super().__init__()
        self.backbone = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3)).requires_grad_(False).eval()

    def on_train_start(self):
        self.backbone.eval()

    def per_sample_loss(self, batch):
        return super().per_sample_loss((self.backbone(batch[0]), batch[1]))


def regression_data(num=80):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(num, 3, generator=generator)
    return TensorDataset(x, x.sum(1, keepdim=True) + 0.1 * torch.randn(num, 1, generator=generator))


class Labelled(torch.utils.data.Dataset):
    def __len__(self):
        return 80

    def __getitem__(self, index):
        generator = torch.Generator().manual_seed(index)
        return {"x": torch.randn(3, generator=generator), "label": index % 2}


def fit(folder, module, dataset, callback, max_steps=6, **settings):
    pl.seed_everything(1, verbose=False)
    extra = settings.pop("callbacks", [])
    trainer = quiet_trainer(max_steps=max_steps, callbacks=[callback, *extra], default_root_dir=folder, **settings)
    trainer.fit(module, DataLoader(dataset, 8, shuffle=True))
    return trainer


X, Y = regression_data().tensors
