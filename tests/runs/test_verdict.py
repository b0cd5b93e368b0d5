import json

import numpy as np
import pytest

from stagewise.errors import InputError
from stagewise.probes.flags import EQUILIBRIUM_FLAGS, Thresholds, advice
from stagewise.reporting.run_report import write_run_report
from stagewise.reporting.verdict_line import known_verdict
from stagewise.runs.best_setting import _CAUSES
from stagewise.runs.evidence import run_figures
from stagewise.runs.stability import Stability
from stagewise.runs.verdict import Answer, judge, verdict_record
from stagewise.runs.words import verdict_text
from tests.runs.controlled_run import controlled_run
from tests.runs.flipping_run import STEPS, flipping_run

SGLD = {"num_burnin_steps": 3, "num_steps_bw_draws": 1, "batch_size": 32, "drift": "plain", "start": "gaussian"}


def run_of(*, unsettled=0, flag="rhat", ess=200.0, heat=0.01, error=0.1, dropped=0, **sgld):
    """Returns the turning run with its first probes out of equilibrium for one flag."""
    run = flipping_run(error=error)
    away = np.arange(len(STEPS)) < unsettled
    run["equilibrated"] = ("step", (~away).astype(float))
    run["flag_names"] = ("step", np.array([flag if item else "" for item in away], dtype=object))
    for name, value in (("ess_groups", ess), ("minibatch_noise", heat), ("chains_dropped", dropped)):
        run[name] = ("step", np.full(len(STEPS), float(value)))
    run.attrs["sgld"] = run.attrs["sgld"] | SGLD | sgld
    # All but noise: both groups turn.
    run["group_bif"] = (
        run["group_bif"].sel(group=["cat", "cat"], group_j=["cat", "cat"]).drop_vars(["group", "group_j"])
    )
    return run.assign_coords(group=["cat", "dog"], group_j=["cat", "dog"])


def answers(run, **more):
    found = judge(run, **{"windows": 2, **more})
    return tuple(str(reading.answer) for reading in found.readings().values())[:3]


def test_a_good_run_is_fully_readable_and_needs_no_change():
    run = run_of(error=0.02)
    found = judge(run, windows=2)
    assert answers(run) == ("yes", "yes", "yes")
    assert found.best is None
    assert "no change is needed" in found.text()
    assert found.positions.remedy is None


@pytest.mark.parametrize(
    ("unsettled", "want"), [(2, "yes"), (3, "partly"), (5, "partly"), (6, "no")]
)  # fmt: skip
def test_the_share_of_probes_in_equilibrium_limits_all_answers(unsettled, want):
    run = run_of(unsettled=unsettled, error=0.001)
    assert answers(run) == (want, want, want)
    assert f"{10 - unsettled} of 10 probes in equilibrium" in judge(run, windows=2).signs.why


@pytest.mark.parametrize(
    ("flag", "changes", "setting", "value"),
    [
        ("slide", {"start": "anchor"}, "sgld.start", "gaussian"),
        ("slide", {}, "sgld.num_burnin_steps", 460),  # ln .1 over ln (1 - lr localization / 2)
        ("drift", {"lr": 0.01}, "sgld.num_burnin_steps", 10),
        ("drift", {"num_burnin_steps": 40, "lr": 0.01}, "sgld.num_burnin_steps", 80),
        ("draw_share", {}, "sgld.drift", "tilted"),
        ("loss_fall", {}, "sgld.localization", 200.0),
        ("rhat", {}, "sgld.num_steps_bw_draws", 2),
        ("rhat", {"num_steps_bw_draws": 3}, "sgld.num_steps_bw_draws", 6),
        ("rhat", {"ess": 30.0}, "sgld.num_draws", 10),  # 8 x 5 draws, nearly independent
    ],
)
def test_out_of_equilibrium_the_most_frequent_cause_decides_the_setting(flag, changes, setting, value):
    best = judge(run_of(unsettled=6, flag=flag, **{"ess": 5.0} | changes), windows=2).best
    assert (best.setting, best.value) == (setting, pytest.approx(value) if isinstance(value, float) else value)


def test_losses_that_are_not_finite_get_no_advice_about_the_sampler():
    best = judge(run_of(unsettled=6, flag="not_finite"), windows=2).best
    assert best is None or best.setting not in ("sgld.lr", "sgld.start", "sgld.num_burnin_steps")


