"""Separation of the files of runs, whatever the logger."""

import copy
import json
from dataclasses import replace
from pathlib import Path

import lightning.pytorch as pl
import numpy as np
import pytest
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers.logger import Logger
from torch.utils.data import DataLoader

from stagewise import InfluenceCallback, InputError, ProbeConfig, open_run
from tests.callbacks.interventions import intervention, train
from tests.callbacks.runs import EVERY_2, SGLD, Regression, fit, regression_data

pytestmark = pytest.mark.filterwarnings("ignore")


class Shared(Logger):
    """Logger like those of services: one save_dir for all runs, and an id for each of them."""

    def __init__(self, folder, version):
        super().__init__()
        self.folder, self.id = folder, version
        self.rows = []

    @property
    def name(self):
        return "project"

    @property
    def version(self):
        return self.id

    @property
    def save_dir(self):
        return str(self.folder)

    def log_metrics(self, metrics, step=None):
        self.rows.append((step, metrics))

    def log_hyperparams(self, params, *args, **kwargs):
        pass


def run(folder, version, **settings):
    callback = InfluenceCallback(EVERY_2, SGLD, **settings)
    logger = Shared(folder, version)
    fit(folder, Regression(), regression_data(), callback, max_steps=2, logger=logger)
    return callback, logger


@pytest.mark.parametrize(
    ("versions", "names"), [(("abc", "def"), ("abc", "def")), ((3, 4), ("version_3", "version_4"))]
)
def test_runs_with_a_shared_log_directory_have_separate_folders(tmp_path, versions, names):
    for version, name in zip(versions, names, strict=True):
        callback, logger = run(tmp_path, version)
        assert callback.folder == tmp_path / "project" / name
        assert open_run(callback.folder)["step"].values.tolist() == [2]
        assert any("influence/within/all~all" in values for _, values in logger.rows)


def test_repeating_a_finished_run_is_refused(tmp_path):
    run(tmp_path, "abc")
    with pytest.raises(InputError, match=r"already holds 1 probe.*output_dir"):
        run(tmp_path, "abc")


def test_a_logger_without_a_version_allows_a_single_run(tmp_path):
    assert run(tmp_path, None)[0].folder == tmp_path
    with pytest.raises(InputError, match="already holds 1 probe"):
        run(tmp_path, None)


def test_the_given_folder_is_used(tmp_path):
    assert run(tmp_path, "abc", output_dir=str(tmp_path / "mine"))[0].folder == tmp_path / "mine"


def test_deep_copies_know_the_folder_and_the_results(tmp_path):
    callback = InfluenceCallback(EVERY_2, SGLD)
    twin = copy.deepcopy(callback)
    assert twin.folder is None
    trainer = fit(tmp_path, Regression(), regression_data(), callback, max_steps=2)
    after = copy.deepcopy(callback)
    assert after.folder == callback.folder == Path(trainer.log_dir)
    state, kept = after.state_dict(), callback.state_dict()
    assert state["record"] == kept["record"]
    assert state["fingerprint"] == kept["fingerprint"]
    assert after.sgld == callback.sgld


def test_a_callback_knows_the_folder_of_its_trained_copy(tmp_path):
    """Trains a copy of the callback, as darts and neuralforecast do."""
    given = InfluenceCallback(EVERY_2, SGLD)
    copies = [copy.deepcopy(given) for _ in range(2)]
    for number, trained in enumerate(copies):
        fit(tmp_path / str(number), Regression(), regression_data(), trained, max_steps=2)
        assert given.folder == trained.folder
    assert copies[0].folder != copies[1].folder
    assert open_run(given.folder)["step"].values.tolist() == [2]


def test_an_intervention_is_copied_with_its_plan(tmp_path):
    trained = intervention()
    train(tmp_path, [trained])
    assert copy.deepcopy(trained).plan.state_dict() == trained.plan.state_dict()
    # A copy can be trained in its place.
    again = copy.deepcopy(intervention())
    train(tmp_path / "again", [again])
    assert again.plan.state_dict() == trained.plan.state_dict()


class Killed(BaseException):
    """Error that ends a run without notice to callbacks, like SIGKILL."""


def killed_at(step, folder, **settings):
    """Runs until a step and ends there, with the files written so far and without a summary."""

    class Kill(pl.Callback):
        def on_train_batch_end(self, trainer, module, *args):
            if trainer.global_step == step:
                callback._session = None  # nothing is finished
                raise Killed

    callback = InfluenceCallback(EVERY_2, SGLD, output_dir=str(folder / "mine"), **settings)
    with pytest.raises((Killed, SystemExit)):
        fit(folder, Regression(), regression_data(), callback, max_steps=8, callbacks=[Kill()])


