"""``stagewise detect``, in-process, on a run whose transition is known."""

import json
import math
import shutil

import pytest

from stagewise import open_run
from stagewise.cli.main import main
from stagewise.interventions.span import read_spans
from stagewise.phases.offline import find_windows
from stagewise.phases.online_detector import DetectorConfig, OnlineDetector
from stagewise.runs.store import write_summary
from tests.phases.synthetic_run import MIDDLE, write_run


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory):
    return write_run(tmp_path_factory.mktemp("run"))


def detect(run_folder, tmp_path, *options):
    output = tmp_path / "windows.json"
    assert main(["detect", str(run_folder), "--output", str(output), *options]) == 0
    return json.loads(output.read_text())


def test_windows_of_a_run_are_printed_and_written_beside_it(tmp_path, capsys):
    folder = write_run(tmp_path / "run", seed=1)
    assert main(["detect", str(folder / "influence.zarr")]) == 0
    content = json.loads((folder / "windows.json").read_text())
    assert [(window["detector"], window["signal"]) for window in content["windows"]] == [
        ("offline", "between"),
        ("offline", "losses_alone"),
    ]
    between = content["windows"][0]
    assert abs(math.log(between["peak"] / MIDDLE)) < 0.2
    assert [critical_sample["sample"] for critical_sample in between["critical_samples"]][:3] == [0, 1, 2]
    assert between["two_phase"]["pi"][0] == 0
    assert content["detector"] is None
    printed = capsys.readouterr().out
    (line,) = [line for line in printed.splitlines() if line.startswith("offline   between")]
    assert line.split()[2:5] == [str(between[key]) for key in ("start", "peak", "end")]
    assert str(folder / "windows.json") in printed


def test_online_windows_are_those_of_a_detector_fed_probe_by_probe(run_folder, tmp_path):
    options = ("--online", "--signal", "between", "--detector.min_z=5", "--detector.close_fraction", "0.8")
    content = detect(run_folder, tmp_path, *options)
    detector = OnlineDetector(DetectorConfig(min_z=5.0, close_fraction=0.8))
    run = open_run(run_folder)
    for step, value, error in zip(*(run[name].values for name in ("step", "signal", "signal_se")), strict=True):
        detector.update(step, value, error)
    assert len(detector.windows) > 0
    assert [
        (window["start"], window["peak"], window["end"], window["significance"])
        for window in content["windows"]
        if window["detector"] == "online"
    ] == [(window.start, window.peak, window.end, pytest.approx(window.z)) for window in detector.windows]
    assert {window["signal"] for window in content["windows"]} == {"between"}
    assert (content["detector"]["min_z"], content["detector"]["close_fraction"]) == (5.0, 0.8)


def test_online_looks_at_all_signals_and_the_baseline(run_folder, tmp_path):
    content = detect(run_folder, tmp_path, "--online", "--num_critical=1")
    online = {window["signal"] for window in content["windows"] if window["detector"] == "online"}
    assert {"between", "losses_alone", "within/early~early"} <= online <= set(content["signals"])
    assert {len(window["critical_samples"]) for window in content["windows"]} == {1}


def test_chosen_pairs_are_signals(run_folder, tmp_path):
    options = ("--pairs", "[early~late,early~early]", "--signal", "[within/early~early,between]")
    content = detect(run_folder, tmp_path, *options)
    assert "total/early~late" in content["signals"]
    assert "total/late~late" not in content["signals"]
    (trough,) = [window for window in content["windows"] if window["signal"] == "within/early~early"]
    assert trough["height"] < 0


def test_prominence_is_that_of_the_run_unless_given(run_folder, tmp_path):
    folder = shutil.copytree(run_folder, tmp_path / "run")
    run = open_run(folder)
    known = run["signal"].notnull().values
    steps, values, errors = (run[name].values[known] for name in ("step", "signal", "signal_se"))
    write_summary(folder, {"min_prominence": 0.9})
    for given, used in (((), 0.9), (("--min_prominence", "0.001"), 0.001)):
        content = detect(folder, tmp_path, "--signal=between", *given)
        assert content["min_prominence"] == used
        expected = find_windows(steps, values, errors, min_prominence=used)
        assert [window["peak"] for window in content["windows"]] == [item.peak for item in expected]


