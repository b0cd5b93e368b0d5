import csv
from types import SimpleNamespace

import fsspec
import numpy as np
import pytest
from lightning.pytorch.loggers import CSVLogger
from matplotlib.image import imread

from stagewise.reporting.loggers.folder import FolderWriter
from tests.reporting.loggers.pictures import IMAGE, TEXT, write_all


@pytest.mark.filterwarnings("error")
def test_images_and_text_lie_beside_the_metrics(tmp_path):
    logger = CSVLogger(tmp_path, name="run")
    write_all(FolderWriter(logger))
    logger.finalize("success")
    folder = tmp_path / "run" / "version_0"
    images = folder / "images" / "influence" / "matrix" / "within"
    assert sorted(path.name for path in images.iterdir()) == ["step-7.png", "step-9.png"]
    np.testing.assert_array_equal(np.rint(imread(images / "step-9.png")[..., :3] * 255), IMAGE)
    assert (folder / "text" / "run" / "summary.md").read_text(encoding="utf-8") == TEXT
    with (folder / "metrics.csv").open() as file:
        rows = [(int(row["step"]), float(row["transition/in_window"])) for row in csv.DictReader(file)]
    assert rows == [(3, 1.0), (4, 0.0)]


def test_the_newest_text_and_the_same_step_replace_what_was(tmp_path):
    writer = FolderWriter(CSVLogger(tmp_path, name="", version="v"))
    for step, text in ((1, "one"), (2, "two")):
        writer.add_text("run/summary", text, step)
    for image in (IMAGE, 255 - IMAGE):
        writer.add_image("a~b", image, 5)
    assert (tmp_path / "v" / "text" / "run" / "summary.md").read_text() == "two"
    (png,) = (tmp_path / "v" / "images" / "a - b").iterdir()
    np.testing.assert_array_equal(np.rint(imread(png)[..., :3] * 255), 255 - IMAGE)


def test_other_file_systems_are_written_to():
    remote = SimpleNamespace(experiment=SimpleNamespace(log_dir="memory://bucket/version_0"))
    FolderWriter(remote).add_text("run/summary", TEXT, 3)
    assert fsspec.filesystem("memory").cat_file("/bucket/version_0/text/run/summary.md").decode() == TEXT