def test_a_job_killed_before_its_first_checkpoint_restarts_in_its_folder(tmp_path):
    killed_at(5, tmp_path)
    assert open_run(tmp_path / "mine")["step"].values.tolist() == [2, 4]
    again = InfluenceCallback(EVERY_2, SGLD, output_dir=str(tmp_path / "mine"))
    with pytest.warns(UserWarning, match="starts again: 2 probes at steps 2 to 4 are set aside"):
        fit(tmp_path, Regression(), regression_data(), again, max_steps=8)
    whole = InfluenceCallback(EVERY_2, SGLD, output_dir=str(tmp_path / "whole"))
    fit(tmp_path, Regression(), regression_data(), whole, max_steps=8)
    mine, other = (open_run(tmp_path / item)["group_bif"] for item in ("mine", "whole"))
    assert mine["step"].values.tolist() == [2, 4, 6, 8]
    np.testing.assert_array_equal(mine, other)
    assert not (tmp_path / "mine" / "influence.zarr.set_aside").exists()
    # It has ended now: another run in its folder would be mixed with it.
    with pytest.raises(InputError, match="already holds 4 probes of another run"):
        fit(tmp_path, Regression(), regression_data(), again, max_steps=8)


def test_other_settings_in_the_folder_of_a_killed_job_are_refused(tmp_path):
    killed_at(5, tmp_path)
    other = InfluenceCallback(EVERY_2, replace(SGLD, seed=3), output_dir=str(tmp_path / "mine"))
    with pytest.raises(InputError, match="already holds 2 probes of another run"):
        fit(tmp_path, Regression(), regression_data(), other, max_steps=8)
    assert open_run(tmp_path / "mine")["step"].values.tolist() == [2, 4]


def resumable(folder, *, ckpt_path=None, max_steps=8, **settings):
    callback = InfluenceCallback(EVERY_2, SGLD, output_dir=str(folder / "mine"), **settings)
    pl.seed_everything(1, verbose=False)
    saver = ModelCheckpoint(folder / "ckpt", every_n_train_steps=2, save_top_k=-1, filename="{step}")
    trainer = pl.Trainer(
        accelerator="cpu", max_steps=max_steps, callbacks=[callback, saver], default_root_dir=folder, logger=False
    )
    trainer.fit(Regression(), DataLoader(regression_data(), 8), ckpt_path=ckpt_path, weights_only=True)
    return callback


def test_resuming_from_an_older_checkpoint_sets_later_probes_aside_until_replaced(tmp_path):
    resumable(tmp_path)
    whole = open_run(tmp_path / "mine")["group_bif"]
    with pytest.warns(UserWarning, match="resumes from step 4: 2 probes at steps 6 to 8 are set aside"):
        resumable(tmp_path, ckpt_path=tmp_path / "ckpt" / "step=4.ckpt", max_steps=6)
    assert open_run(tmp_path / "mine")["step"].values.tolist() == [2, 4, 6]
    assert [item.name for item in (tmp_path / "mine" / "influence.zarr.set_aside").iterdir()] == ["step8.zip"]
    # Behind it after all: from the later checkpoint.
    resumable(tmp_path, ckpt_path=tmp_path / "ckpt" / "step=8.ckpt", max_steps=10)
    run = open_run(tmp_path / "mine")["group_bif"]
    assert run["step"].values.tolist() == [2, 4, 6, 8, 10]
    np.testing.assert_array_equal(run.sel(step=[2, 4, 8]), whole.sel(step=[2, 4, 8]))


def test_a_temporarily_disabled_callback_passes_its_state_on(tmp_path):
    resumable(tmp_path, max_steps=4)
    resumable(tmp_path, ckpt_path=tmp_path / "ckpt" / "step=4.ckpt", max_steps=6, enabled=False)
    with pytest.warns(UserWarning, match="steps 5 to 6 were trained with the callback disabled"):
        callback = resumable(tmp_path, ckpt_path=tmp_path / "ckpt" / "step=6.ckpt", max_steps=10)
    run = open_run(tmp_path / "mine")
    # Step 6 is probed when the run resumes: its weights are there.
    assert run["step"].values.tolist() == [2, 4, 6, 8, 10]
    assert json.loads((callback.folder / "summary.json").read_text())["changes"][0]["setting"] == "enabled"
    assert not np.isnan(run["tracin"].sel(step=4)).any()
    assert np.isnan(run["tracin"].sel(step=[8, 10])).all()


@pytest.mark.parametrize(
    ("change", "refused"),
    [
        (
            {"loss_fn": lambda module, batch: module.per_sample_loss(batch)},
            "got the loss .* for the probes",
        ),
        ({"probe": ProbeConfig(gradient_dot_folds=2)}, "got baseline gradient_dot folds=2"),
        ({"probe": ProbeConfig(damped_influence=True)}, "got baseline damped_influence on"),
        ({"probe": ProbeConfig(draw_matrices=True, check_curvature=False)}, None),
    ],
)
def test_changes_that_affect_results_are_refused_and_others_recorded(tmp_path, change, refused):
    resumable(tmp_path, max_steps=4)
    checkpoint = tmp_path / "ckpt" / "step=4.ckpt"
    if refused is not None:
        with pytest.raises(InputError, match=refused):
            resumable(tmp_path, ckpt_path=checkpoint, **change)
        return
    callback = resumable(tmp_path, ckpt_path=checkpoint, **change)
    (noted,) = json.loads((callback.folder / "summary.json").read_text())["changes"]
    assert noted == {"step": 4, "setting": "probe.draw_matrices", "before": "False", "now": "True"}
