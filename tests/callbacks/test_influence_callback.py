"""The callback on modules that are not language models, its refusals, and a run with diverging chains."""

import json
import warnings
from dataclasses import replace

import lightning.pytorch as pl
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from lightning.pytorch.callbacks import EarlyStopping
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
from torchmetrics import MeanMetric

from stagewise import (
    InfluenceCallback,
    InputError,
    LossContractError,
    ProbeConfig,
    ProbeData,
    ProbeSchedule,
    SGLDConfig,
    open_run,
)

pytestmark = pytest.mark.filterwarnings("ignore")

SGLD = SGLDConfig(lr=1e-3, nbeta=10, localization=20, num_chains=3, num_draws=5, batch_size=8)
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
    """No per-sample loss of its own: the callback gets one."""

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
    trainer = pl.Trainer(
        accelerator="cpu",
        max_steps=max_steps,
        callbacks=[callback, *extra],
        default_root_dir=folder,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        **settings,
    )
    trainer.fit(module, DataLoader(dataset, 8, shuffle=True))
    return trainer


@pytest.mark.parametrize(
    ("module", "dataset", "loss_fn"),
    [
        (Regression, regression_data(), None),
        (Classifier, Labelled(), focal_loss),
        (PartlyFrozen, regression_data(), None),
    ],
    ids=["regression", "classification with a custom loss", "frozen parts"],
)
def test_any_module_is_probed(tmp_path, module, dataset, loss_fn):
    trainer = fit(tmp_path, module(), dataset, InfluenceCallback(EVERY_2, SGLD, loss_fn=loss_fn))
    run = open_run(trainer.log_dir, trace=True)
    assert run["step"].values.tolist() == [2, 4, 6]
    assert run["bif"].shape == (3, 4, 64, 64)
    assert run["loss"].std("draw").min() > 0
    np.testing.assert_allclose(
        run["bif"].sel(part=["within", "drift", "between"]).sum("part"), run["bif"].sel(part="total"), atol=1e-10
    )
    assert run.attrs["nbeta"] == 10


def test_frozen_parts_do_not_move_in_the_chain(tmp_path):
    module = PartlyFrozen()
    before = {name: value.clone() for name, value in module.backbone.state_dict().items()}
    fit(tmp_path, module, regression_data(), InfluenceCallback(EVERY_2, SGLD))
    assert all(torch.equal(value, before[name]) for name, value in module.backbone.state_dict().items())


def test_observed_set_and_groups_can_be_given(tmp_path):
    x, y = regression_data(10).tensors
    groups = {"first": torch.arange(10) < 5, "last": torch.arange(10) >= 5}
    callback = InfluenceCallback(EVERY_2, SGLD, observed=(x, y), sampling=regression_data(), groups=groups)
    run = open_run(fit(tmp_path, Regression(), regression_data(), callback).log_dir)
    assert run["group"].values.tolist() == ["first", "last"]
    assert run.sizes["sample"] == 10


def test_training_set_may_be_a_plain_list(tmp_path):
    samples = [tuple(sample) for sample in regression_data(20)]
    run = open_run(fit(tmp_path, Regression(), samples, InfluenceCallback(EVERY_2, SGLD)).log_dir)
    assert run.sizes["sample"] == 20


def test_training_stream_without_a_length_needs_an_observed_set(tmp_path):
    class Stream(torch.utils.data.IterableDataset):
        def __iter__(self):
            return iter(regression_data())

    def train(callback):
        trainer = pl.Trainer(accelerator="cpu", max_steps=4, callbacks=[callback], default_root_dir=tmp_path)
        trainer.fit(Regression(), DataLoader(Stream(), 8))
        return open_run(trainer.log_dir)

    with pytest.raises(InputError, match=r"got nothing to observe.*; expected InfluenceCallback\(observed"):
        train(InfluenceCallback(EVERY_2, SGLD))
    assert train(InfluenceCallback(EVERY_2, SGLD, observed=(X[:9], Y[:9]))).sizes["sample"] == 9


