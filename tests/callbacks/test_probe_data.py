"""Where the observed set, the sampling set and the groups come from."""

import lightning.pytorch as pl
import pytest
import torch
from torch.utils.data import DataLoader

from stagewise import InfluenceCallback, InputError, ProbeData, open_run
from tests.callbacks.runs import EVERY_2, SGLD, Regression, X, Y, fit, regression_data

pytestmark = pytest.mark.filterwarnings("ignore")


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


def test_data_module_that_brings_something_else_is_refused(tmp_path):
    with pytest.raises(InputError, match="ProbeData"):
        fit_with(tmp_path, WithProbeData("nothing"))
