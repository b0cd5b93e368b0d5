import json

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch.utils.tensorboard import SummaryWriter

from stagewise.reporting.run_report import write_run_report
from tests.reporting.flipping_run import flipping_run


def test_the_report_says_what_turns_when_heads_rise_and_what_moves_with_them(tmp_path):
    with SummaryWriter(str(tmp_path)) as writer:
        for step, value in ((100, 0.1), (300, 0.1), (800, 0.9), (1000, 0.9)):
            writer.add_scalar("induction/previous_token", value, step)
    path, changes = write_run_report(tmp_path, flipping_run(), tmp_path / "out")
    text = path.read_text()
    assert len(changes.found) == 1
    assert "helpful, then harmful" in text
    assert "**While previous_token rises**, steps 300 to 800" in text
    assert "cat -5.56e-01 to +5.56e-01 (z +7.9)" in text
    assert "Not told from noise: dog." in text
    assert "Flagged: 2 of 10 probes (rhat 2)." in text
    assert "| 400 | 500 | 700 | 0.25 |" in text
    assert "8 chains x 5 draws; nbeta 10, localization 100, lr 0.0001, seed 3" in text
    for picture in (tmp_path / "out").glob("*.png"):
        assert f"({picture.name})" in text
    assert len(list((tmp_path / "out").glob("*.png"))) == 2
    events = EventAccumulator(str(tmp_path / "out"), size_guidance={"images": 0})
    events.Reload()
    assert len(events.Tags()["images"]) == 2
    # Again: the images of the first report are gone.
    write_run_report(tmp_path, flipping_run(), tmp_path / "out")
    assert len(list((tmp_path / "out").glob("events*"))) == 1
    written = json.loads((tmp_path / "out" / "sign_changes.json").read_text())
    assert [it["group"] for it in written["changes"]] == ["cat"]


def test_what_is_not_there_is_said(tmp_path):
    path, _ = write_run_report(tmp_path, flipping_run(error=9.0, with_summary=False), tmp_path / "out")
    text = path.read_text()
    assert "**No sign change was found.**" in text
    assert "No score of heads was measured" in text
    assert "No transition window was found" in text
    assert "has no summary.json" in text
