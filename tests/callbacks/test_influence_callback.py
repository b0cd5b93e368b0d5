"""The callback on modules that are not language models, and a run with diverging chains."""

import json
import logging
import re
import warnings

import lightning.pytorch as pl
import numpy as np
import pytest
import torch
from lightning.pytorch.callbacks import EarlyStopping
from torch.utils.data import DataLoader

from stagewise import InfluenceCallback, InputError, ProbeConfig, ProbeSchedule, SampleMatrices, SGLDConfig, open_run
from tests.callbacks.runs import (
    EVERY_2,
    SGLD,
    Classifier,
    Labelled,
    PartlyFrozen,
    Regression,
    fit,
    focal_loss,
    regression_data,
)

FULL = ProbeConfig(save_trace=True, sample_matrices=SampleMatrices.all)

pytestmark = pytest.mark.filterwarnings("ignore")


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
    trainer = fit(tmp_path, module(), dataset, InfluenceCallback(EVERY_2, SGLD, FULL, loss_fn=loss_fn))
    run = open_run(trainer.log_dir, trace=True)
    assert run["step"].values.tolist() == [2, 4, 6]
    assert run["bif"].shape == (3, 4, 64, 64)
    assert run["loss"].std("draw").min() > 0
    np.testing.assert_allclose(
        run["bif"].sel(part=["within", "drift", "between"]).sum("part"), run["bif"].sel(part="total"), atol=1e-10
    )
    assert run.attrs["nbeta"] == 10


def test_frozen_parameters_do_not_move_in_the_chain(tmp_path):
    module = PartlyFrozen()
    before = {name: value.clone() for name, value in module.backbone.state_dict().items()}
    fit(tmp_path, module, regression_data(), InfluenceCallback(EVERY_2, SGLD))
    assert all(torch.equal(value, before[name]) for name, value in module.backbone.state_dict().items())


def test_attached_to_a_resumed_run_it_follows_the_schedule(tmp_path):
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


def test_a_disabled_callback_does_nothing(tmp_path):
    trainer = fit(tmp_path, Regression(), regression_data(), InfluenceCallback(EVERY_2, SGLD, enabled=False))
    with pytest.raises(InputError):
        open_run(trainer.log_dir)


def test_output_goes_to_the_given_folder(tmp_path):
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


def test_a_run_that_stops_before_its_first_probe_writes_a_summary(tmp_path):
    class Stops(pl.Callback):
        def on_train_batch_end(self, trainer, *args):
            trainer.should_stop = True

    callback = InfluenceCallback(ProbeSchedule(at_steps=[5]), SGLDConfig())
    trainer = fit(tmp_path, Regression(), regression_data(), callback, callbacks=[Stops()])
    assert trainer.global_step < 5
    summary = json.loads((tmp_path / "lightning_logs" / "version_0" / "summary.json").read_text())
    assert (summary["probes"], summary["lr"], summary["localization"]) == (0, "auto", "auto")


def test_the_estimated_cost_includes_the_control_of_the_first_probe(tmp_path, caplog):
    told = {}
    for every in (None, 3):
        with caplog.at_level(logging.INFO):
            probe = ProbeConfig(control_every=every, check_curvature=False)
            fit(tmp_path / str(every), Regression(), regression_data(), InfluenceCallback(EVERY_2, SGLD, probe), 2)
        (line,) = [record.getMessage() for record in caplog.records if "chains of a probe take" in record.getMessage()]
        told[every] = int(re.search(r"(\d+) evaluations of the observed set", line)[1])
        caplog.clear()
    assert told[3] == 2 * told[None] == 2 * SGLD.num_chains * SGLD.num_draws


def test_a_diverging_chain_is_reported_dropped_and_counted_and_training_continues(tmp_path):
    wild = SGLDConfig(lr=3.0, nbeta=1e4, localization=1.0, num_draws=4)
    module = Regression()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        trainer = fit(tmp_path, module, regression_data(), InfluenceCallback(EVERY_2, wild))
    messages = [str(warning.message) for warning in caught]
    lines = [message for message in messages if "chains of the probe at step" in message]
    assert len(lines) == 3  # one a probe
    assert "8 of 8 chains of the probe at step 4 were dropped: " in lines[1]
    assert "the probe is left out and training goes on; lower sgld.lr or raise sgld.localization" in lines[1]
    assert lines[2].endswith("later ones are only counted (sampler/chains_dropped, summary.json)")
    assert any("24 chains were dropped over the run; 3 probes, steps 2 to 6, kept none" in item for item in messages)
    summary = json.loads((tmp_path / "lightning_logs" / "version_0" / "summary.json").read_text())
    assert summary["chains_dropped"] == 24  # eight chains at three probes
    assert summary["failed_steps"] == [2, 4, 6]
    assert (summary["probes"], summary["probes_due"], summary["not_finite_steps"]) == (0, 3, [])
    assert "3 probes, steps 2 to 6, lost all their chains" in summary["verdict"]["signs"]["why"]
    assert summary["verdict"]["best"]["words"].endswith("3 of 3 probes lost all their chains")
    assert trainer.global_step == 6
    assert torch.isfinite(module.layer.weight).all()