def test_bias_then_noise_get_settings_with_numbers():
    hot = judge(run_of(heat=0.4, ess=10.0), windows=2)
    assert (hot.best.setting, hot.best.value) == ("sgld.drift", "control_variate")
    assert hot.heights.answer is Answer.partly
    assert "about 40 % too large" in hot.heights.why
    larger = judge(run_of(heat=0.4, drift="control_variate"), windows=2).best
    assert (larger.setting, larger.value, larger.now) == ("sgld.batch_size", 128, 32)
    assert judge(run_of(heat=0.7), windows=2).heights.answer is Answer.no
    few = judge(run_of(ess=20.0), windows=2)
    assert (few.best.setting, few.best.value) == ("sgld.num_chains", 20)
    assert few.heights.answer is Answer.partly
    wide = judge(run_of(error=0.4), windows=2)
    assert wide.best.setting == "sgld.num_chains"
    assert wide.best.value > 8
    lost = judge(run_of(dropped=3), windows=2)
    assert (lost.best.setting, lost.best.value) == ("sgld.lr", 5e-5)
    assert "set sgld.lr to 5e-05 (0.0001 now)" in lost.best.words


def test_limits_of_the_run_are_used():
    run = run_of(heat=0.4, ess=20.0, error=0.02)
    off = Thresholds(minibatch_noise_max=None, ess_min=None)
    assert judge(run, windows=2, thresholds=off).best is None
    assert judge(run, windows=2, thresholds=off).heights.answer is Answer.yes


def test_signs_depend_on_the_significant_share_and_pairs_are_named():
    figures = run_figures(flipping_run(error=0.1))
    # Of cat with itself 8 of 10 are beyond 2.36 x .1, of the noise none.
    assert figures.told_share == pytest.approx(8 / 30)
    assert figures.told_pairs == ("cat",)
    assert answers(run_of(error=9.0))[1] == "no"
    assert "at most probes: cat ~ dog, cat, dog" in judge(run_of(), windows=2).signs.why
    single = run_of()
    single.attrs["sgld"]["num_chains"] = 1
    assert judge(single, windows=2).signs.answer is Answer.no
    assert judge(single, windows=2).heights.answer is Answer.no


def test_positions_are_not_readable_without_a_window_or_with_two_probes():
    assert judge(run_of(), windows=0).positions.answer is Answer.partly
    assert judge(run_of().isel(step=[0, 1]), windows=0).positions.answer is Answer.no


def test_heights_centred_by_chain_are_reported_as_low():
    run = run_of(error=0.02)
    run.attrs["centering"] = "chain"
    found = judge(run, windows=2).heights
    assert found.answer is Answer.partly
    assert "centred by chain, which is too low" in found.why


def test_the_control_decides_if_curves_say_more_than_gradients():
    assert judge(run_of(), windows=2).landscape.answer is Answer.unknown
    assert judge(run_of(), windows=2).landscape.remedy == "set probe.control_every to 5"
    found = judge(controlled_run(), windows=2).landscape
    assert found.answer is Answer.partly
    assert "Of 6 influences that differ from zero, 3 go beyond the control, 3 survive without the loss" in found.why
    alike = run_of(error=0.02)
    for name in controlled_run():
        if name.startswith("control_"):
            alike[name] = controlled_run()[name]
    alike["control_difference_se"] = alike["control_difference_se"] * 100
    best = judge(alike, windows=2).best
    assert (best.setting, best.value, best.now) == ("sgld.localization", 50.0, 100.0)


def test_a_run_of_an_earlier_version_is_identified_and_has_no_heights():
    found = judge(flipping_run(), windows=2, flags={"rhat": 2})
    assert (found.positions.answer, found.heights.answer) == (Answer.partly, Answer.no)
    assert "earlier version that does not record" in found.signs.why
    assert found.flags == {"rhat": (2, f"if it stays after the change of sgld.num_chains: {advice('rhat')}")}


def test_a_run_without_probes_has_only_negative_answers():
    found = judge(None, windows=0, flags={"not_finite": 1})
    assert {reading.answer for reading in found.readings().values()} == {Answer.no}
    assert "not_finite" in found.text()


def test_text_and_record_agree_and_list_every_flag_with_its_remedy():
    found = judge(run_of(unsettled=6, flag="rhat, slide"), windows=2)
    record = json.loads(json.dumps(found.record(), allow_nan=False))
    assert record["text"] == found.text()
    for name in ("positions", "signs", "heights", "landscape"):
        assert record[name]["answer"] == ("not known" if name == "landscape" else "no")
        assert record[name]["why"] in record["text"]
    assert record["best"]["words"] in record["text"]
    assert found.best.setting == "sgld.num_burnin_steps"
    for name in ("rhat", "slide"):
        told = record["flags"][name]
        assert told["probes"] == 6
        assert f"- {name}, 6 of 10 probes: {told['remedy']}" in record["text"]