def test_first_attached_to_a_run_that_goes_on_it_keeps_the_schedule(tmp_path):
    module, loader = Regression(), DataLoader(regression_data(), 8)
    trainer = pl.Trainer(accelerator="cpu", max_steps=3, default_root_dir=tmp_path / "first")
    trainer.fit(module, loader)
    trainer.save_checkpoint(tmp_path / "three.ckpt")
    callback = InfluenceCallback(EVERY_2, SGLD)
    trainer = pl.Trainer(accelerator="cpu", max_steps=7, callbacks=[callback], default_root_dir=tmp_path / "second")
    trainer.fit(Regression(), loader, ckpt_path=tmp_path / "three.ckpt", weights_only=True)
    assert open_run(trainer.log_dir)["step"].values.tolist() == [4, 6]


def test_other_callbacks_can_monitor_influence(tmp_path):
    stop = EarlyStopping("influence/within/all~all", check_on_train_epoch_end=True, patience=0, min_delta=1e9)
    trainer = fit(tmp_path, Regression(), regression_data(), InfluenceCallback(EVERY_2, SGLD), 100, callbacks=[stop])
    assert trainer.global_step < 100


def test_switched_off_it_does_nothing(tmp_path):
    trainer = fit(tmp_path, Regression(), regression_data(), InfluenceCallback(EVERY_2, SGLD, enabled=False))
    with pytest.raises(InputError):
        open_run(trainer.log_dir)


def test_output_goes_where_it_is_sent(tmp_path):
    callback = InfluenceCallback(EVERY_2, SGLD, output_dir=str(tmp_path / "elsewhere"))
    fit(tmp_path, Regression(), regression_data(), callback, logger=False)
    assert open_run(tmp_path / "elsewhere")["step"].values.tolist() == [2, 4, 6]


def test_accumulation_probes_each_optimizer_step_once(tmp_path):
    trainer = fit(
        tmp_path, Regression(), regression_data(), InfluenceCallback(EVERY_2, SGLD), accumulate_grad_batches=3
    )
    assert open_run(trainer.log_dir)["step"].values.tolist() == [2, 4, 6]


def test_csv_logger_gets_the_scalars(tmp_path):
    logger = pl.loggers.CSVLogger(tmp_path)
    fit(tmp_path, Regression(), regression_data(), InfluenceCallback(EVERY_2, SGLD), logger=logger)
    assert "influence/within/all~all" in (tmp_path / "lightning_logs" / "version_0" / "metrics.csv").read_text()


def test_diverging_chain_is_reported_dropped_and_counted_and_training_goes_on(tmp_path):
    wild = SGLDConfig(lr=3.0, nbeta=1e4, localization=1.0, num_draws=4)
    module = Regression()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        trainer = fit(tmp_path, module, regression_data(), InfluenceCallback(EVERY_2, wild))
    messages = [str(warning.message) for warning in caught]
    assert any("chain 1 of the probe at step 4 was dropped" in message for message in messages)
    summary = json.loads((tmp_path / "lightning_logs" / "version_0" / "summary.json").read_text())
    assert summary["chains_dropped"] == 6
    assert summary["failed_steps"] == [2, 4, 6]
    assert summary["probes"] == 0
    assert trainer.global_step == 6
    assert torch.isfinite(module.layer.weight).all()


def reduced(module, batch):
    return module.per_sample_loss(batch).mean()


def not_finite(module, batch):
    return module.per_sample_loss(batch) * float("inf")


class NoLoss(Regression):
    per_sample_loss = None

    def training_step(self, batch, batch_idx):
        return F.mse_loss(self.layer(batch[0]), batch[1])


class LogsInItsLoss(Regression):
    def per_sample_loss(self, batch):
        losses = super().per_sample_loss(batch)
        self.log("inner", losses.mean())
        return losses


class CountsInItsLoss(Regression):
    def __init__(self):
        super().__init__()
        self.seen = MeanMetric()

    def per_sample_loss(self, batch):
        losses = super().per_sample_loss(batch)
        self.seen.update(losses.detach())
        return losses


