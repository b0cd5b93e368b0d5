"""Results from cells whose accelerations are known."""

import json

import pytest
from pyarrow import parquet

from stagewise.errors import InputError
from stagewise.studies.intervention.config import OnsetSettings, TrainingSettings, WeightSettings
from stagewise.studies.intervention.results import summarize, thresholds, with_intervals_anew, write_results
from tests.studies.intervention.fake_cells import config_of, fake_cell, lower

SEEDS = (1, 2, 3)


def cells():
    found = []
    for seed in SEEDS:
        t50 = 600 + 10 * seed
        found.append(fake_cell(seed, "none", t50))
        found.append(fake_cell(seed, "inside", t50 - 50 - 10 * seed, windows=[(400, 500)], rise=0.8))
        found.append(fake_cell(seed, "inside", t50 - 20, mechanism="loss", windows=[(400, 500)]))
        found.append(fake_cell(seed, "earliest", t50 - 100, windows=[(0, 100)]))
        found.append(fake_cell(seed, "start_200", t50 - 30, windows=[(200, 300)]))
        found.append(fake_cell(seed, "live", t50 - 10, windows=[(500 if seed > 1 else 250, 600)]))
    return found


def test_accelerations_and_differences_are_those_built_in():
    found = summarize(config_of(SEEDS), cells())
    inside = found["arms"]["inside"]
    assert inside["acceleration"]["per_seed"] == {"1": 60, "2": 70, "3": 80}
    assert (inside["acceleration"]["mean"], inside["acceleration"]["n"]) == (70, 3)
    assert inside["share_of_none"]["per_seed"]["1"] == pytest.approx(60 / 610)
    assert inside["head_rise"]["mean"] == pytest.approx(0.3)
    assert inside["background_loss"]["mean"] == pytest.approx(0.01)
    pairs = {(comparison["first"], comparison["second"]): comparison for comparison in found["comparisons"]}
    assert pairs["inside", "earliest"]["difference"]["mean"] == -30
    assert pairs["inside", "earliest"]["excludes_zero"]
    assert pairs["inside", "inside_loss"]["difference"]["mean"] == 50


def test_thresholds_of_the_experiment_place_the_head_and_are_told():
    training = TrainingSettings(score_threshold=0.25, gap_threshold=0.4)
    some = [lower(cell, 0.25, 0.4) for cell in (fake_cell(1, "none", 600), fake_cell(1, "inside", 550))]
    found = summarize(config_of([1], training=training), some)
    # The score rises by 1 in 200 steps, and is .505 at step 600; measured every ten, it is above .25 at 550.
    window = found["windows"]["1"]
    assert (window["t25"], window["t50"]) == (530, 550)
    assert found["arms"]["inside"]["acceleration"]["per_seed"] == {"1": 50}
    assert found["units"]["acceleration"].endswith("above 0.25")
    assert "0.4 nats" in found["units"]["gap_acceleration"]
    assert thresholds(found) == (0.25, 0.4)
    del found["settings"]["training"]["score_threshold"], found["settings"]["training"]["gap_threshold"]
    assert thresholds(found) == (0.5, 1.5)  # as versions before had them


def test_what_an_arm_costs_is_the_loss_of_the_background_that_is_named():
    losses = {"none": {"induction": 1.0, "control": 3.0}, "inside": {"induction": 0.5, "control": 3.25}}
    some = [fake_cell(1, arm, 600, final_losses=values) for arm, values in losses.items()]
    named = WeightSettings(background="control", onset=OnsetSettings(by="score"))
    assert summarize(config_of([1], weights=named), some)["arms"]["inside"]["background_loss"]["mean"] == 0.25
    assert summarize(config_of([1]), some)["arms"]["inside"]["background_loss"] is None


def test_both_onsets_are_told_where_there_are_two():
    timeline = {"onset": 500, "influence_onset": 450, "peak": 600}
    some = [fake_cell(1, "none", 600, timeline=timeline), fake_cell(2, "none", 600)]
    windows = summarize(config_of([1, 2]), some)["windows"]
    assert (windows["1"]["onset"], windows["1"]["influence_onset"]) == (500, 450)
    assert "influence_onset" not in windows["2"]


