"""Shared parts of the tests of the intervention callback: grouped data, a witness and a run."""

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from torch.utils.data import TensorDataset

from stagewise import ConstantFactor, InterventionCallback, ReweightedLoader, Spans
from tests.callbacks.runs import Regression, regression_data

NUM = 320
EVEN = torch.arange(NUM) % 4 == 0
FOUR = ConstantFactor({"even": 4.0})


class Numbered(TensorDataset):
    """Regression data with the number of each sample and its group."""

    def __init__(self, num=NUM):
        x, y = regression_data(num).tensors
        super().__init__(x, y, torch.arange(num), torch.arange(num) % 4 == 0)


class Weighing(Regression):
    """Module that reweights its losses."""

    def training_step(self, batch, batch_idx):
        losses = self.per_sample_loss(batch)
        weigh = getattr(self, "intervention_weights", None)
        return losses.mean() if weigh is None else weigh(losses, {"even": batch[3]})


class Witness(pl.Callback):
    """Callback that records the trained samples and the resulting weights of each step."""

    def __init__(self):
        self.batches, self.weights = [], []

    def on_train_batch_start(self, trainer, module, batch, batch_idx):
        self.batches.append((trainer.global_step, batch[2].tolist()))

    def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
        self.weights.append(torch.cat([weight.detach().flatten() for weight in module.parameters()]).tolist())


def loader(batch_size=8, num=NUM, **settings):
    return ReweightedLoader(Numbered(num), {"even": torch.arange(num) % 4 == 0}, batch_size, seed=3, **settings)


def intervention(mechanism="sampling", windows=((3, 9),), policy=FOUR, *, influence=None, **settings):
    if isinstance(windows, (tuple, list)):
        windows = Spans(windows, influence=influence)
    return InterventionCallback(policy, windows, mechanism=mechanism, **settings)


def train(folder, callbacks, data=None, *, max_steps=14, ckpt_path=None, every=None, module=Weighing, **settings):
    pl.seed_everything(1, verbose=False)
    witness = Witness()
    saver = [] if every is None else [ModelCheckpoint(folder / "ckpt", every_n_train_steps=every, save_top_k=-1)]
    trainer = pl.Trainer(
        accelerator="cpu",
        max_steps=max_steps,
        callbacks=[*callbacks, witness, *saver],
        default_root_dir=folder,
        enable_checkpointing=bool(saver),
        enable_progress_bar=False,
        enable_model_summary=False,
        **settings,
    )
    trainer.fit(module(), loader() if data is None else data, ckpt_path=ckpt_path, weights_only=True)
    return trainer, witness
