"""The report is whole, with and without most arms."""

from dataclasses import replace

import pytest

from stagewise.studies.intervention.config import (
    InfluenceSettings,
    OnsetSettings,
    TrainingSettings,
    WeightSettings,
)
from stagewise.studies.intervention.report import write_report
from stagewise.studies.intervention.results import write_results
from tests.studies.intervention.fake_cells import config_of, fake_cell, lower
from tests.studies.intervention.test_results import SEEDS, cells


@pytest.mark.drawn
def test_report_names_every_figure_it_writes(tmp_path):
    config = config_of(SEEDS, output=str(tmp_path))
    found = write_results(tmp_path, config, cells())
    text = write_report(tmp_path, config, cells(), found).read_text()
    written = {path.name for path in (tmp_path / "figures").iterdir()}
    assert written == {"acceleration.png", "sweep.png", "curves.png", "costs.png"}
    assert all(f"figures/{name}" in text for name in written)


def test_report_says_how_heads_and_onset_were_read(tmp_path):
    some = [fake_cell(1, "none", 600), fake_cell(1, "inside", 550), fake_cell(1, "live", 560, windows=[(500, 600)])]
    some[0] = replace(some[0], timeline={"onset": 500, "influence_onset": 450})
    some = [lower(cell, 0.3, 0.4) for cell in some]
    config = config_of(
        [1],
        output=str(tmp_path),
        training=TrainingSettings(score_threshold=0.3, gap_threshold=0.4, when_exhausted="repeat"),
        weights=WeightSettings(observed="nouns", background="verbs", onset=OnsetSettings(by="score", level=0.15)),
    )
    found = write_results(tmp_path, config, some)
    text = write_report(tmp_path, config, some, found).read_text()
    for words in (
        "first measured above .3 in",
        "lies 0.4 nats below",
        "*Background loss*: of `verbs`",
        "loss of `nouns` rises",
        "prefix-matching score of the best head is above .15. It",
        "they come again",
        "before the prefix score passes .15 in",
        "| seed | onset | influence_onset |",
        "| 1 | 500 | 450 |",
    ):
        assert words in text, words
    off = replace(config, arms=["none"], influence=InfluenceSettings(enabled=False))
    assert "For `inside_within`" in text
    assert "For `inside_within`" not in write_report(tmp_path, off, some, found).read_text()


def test_single_seed_and_a_cell_not_run(tmp_path):
    some = [fake_cell(1, "none", 600), fake_cell(1, "inside", None, run=False, note="no onset")]
    config = config_of([1], output=str(tmp_path))
    found = write_results(tmp_path, config, some)
    assert "seed 1: no onset" in write_report(tmp_path, config, some, found).read_text()
