"""Output to loggers: each receives what it supports, none affects the others or training."""

import csv
import json
import random
import subprocess
import sys
import zipfile

import numpy as np
import pytest
import torch
from lightning.pytorch import loggers as loggers_of_lightning
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from lightning.pytorch.loggers.logger import DummyLogger
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from stagewise import InfluenceCallback, ProbeConfig
from stagewise.callbacks.fault_log import DISK, Faults
from stagewise.callbacks.logger_writers import log_scalars, writers
from tests.callbacks.runs import EVERY_2, SGLD, Regression, fit, regression_data
from tests.callbacks.test_run_folder import Shared
from tests.reporting.loggers.pictures import IMAGE, random_state, write_all

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")


class Trainer:
    global_step = 5

    def __init__(self, *loggers):
        self.loggers = list(loggers)


class Broken:
    """Logger whose server is gone."""

    @property
    def experiment(self):
        raise ConnectionError("the server is gone")

    def log_metrics(self, metrics, step=None):
        raise ConnectionError("the server is gone")


class BrokenTensorBoard(Broken, TensorBoardLogger):
    pass


class BrokenMLFlow(Broken, loggers_of_lightning.MLFlowLogger):
    def __init__(self):
        pass


class Restless(CSVLogger):
    """Logger that draws from every global generator when used, like services with random names."""

    def log_metrics(self, metrics, step=None):
        self.experiment.log_metrics(metrics, step)
        random.random(), np.random.rand(), torch.rand(1)

    @property
    def experiment(self):
        random.random(), np.random.rand(), torch.rand(1)
        return super().experiment


def run(folder, logger, **probe):
    callback = InfluenceCallback(EVERY_2, SGLD, probe=ProbeConfig(**{"draw_matrices": True} | probe))
    torch.manual_seed(0)
    module = Regression()
    fit(folder, module, regression_data(), callback, logger=logger)
    return callback, (*(weight.detach().clone() for weight in module.parameters()), torch.rand(3))


