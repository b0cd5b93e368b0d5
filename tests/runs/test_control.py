import json

import numpy as np
import pytest
from scipy.stats import t as student

from stagewise.errors import InputError
from stagewise.reporting.control_curves import control_curves
from stagewise.reporting.run_report import write_run_report
from stagewise.runs.control import control_factor, control_findings, controlled_probes
from tests.runs.controlled_run import CONTROLLED, controlled_run
from tests.runs.flipping_run import STEPS, flipping_run


def by_pair(run, **settings):
    return {(pair.group, pair.group_j): pair for pair in control_findings(run, **settings).pairs}


def test_surviving_effects_effects_beyond_and_no_effect_are_distinguished():
    found = by_pair(controlled_run())
    cat, pair, dog = found["cat", "cat"], found["cat", "dog"], found["dog", "dog"]
    assert (cat.effects, cat.beyond, cat.alike, cat.words) == (3, 3, 0, "goes beyond the control")
    assert (dog.effects, dog.beyond, dog.alike, dog.words) == (3, 0, 3, "survives without the loss")
    assert (pair.probes, pair.effects, pair.words) == (3, 0, "no effect")
    assert (cat.ratio, dog.ratio) == (pytest.approx(0.25), pytest.approx(0.9))
    assert np.isnan(pair.ratio)


def test_effects_without_difference_and_significant_control_are_undecided():
    run = controlled_run()
    run["control_group_bif_se"] = run["control_group_bif_se"] * 20
    found = by_pair(run)["dog", "dog"]
    assert (found.effects, found.alike, found.undecided, found.words) == (3, 0, 3, "undecided")
    # A control of the other sign is no survival of the effect.
    run = controlled_run()
    run["control_group_bif"] = -run["control_group_bif"]
    run["control_difference_se"] = run["control_difference_se"] * 100
    assert by_pair(run)["dog", "dog"].alike == 0


def test_the_paired_difference_is_judged_by_students_t_over_the_chains_of_both():
    run = controlled_run()
    run["control_chains"] = run["control_chains"] * 0 + 2
    assert control_factor(controlled_probes(run)) == pytest.approx(student.ppf(0.975, 1))
    assert by_pair(run)["cat", "cat"].beyond == 3  # 1.5 beyond 12.7 x .06
    run["control_difference_se"] = run["control_difference_se"] * 2.1
    assert by_pair(run)["cat", "cat"].beyond == 0
    assert by_pair(run, confidence=0.8)["cat", "cat"].beyond == 3


def test_probes_out_of_equilibrium_are_left_out_but_not_those_with_a_bad_reference():
    run = controlled_run()
    run["equilibrated"] = ("step", (STEPS != 100).astype(float))
    run["reference_equilibrated"] = ("step", np.zeros(len(STEPS)))
    assert by_pair(run)["cat", "cat"].probes == 2
    run["equilibrated"] = run["equilibrated"] * 0
    assert control_findings(run) is None


def test_runs_without_controls_of_two_chains_have_no_findings_or_figure():
    assert control_findings(flipping_run()) is None
    single = controlled_run()
    single["control_chains"] = single["control_chains"] * 0 + 1
    assert control_findings(single) is None
    with pytest.raises(InputError, match=r"set probe\.control_every"):
        control_curves(single)
    with pytest.raises(InputError, match="confidence"):
        control_findings(controlled_run(), confidence=1.0)


def test_the_figure_has_both_curves_with_bars_and_marks_differences():
    run = controlled_run()
    run["equilibrated"] = ("step", (STEPS != 500).astype(float))
    cat = control_curves(run).axes[0]
    at = [STEPS[place] for place in CONTROLLED]
    curves = {line.get_color(): line for line in cat.lines if line.get_linestyle() in ("-", "--")}
    np.testing.assert_array_equal(curves["#0072B2"].get_ydata(), [-2.0] * 3)
    np.testing.assert_array_equal(curves["#E69F00"].get_ydata(), [-0.5] * 3)
    (dots,) = [line for line in cat.lines if line.get_marker() == "."]
    assert dots.get_xdata().tolist() == [at[0], at[2]]
    bars = [path.vertices for bar in cat.collections[:1] for path in bar.get_paths()]
    half = student.ppf(0.975, 7) * 0.1
    assert [float(bar[1, 1] - bar[0, 1]) for bar in bars] == pytest.approx([2 * half, 0.0, 2 * half])


def test_the_report_has_a_section_with_the_figure_if_there_is_a_control(tmp_path):
    path, _ = write_run_report(tmp_path, controlled_run(), tmp_path / "out")
    text = path.read_text()
    assert "says nothing about the curvature of the loss landscape" in text
    assert "| dog ~ dog | 3 | 3 | 0 | 3 | 0 | 0.90 | survives without the loss |" in text
    assert "(control.png)" in text
    assert (tmp_path / "out" / "control.png").exists()
    # A report of a run without one removes the picture of an earlier one.
    path, _ = write_run_report(tmp_path, flipping_run(), tmp_path / "out")
    assert "No loss-free control was run" in path.read_text()
    assert not (tmp_path / "out" / "control.png").exists()
    assert json.dumps(control_findings(controlled_run()).record(), allow_nan=False)


def test_effects_beyond_are_weaker_where_the_control_is_larger():
    run = controlled_run()
    assert by_pair(run)["cat", "cat"].weaker == 0  # the control has a quarter of them
    run["control_group_bif"] = run["control_probe_bif"] * 3
    run["control_difference"] = run["control_probe_bif"] - run["control_group_bif"]
    found = by_pair(run)
    assert (found["cat", "cat"].beyond, found["cat", "cat"].weaker) == (3, 3)
    assert control_findings(run).total("weaker") == sum(pair.weaker for pair in found.values())