def test_steps_of_a_window_count_up_to_the_head_of_the_arm():
    some = [
        fake_cell(1, "none", 600),
        fake_cell(1, "inside", 550, windows=[(500, 600)]),
        fake_cell(1, "just_before", 560, windows=[(400, 500)]),
        fake_cell(1, "after", 600, windows=[(700, 800)]),
        fake_cell(1, "live", None, windows=[(1150, 1250)]),
        fake_cell(1, "placebo", 600),
    ]
    arms = summarize(config_of([1]), some)["arms"]
    used = {name: arm["steps_used"] and arm["steps_used"]["mean"] for name, arm in arms.items()}
    assert used == {"inside": 50, "just_before": 100, "after": 0, "live": 50, "placebo": None}


def test_sweep_has_earliest_at_zero():
    sweep = summarize(config_of(SEEDS), cells())["sweep"]["sampling"]
    assert [(item["start"], item["acceleration"]["mean"]) for item in sweep] == [(0, 100), (200, 30)]


def test_live_windows_are_counted_against_the_run_without_weights():
    live = summarize(config_of(SEEDS), cells())["live"]["live"]
    # t25 is about 50 steps before t50 = 610, 620, 630; half of it about 305.
    assert (live["opened_before_t25"], live["opened_before_t25_n"]) == (3, 3)
    assert (live["none_before_half_t50"], live["none_before_half_t50_n"]) == (2, 3)


def test_arm_that_never_forms_counts_with_the_end_and_is_named():
    some = [fake_cell(1, "none", 600), fake_cell(1, "inside", None)]
    found = summarize(config_of([1]), some)["arms"]["inside"]
    assert found["acceleration"]["per_seed"] == {"1": -600}
    assert found["censored"] == [1]
    assert found["acceleration"]["low"] is None


def test_seed_without_a_head_and_cells_not_run_are_left_out_and_named():
    some = [fake_cell(1, "none", None), fake_cell(1, "inside", 500), fake_cell(2, "none", 600)]
    some.append(fake_cell(2, "inside", None, run=False, note="no onset"))
    found = summarize(config_of([1, 2]), some)
    assert found["left_out"] == [1]
    assert found["arms"]["inside"]["acceleration"] is None
    assert found["arms"]["inside"]["not_run"] == [2]
    assert found["arms"]["inside"]["notes"] == {"2": "no onset"}
    assert [2, "earliest"] in found["missing"]
    assert [2, "inside"] not in found["missing"]


def test_same_cells_in_any_order_write_the_same_bytes(tmp_path):
    write_results(tmp_path / "a", config_of(SEEDS), cells())
    write_results(tmp_path / "b", config_of(SEEDS, output="elsewhere"), cells()[::-1])
    first, second = ((tmp_path / name / "results.json").read_bytes() for name in "ab")
    assert first == second
    assert json.loads(first)["arms"]["inside"]["acceleration"]["mean"] == 70


def test_parquet_has_one_row_a_cell(tmp_path):
    some = [*cells(), fake_cell(9, "inside", None, run=False, note="no onset")]
    write_results(tmp_path, config_of(SEEDS), some)
    rows = parquet.read_table(tmp_path / "results.parquet").to_pylist()
    assert len(rows) == len(some)
    last = rows[-1]
    assert (last["seed"], last["note"], last["steps"], last["final_loss/background"]) == (9, "no onset", None, None)
    assert rows[0]["score_step"] is not None
    assert len(rows[0]["steps"]) == 121


def test_cell_twice_and_no_run_without_weights_are_refused():
    with pytest.raises(InputError, match="twice"):
        summarize(config_of([1]), [fake_cell(1, "none", 600)] * 2)
    with pytest.raises(InputError, match="none"):
        summarize(config_of([1]), [fake_cell(1, "inside", 600)])


def test_stored_results_get_their_intervals_and_what_follows_from_them_anew():
    found = summarize(config_of(SEEDS), cells())
    stored = json.loads(json.dumps(found))
    stored["intervals"] = "low, high: something else"
    for comparison in stored["comparisons"]:
        comparison["difference"] |= {"low": -1.0, "high": 1.0, "t_low": -2.0, "t_high": 2.0}
        comparison |= {"excludes_zero": False, "t_excludes_zero": False}
    stored["arms"]["inside"]["acceleration"]["low"] = -1e6
    again = with_intervals_anew(stored)
    assert again == json.loads(json.dumps(found))
    assert any(comparison["excludes_zero"] for comparison in again["comparisons"])