def test_folders_and_tensorboard_have_the_same_images_text_and_windows(tmp_path):
    run(tmp_path, [TensorBoardLogger(tmp_path / "tb"), CSVLogger(tmp_path / "csv")])
    (folder,) = (tmp_path / "csv").glob("*/version_0")
    (events,) = (tmp_path / "tb").glob("*/version_0")
    board = EventAccumulator(str(events), size_guidance={"images": 0, "tensors": 0, "scalars": 0}).Reload()
    shown = {(tag, image.step) for tag in board.Tags()["images"] for image in board.Images(tag)}
    files = {
        (str(path.parent.relative_to(folder / "images")), int(path.stem.removeprefix("step-")))
        for path in (folder / "images").rglob("*.png")
    }
    assert files == shown
    assert ("influence/matrix/within", 2) in files
    assert ("00_overview", 6) in files
    text = board.Tensors("run/summary/text_summary")[-1]  # the card is renewed while the run goes on
    assert (folder / "text" / "run" / "summary.md").read_text() == text.tensor_proto.string_val[0].decode()
    with (folder / "metrics.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["transition/in_window"]]
    expected = [(event.step, event.value) for event in board.Scalars("transition/in_window")]
    assert [(int(row["step"]), float(row["transition/in_window"])) for row in rows] == expected
    assert len(expected) == 3


def test_a_broken_logger_is_counted_and_does_not_affect_the_others(tmp_path):
    faults = Faults("warn")
    trainer = Trainer(BrokenTensorBoard(tmp_path), BrokenMLFlow(), CSVLogger(tmp_path))
    with pytest.warns(UserWarning, match="results could not be written"):
        found = writers(trainer, faults)
    for writer in found:
        write_all(writer)
    assert len(found) == 2
    assert len(list(tmp_path.rglob("step-9.png"))) == 1
    # TensorBoard's once, as it is opened; MLflow's two images, text and two scalars.
    assert faults.record.faults == {DISK: 6}  # a lost connection is an OSError
    with pytest.raises(ConnectionError):
        writers(Trainer(BrokenTensorBoard(tmp_path)))


def test_a_logger_that_draws_random_numbers_does_not_affect_training(tmp_path):
    _, quiet = run(tmp_path / "a", CSVLogger(tmp_path / "a"))
    _, without = run(tmp_path / "c", False, draw_matrices=False)
    logger = Restless(tmp_path)
    before = random_state()
    (writer,) = writers(Trainer(logger))
    write_all(writer)
    log_scalars(logger, {"a": 1.0}, 3)
    assert random_state() == before
    assert all(torch.equal(one, other) for one, other in zip(quiet, without, strict=True))


def test_an_unknown_logger_is_reported_once_and_receives_scalars(tmp_path, caplog):
    logger = Shared(tmp_path, "abc")
    with caplog.at_level("INFO"):
        callback, _ = run(tmp_path, logger)
    told = [record.message for record in caplog.records if "Shared" in record.message]
    assert len(told) == 1
    assert "gets the scalars" in told[0]
    assert {step for step, values in logger.rows if "influence/within/trace" in values} == {2, 4, 6}
    assert json.loads((callback.folder / "summary.json").read_text())["complete"] is True


def test_the_logger_of_a_fast_dev_run_is_ignored_silently(caplog):
    with caplog.at_level("INFO"):
        assert writers(Trainer(DummyLogger())) == []
    assert not caplog.records


def test_two_pairs_remain_two_curves_in_mlflow():
    class Kept(loggers_of_lightning.MLFlowLogger):
        def __init__(self):
            self.rows = []

        def log_metrics(self, metrics, step=None):
            self.rows.append((metrics, step))

    logger = Kept()
    log_scalars(logger, {"influence/within/a~bc": 1.0, "influence/within/ab~c": 2.0}, 3)
    assert logger.rows == [({"influence/within/a - bc": 1.0, "influence/within/ab - c": 2.0}, 3)]


@pytest.mark.slow
def test_services_without_a_logger_are_not_imported():
    words = (
        "import sys, stagewise, stagewise.callbacks.logger_writers; stagewise.InfluenceCallback; "
        "print([name for name in ('wandb', 'mlflow', 'comet_ml') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", words], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def wandb_logger(folder, monkeypatch):
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_SILENT", "true")
    monkeypatch.setenv("WANDB_MODE", "offline")
    return loggers_of_lightning.WandbLogger(offline=True, save_dir=folder)


def mlflow_logger(folder, monkeypatch):
    pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    return loggers_of_lightning.MLFlowLogger(tracking_uri=f"file:{folder}")


def comet_logger(folder, monkeypatch):
    monkeypatch.setenv("COMET_DISABLE_AUTO_LOGGING", "1")
    comet = pytest.importorskip("comet_ml")
    logger = loggers_of_lightning.CometLogger(online=False, offline_directory=str(folder))
    logger._experiment = comet.OfflineExperiment(
        offline_directory=str(folder), log_code=False, log_git_metadata=False, log_env_details=False
    )
    return logger


def images_in(folder):
    """Returns the number of images that a service has stored on disk."""
    archives = [zipfile.ZipFile(path) for path in folder.glob("*.zip")]
    lines = [json.loads(line) for archive in archives for line in archive.read("messages.json").splitlines()]
    of_comet = [line for line in lines if line["payload"].get("upload_type") == "visualization"]
    return len(of_comet) + len(list(folder.rglob("*.png")))


@pytest.mark.slow
@pytest.mark.parametrize("service", [wandb_logger, mlflow_logger, comet_logger])
def test_a_real_service_has_all_images_and_leaves_training_unchanged(tmp_path, monkeypatch, service):
    logger = service(tmp_path / "service", monkeypatch)
    try:
        callback, with_it = run(tmp_path / "a", [CSVLogger(tmp_path / "csv"), logger])
    finally:
        if service is wandb_logger:
            sys.modules["wandb"].teardown()
        if service is comet_logger:
            logger.experiment.end()
    _, without = run(tmp_path / "b", False)
    assert all(torch.equal(one, other) for one, other in zip(with_it, without, strict=True))
    summary = json.loads((callback.folder / "summary.json").read_text())
    assert summary["complete"] is True
    assert not any(summary["probes_failed"].values())
    assert images_in(tmp_path / "service") == len(list((tmp_path / "csv").rglob("images/**/*.png"))) > 5


def test_without_faults_exceptions_of_the_logger_propagate():
    (writer,) = writers(Trainer(BrokenMLFlow()))
    with pytest.raises(ConnectionError):
        writer.add_image("a", IMAGE, 3, dataformats="HWC")