def test_flags_refer_to_the_most_helpful_change_first():
    found = judge(run_of(unsettled=6, flag="rhat, slide, minibatch_noise"), windows=2)
    assert found.best.setting == "sgld.num_burnin_steps"
    assert found.best.setting in advice("slide")
    assert found.best.setting not in advice("minibatch_noise")
    assert found.flags["slide"][1] == "the change of sgld.num_burnin_steps that would help most is for this too"
    assert found.flags["minibatch_noise"][1] == (
        f"if it stays after the change of sgld.num_burnin_steps: {advice('minibatch_noise')}"
    )
    free = judge(None, windows=0, flags={"rhat": 1})
    assert free.best is None
    assert free.flags["rhat"][1] == advice("rhat")


def test_the_report_begins_with_the_written_verdict_or_a_new_one(tmp_path):
    run = run_of(unsettled=6, flag="slide")
    path, _ = write_run_report(tmp_path, run, tmp_path / "out")
    text = path.read_text()
    assert text.index("## Verdict") < text.index("## The run") < text.index("## Sign changes")
    # Windows and flags are those of the summary.
    want = judge(run, windows=1, flags={"rhat": 2}).text()
    assert want in text
    run.attrs["summary"] = json.dumps(json.loads(run.attrs["summary"]) | {"verdict": {"text": "As it was told."}})
    path, _ = write_run_report(tmp_path, run, tmp_path / "out")
    assert "## Verdict\n\nAs it was told.\n\n## The run" in path.read_text()


def test_every_flag_of_equilibrium_is_among_the_causes():
    assert set(_CAUSES) == EQUILIBRIUM_FLAGS
    # Of equally frequent ones, that which the others show in.
    assert judge(run_of(unsettled=6, flag="rhat, loss_fall, slide"), windows=2).best.setting == "sgld.localization"


UNSTABLE = {"name": "unstable", "step": 1200, "setting": "lr", "value": 0.001, "now": 0.0019, "text": "too large"}
WEAK = {"name": "thin", "step": 86, "setting": "localization", "value": 300.0, "now": 100.0, "text": "hardly enough"}
LOST = (1200, 1300, 1400, 1500)


def test_lost_probes_count_among_those_due_and_are_named_with_their_cause():
    found = judge(run_of(error=0.001), windows=2, stability=Stability(LOST, findings=(UNSTABLE,)))
    lost = "4 probes, steps 1,200 to 1,500, lost all their chains: lr 0.0019 is too large for the curvature there"
    assert answers(run_of(error=0.001), stability=Stability(LOST)) == ("partly", "partly", "partly")  # 10 of 14
    for reading in (found.positions, found.signs):
        assert f"10 of 14 probes in equilibrium; {lost}" in reading.why
    assert "10 of 14 probes in equilibrium, 4 lost" in found.heights.why
    assert f"**Lost**: 10 of 14 probes were kept. {lost}." in found.text()
    assert (found.record()["probes_due"], found.record()["lost"]) == (14, lost)
    few = judge(run_of(error=0.001), windows=2, stability=Stability((1200,)))
    assert few.signs.answer is Answer.yes
    assert "1 probe, step 1,200, lost all its chains: chains diverged" in few.signs.why


def test_lost_probes_and_findings_are_read_from_the_summary():
    run = run_of(error=0.001)
    summary = json.loads(run.attrs["summary"])
    run.attrs["summary"] = json.dumps(summary | {"failed_steps": list(LOST), "settings_findings": [UNSTABLE]})
    assert judge(run, windows=2) == judge(run, windows=2, stability=Stability(LOST, findings=(UNSTABLE,)))
    assert judge(run, windows=2).num_lost == 4


def test_probes_beyond_the_limit_of_stability_are_out_of_equilibrium_like_others():
    run = run_of(unsettled=6, flag="unstable, rhat", error=0.001)
    found = judge(run, windows=2)
    assert found.positions.answer is Answer.no
    assert f"4 of {run.sizes['step']} probes in equilibrium;" in found.positions.why
    assert (found.best.setting, found.best.value, found.best.now) == ("sgld.lr", 5e-5, 1e-4)
    # A finding names the value; by itself, as in runs of earlier versions without the flag, it counts no probe.
    steady = Stability(findings=(UNSTABLE,))
    assert judge(run, windows=2, stability=steady).best.value == 0.001
    assert judge(run_of(error=0.001), windows=2, stability=steady).positions.answer is Answer.yes


