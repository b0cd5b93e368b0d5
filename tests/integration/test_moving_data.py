"""Training sees the samples that it would have seen, also where the data set draws from a generator of its own."""

import itertools

import lightning.pytorch as pl
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader, Dataset

from stagewise import InfluenceCallback, ProbeData, ProbeSchedule, SGLDConfig
from tests.quiet_trainer import quiet_trainer


class Augmented(Dataset):
    """Noise from a generator that it holds, and a count of what was read."""

    def __init__(self):
        generator = torch.Generator().manual_seed(0)
        self.x, self.y = torch.randn(24, 4, generator=generator), torch.randint(0, 2, (24,), generator=generator)
        self.generator, self.reads = torch.Generator().manual_seed(1), 0

    def __len__(self):
        return 24

    def __getitem__(self, index):
        self.reads += 1
        return self.x[index] + 0.1 * torch.randn(4, generator=self.generator) + 0.01 * self.reads, self.y[index]


class Numbered(Augmented):
    def __init__(self):
        super().__init__()
        self.numbers = itertools.count()

    def __getitem__(self, index):
        return self.x[index] + 0.01 * next(self.numbers), self.y[index]


class Module(pl.LightningDataModule):
    def __init__(self):
        super().__init__()
        self.rows = Augmented()

    def train_dataloader(self):
        return DataLoader(self.rows, 6, shuffle=True)

    def probe_data(self):
        x, y = zip(*(self.rows[index] for index in range(8)), strict=True)
        return ProbeData(observed=(torch.stack(x), torch.stack(y)))


class Net(pl.LightningModule):
    def __init__(self):
        super().__init__()
        self.net, self.seen = nn.Linear(4, 2), []

    def per_sample_loss(self, batch):
        return F.cross_entropy(self.net(batch[0]), batch[1], reduction="none")

    def training_step(self, batch, batch_idx):
        loss = self.per_sample_loss(batch).mean()
        self.seen.append((batch[0].tolist(), loss.item()))
        return loss

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


def fit(folder, data, callbacks):
    pl.seed_everything(7, verbose=False)
    net = Net()
    trainer = quiet_trainer(max_steps=4, callbacks=callbacks, default_root_dir=folder, logger=False)
    trainer.fit(net, **data)
    return net.seen


def watcher(**given):
    sgld = SGLDConfig(lr=1e-3, nbeta=10, localization=20, num_chains=2, num_draws=2, batch_size=6, num_burnin_steps=1)
    return InfluenceCallback(ProbeSchedule(at_steps=[1]), sgld, **given)


def loader(rows):
    return {"train_dataloaders": DataLoader(rows, 6, shuffle=True)}


@pytest.mark.parametrize("make", [lambda: loader(Augmented()), lambda: {"datamodule": Module()}], ids=["set", "module"])
@pytest.mark.filterwarnings("ignore")
def test_default_sets_are_read_without_moving_the_data(tmp_path, make):
    assert fit(tmp_path / "watched", make(), [watcher()]) == fit(tmp_path / "alone", make(), [])


@pytest.mark.filterwarnings("ignore")
def test_a_data_set_that_is_given_and_trained_on_is_not_moved_either(tmp_path):
    rows = Augmented()
    watched = fit(tmp_path / "watched", loader(rows), [watcher(observed=rows, sampling=rows)])
    assert watched == fit(tmp_path / "alone", loader(Augmented()), [])


@pytest.mark.filterwarnings("ignore:.*does not have.*", "ignore:.*num_workers.*")
def test_what_cannot_be_put_back_is_told(tmp_path):
    with pytest.warns(UserWarning, match=r"samples of Numbered .* 'numbers', .*observed="):
        fit(tmp_path, loader(Numbered()), [watcher()])