def test_interventions_can_be_placed_by_the_file(run_folder, tmp_path):
    content = detect(run_folder, tmp_path, "--signal", "between")
    (span,) = read_spans(tmp_path / "windows.json")
    assert (span.start, span.end) == (content["windows"][0]["start"], content["windows"][0]["end"])


def test_run_without_windows_says_so(tmp_path, capsys):
    folder = write_run(tmp_path / "run", steps=[100, 200])
    assert detect(folder, tmp_path, "--online")["windows"] == []
    printed = capsys.readouterr().out
    assert "No window was found." in printed
    assert "- between: " in printed
    assert "- losses_alone: " in printed
    assert "a peak takes 3" in printed or "has a signal" in printed


def test_run_without_windows_points_to_its_learning_coefficient_if_there_is_one(tmp_path, monkeypatch, capsys):
    folder = write_run(tmp_path / "run", steps=[100, 200])
    run = open_run(folder)
    for there in (run, run.drop_vars([name for name in run if name.startswith("llc")])):
        monkeypatch.setattr("stagewise.cli.detect.open_run", lambda _, there=there: there)
        detect(folder, tmp_path)
        assert ("--signal llc" in capsys.readouterr().out) == ("llc" in there)


def test_the_reason_is_told_of_the_signals_that_were_asked_for(run_folder, tmp_path, capsys):
    detect(run_folder, tmp_path, "--signal", "chain_share", "--min_prominence", "1")
    printed = capsys.readouterr().out
    assert ("- chain_share: " in printed) == ("No window was found." in printed)
    assert "- between" not in printed


def test_settings_are_read_from_a_file(run_folder, tmp_path):
    (tmp_path / "detect.yaml").write_text("online: true\nsignal: between\ndetector: {min_z: 6.0}\n")
    content = detect(run_folder, tmp_path, "-c", str(tmp_path / "detect.yaml"))
    assert content["detector"]["min_z"] == 6.0


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--signal", "rhat"], "got signal 'rhat'"),
        (["--signal", "[between,contrats/early~late]"], "did you mean 'contrast/early~late'?"),
        (["--pairs", "early"], "expected two groups as A~B"),
        (["--pairs", "early~cats"], "got group 'cats'"),
        (["--min_prominence", "2"], "min_prominence=2"),
        (["--detector.min_z", "0"], "min_z=0"),
        (["--detector.num_probes", "few"], "num_probes"),
        (["--detector.direction", "either"], "direction"),
        (["--num_critical", "-1"], "num_critical"),
    ],
)
def test_mistakes_get_one_line_and_status_2(run_folder, tmp_path, capsys, options, words):
    output = tmp_path / "windows.json"
    assert main(["detect", str(run_folder), "--online", "--output", str(output), *options]) == 2
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 1
    assert said[0].startswith("stagewise detect: ")
    assert words in said[0]
    assert not output.exists()


def test_path_without_a_run_is_refused_with_status_2(run_folder, tmp_path, capsys):
    for given, words in (([str(tmp_path)], "influence.zarr"), ([], "run"), (["a", "b"], "b")):
        assert main(["detect", *given]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert words in line
    assert main(["detect", str(run_folder), "--output", str(tmp_path)]) == 2
    assert "a folder; expected a file" in capsys.readouterr().err


def test_learning_coefficients_are_told_by_their_stage_boundaries(run_folder, tmp_path, capsys):
    content = detect(run_folder, tmp_path, "--signal", "[llc,llc/late]", "--chance", "0.01", "--online")
    assert {window["detector"] for window in content["windows"]} <= {"online"}
    assert content["chance"] == 0.01
    assert [(stage_boundary["signal"], stage_boundary["kind"]) for stage_boundary in content["stage_boundaries"]] == [
        ("llc", "maximum"),
        ("llc/late", "maximum"),
    ]
    for stage_boundary in content["stage_boundaries"]:
        assert stage_boundary["earliest"] < MIDDLE < stage_boundary["latest"]
    printed = capsys.readouterr().out
    assert "Stage boundaries, where d llc / d log t changes sign beyond its errors:" in printed
    (line,) = [line for line in printed.splitlines() if line.startswith("llc/late")]
    assert f"{content['stage_boundaries'][1]['step']:,}" in line.split()
