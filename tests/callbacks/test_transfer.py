"""Batches of probes pass through precision, transfer hooks and device like those of training, without side effects."""

import copy

import lightning.pytorch as pl
import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from stagewise import CollatedLoss, InfluenceCallback, InputError, ProbeData, ProbeSchedule, open_run
from tests.callbacks.runs import SGLD, Regression, X, Y, regression_data
from tests.quiet_trainer import quiet_trainer

pytestmark = pytest.mark.filterwarnings("ignore")

AT_START = ProbeSchedule(at_steps=[0, 2])


class Recording(Regression):
    """Module that records the batches and losses of training, and draws a random number at each step."""

    def __init__(self):
        super().__init__()
        self.history = []

    def training_step(self, batch, batch_idx):
        loss = super().training_step(batch, batch_idx)
        self.history.append((batch[0].tolist(), loss.item(), torch.rand(()).item(), np.random.rand()))
        return loss


class Scaled(Recording):
    """Module with all three hooks; one counts its calls, one writes into its batch."""

    def __init__(self):
        super().__init__()
        self.generator = torch.Generator().manual_seed(4)
        self.calls = 0

    def on_before_batch_transfer(self, batch, dataloader_idx):
        batch[0].mul_(3)
        return batch

    def transfer_batch_to_device(self, batch, device, dataloader_idx):
        x, y = super().transfer_batch_to_device(batch, device, dataloader_idx)
        return x + 1, y

    def on_after_batch_transfer(self, batch, dataloader_idx):
        torch.rand((), generator=self.generator)
        self.calls += 1
        return batch[0], batch[1] * 2


class Data(pl.LightningDataModule):
    def __init__(self, scale=0.5):
        super().__init__()
        self.scale, self.calls = scale, 0

    def train_dataloader(self):
        return DataLoader(regression_data(), 8)

    def on_after_batch_transfer(self, batch, dataloader_idx):
        self.calls += 1
        return batch[0] * self.scale, batch[1]


def fit(folder, module, callbacks, data=None, **settings):
    pl.seed_everything(1, verbose=False)
    trainer = quiet_trainer(max_steps=4, callbacks=callbacks, default_root_dir=folder, **settings)
    trainer.fit(module, DataLoader(regression_data(), 8, shuffle=True) if data is None else data)
    return trainer


def anchor_loss(folder, module, data=None, schedule=AT_START, **arguments):
    trainer = fit(folder, module, [InfluenceCallback(schedule, SGLD, **arguments)], data)
    return torch.from_numpy(open_run(trainer.log_dir)["anchor_loss"].sel(step=0).values)


def initial(kind):
    pl.seed_everything(1, verbose=False)
    return kind()


def test_hooks_of_the_module_are_applied(tmp_path):
    module = initial(Scaled)
    before = copy.deepcopy(module)
    found = anchor_loss(tmp_path, module)
    expected = before.per_sample_loss((3 * X[:64] + 1, 2 * Y[:64])).detach()
    torch.testing.assert_close(found, expected)
    assert not torch.allclose(found, before.per_sample_loss((X[:64], Y[:64])))


def test_hooks_of_the_data_module_take_precedence_over_those_of_the_module(tmp_path):
    module = initial(Scaled)
    before = copy.deepcopy(module)
    found = anchor_loss(tmp_path, module, Data(0.5))
    torch.testing.assert_close(found, before.per_sample_loss((0.5 * (3 * X[:64] + 1), Y[:64])).detach())


@pytest.mark.parametrize("given", ["observed", "data set", "probe_data"])
def test_given_data_pass_through_the_hooks_and_are_not_modified(tmp_path, given):
    module, data = initial(Scaled), Data(1.0)
    before = copy.deepcopy(module)
    x, y = X[10:20].clone(), Y[10:20].clone()
    arguments = {}
    if given == "probe_data":
        data.probe_data = lambda: ProbeData((x, y), (x, y))
    else:
        batch = (x, y) if given == "observed" else torch.utils.data.TensorDataset(x, y)
        arguments = {"observed": batch, "sampling": batch}
    found = anchor_loss(tmp_path, module, data, **arguments)
    torch.testing.assert_close(found, before.per_sample_loss((3 * X[10:20] + 1, Y[10:20])).detach())
    assert torch.equal(x, X[10:20])


