"""Refusals of the callback before the first step of training."""

from dataclasses import replace

import lightning.pytorch as pl
import pytest
import torch
import torch.nn.functional as F
from torch.utils.data import TensorDataset
from torchmetrics import MeanMetric

from stagewise import InfluenceCallback, InputError, LossContractError, ProbeConfig, ProbeSchedule
from tests.callbacks.runs import EVERY_2, SGLD, Regression, X, Y, fit, regression_data

pytestmark = pytest.mark.filterwarnings("ignore")


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
        (Regression, {"schedule": ProbeSchedule(at_steps=[7, 9])}, InputError, "within the run"),
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


def test_the_schedule_is_checked_against_the_epochs(tmp_path):
    callback = InfluenceCallback(ProbeSchedule(at_steps=[50]), SGLD)
    with pytest.raises(InputError, match="run of 10 steps"):
        fit(tmp_path, Regression(), regression_data(), callback, max_steps=1000, max_epochs=1)
