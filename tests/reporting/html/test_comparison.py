"""Runs that differ in seeds alone are one arm; means and intervals are over runs."""

import json
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from stagewise.reporting.html.arms import find_arms
from stagewise.reporting.runs_overview import common_pairs, runs_overview
from tests.reporting.html.test_report import assert_self_contained, written
from tests.runs.flipping_run import flipping_run


def a_run(seed, *, height=1.0, nbeta=10.0, **settings):
    run = flipping_run(**settings).copy(deep=True)
    run["group_bif"] = run["group_bif"] * height
    run.attrs = run.attrs | {"sgld": run.attrs["sgld"] | {"seed": seed, "nbeta": nbeta}}
    return run


@pytest.fixture
def three(tmp_path):
    found = [("a/one", a_run(1, height=1.0)), ("b/two", a_run(1, nbeta=99.0)), ("a/three", a_run(2, height=3.0))]
    return [(tmp_path / name, run) for name, run in found]


def test_arms_are_runs_with_the_same_settings_but_seeds(three, tmp_path):
    one, two = find_arms(three)
    assert one.names == ("a/one", "a/three")
    assert two.names == ("b/two",)
    assert one.differing == {"sgld.nbeta": 10.0}
    assert (one.title, two.title) == ("sgld.nbeta 10", "sgld.nbeta 99")
    assert one.seeds == ("sgld.seed 1", "sgld.seed 2")
    (tmp_path / "a" / "one").mkdir(parents=True)
    (tmp_path / "a" / "one" / "config.yaml").write_text(
        "seed_everything: 5\nmodel: {lr: .5}\ntrainer: {logger: x, max_steps: 3}\n"
    )
    arms = find_arms(three)
    assert [arm.names for arm in arms] == [("a/one",), ("b/two",), ("a/three",)]
    assert arms[0].differing["model.lr"] == 0.5
    assert "trainer.logger" not in arms[0].differing
    assert arms[0].seeds == ("seed_everything 5, sgld.seed 1",)


def test_forks_of_a_suite_are_no_seeds_of_one_run(tmp_path):
    runs = []
    for branch in ("stage1+stage2-ingredient1", "stage1+stage2-ingredient2", None):
        run = a_run(1)
        run.attrs["summary"] = json.dumps({"sweep": {"branch": branch}})
        runs.append((tmp_path / str(branch), run))
    assert [arm.differing for arm in find_arms(runs)] == [
        {"branch": "stage1+stage2-ingredient1"},
        {"branch": "stage1+stage2-ingredient2"},
        {"branch": "-"},
    ]
    assert find_arms(runs)[1].title == "branch stage1+stage2-ingredient2"
    runs[1] = (tmp_path / "again", runs[0][1])
    assert len(find_arms(runs[:2])) == 1


@pytest.mark.drawn
def test_a_page_of_seeds_and_arms_needs_nothing_from_outside_and_has_their_means(three, tmp_path):
    parsed, text = written(tmp_path, *three)
    assert parsed.sections == ["verdict", "overview", "windows", "signs", "ends", "settings", "repeat"]
    assert_self_contained(parsed, text)
    half = stats.t.ppf(0.975, 1) * np.std([1.0, 3.0], ddof=1) / np.sqrt(2)
    assert f"2 [{2 - half:.3g}, {2 + half:.3g}], 2 runs" in parsed.words["ends"]
    assert "1 (one run)" in parsed.words["ends"]
    assert "3 of 3" in parsed.words["signs"]
    assert "sgld.nbeta" in parsed.words["settings"]


def test_curves_lie_over_each_other_and_the_mean_is_over_common_steps(three):
    three[2] = (three[2][0], three[2][1].isel(step=slice(0, 8)))
    figure = runs_overview(find_arms(three))
    axes = next(axis for axis in figure.axes if axis.get_title(loc="left") == "Influence of cat")
    (mean,) = [line for line in axes.lines if line.get_linewidth() == 2.2]
    np.testing.assert_allclose(mean.get_ydata(), 2 * np.linspace(-1, 1, 10)[:8])
    assert len([line for line in axes.lines if len(line.get_xdata()) in (8, 10)]) == 4


def test_groups_that_not_all_runs_have_are_named_and_left_out(three, tmp_path):
    other = three[1][1].assign_coords(group=["cat", "owl"], group_j=["cat", "owl"])
    three[1] = (three[1][0], other)
    assert common_pairs(find_arms(three)) == [("cat", "cat")]
    parsed, _ = written(tmp_path, *three)
    assert "left out: dog, owl" in parsed.words["overview"]


def test_runs_without_windows_say_why_and_one_arm_has_no_table_of_arms(tmp_path):
    runs = []
    for seed in (1, 2):
        run = a_run(seed, with_summary=False, error=9.0)
        runs.append((Path(tmp_path / str(seed)), run.assign(signal=("step", np.linspace(5, 1, 10)))))
    parsed, _ = written(tmp_path, *runs)
    assert "1: no window: the signal is largest at its first probe" in parsed.words["windows"]
    assert "No sign change was found" in parsed.words["signs"]
    assert "Where the runs end" in parsed.words["ends"]
