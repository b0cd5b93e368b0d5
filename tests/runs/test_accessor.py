import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from matplotlib.figure import Figure
from scipy import stats

import stagewise
from stagewise.errors import InputError
from stagewise.phases.offline import find_windows
from stagewise.phases.online_detector import DetectorConfig
from stagewise.phases.window import Method
from stagewise.runs.accessor import RunAccessor
from stagewise.runs.open import open_run
from tests.phases.synthetic_run import MIDDLE
from tests.phases.synthetic_run import STEPS as SYNTHETIC_STEPS
from tests.runs.flipping_run import flipping_run
from tests.runs.full_run import STEPS as FULL_STEPS
from tests.runs.full_run import full_probes, write_full_run


def test_groups_are_named_in_order(synthetic):
    assert synthetic.stagewise.groups == ["early", "late"]


@pytest.mark.parametrize("part", ["within", "between", "total"])
@pytest.mark.parametrize("confidence", [0.95, 0.5])
def test_a_curve_is_the_raw_data_with_student_s_interval(synthetic, part, confidence):
    found = synthetic.stagewise.curve("early", "late", part=part, confidence=confidence)
    place = ["within", "drift", "between", "total"].index(part)
    value, error = (synthetic[name].values[:, place, 0, 1] for name in ("group_bif", "group_bif_se"))
    np.testing.assert_array_equal(found["value"], value)
    np.testing.assert_array_equal(found["se"], error)
    known = error > 0  # scipy has no interval of no width
    low, high = stats.t.interval(confidence, 3, loc=value, scale=np.where(known, error, 1.0))
    np.testing.assert_allclose(found["low"].values[known], low[known])
    np.testing.assert_allclose(found["high"].values[known], high[known])
    np.testing.assert_array_equal(found["low"].values[~known], value[~known])
    assert found["step"].values.tolist() == SYNTHETIC_STEPS.tolist()
    assert found.attrs["units"] == found["low"].attrs["units"] == "nats^2"
    assert (found.attrs["part"], found.attrs["group"], found.attrs["group_j"]) == (part, "early", "late")


def test_a_curve_of_one_group_is_its_influence_on_itself(synthetic):
    found = synthetic.stagewise.curve("late")
    np.testing.assert_array_equal(found["value"], synthetic["group_bif"].values[:, 0, 1, 1])


def test_out_of_equilibrium_a_curve_has_no_interval_and_lost_chains_widen_it():
    run = flipping_run(chains=4, error=0.1)
    run["equilibrated"] = ("step", [0.0, *[1.0] * 9])
    run["reference_equilibrated"] = ("step", [np.nan, 1.0, 0.0, *[1.0] * 7])
    run["chains_common"] = ("step", [4, 4, 4, 2, 1, *[4] * 5])
    found = run.stagewise.curve("cat")
    assert found["equilibrated"].values.tolist() == [False, True, False, *[True] * 7]
    half = (found["high"] - found["value"]).values
    want = 0.1 * stats.t.ppf(0.975, [np.nan, 3, np.nan, 1, np.nan, 3, 3, 3, 3, 3])
    np.testing.assert_allclose(half, want)
    assert np.isfinite(found["value"]).all()
    assert np.isfinite(found["se"]).all()


def test_no_probes_at_all_are_counted(full):
    assert repr(full.isel(step=[]).stagewise).startswith("Run of 0 probes, groups ")


def test_runs_of_earlier_versions_answer_as_far_as_possible():
    run = flipping_run()
    assert run.stagewise.curve("cat")["equilibrated"].all()
    assert run.stagewise.probes["chains"].values.tolist() == [8] * 10
    assert [item.group for item in run.stagewise.sign_changes().found] == ["cat"]
    with pytest.raises(InputError, match=r"not a run with llc.*probe\.llc\.enabled"):
        run.stagewise.llc()
    with pytest.raises(InputError, match="got a run without signal, anchor_loss, shift; expected"):
        run.stagewise.windows()
    assert "10 probes, steps 100 to 1,000" in run.stagewise.summary
    assert "1 found" in run.stagewise.summary


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"group": "erly"}, r"got group 'erly'; expected one of early, late; did you mean 'early'\?"),
        ({"group": "early", "group_j": "cats"}, "got group 'cats'; expected one of early, late; choose a group"),
        ({"group": 3}, "got group=3; expected text"),
        ({"group": "early", "part": "inside"}, "got part='inside'; expected one of within, drift, between, total"),
        ({"group": "early", "confidence": 1.0}, r"got confidence=1\.0"),
    ],
)
def test_invalid_requests_for_a_curve_are_refused(synthetic, given, words):
    with pytest.raises(InputError, match=words):
        synthetic.stagewise.curve(**given)