def test_settings_that_are_not_stable_outrank_all_statistics_of_chains():
    run = run_of(unsettled=6, flag="loss_fall, rhat", heat=0.4, ess=10.0)
    best = judge(run, windows=2, stability=Stability(LOST, findings=(WEAK, UNSTABLE))).best
    assert (best.setting, best.value, best.now) == ("sgld.lr", 0.001, 0.0019)
    assert "lr times the curvature was too large at step 1,200; 4 of 14 probes lost all their chains" in best.words
    assert "and set sgld.localization to 300 or more (100 now)" in best.words
    assert judge(run, windows=2, stability=Stability(findings=(UNSTABLE,))).best.value == 0.001
    weak = judge(run, windows=2, stability=Stability(LOST, findings=(WEAK,)))
    assert (weak.best.setting, weak.best.value) == ("sgld.localization", 300.0)
    assert "localization 1e+02 is too weak" in weak.lost
    unknown = judge(run, windows=2, stability=Stability(LOST)).best
    assert (unknown.setting, unknown.value) == ("sgld.lr", 5e-5)
    assert judge(None, windows=0, stability=Stability(LOST)).best.words.startswith("lower sgld.lr or raise")
    biased = UNSTABLE | {"name": "biased"}
    assert judge(run_of(heat=0.4), windows=2, stability=Stability(findings=(biased,))).best.setting == "sgld.lr"
    # Without a value there is nothing to advise.
    none = judge(run_of(heat=0.4), windows=2, stability=Stability(findings=(UNSTABLE | {"value": None},)))
    assert none.best.setting == "sgld.drift"


def test_a_larger_lr_is_never_advised_where_it_is_found_too_large():
    run, flags = flipping_run(), {"rhat": 2, "chain_share": 2}
    assert "sgld.lr up to" in judge(run, windows=2, flags=flags).text()
    assert "sgld.lr up to" not in judge(run, windows=2, flags=flags, stability=Stability(findings=(UNSTABLE,))).text()


def test_probes_with_losses_that_are_not_finite_blame_the_model():
    best = judge(run_of(error=0.001), windows=2, stability=Stability((1200, 1300), (1200, 1300), (WEAK,)))
    assert best.lost == "2 probes, steps 1,200 to 1,300, left out: losses are not finite at the training weights"
    assert best.best.words.startswith("look at the model and the learning rate of training: ")


@pytest.mark.parametrize("unsettled", [1, 2])
def test_a_run_with_a_probe_out_of_equilibrium_needs_a_change(unsettled):
    run = run_of(unsettled=unsettled, flag="loss_fall", error=0.001)
    found = judge(run, windows=2)
    assert (found.best.setting, found.best.value) == ("sgld.localization", 200.0)
    where = {1: "step 100 cannot be read", 2: "steps 100 to 200 cannot be read"}[unsettled]
    assert where in found.best.words
    assert where in found.positions.why
    assert "no change is needed" not in found.text()
    run["flag_names"] = ("step", np.full(len(STEPS), "", dtype=object))
    assert judge(run, windows=2).best.words.startswith("see the flags of these probes: ")


def test_a_partial_answer_excludes_no_change_needed():
    found = judge(run_of(error=0.02), windows=0)
    assert found.positions.answer is Answer.partly
    assert found.best.words == ("no one setting stands out: see the reasons given for positions")


def test_few_dropped_chains_have_a_remedy_too():
    run = run_of(error=0.001)
    run["chains_dropped"][0] = 1
    best = judge(run, windows=2).best
    assert (best.setting, best.value, best.why) == ("sgld.lr", 5e-5, "1 chain diverges")


def test_the_levels_of_signs_and_sign_changes_are_both_stated():
    why = judge(run_of(), windows=2).signs.why
    assert "differ from zero at 95 %, each on its own (5 by chance)" in why
    assert "tested at 95 % over all probes of a curve at once" in why


def summarized(run, **summary):
    run.attrs["summary"] = json.dumps(summary)
    return run


def test_limits_of_the_run_are_those_of_its_summary():
    strict = summarized(run_of(ess=150.0), thresholds={"ess_min": 400.0, "of_another_version": 3.0})
    assert judge(strict, windows=2).heights.answer is Answer.partly
    assert judge(strict, windows=2, thresholds=Thresholds()) == judge(run_of(ess=150.0), windows=2)
    assert strict.stagewise.verdict().heights.answer is Answer.partly
    assert judge(strict, windows=0).text() in strict.stagewise.summary.replace("&lt;", "<")
    with pytest.raises(InputError, match=r"thresholds\.ess_min"):
        judge(summarized(run_of(), thresholds={"ess_min": -1.0}), windows=2)


def test_a_written_verdict_is_used_everywhere_unless_it_lacks_readings():
    run = run_of(unsettled=6)
    written = judge(run_of(error=0.02), windows=2).record()
    told = summarized(run, verdict=written)
    assert verdict_record(told) == known_verdict(told) == written
    assert verdict_text(told) == written["text"].replace("<", "&lt;")
    two = [{"start": 200, "peak": 300, "end": 400, "value": 1.0}] * 2
    counts = {"flags": {"rhat": 6}, "probes": 10, "probes_flagged": 6}
    told = summarized(run, verdict={"text": "of an earlier version"}, transitions=two, **counts)
    assert verdict_record(told) == judge(run_of(unsettled=6), windows=2, flags={"rhat": 6}).record()
    assert verdict_text(told) == "of an earlier version"
    assert known_verdict(told.drop_attrs()) is None
