from types import SimpleNamespace

import numpy as np
import pytest
from matplotlib.image import imread

from stagewise.reporting.loggers.mlflow_client import MlflowWriter
from tests.reporting.loggers.pictures import IMAGE, TEXT, random_state, write_all


class Client:
    """Takes what MlflowClient takes."""

    def __init__(self):
        self.calls = []

    def log_image(self, run_id, image, artifact_file=None, *, key=None, step=None):
        self.calls.append(("image", run_id, key, step, image.shape))

    def log_text(self, run_id, text, artifact_file):
        self.calls.append(("text", run_id, artifact_file, text))


def test_each_goes_to_the_run_of_the_logger_under_names_that_mlflow_takes():
    client, scalars = Client(), []
    logger = SimpleNamespace(
        experiment=client, run_id="r", log_metrics=lambda values, step: scalars.append((values, step))
    )
    writer = MlflowWriter(logger)
    writer.add_image("a~b", IMAGE, 7, dataformats="HWC")
    writer.add_text("a~b", TEXT, 9)
    writer.add_scalar("a~b", 0.5, 3)
    assert client.calls == [("image", "r", "a - b", 7, (20, 30, 3)), ("text", "r", "text/a - b.md", TEXT)]
    assert scalars == [({"a - b": 0.5}, 3)]


@pytest.mark.slow
def test_a_real_store_has_images_text_and_passed_steps(tmp_path, monkeypatch):
    pytest.importorskip("mlflow")
    from lightning.pytorch.loggers import MLFlowLogger

    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")  # later versions ask for a database otherwise
    logger = MLFlowLogger(tracking_uri=f"file:{tmp_path / 'ml'}", run_name="run")
    client = logger.experiment
    before = random_state()
    write_all(MlflowWriter(logger))
    assert random_state() == before
    history = client.get_metric_history(logger.run_id, "transition/in_window")
    assert sorted((point.step, point.value) for point in history) == [(3, 1.0), (4, 0.0)]
    text = client.download_artifacts(logger.run_id, "text/run/summary.md", str(tmp_path))
    with open(text, encoding="utf-8") as file:
        assert file.read() == TEXT
    found = {}
    for artifact in client.list_artifacts(logger.run_id, "images"):
        # MLflow's own name of an image of a step: key, step, time and an id.
        key, _, step = artifact.path.removeprefix("images/").replace("+", "%").split("%")[:3]
        if artifact.path.endswith(".png"):
            found[key.replace("~", "#"), int(step)] = imread(
                client.download_artifacts(logger.run_id, artifact.path, str(tmp_path))
            )
    assert sorted(found) == [("influence#matrix#within", 7), ("influence#matrix#within", 9)]
    for pixels in found.values():
        np.testing.assert_array_equal(np.rint(pixels[..., :3] * 255), IMAGE)