def test_data_sets_other_than_runs_are_refused():
    other = xr.Dataset({"x": ("time", [1.0])})
    for ask in (
        lambda item: item.groups,
        lambda item: item.probes,
        lambda item: item.curve("a"),
        lambda item: item.plot(),
    ):
        with pytest.raises(InputError, match="without training steps"):
            ask(other.stagewise)
    assert repr(other.stagewise) == "stagewise: a data set that is no run"


def test_probe_variables_have_one_value_per_probe_including_equilibrium_and_flags(full):
    found = full.stagewise.probes
    assert all(values.dims == ("step",) for values in found.data_vars.values())
    scalars = {name for name, values in full_probes()[0].data_vars.items() if values.ndim == 0}
    assert set(found.data_vars) == scalars | {"chains"}
    assert {"equilibrated", "flag_names", "ess_groups", "rhat_groups", "seconds", "reference_step"} <= set(
        found.variables
    )
    np.testing.assert_array_equal(found["ess_groups"], [float(probe["ess_groups"]) for probe in full_probes()])
    assert found["chains"].values.tolist() == [3, 3, 3]
    table = found.to_dataframe()
    assert table.index.tolist() == list(FULL_STEPS)
    assert table["flag_names"].tolist() == [str(probe["flag_names"].item()) for probe in full_probes()]


def test_windows_are_those_of_the_peaks_of_the_signal(synthetic):
    found = synthetic.stagewise.windows()
    known = np.isfinite(synthetic["signal"].values)
    want = find_windows(
        synthetic["step"].values[known], synthetic["signal"].values[known], synthetic["signal_se"].values[known]
    )
    assert [(item.start, item.peak, item.end) for item in found] == [(item.start, item.peak, item.end) for item in want]
    assert len(found) >= 1
    assert abs(found[0].peak - MIDDLE) < 60
    assert {item.method for item in found} == {Method.offline}
    assert synthetic.stagewise.windows(min_prominence=1.0, num_critical=2)[0].critical[0].sample in (0, 1, 2)


def test_windows_of_other_signals_can_be_requested(synthetic):
    ask = synthetic.stagewise.windows
    assert {item.signal for item in ask("within/early~early")} == {"within/early~early"}
    assert {item.signal for item in ask("contrast/early~late")} == {"contrast/early~late"}
    online = ask("losses_alone", online=DetectorConfig())
    assert Method.online in {item.method for item in online}


@pytest.mark.parametrize(
    ("signal", "words"),
    [
        ("llc/early", r"ask \.stage_boundaries\('llc/early'\)"),
        ("betwen", "got signal 'betwen'; expected one of"),
        ("within/early~cats", "cats"),
    ],
)
def test_signals_without_windows_are_refused(synthetic, signal, words):
    with pytest.raises(InputError, match=words):
        synthetic.stagewise.windows(signal)


def test_windows_follow_the_prominence_of_the_run(synthetic):
    steps = synthetic["step"].values
    peaks = [height * np.exp(-(((steps - middle) / 30) ** 2)) for middle, height in ((150, 0.3), (600, 1.0))]
    run = synthetic.assign(signal=("step", sum(peaks)), signal_se=("step", np.full(len(steps), 0.01)))
    small, large = (abs(steps - middle).argmin() for middle in (150, 600))
    run.attrs["summary"] = '{"min_prominence": 0.1}'
    assert [window.peak for window in run.stagewise.windows()] == [steps[small], steps[large]]
    assert [window.peak for window in run.stagewise.windows(min_prominence=0.5)] == [steps[large]]
    run.attrs["summary"] = '{"min_prominence": 0.5}'
    assert [window.peak for window in run.stagewise.windows()] == [steps[large]]


