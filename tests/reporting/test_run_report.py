import json

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch.utils.tensorboard import SummaryWriter

from stagewise.lm.classes import class_coverage
from stagewise.reporting.classes_page import classes_page, write_classes_page
from stagewise.reporting.html.repeating import as_python
from stagewise.reporting.run_report import write_run_report
from stagewise.runs.time_spans import influence_by_span
from tests.runs.flipping_run import flipping_run


@pytest.mark.drawn
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
    assert "Indistinguishable from noise: dog." in text
    assert "Flagged: 2 of 10 probes (rhat 2)." in text
    assert "| 400 | 500 | 700 | 0.25 |" in text
    assert "8 chains x 5 draws; nbeta 10, localization 100, lr 0.0001, seed 3" in text
    for picture in (tmp_path / "out").glob("*.png"):
        assert f"({picture.name})" in text
    assert len(list((tmp_path / "out").glob("*.png"))) == 2
    # TensorBoard shows the run, and its images with it: a report is no run of its own there.
    assert not list((tmp_path / "out").glob("events*"))
    written = json.loads((tmp_path / "out" / "sign_changes.json").read_text())
    assert [change["group"] for change in written["changes"]] == ["cat"]


def test_tensorboard_has_the_figures_of_a_run_that_it_does_not_show(tmp_path):
    for _ in range(2):  # again: the images of the first report are gone
        write_run_report(tmp_path, flipping_run(), tmp_path / "out")
        assert len(list((tmp_path / "out").glob("events*"))) == 1
    events = EventAccumulator(str(tmp_path / "out"), size_guidance={"images": 0})
    events.Reload()
    assert sorted(events.Tags()["images"]) == ["01_curves/influence_within", "influence/classes/within"]


def test_coverage_of_the_groups_is_a_section_where_the_run_has_it(tmp_path):
    tables = class_coverage({"cat": torch.tensor([True, False]), "dog": torch.tensor([True, True])}).markdown()
    page = classes_page(tables, unit="samples")
    write_classes_page(tmp_path, page)
    path, _ = write_run_report(tmp_path, flipping_run(), tmp_path / "out")
    text = path.read_text()
    assert f"\n\n#{page}" in text
    assert "\n## Samples of the observed groups\n\n| group | samples | share |" in text


def test_settings_are_named_as_they_were_typed(tmp_path):
    python = write_run_report(tmp_path, flipping_run(), tmp_path / "out")[0].read_text()
    assert "`ProbeConfig(llc=LLCConfig(enabled=True))`" in python
    assert "influence.probe" not in python
    assert as_python("lower `influence.probe.llc.lr` or `influence.probe.control_every`") == (
        "lower `LLCConfig.lr` or `ProbeConfig.control_every`"
    )
    (tmp_path / "config.yaml").write_text("")
    assert "`influence.probe.llc.enabled: true`" in write_run_report(tmp_path, flipping_run(), tmp_path)[0].read_text()


def test_which_groups_matter_when_is_told_with_what_links_it_to_sign_changes(tmp_path):
    run = flipping_run()
    text = write_run_report(tmp_path, run, tmp_path / "out")[0].read_text()
    section = text.partition("## Which groups matter when\n")[2].partition("\n## ")[0]
    found = influence_by_span(run)
    assert f"| pair | {' | '.join(f'{span.words} ({len(span.places)})' for span in found.spans)} |" in section
    rows = [line.strip("| ").split(" | ") for line in section.splitlines() if line.startswith("| ")][1:]
    assert [row[0] for row in rows] == [
        pair.group if pair.group == pair.group_j else f"{pair.group} ~ {pair.group_j}" for pair in found.pairs
    ]
    for row, pair in zip(rows, found.pairs, strict=True):
        assert [cell.split()[0] for cell in row[1:]] == [mean.side for mean in pair.means]
    assert found.words() in section
    assert "*Sign changes* tests whole curves" in section
    changes = text.partition("## Sign changes\n")[2].partition("\n## ")[0]
    assert "*Which groups matter when* has means" in changes
    alone = write_run_report(tmp_path, flipping_run(chains=1), tmp_path / "out")[0].read_text()
    assert "no probe in equilibrium has two chains" in alone
    assert "*Which groups matter when* has means" not in alone


def test_a_component_is_named_whether_the_run_has_ended_or_not(tmp_path):
    run = flipping_run(with_summary=False)
    run.attrs |= {"component": "layer0.head1", "moved_weights": 1536}
    path, _ = write_run_report(tmp_path, run, tmp_path / "out")
    assert "**Chains move the weights of layer0.head1 alone** (1,536 of them)" in path.read_text()
    run = flipping_run()
    run.attrs["summary"] = json.dumps(json.loads(run.attrs["summary"]) | {"component": "layer1"})
    path, _ = write_run_report(tmp_path, run, tmp_path / "out")
    assert "**Chains move the weights of layer1 alone**: influence" in path.read_text()


def test_what_is_not_there_is_said(tmp_path):
    path, _ = write_run_report(tmp_path, flipping_run(error=9.0, with_summary=False), tmp_path / "out")
    text = path.read_text()
    assert "**No sign change was found.**" in text
    assert "No score of heads was measured" in text
    assert "No transition window was found" in text
    assert "has no summary.json" in text
    assert "of the observed" not in text
    assert "Chains move" not in text


def test_the_course_of_influence_stands_beside_the_scores(tmp_path):
    with SummaryWriter(str(tmp_path)) as writer:
        for step, value in ((100, 0.1), (300, 0.1), (800, 0.9), (1000, 0.9)):
            writer.add_scalar("induction/prefix_matching", value, step)
    run = flipping_run()
    run["group_bif"] = -run["group_bif"]
    text = write_run_report(tmp_path, run, tmp_path / "out")[0].read_text()
    row = next(line for line in text.splitlines() if line.startswith("| cat | +"))
    cells = [cell.strip() for cell in row.strip("|").split("|")]
    assert cells[3].startswith("1,000 [")
    assert cells[4:] == ["-1.0e+00", "-1.0e+00", "not beyond its errors"]
    assert "prefix_matching goes from a quarter to three quarters of its way in steps 300 to 800" in text
