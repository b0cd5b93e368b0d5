import json
import struct
from types import SimpleNamespace

import numpy as np
import pytest
from matplotlib.image import imread

from stagewise.reporting.loggers.weights_and_biases import WandbWriter
from tests.reporting.loggers.pictures import IMAGE, TEXT, random_state, write_all

STEP = "trainer/global_step"


def test_each_goes_by_the_calls_of_lightnings_logger_with_its_step():
    calls = []
    logger = SimpleNamespace(
        log_image=lambda key, images, step, caption: calls.append(("image", key, len(images), step, caption)),
        log_text=lambda key, columns, data, step: calls.append(("text", key, columns, data, step)),
        log_metrics=lambda values, step: calls.append(("scalar", values, step)),
    )
    writer = WandbWriter(logger)
    writer.add_image("a~b", IMAGE, 1700, dataformats="HWC")
    writer.add_text("a~b", TEXT, 9)
    writer.add_scalar("a~b", 0.5, 3)
    assert calls == [
        ("image", "a~b", 1, 1700, ["step 1,700"]),
        ("text", "a~b", ["step", "text"], [[9, TEXT]], 9),
        ("scalar", {"a~b": 0.5}, 3),
    ]


def records(path):
    """Records of a ``.wandb`` file: LevelDB's log format, in blocks of 32 KiB, after a header of 7 bytes."""
    data, at, whole = path.read_bytes(), 7, b""
    while at + 7 <= len(data):
        left = 32768 - at % 32768
        if left < 7:
            at += left
            continue
        _, length, kind = struct.unpack_from("<IHB", data, at)
        whole += data[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):  # full, last
            yield whole
            whole = b""


@pytest.mark.slow
def test_a_real_offline_run_has_images_text_and_passed_steps_over_the_training_step(tmp_path, monkeypatch):
    wandb = pytest.importorskip("wandb")
    from lightning.pytorch.loggers import WandbLogger
    from wandb.proto import wandb_internal_pb2

    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    logger = WandbLogger(offline=True, save_dir=tmp_path)
    try:
        folder = tmp_path / "wandb" / logger.experiment.dir.split("/")[-2]
        logger.log_metrics({"loss": 1.0}, step=8)
        before = random_state()
        write_all(WandbWriter(logger))
        assert random_state() == before
    finally:
        wandb.finish()
        wandb.teardown()  # waits for the process that writes the file
    rows, axes = [], {}
    (path,) = folder.glob("*.wandb")
    for raw in records(path):
        record = wandb_internal_pb2.Record.FromString(raw)
        if record.HasField("history"):
            row = {}
            for item in record.history.item:
                name, *inner = item.nested_key
                value = json.loads(item.value_json)
                row[name] = row.get(name, {}) | {inner[0]: value} if inner else value
            rows.append(row)
        if record.HasField("metric"):
            axes[record.metric.glob_name or record.metric.name] = record.metric.step_metric
    assert axes["*"] == STEP

    def at(tag):
        return [(row[STEP], row[tag]) for row in rows if tag in row]

    images = at("influence/matrix/within")
    assert [step for step, _ in images] == [7, 9]
    assert [image["captions"] for _, image in images] == [["step 7"], ["step 9"]]
    for _, image in images:
        (name,) = image["filenames"]
        np.testing.assert_array_equal(np.rint(imread(folder / "files" / name)[..., :3] * 255), IMAGE)
    ((step, table),) = at("run/summary")
    assert step == 9
    content = json.loads((folder / "files" / table["path"]).read_text())
    assert (content["columns"], content["data"]) == (["step", "text"], [[9, TEXT]])
    assert at("transition/in_window") == [(3, 1.0), (4, 0.0)]