def test_sign_changes_are_found_where_the_curve_turns():
    found = flipping_run().stagewise.sign_changes([("cat", "cat")], chance=0.01)
    assert found.num_curves == 1
    assert found.chance == 0.01
    assert found.found[0].flip.step == pytest.approx(550, rel=0.01)
    with pytest.raises(InputError, match=r"got groups=\['cow'\]"):
        flipping_run().stagewise.sign_changes([("cat", "cow")])


def test_learning_coefficients_have_student_s_intervals_of_their_chains(full):
    found = full.stagewise.llc(confidence=0.9)
    assert found["group"].values.tolist() == ["all losses", "few", "many"]
    np.testing.assert_array_equal(found["value"].values[0], full["llc"])
    np.testing.assert_array_equal(found["value"].values[1:].T, full["group_llc"])
    np.testing.assert_array_equal(found["localized_share"].values[2], full["group_llc_localized_share"][:, 1])
    settled = ~(full["llc_rhat"].values > 1.1)
    assert found["equilibrated"].values.tolist() == settled.tolist()
    half = np.where(settled, stats.t.ppf(0.95, full["llc_chains"] - 1), np.nan) * found["se"].values
    np.testing.assert_allclose(found["high"] - found["value"], half, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(found["value"] - found["low"], half, rtol=1e-9, atol=1e-12)
    with pytest.raises(InputError, match="confidence=0"):
        full.stagewise.llc(confidence=0)


def test_learning_coefficients_turn_where_they_are_highest(synthetic):
    found = synthetic.stagewise.stage_boundaries("llc")
    assert set(found) == {"llc"}
    assert abs(found["llc"][0].step - MIDDLE) < 60
    assert set(synthetic.stagewise.stage_boundaries()) == {"llc", "llc/early", "llc/late"}
    with pytest.raises(InputError, match="llc/cats"):
        synthetic.stagewise.stage_boundaries("llc/cats")


def ranked(matrix, pairs, sign):
    """Returns pairs by a plain loop, the most extreme of that sign first."""
    values = sorted(((sign * matrix[pair], pair) for pair in pairs if sign * matrix[pair] > 0), reverse=True)
    return [pair for _, pair in values]


@pytest.mark.parametrize("on", [None, 3])
def test_top_samples_are_the_extremes_of_the_stored_matrix(full, on):
    found = full.stagewise.top_samples(20, 3, on=on)
    matrix, error = (full[name].sel(step=20).values for name in ("bif_within", "bif_within_se"))
    size = len(matrix)
    pairs = [(i, j) for i in range(size) for j in range(i + 1, size)]
    if on is not None:
        pairs = [(i, on) for i in range(size) if i != on]
    for side, sign in (("helpful", -1), ("harmful", 1)):
        want = ranked(matrix, pairs, sign)[:3]
        chosen = found.sel(side=side)
        got = list(zip(chosen["sample"].values.tolist(), chosen["sample_j"].values.tolist(), strict=True))
        assert [pair for pair in got if pair != (-1, -1)] == want
        assert want
        np.testing.assert_array_equal(chosen["value"].values[: len(want)], [matrix[pair] for pair in want])
        np.testing.assert_array_equal(chosen["se"].values[: len(want)], [error[pair] for pair in want])
        assert np.isnan(chosen["value"].values[len(want) :]).all()
    assert np.isnan(found["low"]).all() or full["equilibrated"].sel(step=20) == 1


def test_top_samples_have_student_s_intervals_in_equilibrium(full):
    run = full.assign(equilibrated=("step", [1, 1, 1]), reference_equilibrated=("step", [1.0, 1.0, 0.0]))
    found = run.stagewise.top_samples(20, 2, confidence=0.8)
    want = stats.t.ppf(0.9, 2) * found["se"]
    np.testing.assert_allclose(found["high"] - found["value"], want)
    assert np.isnan(run.stagewise.top_samples(40, 2)["low"]).all()


def test_top_samples_of_all_parts_need_all_matrices(full, matrices):
    between = matrices.stagewise.top_samples(40, 1, part="between").sel(side="helpful", rank=0)
    shift = matrices["shift"].sel(step=40).values
    product = np.triu(np.outer(shift, shift), k=1)
    assert (int(between["sample"]), int(between["sample_j"])) == np.unravel_index(product.argmax(), product.shape)
    assert float(between["value"]) == pytest.approx(-product.max() / 4, rel=1e-6)
    with pytest.raises(InputError, match=r"probe\.sample_matrices: all"):
        full.stagewise.top_samples(40, part="between")


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"step": 23}, r"got step=23; expected the step of a probe, of which there are 3 from 10 to 40; 20 is"),
        ({"step": 20, "n": 0}, "got count=0"),
        ({"step": 20, "n": 2.5}, "got n=2.5"),
        ({"step": "20"}, "got step='20'"),
        ({"step": 20, "on": 8}, "got on=8; expected a sample from 0 to 7"),
        ({"step": 20, "part": "x"}, "got part='x'"),
        ({"step": 20, "confidence": 2}, "got confidence=2"),
    ],
)
def test_invalid_requests_for_samples_are_refused(full, given, words):
    with pytest.raises(InputError, match=words):
        full.stagewise.top_samples(**given)


