"""Scalars are those that TensorBoard's own reader finds, whatever else is in the event files."""

import numpy as np
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch.utils.tensorboard import SummaryWriter

from stagewise.reporting.event_scalars import event_scalars


def files(folder):
    return sorted(folder.glob("events.out.tfevents.*"))


@pytest.fixture
def run(tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (200, 200, 3), dtype=np.uint8)
    with SummaryWriter(str(tmp_path), filename_suffix=".a") as writer:
        for step in range(5):
            writer.add_scalar("induction/copying", step / 7, step)
            writer.add_scalar("loss", -step, step)
            writer.add_image("noise", noise, step, dataformats="HWC")
            writer.add_text("words", "text " * 20_000, step)
    with SummaryWriter(str(tmp_path), filename_suffix=".b") as writer:
        writer.add_scalar("induction/copying", 9.0, 3)
        writer.add_scalar("induction/copying", 8.0, 5)
    return tmp_path


def test_values_are_those_of_tensorboards_reader(run):
    (run / files(run)[1].name).unlink()
    events = EventAccumulator(str(run), size_guidance={"scalars": 0})
    events.Reload()
    names = ["induction/copying", "loss"]
    expected = {name: {scalar.step: scalar.value for scalar in events.Scalars(name)} for name in names}
    assert event_scalars(run, [*names, "nothing"]) == expected


def test_only_what_is_asked_for_is_returned_and_the_last_value_of_a_step_stands(run):
    found = event_scalars(run, ["induction/copying"])
    assert list(found) == ["induction/copying"]
    assert found["induction/copying"] == pytest.approx({0: 0, 1: 1 / 7, 2: 2 / 7, 3: 9.0, 4: 4 / 7, 5: 8.0})
    assert event_scalars(run, []) == {}
    assert event_scalars(run / "none", ["loss"]) == {}


def test_a_file_that_is_cut_off_or_damaged_gives_what_comes_before(run):
    path = files(run)[1]
    content = path.read_bytes()
    for cut in (1, 5, 20, 40):
        path.write_bytes(content[:-cut])
        found = event_scalars(run, ["induction/copying"])["induction/copying"]
        assert found[3] == 9.0 if cut < 20 else 3 in found
        assert (5 in found) == (cut < 5)
    path.write_bytes(content[:-30] + bytes([255] * 30))
    assert 5 not in event_scalars(run, ["induction/copying"])["induction/copying"]


def test_what_an_earlier_run_wrote_beyond_the_step_of_a_resumed_one_is_void(tmp_path):
    with SummaryWriter(str(tmp_path), filename_suffix=".a") as writer:
        for step in range(6):
            writer.add_scalar("loss", 1.0, step)
    with SummaryWriter(str(tmp_path), filename_suffix=".b", purge_step=3) as writer:
        writer.add_scalar("loss", 2.0, 4)
    assert event_scalars(tmp_path, ["loss"])["loss"] == {0: 1.0, 1: 1.0, 2: 1.0, 4: 2.0}
