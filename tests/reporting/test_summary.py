import json

from stagewise.influence.split import Centering
from stagewise.probes.config import ProbeConfig
from stagewise.probes.history import Record
from stagewise.reporting.summary import build_summary, flag_line, summary_markdown
from stagewise.sampling.config import SGLDConfig


def summary_of(record, **settings):
    return build_summary(record, **{"config": SGLDConfig(), "probe": ProbeConfig(), **settings})


def test_run_without_flags_and_budget_says_so():
    summary = summary_of(Record(steps=[1, 2], signal=[0.0, 0.0], signal_se=[0.0, 0.0]))
    assert (summary["probes_flagged"], summary["flags"]) == (0, {})
    assert (summary["probes_skipped"], summary["skipped_steps"], summary["max_overhead"]) == (0, [], None)
    text = summary_markdown(summary)
    assert "**Flagged**: none of 2 probes." in text
    assert "Skipped" not in text


def test_transitions_have_the_least_prominence_that_was_asked_for():
    signal = [0.0, 1.0, 0.0, 0.3, 0.0]
    record = Record(steps=[1, 2, 3, 4, 5], signal=signal, signal_se=[float("nan")] * 5)
    for least, peaks in ((0.15, [2, 4]), (0.25, [2, 4]), (0.35, [2]), (1.0, [2])):
        summary = summary_of(record, probe=ProbeConfig(min_prominence=least))
        assert [window["peak"] for window in summary["transitions"]] == peaks
        assert summary["min_prominence"] == least


def test_centring_is_that_of_the_run():
    assert summary_of(Record(), probe=ProbeConfig(centering=Centering.step))["centering"] == "step"


def test_settings_are_told_as_numbers_or_as_still_auto_where_no_probe_settled_them():
    text = summary_markdown(summary_of(Record()))
    assert "nbeta 300, localization auto, lr auto, 8 chains x 10 draws" in text
    text = summary_markdown(summary_of(Record(), config=SGLDConfig(lr=1e-4, localization=2000.0)))
    assert "localization 2000, lr 0.0001, " in text


def test_flags_are_listed_from_the_most_frequent_on():
    assert flag_line({"ess": 1, "rhat": 3, "drift": 1}, 3, 7) == "3 of 7 probes (rhat 3, drift 1, ess 1)."


def test_skipped_probes_are_counted_and_the_first_are_named():
    record = Record(skipped_steps=list(range(100, 130)), flags={"ess": 2}, flagged_steps=[50, 60])
    summary = summary_of(record, max_overhead=0.1)
    assert summary["skipped_steps"] == list(range(100, 130))
    text = summary_markdown(summary)
    assert "max_overhead 0.1: 30 probes, at steps 100, 101, " in text
    assert "118, 119 and later." in text
    assert "120" not in text
    assert "no probe" in summary_markdown(summary_of(Record(), max_overhead=0.1))
    json.dumps(summary, allow_nan=False)


def test_lost_probes_are_counted_among_those_due_and_named():
    record = Record(steps=[4, 52], signal=[0.0, 0.0], signal_se=[0.0, 0.0], failed_steps=[86, 200, 400])
    finding = {"name": "unstable", "step": 86, "setting": "lr", "value": 0.001, "now": 0.0019, "text": "too large"}
    summary = summary_of(record, findings=[finding])
    assert (summary["probes"], summary["probes_due"]) == (2, 5)
    assert summary["settings_findings"] == [finding]
    lost = "2 of 5; 3 probes, steps 86 to 400, lost all their chains: lr 0.0019 is too large for the curvature there"
    assert lost in summary_markdown(summary)
    record.not_finite_steps = [400]
    text = summary_markdown(summary_of(record))
    assert "2 probes, steps 86 to 200, lost all their chains: chains diverged; 1 probe, step 400, left out" in text