def test_samples_without_matrices_are_refused_with_the_setting_that_keeps_them(synthetic, full):
    with pytest.raises(InputError, match=r"probe\.sample_matrices: within"):
        full.drop_vars(["bif_within", "bif_within_se"]).stagewise.top_samples(20)


def test_the_verdict_counts_the_windows_of_the_summary_or_finds_them(synthetic):
    run = synthetic.copy()
    run.attrs["sgld"] = {"num_chains": 4, "num_draws": 40}
    count = len(run.stagewise.windows())
    assert f"{count} transition window" in run.stagewise.verdict().positions.why
    run.attrs["summary"] = '{"transitions": []}'
    assert "0 transition windows" in run.copy().stagewise.verdict().positions.why


def test_the_summary_has_what_the_run_wrote():
    told = flipping_run().stagewise.summary
    assert "What can be read off these curves" in told
    assert "| 400 | 500 | 700 | 0.25 |" in told
    assert "helpful, then harmful" in told
    run = flipping_run()
    run.attrs["summary"] = '{"verdict": {"text": "As it was judged."}, "transitions": []}'
    told = run.stagewise.summary
    assert "As it was judged." in told
    assert "No transition window" in told


def test_a_single_probe_answers_like_a_run_of_one(full):
    probe = full_probes()[1]
    for run in (full.isel(step=[1]), full.isel(step=1), full.sel(step=20), probe):
        found = run.stagewise
        curve = found.curve("few", "many")
        assert curve["step"].values.tolist() == [20]
        assert float(curve["value"][0]) == float(probe["group_bif"].sel(part="within", group="few", group_j="many"))
        assert found.probes["reference_step"].values.tolist() == [10]
        assert found.llc()["value"].shape == (3, 1)
        assert "1 probe, steps 20 to 20" in found.summary
        assert found.verdict().probes == 1
        with pytest.raises(InputError):
            found.sign_changes()
    assert isinstance(full.isel(step=1).stagewise.plot("classes"), Figure)


def test_a_run_with_some_variables_answers_what_they_allow(tmp_path, full):
    write_full_run(tmp_path)
    run = open_run(tmp_path, variables=["group_bif", "group_bif_se", "chains_common"])
    np.testing.assert_array_equal(run.stagewise.curve("few")["value"], full.stagewise.curve("few")["value"])
    with pytest.raises(InputError, match="open it whole"):
        run.stagewise.windows()


def test_the_repr_lists_the_methods(synthetic):
    told = repr(synthetic.stagewise)
    assert "44 probes, steps 50 to 1,000, groups early, late" in told
    public = [name for name in vars(RunAccessor) if not name.startswith("_")]
    assert [name for name in public if f".{name}" not in told and name != "groups"] == []


def test_any_data_set_has_the_accessor_and_matplotlib_is_imported_late():
    # Without what the package itself imports.
    words = f"""
import sys, types
bare = types.ModuleType("stagewise")
bare.__path__ = [{str(Path(stagewise.__file__).parent)!r}]
sys.modules["stagewise"] = bare
import xarray
import stagewise.runs.open
run = xarray.Dataset(coords={{"step": [3]}}, attrs={{"sgld": {{"num_chains": 2}}}})
assert run.stagewise.probes["chains"].values.tolist() == [2]
assert not {{"matplotlib", "lightning", "stagewise.reporting"}} & set(sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", words], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
