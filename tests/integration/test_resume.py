"""A resumed run equals an uninterrupted one, in its weights and in its probes."""

import json
from dataclasses import replace

import lightning.pytorch as pl
import numpy as np
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from torch.utils.data import DataLoader

from stagewise import InfluenceCallback, InputError, ProbeConfig, ProbeSchedule, SampleMatrices, open_run
from stagewise.loading.loader import ResumableLoader
from tests.integration.test_untouched import SGLD, Net, data

FULL = ProbeConfig(save_trace=True, sample_matrices=SampleMatrices.all)

pytestmark = pytest.mark.filterwarnings("ignore")


def fit(folder, max_steps, ckpt_path=None, version=None):
    pl.seed_everything(7, verbose=False)
    callback = InfluenceCallback(ProbeSchedule(every_n_steps=2), SGLD, FULL)
    trainer = pl.Trainer(
        accelerator="cpu",
        max_steps=max_steps,
        callbacks=[callback, ModelCheckpoint(folder / "checkpoints", every_n_train_steps=6, save_top_k=-1)],
        logger=pl.loggers.TensorBoardLogger(folder, name="run", version=version),
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(Net(), DataLoader(data(), 8, shuffle=False), ckpt_path=ckpt_path, weights_only=True)
    return trainer


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("resume")
    whole = fit(folder / "whole", 12)
    first = fit(folder / "parts", 6)
    (checkpoint,) = (folder / "parts" / "checkpoints").glob("*step=6.ckpt")
    second = fit(folder / "parts", 12, ckpt_path=checkpoint)
    return whole, first, second, checkpoint


def test_references_are_taken_up_from_the_checkpoint(runs):
    whole, _, second, _ = runs
    left, right = open_run(whole.log_dir), open_run(second.log_dir)
    # Dropout draws differ after a resume, so weights after step 6 differ; the first probe's reference does not.
    assert right["reference_step"].values.tolist() == left["reference_step"].values.tolist() == [2, 2, 4, 6, 8, 10]


def test_resumed_run_holds_the_earlier_probes_too(runs):
    _, first, second, _ = runs
    assert first.log_dir != second.log_dir
    earlier, run = open_run(first.log_dir), open_run(second.log_dir)
    assert run["step"].values.tolist() == [2, 4, 6, 8, 10, 12]
    np.testing.assert_array_equal(run["bif"].sel(step=[2, 4, 6]), earlier["bif"])
    summary = json.loads(run.attrs["summary"])
    assert summary["probes"] == 6
    assert summary["probe_steps"] == [2, 4, 6, 8, 10, 12]


def test_resuming_in_the_same_directory_drops_the_abandoned_future(runs, tmp_path):
    fit(tmp_path, 10, version=0)
    (checkpoint,) = (tmp_path / "checkpoints").glob("*step=6.ckpt")
    before = open_run(tmp_path / "run" / "version_0")
    trainer = fit(tmp_path, 8, ckpt_path=checkpoint, version=0)
    after = open_run(trainer.log_dir)
    assert after["step"].values.tolist() == [2, 4, 6, 8]
    np.testing.assert_array_equal(after["bif"].sel(step=[2, 4, 6]), before["bif"].sel(step=[2, 4, 6]))


def test_deterministic_training_resumes_to_the_same_probes(tmp_path):
    """Without dropout the weights are the same, and then so is every number of every later probe."""

    class Plain(Net):
        def __init__(self):
            super().__init__()
            self.body[3].p = 0.0

        def training_step(self, batch, batch_idx):
            return self.per_sample_loss(batch).mean()

    def train(ckpt_path=None):
        pl.seed_everything(7, verbose=False)
        trainer = pl.Trainer(
            accelerator="cpu",
            max_steps=20,
            callbacks=[
                InfluenceCallback(ProbeSchedule(every_n_steps=4), SGLD, FULL),
                ModelCheckpoint(tmp_path / "checkpoints", every_n_train_steps=6, save_top_k=-1),
            ],
            default_root_dir=tmp_path,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        # Lightning repeats a batch of a plain DataLoader after a resume; a loader with a state does not.
        trainer.fit(Plain(), ResumableLoader(data(), 8, seed=3), ckpt_path=ckpt_path, weights_only=True)
        return trainer

    whole = train()
    (checkpoint,) = (tmp_path / "checkpoints").glob("*step=6.ckpt")  # in mid-epoch
    resumed = train(checkpoint)
    assert resumed.log_dir != whole.log_dir
    left, right = open_run(whole.log_dir, trace=True), open_run(resumed.log_dir, trace=True)
    for name in left.data_vars:
        if name != "seconds":
            np.testing.assert_array_equal(left[name], right[name], err_msg=str(name))


def test_fresh_run_in_a_directory_with_probes_is_refused_and_nothing_is_lost(tmp_path):
    trainer = fit(tmp_path, 4, version=0)
    before = open_run(trainer.log_dir)["bif"].values
    with pytest.raises(InputError, match="already holds 2 probes"):
        fit(tmp_path, 4, version=0)
    np.testing.assert_array_equal(open_run(trainer.log_dir)["bif"].values, before)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"sgld": replace(SGLD, nbeta=99.0)}, "sgld SGLDConfig"),
        ({"observed": tuple(part[:9] for part in data().tensors)}, "other data"),
    ],
)
def test_resuming_with_other_settings_or_data_is_refused(runs, tmp_path, changes, words):
    callback = InfluenceCallback(**{"schedule": ProbeSchedule(every_n_steps=2), "sgld": SGLD, **changes})
    trainer = pl.Trainer(accelerator="cpu", max_steps=12, callbacks=[callback], default_root_dir=tmp_path)
    with pytest.raises(InputError, match=rf"got {words}.*; expected .*; change it back"):
        trainer.fit(Net(), DataLoader(data(), 8), ckpt_path=runs[3], weights_only=True)


def test_probe_that_was_interrupted_is_made_up_for_after_the_resume(tmp_path):
    calls = []

    def fails_once(module, batch):
        calls.append(module.global_step)
        if module.global_step == 4 and calls.count(4) == 3:
            raise RuntimeError("out of memory")
        return module.per_sample_loss(batch)

    def train(ckpt_path=None):
        callback = InfluenceCallback(ProbeSchedule(every_n_steps=2), SGLD, loss_fn=fails_once, on_error="raise")
        saver = ModelCheckpoint(tmp_path / "checkpoints", save_on_exception=True)
        trainer = pl.Trainer(accelerator="cpu", max_steps=8, callbacks=[callback, saver], default_root_dir=tmp_path)
        trainer.fit(Net(), DataLoader(data(), 8), ckpt_path=ckpt_path, weights_only=True)
        return trainer

    with pytest.raises(RuntimeError, match="out of memory"):
        train()
    (checkpoint,) = (tmp_path / "checkpoints").glob("*.ckpt")
    run = open_run(train(checkpoint).log_dir)
    assert run["step"].values.tolist() == [2, 4, 6, 8]
    assert run["reference_step"].values.tolist() == [2, 2, 4, 6]


def test_state_is_tensors_and_plain_python(runs):
    checkpoint = torch.load(runs[3], weights_only=True)
    (state,) = [value for name, value in checkpoint["callbacks"].items() if "InfluenceCallback" in name]
    assert state["record"]["steps"] == [2, 4, 6]
