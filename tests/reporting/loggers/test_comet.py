import json
import zipfile
from types import SimpleNamespace

import pytest

from stagewise.reporting.loggers.comet import CometWriter
from tests.reporting.loggers.pictures import IMAGE, TEXT, random_state, write_all


class Experiment:
    """Takes what Comet's experiments take, and counts steps as they do: the last one given."""

    curr_step = None

    def __init__(self):
        self.calls = []

    def set_step(self, step):
        self.curr_step = step

    def log_image(self, image_data, name=None, *, image_channels="last", step=None):
        self.set_step(step)
        self.calls.append(("image", name, image_channels, step, image_data.shape))

    def log_text(self, text, step=None, metadata=None):
        self.set_step(step)
        self.calls.append(("text", text, step, metadata))

    def log_metrics(self, values, step):
        self.set_step(step)
        self.calls.append(("scalar", values, step))


def test_each_has_its_step_and_the_count_of_comet_does_not_go_back():
    experiment = Experiment()
    writer = CometWriter(SimpleNamespace(experiment=experiment, log_metrics=experiment.log_metrics))
    writer.add_scalar("early", 1.0, 2)
    writer.add_image("a~b", IMAGE, 7, dataformats="HWC")
    writer.add_text("a~b", TEXT, 9)
    writer.add_scalar("late", 1.0, 3)
    assert experiment.calls == [
        ("scalar", {"early": 1.0}, 2),
        ("image", "a~b", "last", 7, (20, 30, 3)),
        ("text", TEXT, 9, {"tag": "a~b"}),
        ("scalar", {"late": 1.0}, 3),
    ]
    assert experiment.curr_step == 9


@pytest.mark.slow
def test_a_real_offline_experiment_has_images_text_and_passed_steps(tmp_path, monkeypatch):
    monkeypatch.setenv("COMET_DISABLE_AUTO_LOGGING", "1")
    comet = pytest.importorskip("comet_ml")
    from lightning.pytorch.loggers import CometLogger

    logger = CometLogger(online=False, offline_directory=str(tmp_path))
    # Lightning 2.6 starts an offline experiment that is switched off.
    logger._experiment = experiment = comet.OfflineExperiment(
        offline_directory=str(tmp_path), log_code=False, log_git_metadata=False, log_env_details=False
    )
    before = random_state()
    write_all(CometWriter(logger))
    assert random_state() == before
    assert experiment.curr_step == 9
    experiment.end()
    (archive,) = tmp_path.glob("*.zip")
    with zipfile.ZipFile(archive) as file:
        messages = [json.loads(line) for line in file.read("messages.json").splitlines()]
        payloads = [message["payload"] for message in messages]
        uploads = {
            payload["upload_type"]: file.read(payload["file_path"]) for payload in payloads if "upload_type" in payload
        }
    images = [payload["additional_params"] for payload in payloads if payload.get("upload_type") == "visualization"]
    assert [(image["figName"], image["step"]) for image in images] == [
        ("influence/matrix/within", step) for step in (7, 9)
    ]
    (text,) = [payload for payload in payloads if payload.get("upload_type") == "text-sample"]
    assert text["additional_params"]["step"] == 9
    assert text["metadata"] == {"tag": "run/summary"}
    assert uploads["text-sample"].decode() == TEXT
    assert uploads["visualization"].startswith(b"\x89PNG")
    points = [
        payload["metric"]
        for payload in payloads
        if payload.get("metric", {}).get("metricName") == "transition/in_window"
    ]
    assert [(point["step"], point["metricValue"]) for point in points] == [(3, 1.0), (4, 0.0)]
