import pytest

from stagewise.errors import InputError
from stagewise.studies.intervention.config import (
    InfluenceSettings,
    OnsetSettings,
    TrainingSettings,
    WeightSettings,
)
from stagewise.studies.intervention.study import cell_settings
from tests.studies.intervention.tiny import tiny_config


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"seeds": []}, "got seeds"),
        ({"seeds": [1, 1]}, "got seeds"),
        ({"seeds": [-1]}, "got seeds"),
        ({"output": ""}, "got output"),
        ({"num_workers": 0}, "got num_workers"),
        ({"arms": ["inside", "outside"]}, "got arms"),
        ({"arms": ["inside", "inside"]}, "got arms"),
        ({"sweep": [16]}, "0 to 15"),
        ({"sweep": [3, 3]}, "got sweep"),
        ({"weights": WeightSettings(length=30)}, "got weights.length=30; expected at most training.max_steps=20"),
        ({"model": {}}, "got model"),
        ({"data": {"init_args": {}}}, "got data"),
    ],
)
def test_bad_settings_are_refused(tmp_path, changed, message):
    with pytest.raises(InputError, match=message):
        tiny_config(**{"output": tmp_path, **changed})


@pytest.mark.parametrize(
    ("kind", "changed", "message"),
    [
        (TrainingSettings, {"max_steps": 0}, "got max_steps"),
        (TrainingSettings, {"gradient_clip_val": 0.0}, "got gradient_clip_val"),
        (TrainingSettings, {"branch_every": -10}, "got branch_every"),
        (TrainingSettings, {"measure_every": 7}, "a divisor of max_steps"),
        (TrainingSettings, {"branch_every": 15}, "a divisor of max_steps"),
        (TrainingSettings, {"score_threshold": 0.0}, "got score_threshold"),
        (TrainingSettings, {"score_threshold": 1.0}, "got score_threshold"),
        (TrainingSettings, {"gap_threshold": -0.4}, "got gap_threshold"),
        (TrainingSettings, {"when_exhausted": "others"}, "got when_exhausted"),
        (OnsetSettings, {"by": "eye"}, "got onset.by"),
        (OnsetSettings, {"level": 0.0}, "got onset.level"),
        (OnsetSettings, {"level": 1.0}, "got onset.level"),
        (
            WeightSettings,
            {"within_onset": OnsetSettings(by="score")},
            "got within_onset.by=score",
        ),
        (OnsetSettings, {"ratio": 0.0}, "got onset.ratio"),
        (OnsetSettings, {"part": "drift"}, "got onset.part"),
        (WeightSettings, {"mechanisms": []}, "got mechanisms"),
        (WeightSettings, {"mechanisms": ["loss", "loss"]}, "got mechanisms"),
        (WeightSettings, {"mechanisms": ["prayer"]}, "got mechanisms"),
        (WeightSettings, {"factor": 1.0}, "got factor"),
        (WeightSettings, {"factor": -1.0}, "got factor"),
        (WeightSettings, {"factor": float("inf")}, "got factor"),
        (WeightSettings, {"length": 0}, "got length"),
        (WeightSettings, {"lead": 0}, "got lead"),
    ],
)
def test_bad_parts_are_refused(kind, changed, message):
    with pytest.raises(InputError, match=message):
        kind(**changed)


@pytest.mark.parametrize("arm", ["live", "after", "inside_within"])
def test_without_probes_no_window_can_be_placed_by_influence(tmp_path, arm):
    off, by_score = InfluenceSettings(enabled=False), WeightSettings(length=5, onset=OnsetSettings(by="score"))
    with pytest.raises(InputError, match=r"got weights\.onset\.by=influence; expected score"):
        tiny_config(tmp_path, influence=off)
    with pytest.raises(InputError, match=rf"got arms=.*leave out \['{arm}'\]"):
        tiny_config(tmp_path, influence=off, weights=by_score, arms=["none", "inside", arm])
    assert tiny_config(tmp_path, influence=off, weights=by_score).cells()


def test_the_observed_group_has_the_name_of_the_weighted_one_unless_another_is_named():
    assert WeightSettings(group="a").observed_group == "a"
    assert WeightSettings(group="a", observed="b").observed_group == "b"


def test_cells_of_a_seed_begin_with_none_and_come_once(tmp_path):
    config = tiny_config(
        tmp_path,
        arms=["live", "inside", "placebo"],
        sweep=[0, 5],
        weights=WeightSettings(mechanisms=["loss", "sampling"], length=5),
    )
    assert config.cells() == [
        ("none", "none"),
        ("placebo", "none"),
        ("live", "loss"),
        ("inside", "loss"),
        ("start_0", "loss"),
        ("start_5", "loss"),
        ("inside", "sampling"),
    ]


def test_what_a_cell_is_does_not_depend_on_which_cells_there_are(tmp_path):
    one = cell_settings(tiny_config(tmp_path))
    other = tiny_config(tmp_path / "b", seeds=[4], num_workers=3, arms=["after"], sweep=[3])
    assert cell_settings(other) == one
    assert cell_settings(tiny_config(tmp_path, influence=InfluenceSettings())) != one