def steep_at_zero(module, batch):
    return module.per_sample_loss(batch) + module.layer.weight.sum().mul(0).abs().sqrt()


X, Y = regression_data().tensors


@pytest.mark.parametrize(
    ("module", "arguments", "error", "words"),
    [
        (NoLoss, {}, TypeError, "per_sample_loss"),
        (Regression, {"loss_fn": reduced}, LossContractError, "unreduced"),
        (Regression, {"loss_fn": not_finite}, LossContractError, "finite"),
        (LogsInItsLoss, {}, LossContractError, "log"),
        (CountsInItsLoss, {}, LossContractError, "metric 'seen'"),
        (Regression, {"loss_fn": steep_at_zero}, LossContractError, "gradient that is not finite"),
        (Regression, {"sgld": replace(SGLD, parameters=["*nothing*"])}, InputError, "matches no trainable parameter"),
        (Regression, {"schedule": ProbeSchedule(at_steps=[3, 7])}, InputError, "within the run"),
        (Regression, {"schedule": ProbeSchedule(every_n_steps=7)}, InputError, "within the run"),
        (Regression, {"observed": (X[:0], Y[:0])}, InputError, "at least one"),
        (Regression, {"observed": TensorDataset(X[:0], Y[:0])}, InputError, "at least one"),
        (Regression, {"probe": ProbeConfig(memory_limit_gib=1e-6)}, InputError, "GiB"),
        (Regression, {"groups": {"g": torch.ones(3, dtype=torch.bool)}}, InputError, "[64]"),
    ],
)
def test_bad_input_is_refused_in_one_line_before_the_first_step(tmp_path, module, arguments, error, words):
    started = []

    class Witness(pl.Callback):
        def on_train_batch_start(self, *args):
            started.append(1)

    callback = InfluenceCallback(**{"schedule": EVERY_2, "sgld": SGLD, **arguments})
    with pytest.raises(error, match=r"got .*; expected ") as caught:
        fit(tmp_path, module(), regression_data(), callback, callbacks=[Witness()])
    assert isinstance(caught.value, InputError)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not started


class WithProbeData(pl.LightningDataModule):
    def __init__(self, answer):
        super().__init__()
        self.answer = answer

    def train_dataloader(self):
        return DataLoader(regression_data(), 8)

    def probe_data(self):
        return self.answer


def fit_with(folder, data):
    callback = InfluenceCallback(EVERY_2, SGLD)
    trainer = pl.Trainer(accelerator="cpu", max_steps=2, callbacks=[callback], default_root_dir=folder)
    trainer.fit(Regression(), data)
    return open_run(trainer.log_dir)


def test_data_module_can_bring_the_probe_data(tmp_path):
    data = WithProbeData(ProbeData((X[:7], Y[:7]), groups={"g": torch.arange(7) < 3}))
    assert fit_with(tmp_path, data).sizes["sample"] == 7


def test_arguments_go_before_what_the_data_module_brings(tmp_path):
    callback = InfluenceCallback(EVERY_2, SGLD, groups={"mine": torch.arange(7) > 2})
    trainer = pl.Trainer(accelerator="cpu", max_steps=2, callbacks=[callback], default_root_dir=tmp_path)
    trainer.fit(Regression(), WithProbeData(ProbeData((X[:7], Y[:7]))))
    assert open_run(trainer.log_dir)["group"].values.tolist() == ["mine"]


def test_schedule_is_held_against_the_epochs_too(tmp_path):
    callback = InfluenceCallback(ProbeSchedule(at_steps=[50]), SGLD)
    with pytest.raises(InputError, match="run of 10 steps"):
        fit(tmp_path, Regression(), regression_data(), callback, max_steps=1000, max_epochs=1)


def test_data_module_that_brings_something_else_is_refused(tmp_path):
    with pytest.raises(InputError, match="ProbeData"):
        fit_with(tmp_path, WithProbeData("nothing"))