@pytest.mark.parametrize("engine", ["sequential", "batched"])
@pytest.mark.parametrize("data", [None, Data])
def test_training_and_generators_of_the_hooks_are_untouched(tmp_path, data, engine):
    from dataclasses import replace

    runs = []
    for callbacks in ([], [InfluenceCallback(AT_START, replace(SGLD, engine=engine))]):
        module, source = initial(Scaled), None if data is None else data()
        fit(tmp_path / str(len(callbacks)), module, callbacks, source)
        runs.append((module, source))
    (alone, plain), (watched, probed) = runs
    assert watched.history == alone.history
    assert len(alone.history) == 4
    assert torch.equal(alone.layer.weight, watched.layer.weight)
    assert torch.equal(alone.generator.get_state(), watched.generator.get_state())
    if data is None:
        assert (alone.calls, watched.calls) == (4, 4)
    else:
        assert (plain.calls, probed.calls) == (4, 4)


def test_probes_use_the_precision_of_the_trainer(tmp_path):
    module = initial(Scaled)
    trainer = fit(tmp_path, module, [InfluenceCallback(AT_START, SGLD)], precision="64-true")
    assert open_run(trainer.log_dir).sizes["sample"] == 64


class Augmented(Recording):
    def on_after_batch_transfer(self, batch, dataloader_idx):
        return batch[0] + self.noise(batch[0]), batch[1]


class TorchNoise(Augmented):
    def noise(self, x):
        return 0.1 * torch.randn_like(x)


class NumpyNoise(Augmented):
    def noise(self, x):
        return 0.1 * float(np.random.rand())


class OwnNoise(Augmented):
    def __init__(self):
        super().__init__()
        self.rng = np.random.default_rng(0)

    def noise(self, x):
        return 0.1 * float(self.rng.random())


class GuardedNoise(TorchNoise):
    def on_after_batch_transfer(self, batch, dataloader_idx):
        return super().on_after_batch_transfer(batch, dataloader_idx) if self.training else batch


@pytest.mark.parametrize("kind", [TorchNoise, NumpyNoise, OwnNoise])
def test_random_augmentation_is_refused_before_the_first_step(tmp_path, kind):
    module = initial(kind)
    with pytest.raises(InputError, match=rf"random numbers from {kind.__name__}.*on_after.*batch\[0\].*self.training"):
        fit(tmp_path, module, [InfluenceCallback(AT_START, SGLD)])
    assert module.history == []


def test_augmentation_in_training_mode_is_not_applied_in_probes(tmp_path):
    module = initial(GuardedNoise)
    before = copy.deepcopy(module)
    torch.testing.assert_close(anchor_loss(tmp_path, module), before.per_sample_loss((X[:64], Y[:64])).detach())
    alone, watched = initial(GuardedNoise), initial(GuardedNoise)
    fit(tmp_path / "a", alone, [])
    fit(tmp_path / "b", watched, [InfluenceCallback(AT_START, SGLD)])
    assert alone.history == watched.history


class Centred(Recording):
    def on_before_batch_transfer(self, batch, dataloader_idx):
        return batch[0] - batch[0].mean(dim=0), batch[1]


def test_statistics_of_the_batch_are_refused(tmp_path):
    with pytest.raises(InputError, match=r"from Centred.on_before_batch_transfer that depend on their batch"):
        fit(tmp_path, initial(Centred), [InfluenceCallback(AT_START, SGLD)])


class Stacking(Recording):
    """Module that collates in the hook: its loader's batches cannot be sliced into samples."""

    def on_before_batch_transfer(self, batch, dataloader_idx):
        return torch.stack([x for x, _ in batch]), torch.stack([y for _, y in batch])


def test_a_hook_may_restructure_the_batch(tmp_path):
    module = initial(Stacking)
    before = copy.deepcopy(module)
    found = anchor_loss(tmp_path, module, DataLoader(regression_data(), 8, collate_fn=list))
    torch.testing.assert_close(found, before.per_sample_loss((X[:64], Y[:64])).detach())


def test_data_that_a_hook_cannot_process_are_refused(tmp_path):
    index = torch.arange(5)
    with pytest.raises(InputError, match=r"Stacking.on_before_batch_transfer cannot process .TypeError.*CollatedLoss"):
        fit(tmp_path, initial(Stacking), [InfluenceCallback(AT_START, SGLD, observed=index, sampling=index)])


def test_collated_batches_pass_through_the_hooks(tmp_path):
    module = initial(Scaled)
    before = copy.deepcopy(module)
    dataset = regression_data()
    found = anchor_loss(tmp_path, module, DataLoader(dataset, 8), loss_fn=CollatedLoss(dataset))
    torch.testing.assert_close(found, before.per_sample_loss((3 * X[:64] + 1, 2 * Y[:64])).detach())
    given = anchor_loss(tmp_path / "given", initial(Scaled), loss_fn=CollatedLoss(dataset), observed=torch.arange(5, 9))
    torch.testing.assert_close(given, found[5:9])
